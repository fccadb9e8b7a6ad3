//! The boot-loop guard: with which patches this machine did not finish its boots.
//!
//! ```text
//!   image, else kpatch.service:     begin ─▶ each patch that is about to be loaded has one boot more on its account
//!   kpatch booted, boot finished:   finished ─▶ the patches that are enabled have none any more
//!   a third boot on the account:    barred ─▶ the patch is passed over, by the image and by `kpatch load --all`
//! ```
//!
//! Where GRUB counts the boots ([`super::grub`]), its count is what is at least on the account of each installed patch. So
//! that it holds only what was loaded in these boots, installing and uninstalling write it down first and have it begin anew.
//!
//! In: the text of the marker. Out: the text that is to take its place, and what is barred.
//! May surprise: of several patches nobody can tell which one it was, so that all that were loaded are barred together. A
//! barred patch stays barred until somebody loads it by name, or until another file takes its place.

use super::identity::Identity;
use crate::kmod::ModuleName;
use std::fmt;

/// Boots that may fail to be finished.
const ALLOWED: u32 = 2;
/// More accounts are not kept: firmware has little room.
const MOST: usize = 24;
/// So much of a checksum tells one file from another.
const DIGITS: usize = 16;

/// The accounts of all patches that were loaded and did not finish a boot yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    accounts: Vec<Account>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    name: ModuleName,
    digest: String,
    boots: u32,
}

impl Account {
    fn is_of(&self, patch: &Identity) -> bool {
        self.name == patch.name && patch.sha256.starts_with(&self.digest)
    }
}

impl Accounts {
    /// Reads what [`Accounts`] prints; a line that is none of its own is passed over.
    pub fn parse(text: &str) -> Accounts {
        let account = |line: &str| {
            let mut words = line.split(' ');
            let (name, digest, boots) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
            let is_sound = !name.is_empty()
                && digest.len() == DIGITS
                && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
                && words.next().is_none();
            is_sound.then(|| Account { name: ModuleName::from(name), digest: digest.to_owned(), boots })
        };
        Accounts { accounts: text.lines().filter_map(account).take(MOST).collect() }
    }

    /// Whether nothing is on any account.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Whether the machine did not finish its boot with that file once too often.
    pub fn is_barred(&self, patch: &Identity) -> bool {
        self.accounts.iter().any(|account| account.is_of(patch) && account.boots > ALLOWED)
    }

    /// A boot begins that is to load these patches.
    pub fn begin(&mut self, patches: &[Identity]) {
        for patch in patches {
            // A file of the same name that is another one has no history.
            let known = self.accounts.iter().position(|account| account.name == patch.name && account.is_of(patch));
            let mut account = match known {
                Some(at) => self.accounts.remove(at),
                None => {
                    let digest = patch.sha256.chars().take(DIGITS).collect();
                    Account { name: patch.name.clone(), digest, boots: 0 }
                }
            };
            account.boots = account.boots.saturating_add(1).min(ALLOWED + 1);
            self.accounts.push(account);
        }
        let surplus = self.accounts.len().saturating_sub(MOST);
        self.accounts.drain(..surplus);
    }

    /// That many boots are on the account of these patches, if not more.
    pub fn count(&mut self, patches: &[Identity], boots: u32) {
        for patch in patches {
            let known = self.accounts.iter().find(|account| account.is_of(patch)).map_or(0, |account| account.boots);
            if known < boots {
                self.close(&patch.name);
                let digest = patch.sha256.chars().take(DIGITS).collect();
                self.accounts.push(Account { name: patch.name.clone(), digest, boots: boots.min(ALLOWED + 1) });
            }
        }
    }

    /// That very file is gone. Whether there was an account.
    pub fn close_file(&mut self, patch: &Identity) -> bool {
        let before = self.accounts.len();
        self.accounts.retain(|account| !account.is_of(patch));
        self.accounts.len() != before
    }

    /// A boot is finished with that patch, or somebody has tried it by name, or it is gone. Whether there was an account.
    pub fn close(&mut self, name: &ModuleName) -> bool {
        let before = self.accounts.len();
        self.accounts.retain(|account| account.name != *name);
        self.accounts.len() != before
    }
}

/// `NAME SHA256 BOOTS` for each.
impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.accounts.iter().try_for_each(|Account { name, digest, boots }| writeln!(f, "{name} {digest} {boots}"))
    }
}

/// What is said of a barred patch.
pub(super) fn told(name: &ModuleName) -> String {
    format!(
        "{name} is not loaded: the machine did not finish its last {ALLOWED} boots with it; `kpatch load {name}` tries it \
         again"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmod::ModInfo;
    use proptest::prelude::*;

    fn patch(name: &str, byte: u8) -> Identity {
        Identity {
            file: format!("/var/lib/kpatch/6.1/{name}.ko").into(),
            name: name.into(),
            release: "6.1".into(),
            is_signed: false,
            sha256: format!("{byte:02x}").repeat(32),
            build: None,
            info: ModInfo::default(),
        }
    }

    #[test]
    fn the_third_boot_passes_a_patch_over_with_which_two_were_not_finished() {
        let (bad, mut accounts) = (patch("bad", 1), Accounts::default());
        for barred in [false, false, true, true, true] {
            accounts = Accounts::parse(&accounts.to_string());
            accounts.begin(std::slice::from_ref(&bad));
            assert_eq!(accounts.is_barred(&bad), barred, "{accounts}");
        }
        assert!(!accounts.is_barred(&patch("bad", 2)), "another file has no history");
        assert!(accounts.close(&bad.name) && !accounts.close(&bad.name));
        assert!(!accounts.is_barred(&bad) && accounts.is_empty());
    }

    #[test]
    fn a_boot_that_is_finished_clears_the_account_even_after_two_that_were_not() {
        let (one, mut accounts) = (patch("one", 1), Accounts::default());
        for _ in 0..9 {
            accounts.begin(std::slice::from_ref(&one));
            accounts.begin(std::slice::from_ref(&one));
            assert!(!accounts.is_barred(&one));
            accounts.close(&one.name);
        }
    }

    #[test]
    fn a_count_is_on_every_account_that_has_no_more() {
        let (one, two, mut accounts) = (patch("one", 1), patch("two", 2), Accounts::default());
        accounts.count(&[one.clone(), two.clone()], 0);
        assert!(accounts.is_empty());
        (0..3).for_each(|_| accounts.begin(std::slice::from_ref(&one)));
        accounts.count(&[one.clone(), two.clone()], 2);
        assert!(accounts.is_barred(&one) && !accounts.is_barred(&two));
        accounts.count(&[one.clone(), two.clone()], 3);
        assert!(accounts.is_barred(&two) && accounts.accounts.len() == 2);
    }

    #[test]
    fn few_accounts_are_kept_and_the_oldest_go() {
        let patches: Vec<Identity> = (0..40).map(|number| patch(&format!("p{number}"), number)).collect();
        let mut accounts = Accounts::default();
        accounts.begin(&patches);
        assert_eq!(accounts.accounts.len(), MOST);
        assert_eq!(accounts.accounts.last().unwrap().name.as_str(), "p39");
        assert!(accounts.to_string().len() < 1024);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(all in proptest::collection::vec(("[a-z_0-9]{1,40}", any::<u8>(), 1u32..9), 0..20)) {
            let accounts = all.into_iter().map(|(name, byte, boots)| Account {
                name: ModuleName::from(name.as_str()),
                digest: format!("{byte:02x}").repeat(DIGITS / 2),
                boots,
            });
            let accounts = Accounts { accounts: accounts.collect() };
            prop_assert_eq!(Accounts::parse(&accounts.to_string()), accounts);
        }

        #[test]
        fn any_text_is_taken_in_peace(text in "(?s).{0,200}") {
            let accounts = Accounts::parse(&text);
            prop_assert_eq!(Accounts::parse(&accounts.to_string()), accounts);
        }
    }
}

//! The hook for a dump target that is a share of Samba or Windows, mounted without mount.cifs.
//!
//! In: `//SERVER/SHARE`, mount options and a file with user and password, written as mount.cifs reads it:
//!
//! ```text
//! username=kdump
//! password=anything, commas and blanks too
//! domain=EXAMPLE
//! ```
//!
//! Out: a mounted target. mount.cifs only resolves the name and reads that file; mount(2) gets the rest as text
//! (mount.cifs(8), "OPTIONS"; `fs/smb/client/fs_context.c`).
//!
//! May surprise: the password goes from a file that only root can read into the data of mount(2) and nowhere else: no
//! command line, no `image.toml`, no message. Names on such a share have no `:`; the kernel writes U+F022 in its place,
//! which Linux, and Samba with `catia` or `fruit`, shows as a colon again. A server that is gone is noticed after some
//! 30 s (`echo_interval=10`), not after the usual minutes.

use crate::host::{Contribution, FileNeed, Host, ModuleNeed};
use crate::machine::{Machine, MountPlan, Refused};
use crate::net::server;
use crate::{Destination, Hook, TargetHook};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How long the server is left in peace between two tries.
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// `ECONNREFUSED`, `ENETUNREACH`, `EHOSTUNREACH`, `EHOSTDOWN`, `ETIMEDOUT`, `ECONNRESET`, `ECONNABORTED`, `EAGAIN`.
const LATER_MAY_DO: [i32; 8] = [111, 101, 113, 112, 110, 104, 103, 11];

/// Options that only mount.cifs and fstab know; the kernel would refuse them.
const NOT_FOR_THE_KERNEL: [&str; 5] = ["defaults", "ro", "auto", "ip", "addr"];

/// What the kernel asks for by name once it knows what the server speaks: signing, sealing, names in UTF-8.
const LATE: [&str; 13] =
    ["cmac", "hmac", "md5", "md4", "aes", "ecb", "gcm", "ccm", "ctr", "ghash", "sha256", "sha512", "nls_utf8"];

/// A share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cifs {
    /// The server's name or address, without brackets.
    pub server: String,
    /// The share.
    pub share: String,
    /// The file that has user and password, on the host and in the image; without one it is a guest who writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// What the name meant when the image was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Mount options as fstab writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// User and password that the configuration itself has, to become that file in the image.
    #[serde(skip)]
    pub given: Option<Credentials>,
}

/// `//SERVER/SHARE`, an IPv6 address in brackets.
impl FromStr for Cifs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a share; write //SERVER/SHARE, an IPv6 address in brackets");
        let (server, share) = text.strip_prefix("//").and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
        let server = match server.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) if inner.parse::<IpAddr>().is_ok() => inner,
            Some(_) => return Err(wrong()),
            // A colon is a part of an address, or the beginning of a port, which has no place here.
            None if server.contains(':') && server.parse::<IpAddr>().is_err() => return Err(wrong()),
            None => server,
        };
        let share = share.trim_end_matches('/');
        if share.contains('/') {
            return Err(format!("`{text}` names a directory inside a share; write the share, and `path` for the rest"));
        }
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '%');
        let named = |c: char| !c.is_control() && !matches!(c, '\\' | ',');
        if server.is_empty() || !server.chars().all(good) || share.is_empty() || !share.chars().all(named) {
            return Err(wrong());
        }
        Ok(Cifs {
            server: server.to_owned(),
            share: share.to_owned(),
            credentials: None,
            address: None,
            options: Vec::new(),
            given: None,
        })
    }
}

impl fmt::Display for Cifs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.server.contains(':') {
            true => write!(f, "cifs //[{}]/{}", self.server, self.share),
            false => write!(f, "cifs //{}/{}", self.server, self.share),
        }
    }
}

/// Who writes to the share.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
    /// The domain or workgroup, if it is not the server's own.
    pub domain: Option<String>,
}

/// Without the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the text of a credentials file. Blanks count, but for those at the beginning of a line.
    ///
    /// # Errors
    /// The line, by its number, and never with what is in it.
    pub fn parse(text: &str) -> anyhow::Result<Credentials> {
        let mut found = Credentials::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            if value.contains(|c: char| c.is_control()) {
                bail!("line {number} has a control character in it");
            }
            match name.trim_end() {
                // `DOMAIN/USER` is not taken apart: the kernel does not either.
                "username" | "user" => value.clone_into(&mut found.user),
                "password" | "pass" => value.clone_into(&mut found.password),
                "domain" | "dom" | "workgroup" => found.domain = (!value.is_empty()).then(|| value.to_owned()),
                _ => bail!("line {number} is none of username=, password= and domain="),
            }
        }
        if found.user.is_empty() {
            bail!("it names no user; write username=, password= and, if need be, domain=");
        }
        Ok(found)
    }

    /// The text of such a file.
    pub fn text(&self) -> String {
        let domain = self.domain.iter().map(|domain| format!("domain={domain}\n")).collect::<String>();
        format!("username={}\npassword={}\n{domain}", self.user, self.password)
    }

    /// As mount(2) takes them: a comma inside a value is written twice.
    fn options(&self) -> Vec<String> {
        let option = |name: &str, value: &str| format!("{name}={}", value.replace(',', ",,"));
        let mut options = vec![option("user", &self.user), option("pass", &self.password)];
        options.extend(self.domain.as_ref().map(|domain| option("domain", domain)));
        options
    }
}

/// SUSE's `cifs://[USER[:PASSWORD]@]HOST/SHARE[/PATH]`, or `smb://`: the share, and the directory in it. User and password
/// become the file `credentials` of the image.
///
/// # Errors
/// What to write instead; the password is not in it.
pub fn of_url(url: &str, credentials: &Path) -> Result<(Cifs, PathBuf), String> {
    const FORM: &str = "write cifs://[USER[:PASSWORD]@]HOST/SHARE[/PATH]";
    let rest = url.strip_prefix("cifs://").or_else(|| url.strip_prefix("smb://"));
    let rest = rest.ok_or_else(|| format!("this is not the address of a share; {FORM}"))?;
    let (place, path) = rest.split_once('/').ok_or_else(|| format!("the address names no share; {FORM}"))?;
    // A password may have an `@` in it, a host may not.
    let (user, host) = place.rsplit_once('@').map_or((None, place), |(user, host)| (Some(user), host));
    let (share, path) = path.split_once('/').unwrap_or((path, ""));
    let mut cifs: Cifs =
        format!("//{host}/{share}").parse().map_err(|_| format!("{host} and {share} are no share; {FORM}"))?;
    if let Some(user) = user {
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        if user.is_empty() || [user, password].iter().any(|word| word.contains(|c: char| c.is_control())) {
            return Err(format!("the address names no user before the `@`; {FORM}"));
        }
        cifs.given = Some(Credentials { user: user.to_owned(), password: password.to_owned(), domain: None });
        cifs.credentials = Some(credentials.to_owned());
    }
    Ok((cifs, Path::new("/").join(path)))
}

fn name_of(option: &str) -> &str {
    option.split('=').next().unwrap_or_default()
}

impl Cifs {
    fn option(&self, name: &str) -> Option<&str> {
        // The last one wins.
        let mut pairs = self.options.iter().rev().filter_map(|option| option.split_once('='));
        pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Refuses what an image cannot do.
    ///
    /// # Errors
    /// The option, and what to do about it.
    pub fn check(&self) -> anyhow::Result<()> {
        const SECRET: [&str; 12] = [
            "user",
            "username",
            "pass",
            "password",
            "passwd",
            "password2",
            "dom",
            "domain",
            "workgroup",
            "cred",
            "credentials",
            "password_file",
        ];
        if let Some(option) = self.options.iter().map(|option| name_of(option)).find(|name| SECRET.contains(name)) {
            bail!("the option `{option}` belongs into a file that only root can read; name it with `credentials`");
        }
        if let Some(flavour) = self.option("sec").filter(|flavour| flavour.starts_with("krb5")) {
            bail!("sec={flavour} needs tickets and a daemon that no image has; write sec=ntlmssp and name a user");
        }
        if self.option("vers") == Some("1.0") {
            bail!("vers=1.0 sends what anybody can read and change; let the server speak SMB 2.1 or newer");
        }
        if self.options.iter().any(|option| option.contains(',')) {
            bail!("an option has a comma in it; write one option per word");
        }
        Ok(())
    }

    /// All that anybody may see of the mount.
    fn plan(&self, server: IpAddr, point: PathBuf) -> MountPlan {
        let mut options = vec![format!("ip={server}")];
        let kept = self.options.iter().filter(|option| !NOT_FOR_THE_KERNEL.contains(&name_of(option)));
        let says = |names: &[&str]| self.options.iter().any(|option| names.contains(&name_of(option)));
        if self.credentials.is_none() && !says(&["guest", "sec"]) {
            options.push("sec=none".to_owned());
        }
        if !says(&["hard", "soft"]) {
            options.push("soft".to_owned());
        }
        if !says(&["echo_interval"]) {
            options.push("echo_interval=10".to_owned());
        }
        options.extend(kept.filter(|option| *option != "guest").cloned());
        MountPlan {
            source: format!("//{}/{}", self.server, self.share).into(),
            point,
            fstype: "cifs".to_owned(),
            options,
        }
    }

    /// What a refusal means to who has to do something about it.
    fn remedy(&self, errno: i32) -> String {
        let (share, server) = (&self.share, &self.server);
        match (errno, &self.credentials) {
            // EACCES, EKEYEXPIRED, EKEYREVOKED.
            (13 | 127 | 128, Some(file)) => {
                format!(
                    "{server} refuses user or password of {}, or the user may not use the share {share}",
                    file.display()
                )
            }
            (13, None) => {
                format!("{server} wants to know who it is; name a file with user and password as `credentials`")
            }
            // ENOENT, ENXIO, ENODEV is told by mount.
            (2 | 6, _) => format!("{server} has no share {share}"),
            // EOPNOTSUPP, EHOSTDOWN.
            (95, _) => format!("{server} speaks no SMB that this kernel would speak with it; see vers="),
            (errno, _) if LATER_MAY_DO.contains(&errno) => format!("{server} does not answer"),
            _ => "see the options of the target".to_owned(),
        }
    }
}

impl Hook for Cifs {
    fn name(&self) -> &'static str {
        "cifs"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        self.check()?;
        let need = |request: &str, required: bool, reason: String| ModuleNeed {
            request: request.to_owned(),
            reason,
            required,
            by_device: false,
        };
        let mut modules = vec![need("cifs", true, format!("file system of the target {self}"))];
        let why = || "cifs asks for it once it knows what the server speaks".to_owned();
        modules.extend(LATE.iter().map(|request| need(request, false, why())));
        let mut files = Vec::new();
        if let Some(path) = &self.credentials {
            let reading = || format!("the credentials file {} of {self}", path.display());
            let credentials = match &self.given {
                Some(given) => given.clone(),
                None => {
                    let text = String::from_utf8(host.read(path).with_context(reading)?);
                    let text = text.ok().with_context(|| format!("{} is not UTF-8", reading()))?;
                    Credentials::parse(&text).with_context(reading)?
                }
            };
            files.push(FileNeed {
                path: path.clone(),
                bytes: credentials.text().into_bytes(),
                secret: true,
                reason: format!("user and password for the target {self}"),
            });
        }
        Ok(Contribution { modules, files, ..Contribution::default() })
    }
}

impl TargetHook for Cifs {
    fn open(&self, machine: &mut dyn Machine, limit: Duration) -> anyhow::Result<Destination> {
        let address = server::find(machine.network(), &self.server, self.address)?;
        server::own_address(machine.network(), address)?;
        let secret = match &self.credentials {
            Some(path) => read(path, machine)?.options(),
            None => Vec::new(),
        };
        if let Err(error) = machine.load_module("cifs") {
            // One that is built in is no module; mount(2) says what is missing.
            log::debug!("{error:#}");
        }
        let plan = self.plan(address, machine.mount_point());
        let began = machine.network().now();
        loop {
            let error = match machine.mount_with_secret(&plan, &secret) {
                Ok(()) => {
                    log::info!("{} is mounted, {address}", plan.source.display());
                    return Ok(Destination::Directory(plan.point));
                }
                Err(error) => error,
            };
            let errno = error.downcast_ref::<Refused>().map_or(0, |refused| refused.errno);
            let waited = machine.network().now().saturating_sub(began);
            if !LATER_MAY_DO.contains(&errno) || waited + BETWEEN_TRIES >= limit {
                bail!("cannot mount the target {self} ({address}): {}: {error:#}", self.remedy(errno));
            }
            log::warn!("{self}: {error:#}; trying again, {} of {} s", waited.as_secs(), limit.as_secs());
            machine.network().pause(BETWEEN_TRIES);
        }
    }

    fn close(&self, machine: &mut dyn Machine) -> anyhow::Result<()> {
        let point = machine.mount_point();
        machine.unmount(&point).with_context(|| format!("cannot unmount the target {self}"))
    }

    fn client(&self, machine: &mut dyn Machine) -> Option<IpAddr> {
        server::client(machine.network(), &self.server, self.address)
    }
}

/// The credentials in the image.
fn read(path: &Path, machine: &mut dyn Machine) -> anyhow::Result<Credentials> {
    let shown = path.display();
    let text = path.to_str().and_then(|path| machine.network().read(path));
    let text = text.with_context(|| format!("cannot read {shown}; build the image again"))?;
    Credentials::parse(&text).with_context(|| format!("the credentials file {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};
    use crate::net::Net;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_secs(30);
    const FILE: &str = "/etc/kdump/cifs.credentials";
    const TEXT: &str = "# the backup server\nusername=kdump\npassword=a,b =c \ndomain=EXAMPLE\n";

    fn machine() -> FakeMachine {
        let mut machine = FakeMachine::near_a_server();
        machine.net.files.insert(FILE.into(), TEXT.into());
        machine
    }

    fn cifs(text: &str, options: &[&str]) -> Cifs {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Cifs { options, credentials: Some(FILE.into()), ..text.parse().unwrap() }
    }

    fn mounts(machine: &FakeMachine) -> Vec<&str> {
        machine.journal.iter().map(String::as_str).filter(|line| line.starts_with("mount")).collect()
    }

    #[test]
    fn the_kernel_gets_what_mount_cifs_would_tell_it_and_the_password_in_secret() {
        let mut machine = machine();
        let target = cifs("//nas.example/crash", &["vers=3.1.1", "seal", "port=4455"]);
        let destination = target.open(&mut machine, LIMIT).unwrap();
        assert_eq!(destination, Destination::Directory("/kdump/target".into()));
        assert_eq!(
            mounts(&machine),
            [
                "mount //nas.example/crash /kdump/target cifs ip=10.0.2.7,soft,echo_interval=10,vers=3.1.1,seal,port=4455"
            ]
        );
        assert_eq!(machine.secrets, ["user=kdump", "pass=a,,b =c ", "domain=EXAMPLE"]);
        assert_eq!(target.client(&mut machine), Some("10.0.2.15".parse().unwrap()));
        target.close(&mut machine).unwrap();
        assert_eq!(machine.journal.last().unwrap(), "unmount /kdump/target");
    }

    #[test]
    fn an_ipv6_server_is_named_by_its_address_and_a_guest_has_no_password() {
        let mut machine = machine();
        machine.net.add_address(2, "fec0::15/64".parse().unwrap()).unwrap();
        let target = Cifs { credentials: None, ..cifs("//[fec0::2]/crash", &[]) };
        assert_eq!(target.to_string(), "cifs //[fec0::2]/crash");
        target.open(&mut machine, LIMIT).unwrap();
        assert!(mounts(&machine)[0].contains("//fec0::2/crash /kdump/target cifs ip=fec0::2,sec=none"));
        assert!(machine.secrets.is_empty());
    }

    #[test]
    fn a_wrong_password_is_told_at_once_and_not_shown() {
        let mut machine = machine();
        machine.unmountable.insert("cifs".into());
        machine.mount_errno = 13;
        let error = format!("{:#}", cifs("//nas.example/crash", &[]).open(&mut machine, LIMIT).unwrap_err());
        assert!(
            error.contains("nas.example refuses user or password of /etc/kdump/cifs.credentials")
                && !error.contains("a,"),
            "{error}"
        );
        assert_eq!(mounts(&machine).len(), 1);
        machine.mount_errno = 111;
        machine.journal.clear();
        let error = format!("{:#}", cifs("//nas.example/crash", &[]).open(&mut machine, LIMIT).unwrap_err());
        assert!(error.contains("nas.example does not answer"), "{error}");
        assert_eq!(mounts(&machine).len(), 15);
    }

    #[test]
    fn the_image_gets_the_credentials_as_a_secret_file_and_ciphers_if_there_are_any() {
        let mut host = FakeHost::default();
        let target = cifs("//nas.example/crash", &[]);
        assert!(target.gather(&host).unwrap_err().to_string().contains("credentials file /etc/kdump/cifs.credentials"));
        host.files.insert(FILE.into(), TEXT.into());
        let found = target.gather(&host).unwrap();
        let [file] = &found.files[..] else { panic!("one file") };
        assert!(file.secret && file.path == Path::new(FILE));
        assert_eq!(found.modules.iter().filter(|need| need.required).count(), 1);
        assert!(found.modules.iter().any(|need| need.request == "cmac"));
        host.files.insert(FILE.into(), "username=a\ntopsecret\n".into());
        let error = format!("{:#}", target.gather(&host).unwrap_err());
        assert!(error.ends_with("line 2 is none of username=, password= and domain="), "{error}");
    }

    #[test]
    fn what_an_image_cannot_do_is_refused_by_name() {
        for (option, says) in [
            ("sec=krb5", "sec=krb5 needs tickets"),
            ("password=x", "`password` belongs into a file"),
            ("vers=1.0", "vers=1.0 sends"),
        ] {
            let error = cifs("//h/s", &[option]).gather(&FakeHost::default()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        for text in ["host", "/host/share", "//host", "///share", "//[host]/x", "//ho st/x", "//h/a,b", "//h:445/x"] {
            assert!(text.parse::<Cifs>().unwrap_err().contains("write //SERVER/SHARE"), "{text}");
        }
        assert_eq!("//fec0::2/x".parse::<Cifs>().unwrap(), "//[fec0::2]/x".parse().unwrap());
        assert!("//h/s/dir".parse::<Cifs>().unwrap_err().contains("`path` for the rest"));
    }

    #[test]
    fn suse_s_address_of_a_share_is_taken_apart() {
        let file = Path::new(FILE);
        let (cifs, path) = of_url("cifs://kdump:a@b@files/crash/web/1", file).unwrap();
        assert_eq!((cifs.to_string().as_str(), path.as_path()), ("cifs //files/crash", Path::new("/web/1")));
        let given = cifs.given.as_ref().unwrap();
        assert_eq!((given.user.as_str(), given.password.as_str()), ("kdump", "a@b"));
        assert_eq!(cifs.credentials.as_deref(), Some(file));
        let image = cifs.gather(&FakeHost::default()).unwrap();
        assert_eq!(image.files[0].bytes, b"username=kdump\npassword=a@b\n");
        let (cifs, path) = of_url("smb://[fec0::2]/crash", file).unwrap();
        assert_eq!((cifs.server.as_str(), cifs.credentials, path.as_path()), ("fec0::2", None, Path::new("/")));
        for url in ["nfs://h/s", "cifs://h", "cifs://:topsecret@h/s", "cifs://u:topsecret@ho st/s"] {
            assert!(!of_url(url, file).unwrap_err().contains("topsecret"), "{url}");
        }
    }

    #[test]
    fn nothing_that_is_shown_or_written_into_the_configuration_has_the_password() {
        let given = Some(Credentials { user: "u".into(), password: "topsecret".into(), domain: None });
        let target = crate::Target::Cifs(Cifs { given, ..cifs("//h/s", &[]) });
        assert!(!format!("{target:?}").contains("topsecret"));
        assert!(!toml::to_string(&target).unwrap().contains("topsecret"));
    }

    proptest! {
        #[test]
        fn credentials_are_read_as_they_are_written(user in "[!-~]{1,12}", password in "[ -~]{0,20}", domain in "[A-Z]{0,5}") {
            let domain = (!domain.is_empty()).then_some(domain);
            let credentials = Credentials { user, password, domain };
            prop_assert_eq!(Credentials::parse(&credentials.text()).unwrap(), credentials);
        }

        #[test]
        fn a_share_is_read_as_it_is_written(server in "[a-z0-9.-]{1,20}", share in "[a-z0-9$ _-]{0,20}[a-z]") {
            let target: Cifs = format!("//{server}/{share}").parse().unwrap();
            prop_assert_eq!(target.to_string(), format!("cifs //{server}/{share}"));
        }

        #[test]
        fn any_text_ends_in_a_result(text in "\\PC{0,60}") {
            let _ = Credentials::parse(&text);
            let _ = text.parse::<Cifs>();
        }
    }
}

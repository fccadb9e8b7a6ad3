//! `/etc/crypttab`, as far as it tells where a volume's key is.
//!
//! In: the file's text. Out: the key file of one volume. May surprise: a volume that nobody types a passphrase for can
//! still have a key that is no file, such as a TPM's or a script's; such a line is refused by name.

use anyhow::bail;
use kdump_hooks::storage::Key;

/// Options by which a key is no file, or the volume is not opened by its own header.
const REFUSED: [&str; 5] = ["keyscript", "header", "tpm2-device", "fido2-device", "pkcs11-uri"];

/// `NAME DEVICE KEY OPTIONS`: the key file of the volume that is called `name` or has that LUKS UUID. `None` if there is
/// no line for it or it names none.
///
/// # Errors
/// The line asks for what an image cannot do.
pub fn key_file(text: &str, name: &str, uuid: &str) -> anyhow::Result<Option<Key>> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let line = lines.map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|words| {
        let device = words.get(1).copied().unwrap_or_default().to_ascii_lowercase();
        words.first() == Some(&name) || (!uuid.is_empty() && device.trim_matches('"').ends_with(uuid))
    });
    let line = line.unwrap_or_default();
    let options = line.get(3).copied().unwrap_or_default();
    let option = |wanted: &str| {
        options.split(',').filter_map(|option| option.strip_prefix(wanted)?.strip_prefix('=')).next_back()
    };
    if let Some(refused) = REFUSED.into_iter().find(|refused| option(refused).is_some()) {
        bail!("{name} is opened with `{refused}=`, which this version cannot do in the image");
    }
    let number = |wanted: &str| option(wanted).map(str::parse::<u64>).transpose();
    let (Ok(offset), Ok(size)) = (number("keyfile-offset"), number("keyfile-size")) else {
        bail!("the keyfile-offset= or keyfile-size= of {name} is not a number");
    };
    match line.get(2).copied() {
        None | Some("none" | "-") => Ok(None),
        Some(path) if path.starts_with("/dev/") || !path.starts_with('/') => {
            bail!("the key of {name} is {path}, which is no file; add a key file to the volume and name it")
        }
        Some(path) => Ok(Some(Key::File { path: path.into(), offset: offset.unwrap_or(0), size })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "aa010203-0405-0607-0809-0a0b0c0d0e0f";

    #[test]
    fn a_volume_is_found_by_its_name_or_its_uuid() {
        let file = |offset, size| Key::File { path: "/root/key".into(), offset, size };
        for (text, key) in [
            ("# secret x /root/key\nother /dev/x /root/other\n", None),
            ("secret /dev/x none luks\n", None),
            ("secret /dev/x\n", None),
            ("secret /dev/x /root/key luks\n", Some(file(0, None))),
            (
                "x UUID=AA010203-0405-0607-0809-0A0B0C0D0E0F /root/key keyfile-size=64,discard\n",
                Some(file(0, Some(64))),
            ),
            ("secret /dev/x /root/key keyfile-offset=8,keyfile-size=9\n", Some(file(8, Some(9)))),
        ] {
            assert_eq!(key_file(text, "secret", UUID).unwrap(), key, "{text}");
        }
    }

    #[test]
    fn a_key_that_is_no_file_is_refused_by_name() {
        for (line, words) in [
            ("secret UUID=1 /dev/urandom", "which is no file"),
            ("secret UUID=1 key", "which is no file"),
            ("secret UUID=1 - tpm2-device=auto", "`tpm2-device=`"),
            ("secret UUID=1 /k keyfile-size=all", "is not a number"),
        ] {
            let error = key_file(line, "secret", UUID).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_in_peace(text: String, options: String) {
            let _ = key_file(&text, "secret", UUID);
            let _ = key_file(&format!("secret /dev/x /k {options}"), "secret", UUID);
        }
    }
}

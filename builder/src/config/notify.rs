//! Who is told of a dump: what the configuration says, completed by what the machine calls itself.

use super::Config;
use kdump_hooks::notify::Notify;

/// Who is told. `host` is what the machine calls itself.
pub fn resolve(config: &Config, host: &str) -> Option<Notify> {
    let given = config.dump.notify.as_ref()?;
    let mut notify = Notify { host: host.to_owned(), ..given.value.clone() };
    if let Some(mail) = notify.mail.as_mut().filter(|mail| mail.from.is_empty()) {
        mail.from = sender(host);
    }
    Some(notify)
}

fn sender(host: &str) -> String {
    let name: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
    format!("root@{}", if name.is_empty() { "localhost" } else { &name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;
    use std::fs;

    fn of(text: &str) -> anyhow::Result<Option<Notify>> {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("kdump");
        fs::write(root.path().join("kdump.conf"), "").unwrap();
        fs::write(&file, text).unwrap();
        let files = Files::new(root.path(), Some(&root.path().join("kdump.conf")), Some(&file));
        Ok(resolve(&Config::read(&files)?, "web1"))
    }

    #[test]
    fn what_suse_s_variables_ask_for_is_done() {
        let text = "KDUMP_SMTP_SERVER=mail:26\nKDUMP_NOTIFICATION_TO=\"a@x b@x\"\nKDUMP_NOTIFICATION_CC=c@x\n";
        let mail = of(text).unwrap().unwrap().mail.unwrap();
        assert_eq!((mail.to_string().as_str(), mail.from.as_str()), ("mail:26", "root@web1"));
        assert_eq!((mail.to.len(), mail.cc.len()), (2, 1));
        assert_eq!(of("KDUMP_SMTP_SERVER=mail\nKDUMP_NOTIFICATION_TO=\"\"\n").unwrap(), None);
    }

    #[test]
    fn a_password_only_goes_over_tls_and_is_not_shown() {
        let text = "KDUMP_SMTP_SERVER=mail\nKDUMP_SMTP_PASSWORD=topsecret\nKDUMP_NOTIFICATION_TO=a@x\n";
        let error = of(text).unwrap_err().to_string();
        assert!(error.contains("kdump:2: KDUMP_SMTP_PASSWORD needs KDUMP_SMTP_USER"), "{error}");
        let notify = of(&format!("{text}KDUMP_SMTP_USER=u\n")).unwrap().unwrap();
        assert!(!format!("{notify:?}").contains("topsecret"));
        let mail = notify.mail.unwrap();
        assert_eq!(
            (mail.tls, mail.login.unwrap().password.as_str()),
            (kdump_hooks::notify::tls::Tls::Starttls, "topsecret")
        );
        assert!(mail.credentials.is_some(), "it is in the image");
        let mail = of("KDUMP_NOTIFICATION_TO=a@x").unwrap().unwrap().mail.unwrap();
        assert_eq!(mail.to_string(), "127.0.0.1:25", "the machine's own, after the reboot");
        let error =
            of("KDUMP_NOTIFICATION_TO=a@x\nKDUMP_SMTP_USER=u\nKDUMP_SMTP_PASSWORD=p\n").unwrap_err().to_string();
        assert!(error.contains("kdump:1: KDUMP_SMTP_USER needs KDUMP_SMTP_SERVER"), "{error}");
        let error = of("KDUMP_SMTP_SERVER=mail\nKDUMP_NOTIFICATION_TO=\"a<x\"\n").unwrap_err().to_string();
        assert!(error.contains("kdump:2: KDUMP_NOTIFICATION_TO: `a<x` is not a mail address"), "{error}");
    }
}

//! Who is told of a dump: what kdump.toml says, else SUSE's KDUMP_NOTIFICATION_TO and its kin.

use super::{Config, Given};
use anyhow::{Context, bail};
use kdump_hooks::cifs::Credentials;
use kdump_hooks::notify::Notify;
use kdump_hooks::notify::smtp::{self, Mail};
use kdump_hooks::notify::tls::Tls;

/// Where an image has what SUSE's variables say of user and password.
const CREDENTIALS: &str = "/etc/kdump/mail.credentials";

/// Who is told. `host` is what the machine calls itself.
///
/// # Errors
/// What SUSE's variables say wrong, and the remedy.
pub fn resolve(config: &Config, host: &str) -> anyhow::Result<Option<Notify>> {
    if let Some(notify) = &config.dump.notify {
        let mut notify = Notify { host: host.to_owned(), ..notify.clone() };
        if let Some(mail) = notify.mail.as_mut().filter(|mail| mail.from.is_empty()) {
            mail.from = sender(host);
        }
        return Ok(Some(notify));
    }
    let system = &config.system;
    let Some(to) = &system.notification_to else { return Ok(None) };
    let Some(server) = &system.smtp_server else {
        bail!(
            "{}: KDUMP_NOTIFICATION_TO needs KDUMP_SMTP_SERVER: no program for mail is in the image; name a mail server",
            to.origin
        );
    };
    // As SUSE has it, both together mean that the server is asked for TLS.
    let login = match (&system.smtp_user, &system.smtp_password) {
        (Some(user), Some(password)) => {
            let password = password.value.0.clone().unwrap_or_default();
            Some(Credentials { user: user.value.clone(), password, domain: None })
        }
        (None, None) => None,
        (Some(Given { origin, .. }), None) => bail!("{origin}: KDUMP_SMTP_USER needs KDUMP_SMTP_PASSWORD"),
        (None, Some(Given { origin, .. })) => bail!("{origin}: KDUMP_SMTP_PASSWORD needs KDUMP_SMTP_USER"),
    };
    let addresses = |given: Option<&Given<String>>| match given {
        Some(given) => smtp::addresses(&given.value).map_err(anyhow::Error::msg).context(given.origin.to_string()),
        None => Ok(Vec::new()),
    };
    let (name, port, tls) =
        smtp::server(&server.value).map_err(anyhow::Error::msg).context(server.origin.to_string())?;
    let mail = Mail {
        host: name,
        port,
        from: sender(host),
        to: addresses(Some(to))?,
        cc: addresses(system.notification_cc.as_ref())?,
        tls: if login.is_some() && tls.is_off() { Tls::Starttls } else { tls },
        credentials: login.is_some().then(|| CREDENTIALS.into()),
        login,
    };
    Ok(Some(Notify { host: host.to_owned(), mail: Some(mail), ..Notify::default() }))
}

fn sender(host: &str) -> String {
    let name: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
    format!("root@{}", if name.is_empty() { "localhost" } else { &name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KdumpConf, Sysconfig};
    use std::path::Path;

    fn of(text: &str) -> anyhow::Result<Option<Notify>> {
        let system = Sysconfig::parse(text, Path::new("kdump"), &mut Vec::new()).unwrap();
        resolve(&Config { dump: KdumpConf::default(), system, warnings: Vec::new() }, "web1")
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
        assert_eq!(error, "kdump:2: KDUMP_SMTP_PASSWORD needs KDUMP_SMTP_USER");
        let notify = of(&format!("{text}KDUMP_SMTP_USER=u\n")).unwrap().unwrap();
        assert!(!format!("{notify:?}").contains("topsecret"));
        let mail = notify.mail.unwrap();
        assert_eq!((mail.tls, mail.login.unwrap().password.as_str()), (Tls::Starttls, "topsecret"));
        assert!(mail.credentials.is_some(), "it is in the image");
        let error = of("KDUMP_NOTIFICATION_TO=a@x").unwrap_err().to_string();
        assert!(error.starts_with("kdump:1: KDUMP_NOTIFICATION_TO needs KDUMP_SMTP_SERVER"), "{error}");
        let error = format!("{:#}", of("KDUMP_SMTP_SERVER=mail\nKDUMP_NOTIFICATION_TO=\"a<x\"\n").unwrap_err());
        assert!(error.starts_with("kdump:2: `a<x` is not a mail address"), "{error}");
    }
}

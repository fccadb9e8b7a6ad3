//! Who is told of a dump: what kdump.toml says, else SUSE's KDUMP_NOTIFICATION_TO and its kin.

use super::{Config, Given};
use anyhow::{Context, bail};
use kdump_hooks::notify::Notify;
use kdump_hooks::notify::smtp::{self, Mail};

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
    if let Some(Given { value, origin }) = &system.smtp_secret {
        bail!(
            "{origin}: {value} is not followed: SUSE sends it over TLS, which PID 1 of the image has not, and in the clear \
             anybody on the way could read it; let the server take mail from this network without, or write \
             [notify.mail] with `credentials` and `clear = true` into /etc/kdump/kdump.toml"
        );
    }
    let addresses = |given: Option<&Given<String>>| match given {
        Some(given) => smtp::addresses(&given.value).map_err(anyhow::Error::msg).context(given.origin.to_string()),
        None => Ok(Vec::new()),
    };
    let (name, port) = smtp::server(&server.value).map_err(anyhow::Error::msg).context(server.origin.to_string())?;
    let mail = Mail {
        host: name,
        port,
        from: sender(host),
        to: addresses(Some(to))?,
        cc: addresses(system.notification_cc.as_ref())?,
        credentials: None,
    };
    Ok(Some(Notify { host: host.to_owned(), mail: Some(mail), webhook: None }))
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
    fn a_password_that_would_go_in_the_clear_is_refused_and_not_shown() {
        let text = "KDUMP_SMTP_SERVER=mail\nKDUMP_SMTP_PASSWORD=topsecret\nKDUMP_NOTIFICATION_TO=a@x\n";
        let error = of(text).unwrap_err().to_string();
        assert!(error.starts_with("kdump:2: KDUMP_SMTP_PASSWORD is not followed") && !error.contains("topsecret"));
        let error = of("KDUMP_NOTIFICATION_TO=a@x").unwrap_err().to_string();
        assert!(error.starts_with("kdump:1: KDUMP_NOTIFICATION_TO needs KDUMP_SMTP_SERVER"), "{error}");
        let error = format!("{:#}", of("KDUMP_SMTP_SERVER=mail\nKDUMP_NOTIFICATION_TO=\"a<x\"\n").unwrap_err());
        assert!(error.starts_with("kdump:2: `a<x` is not a mail address"), "{error}");
    }
}

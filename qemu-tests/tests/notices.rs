//! Notices over TLS: what PID 1 and kdumpctl say, through the real kdump-send, to servers with certificates. No guest; one
//! that tells by mail and web is in `tests/targets.rs`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kdump_hooks::cifs::Credentials;
use kdump_hooks::fake::FakeNet;
use kdump_hooks::notify::smtp::Mail;
use kdump_hooks::notify::tls::{Lender, Tls};
use kdump_hooks::notify::{News, Notice, Notify};
use qemu_tests::folders;
use qemu_tests::programs::programs;
use qemu_tests::sink::{Identity, Sink};

const HERE: &str = "127.0.0.1";

fn place(name: &str) -> Result<PathBuf> {
    let place = folders::qemu().join("notices").join(name);
    folders::fresh(&place)?;
    Ok(place)
}

fn lender(authorities: PathBuf) -> Result<Lender> {
    Ok(Lender { program: programs()?.path("kdump-send"), authorities })
}

fn web(port: u16) -> Result<Notify> {
    let webhook = format!("https://{HERE}:{port}/hook").parse().map_err(anyhow::Error::msg)?;
    Ok(Notify { webhook: Some(webhook), ..Notify::default() })
}

fn mail(port: u16) -> Notify {
    let login = Credentials { user: "kdump".into(), password: "letter".into(), domain: None };
    let mail = Mail {
        host: HERE.into(),
        port,
        from: "root@web1".into(),
        to: vec!["root@example.com".into()],
        cc: Vec::new(),
        tls: Tls::Starttls,
        credentials: None,
        login: Some(login),
    };
    Notify { mail: Some(mail), ..Notify::default() }
}

fn tell(notify: &Notify, lender: &Lender, limit: Duration) -> Option<String> {
    let status = format!("{{\"outcome\": \"complete\", \"long\": \"{}\"}}\n", "x".repeat(200_000));
    let news = News { outcome: "complete".into(), status, ..News::default() };
    Notice::failures(&notify.tell(&news, &[], &mut FakeNet::default(), lender, limit))
}

#[test]
fn a_web_server_and_a_mail_server_are_told_over_tls() -> Result<()> {
    let folder = place("told")?;
    let identity = Identity::of(HERE, &folder)?;
    let (web_sink, mail_sink) = (Sink::secure_web(&identity)?, Sink::mail_after_starttls(&identity)?);
    let lender = lender(folder.join("sink.pem"))?;
    let both = Notify { mail: mail(mail_sink.port).mail, ..web(web_sink.port)? };
    let failures = tell(&both, &lender, Duration::from_secs(60));
    ensure!(failures.is_none(), "{failures:?}");
    let request = web_sink.last()?;
    ensure!(request.starts_with("POST /hook HTTP/1.1\r\n") && request.ends_with("x\"}\n"), "{}", request.len());
    let letter = mail_sink.last()?;
    ensure!(letter.starts_with("EHLO ") && letter.contains("AUTH PLAIN AGtkdW1wAGxldHRlcg=="), "{letter:.300}");
    ensure!(letter.contains("Subject: kdump on ") && letter.ends_with(".\r\nQUIT\r\n"), "{letter:.300}");
    Ok(())
}

#[test]
fn a_server_that_nobody_vouches_for_gets_no_password_and_is_named_with_the_reason() -> Result<()> {
    let (folder, other) = (place("unknown")?, place("other")?);
    let identity = Identity::of(HERE, &folder)?;
    Identity::of(HERE, &other)?;
    let elsewhere = Identity::of("192.0.2.1", &place("elsewhere")?)?;
    fs::write(other.join("elsewhere.pem"), &elsewhere.certificate)?;
    for (identity, authorities) in [(&identity, other.join("sink.pem")), (&elsewhere, other.join("elsewhere.pem"))] {
        let (web_sink, mail_sink) = (Sink::secure_web(identity)?, Sink::mail_after_starttls(identity)?);
        let lender = lender(authorities)?;
        for notify in [web(web_sink.port)?, mail(mail_sink.port)] {
            let said = tell(&notify, &lender, Duration::from_secs(60)).context("it was told all the same")?;
            ensure!(said.contains("certificate verify failed"), "{said}");
        }
        let heard = [web_sink.last()?, mail_sink.last()?].concat();
        ensure!(!heard.contains("AUTH") && !heard.contains("POST"), "{heard}");
    }
    Ok(())
}

#[test]
fn servers_without_tls_and_those_that_are_silent_are_told_in_time() -> Result<()> {
    let folder = place("silent")?;
    Identity::of(HERE, &folder)?;
    let lender = lender(folder.join("sink.pem"))?;
    let clear = Sink::mail()?;
    let said = tell(&mail(clear.port), &lender, Duration::from_secs(60)).context("it was told in the clear")?;
    ensure!(said.contains("does not offer STARTTLS"), "{said}");
    ensure!(!clear.last()?.contains("AUTH"), "a password went in the clear");
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let began = Instant::now();
    let said = tell(&web(silent.local_addr()?.port())?, &lender, Duration::from_secs(2)).context("told to nobody")?;
    ensure!(began.elapsed() < Duration::from_secs(20), "it took {:?}: {said}", began.elapsed());
    let missing = Lender { program: "/nowhere/kdump-send".into(), ..lender };
    let said = tell(&web(1)?, &missing, Duration::from_secs(2)).context("told by nobody")?;
    ensure!(said.contains("cannot start /nowhere/kdump-send, which has the TLS"), "{said}");
    Ok(())
}

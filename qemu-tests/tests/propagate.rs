//! `kdumpctl propagate` and a real sshd: OpenSSH's tools make the key and hand it over, and kdump-send gets in with it.
//!
//! Nobody types: what ssh asks goes to a program that answers with `yes` and a password. All of it is in a mount namespace
//! whose root has another home, so that the machine's own keys and known hosts stay as they are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use qemu_tests::far_server::{FarServer, PASSWORD, Speaks, kdump_send, root_at, with_users};
use qemu_tests::programs::programs;
use qemu_tests::{folders, tools};
use tempfile::TempDir;

/// The near side: a server to hand a key to, the target on it, and root's home here.
struct Near {
    server: FarServer,
    target: String,
    home: TempDir,
}

impl Near {
    fn new(name: &str, speaks: Speaks) -> Result<Near> {
        let place = folders::qemu().join("far").join(name);
        folders::fresh(&place)?;
        let server = FarServer::start(&place, speaks)?;
        // ssh-copy-id keeps a socket below it.
        let home = folders::for_sockets()?;
        fs::write(server.file("near-passwd"), with_users(&[&root_at(home.path())])?)?;
        let protocol = if speaks == Speaks::Ssh { "ssh" } else { "sftp" };
        let target = format!("{protocol}://root@127.0.0.1:{}{}", server.port, server.far.display());
        fs::write(server.file("sysconfig"), format!("KDUMP_SAVEDIR={target}\n"))?;
        let near = Near { server, target, home };
        near.answers(PASSWORD)?;
        near.key_is_called("kdump_id_ed25519")?;
        Ok(near)
    }

    /// What is asked for a password is told this one, and each question is noted.
    fn answers(&self, password: &str) -> Result<()> {
        let asked = self.server.file("asked");
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$1\" >> '{asked}'\ncase \"$1\" in *yes/no*) echo yes;; *) echo '{password}';; esac\n"
        );
        fs::write(self.server.file("askpass"), script)?;
        fs::write(&asked, "")?;
        fs::set_permissions(self.server.file("askpass"), fs::Permissions::from_mode(0o700))?;
        Ok(())
    }

    fn key_is_called(&self, name: &str) -> Result<()> {
        let key = self.home.path().join("keys").join(name);
        Ok(fs::write(self.server.file("kdump.conf"), format!("sshkey {}\n", key.display()))?)
    }

    fn propagate(&self) -> Result<Output> {
        let mut command = tools::command("unshare");
        let script = "mount --bind \"$1\" /etc/passwd && shift && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh", &self.server.file("near-passwd")]);
        command.arg(programs()?.path("kdumpctl")).arg("propagate");
        command.args(["--config", &self.server.file("kdump.conf"), "--sysconfig", &self.server.file("sysconfig")]);
        command.env("HOME", self.home.path()).env("SSH_ASKPASS", self.server.file("askpass"));
        command.env("SSH_ASKPASS_REQUIRE", "force").env_remove("SSH_AUTH_SOCK");
        command.output().context("unable to start unshare")
    }

    /// What was asked of the password kind, and of the other.
    fn asked(&self) -> Result<(usize, usize)> {
        let asked = fs::read_to_string(self.server.file("asked"))?;
        let of = |words: &str| asked.lines().filter(|line| line.contains(words)).count();
        Ok((of("password:"), of("yes/no")))
    }

    /// kdump-send, with what propagate has left here.
    fn check(&self, key: &str) -> Result<Command> {
        let key = self.home.path().join("keys").join(key).display().to_string();
        let known = self.home.path().join(".ssh/known_hosts").display().to_string();
        let with = ["--identity", &key, "--known-hosts", &known];
        let mut command = kdump_send(&self.server, &programs()?.path("kdump-send"), &self.target, &with);
        command.arg("check");
        Ok(command)
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_key_is_made_and_let_in_for_a_password_and_kdump_send_gets_in_with_it() -> Result<()> {
    let near = Near::new("propagate", Speaks::Ssh)?;
    for (name, kind) in [("kdump_id_ed25519", "ssh-ed25519"), ("id_ecdsa", "ecdsa-sha2-nistp256"), ("key", "ssh-rsa")] {
        near.key_is_called(name)?;
        near.answers(PASSWORD)?;
        let output = near.propagate()?;
        ensure!(output.status.success(), "{name}: {}\n{}", said(&output), near.server.log());
        for words in ["Made the key", "127.0.0.1 lets root in with the key"] {
            ensure!(said(&output).contains(words), "{name}: it does not say {words}: {}", said(&output));
        }
        let (passwords, hosts) = near.asked()?;
        ensure!(passwords == 1, "{name}: a password was asked for {passwords} times");
        ensure!(hosts == usize::from(name == "kdump_id_ed25519"), "{name}: {hosts} questions for the host's key");
        let public = fs::read_to_string(near.home.path().join("keys").join(name).with_added_extension("pub"))?;
        ensure!(public.starts_with(kind), "{name}: the key is {public}");
        tools::run(&mut near.check(name)?).with_context(|| format!("{name}: the key does not open"))?;
    }
    // Once more: nothing is to be done, and nothing is asked.
    near.answers("none")?;
    let output = near.propagate()?;
    ensure!(output.status.success() && said(&output).contains("Using the key"), "{}", said(&output));
    ensure!(near.asked()? == (0, 0), "something was asked: {:?}", near.asked()?);
    let authorized = fs::read_to_string(near.server.file("home/.ssh/authorized_keys"))?;
    ensure!(authorized.lines().count() == 3, "the far side has these keys:\n{authorized}");
    Ok(())
}

#[test]
fn a_server_of_files_that_gives_no_shell_lets_the_key_in_by_sftp() -> Result<()> {
    let near = Near::new("propagate-sftp", Speaks::SftpAlone)?;
    let output = near.propagate()?;
    ensure!(output.status.success(), "{}\n{}", said(&output), near.server.log());
    ensure!(near.asked()? == (1, 1), "this was asked: {:?}", near.asked()?);
    tools::run(&mut near.check("kdump_id_ed25519")?).context("the key does not open")?;
    Ok(())
}

#[test]
fn a_wrong_password_and_a_host_that_has_changed_are_failures_and_nothing_is_let_in() -> Result<()> {
    let near = Near::new("propagate-refused", Speaks::Ssh)?;
    near.answers("guessed")?;
    let output = near.propagate()?;
    ensure!(output.status.code() == Some(1), "it ended with {}: {}", output.status, said(&output));
    for words in ["Permission denied", "cannot have the far side let the key in: ssh-copy-id ended with"] {
        ensure!(said(&output).contains(words), "it does not say {words}: {}", said(&output));
    }
    near.answers(PASSWORD)?;
    fs::copy(near.server.file("changed"), near.home.path().join(".ssh/known_hosts"))?;
    let output = near.propagate()?;
    ensure!(output.status.code() == Some(1), "it ended with {}: {}", output.status, said(&output));
    ensure!(said(&output).contains("HOST IDENTIFICATION HAS CHANGED"), "it says: {}", said(&output));
    ensure!(near.asked()?.0 == 0, "a stranger was given the password");
    ensure!(!near.server.place.join("home/.ssh/authorized_keys").exists(), "a key was let in");
    Ok(())
}

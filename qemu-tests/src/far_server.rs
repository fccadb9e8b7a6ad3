//! Servers that a dump is sent to: OpenSSH's and vsftpd, on the host's loopback, for guests and for kdump-send itself.
//!
//! In: a folder. Out: a server on a port of its own, which stores below the folder's `far`, until it is dropped; and
//! what one needs to log in. Nothing is installed: programs and libraries lie below `target/qemu/servers`.
//!
//! Surprising: each has a mount namespace of its own, in which `far/full` is a file system of 4 MiB, `far/readonly` one
//! that cannot be written, and /etc/passwd and /etc/shadow have the user that sshd wants and a root whose home is `home`
//! here. What is stored in those two is not seen outside.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::server::LOOPBACK;
use crate::{provision, server, tools};

/// The name in the FTP server's certificate, beside the address that a guest calls it by.
pub const CERTIFIED: &str = "far.test";
/// The host's loopback, as a guest has it.
const CERTIFIED_ADDRESS: &str = "10.0.2.2";
/// The password that the FTP server wants of the user `ftp`, and sshd of root if there is no key.
pub const PASSWORD: &str = "kdump@";

/// What it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// SSH, and SFTP.
    Ssh,
    /// SFTP by SSH, without a shell.
    SftpAlone,
    /// FTP in the clear.
    Ftp,
    /// FTP with TLS, for commands and for data.
    Ftps,
}

/// A server that runs.
#[derive(Debug)]
pub struct FarServer {
    /// Where it listens.
    pub port: u16,
    /// Keys, certificates, passwords.
    pub place: PathBuf,
    /// What it stores into.
    pub far: PathBuf,
    child: Child,
}

impl FarServer {
    /// Starts one on 127.0.0.1; `place` is empty.
    pub fn start(place: &Path, speaks: Speaks) -> Result<FarServer> {
        FarServer::start_at(place, LOOPBACK, speaks)
    }

    /// Starts one that listens at `address`.
    pub fn start_at(place: &Path, address: IpAddr, speaks: Speaks) -> Result<FarServer> {
        ensure!(nix::unistd::geteuid().is_root(), "servers with file systems of their own need root; run as root");
        let servers = provision::servers()?;
        let far = place.join("far");
        for made in ["far/full", "far/readonly", "empty", "home"] {
            fs::create_dir_all(place.join(made))?;
        }
        let port = server::free_port(address)?;
        let at = SocketAddr::new(address, port);
        let program = match speaks {
            Speaks::Ssh => ssh(place, &servers, at, "")?,
            Speaks::SftpAlone => ssh(place, &servers, at, "ForceCommand internal-sftp\n")?,
            Speaks::Ftp | Speaks::Ftps => ftp(place, &servers, at, speaks == Speaks::Ftps)?,
        };
        let libraries =
            ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|dir| servers.join(dir).display().to_string());
        let script = "mount --bind \"$1/passwd\" /etc/passwd && mount --bind \"$1/shadow\" /etc/shadow && \
                      mount -t tmpfs none /run && mkdir -p /run/sshd && \
                      mount -t tmpfs -o size=4m none \"$1/far/full\" && mount -t tmpfs -o ro none \"$1/far/readonly\" && \
                      shift && exec \"$@\"";
        let log = fs::File::create(place.join("log"))?;
        let mut command = tools::command("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(place).args(program);
        command.env("LD_LIBRARY_PATH", libraries.join(":")).stdout(log.try_clone()?).stderr(log).stdin(Stdio::null());
        let child = server::start(command, "SSH or FTP", (address, port), &place.join("log"))?;
        Ok(FarServer { port, place: place.to_owned(), far, child })
    }

    /// A file of its folder.
    pub fn file(&self, name: &str) -> String {
        self.place.join(name).display().to_string()
    }

    /// What it said last.
    pub fn log(&self) -> String {
        tools::tail(&fs::read_to_string(self.place.join("log")).unwrap_or_default(), 20)
    }

    /// Stops it, with whoever works for it, as if the line was cut.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Ends it, with whoever works for it, as a power cut would.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    fn signal(&self, signal: Signal) {
        let root = self.child.id();
        for process in descendants(root).into_iter().chain([root]) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(process.cast_signed()), signal);
        }
    }

    /// The one dump in `far/DIR`.
    pub fn dump(&self, dir: &str) -> Result<PathBuf> {
        let dir = self.far.join(dir);
        let entries = fs::read_dir(&dir).with_context(|| format!("unable to list {}", dir.display()))?;
        let dumps = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        match dumps.as_slice() {
            [dump] => Ok(dump.clone()),
            dumps => bail!("{} directories are in {}, not one: {dumps:?}", dumps.len(), dir.display()),
        }
    }
}

impl Drop for FarServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All processes that a process has started, and those that they have.
fn descendants(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name, in brackets, may have blanks in it.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (process, parent)));
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
        next += 1;
    }
    found.split_off(1)
}

/// Makes keys of every kind, and sshd's configuration with further lines; gives its command line.
fn ssh(place: &Path, servers: &Path, at: SocketAddr, further: &str) -> Result<Vec<String>> {
    for (file, kind, passphrase) in [
        ("host", "ed25519", ""),
        ("ed25519", "ed25519", ""),
        ("ecdsa", "ecdsa", ""),
        ("rsa", "rsa", ""),
        ("stranger", "ed25519", ""),
        ("locked", "ed25519", "a passphrase"),
    ] {
        keygen(&place.join(file), kind, passphrase)?;
    }
    keygen(&place.join("authority"), "ed25519", "")?;
    for (file, kind, valid) in [
        ("certified-ed25519", "ed25519", "+1d"),
        ("certified-ecdsa", "ecdsa", "+1d"),
        ("certified-rsa", "rsa", "+1d"),
        ("expired", "ed25519", "20200101:20200102"),
    ] {
        keygen(&place.join(file), kind, "")?;
        let mut sign = tools::command("ssh-keygen");
        sign.args(["-q", "-I", "kdump", "-n", "root", "-V", valid, "-s"]).arg(place.join("authority"));
        tools::run(sign.arg(place.join(file).with_extension("pub")))?;
    }
    let public = |name: &str| fs::read_to_string(place.join(name).with_extension("pub"));
    let two_words = |text: &str| text.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let authorized = ["ed25519", "ecdsa", "rsa", "locked"].map(public).into_iter().collect::<Result<String, _>>()?;
    fs::write(place.join("authorized"), authorized)?;
    let (address, port) = (at.ip(), at.port());
    fs::write(place.join("known"), format!("[{address}]:{port} {}\n", two_words(&public("host")?)))?;
    fs::write(place.join("changed"), format!("[{address}]:{port} {}\n", two_words(&public("stranger")?)))?;
    let shown = |name: &str| place.join(name).display().to_string();
    fs::write(place.join("passwd"), with_users(&[&root_at(&place.join("home")), SSHD])?)?;
    let hash = tools::text(tools::command("openssl").args(["passwd", "-6", PASSWORD]))?;
    fs::write(place.join("shadow"), format!("root:{}:20000::::::\n", hash.trim()))?;
    let conf = format!(
        "Port {port}\nListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {} .ssh/authorized_keys\nStrictModes no\nUsePAM no\n\
         TrustedUserCAKeys {}\nPermitRootLogin yes\nPidFile none\nMaxStartups 100\nSubsystem sftp {}\n{further}",
        shown("host"),
        shown("authorized"),
        shown("authority.pub"),
        servers.join("usr/lib/openssh/sftp-server").display()
    );
    fs::write(place.join("sshd_config"), conf)?;
    let sshd = servers.join("usr/sbin/sshd").display().to_string();
    Ok([sshd, "-D".into(), "-e".into(), "-f".into(), shown("sshd_config")].into())
}

/// The line of root in /etc/passwd, with a home of its own.
pub fn root_at(home: &Path) -> String {
    format!("root:x:0:0:root:{}:/bin/sh", home.display())
}

/// The user without which sshd does not run.
const SSHD: &str = "sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin";

/// This machine's /etc/passwd, with these users in the place of those who have the same names.
pub fn with_users(users: &[&str]) -> Result<String> {
    let passwd = fs::read_to_string("/etc/passwd").context("unable to read /etc/passwd")?;
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let others = passwd.lines().filter(|line| users.iter().all(|user| name(user) != name(line)));
    Ok(others.chain(users.iter().copied()).map(|line| format!("{line}\n")).collect())
}

fn keygen(file: &Path, kind: &str, passphrase: &str) -> Result<()> {
    tools::run(tools::command("ssh-keygen").args(["-q", "-t", kind, "-N", passphrase, "-f"]).arg(file)).map(drop)
}

/// Makes a certificate and vsftpd's configuration; gives its command line.
fn ftp(place: &Path, servers: &Path, at: SocketAddr, tls: bool) -> Result<Vec<String>> {
    let shown = |name: &str| place.join(name).display().to_string();
    fs::copy("/etc/passwd", place.join("passwd"))?;
    fs::write(place.join("shadow"), "")?;
    fs::write(place.join("emails"), format!("{PASSWORD}\n"))?;
    fs::write(place.join("password"), format!("{PASSWORD}\n"))?;
    fs::write(place.join("wrong"), "guessed\n")?;
    for secret in ["password", "wrong"] {
        fs::set_permissions(place.join(secret), fs::Permissions::from_mode(0o600))?;
    }
    // Nobody is chrooted when the server does not change its user, so that paths are those of the host.
    let listen = match at.ip() {
        IpAddr::V4(four) => format!("listen=YES\nlisten_address={four}"),
        IpAddr::V6(six) => format!("listen=NO\nlisten_ipv6=YES\nlisten_address6={six}"),
    };
    let mut conf = format!(
        "{listen}\nlisten_port={}\nbackground=NO\nanonymous_enable=YES\n\
         local_enable=NO\nwrite_enable=YES\nanon_upload_enable=YES\nanon_mkdir_write_enable=YES\n\
         anon_other_write_enable=YES\nanon_umask=077\npasv_min_port=40000\npasv_max_port=60000\nrun_as_launching_user=YES\nftp_username=nobody\n\
         nopriv_user=nobody\nseccomp_sandbox=NO\nisolate=NO\nisolate_network=NO\nxferlog_enable=NO\n\
         secure_email_list_enable=YES\nemail_password_file={}\nsecure_chroot_dir={}\n",
        at.port(),
        shown("emails"),
        shown("empty")
    );
    if tls {
        let mut openssl = tools::command("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj"]);
        openssl.args([
            format!("/CN={CERTIFIED}"),
            "-addext".into(),
            format!("subjectAltName=DNS:{CERTIFIED},IP:{CERTIFIED_ADDRESS}"),
        ]);
        openssl.args(["-keyout".into(), shown("tls.key"), "-out".into(), shown("tls.pem")]);
        tools::run(&mut openssl)?;
        conf += &format!(
            "ssl_enable=YES\nallow_anon_ssl=YES\nforce_anon_logins_ssl=YES\nforce_anon_data_ssl=YES\n\
             require_ssl_reuse=YES\nrsa_cert_file={}\nrsa_private_key_file={}\n",
            shown("tls.pem"),
            shown("tls.key")
        );
    }
    fs::write(place.join("vsftpd.conf"), conf)?;
    Ok(vec![servers.join("usr/sbin/vsftpd").display().to_string(), shown("vsftpd.conf")])
}

/// kdump-send, told to log in to that server; `with` are further options.
pub fn kdump_send(server: &FarServer, program: &Path, url: &str, with: &[&str]) -> Command {
    let mut command = Command::new(program);
    let given = |option: &str| with.contains(&option);
    let default = |command: &mut Command, option: &str, file: &str| {
        if !given(option) && !given("--any-host") {
            command.args([option, &server.file(file)]);
        }
    };
    match url.split_once("://").map_or("", |(protocol, _)| protocol) {
        "ssh" | "sftp" => {
            default(&mut command, "--identity", "ed25519");
            default(&mut command, "--known-hosts", "known");
        }
        "ftps" => {
            default(&mut command, "--ca-file", "tls.pem");
            default(&mut command, "--password-file", "password");
            if !given("--host-name") {
                command.args(["--host-name", CERTIFIED]);
            }
        }
        _ => default(&mut command, "--password-file", "password"),
    }
    command.args(with).arg(url);
    command
}

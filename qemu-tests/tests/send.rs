//! kdump-send and real servers: OpenSSH's, its sftp-server, vsftpd with and without TLS. No guest: the program runs on the
//! host, and what it is to deliver is a stream that looks like a dump's.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::far_server::{FarServer, Speaks, kdump_send};
use qemu_tests::folders;
use qemu_tests::programs::programs;
use qemu_tests::status::sha256;
use serde_json::Value;

const PROTOCOLS: [(&str, Speaks); 4] =
    [("ssh", Speaks::Ssh), ("sftp", Speaks::Ssh), ("ftp", Speaks::Ftp), ("ftps", Speaks::Ftps)];
/// Nothing that is sent is silent for longer.
const PATIENCE: &str = "4";

fn serve(name: &str, speaks: Speaks) -> Result<FarServer> {
    let place = folders::qemu().join("far").join(name);
    folders::fresh(&place)?;
    FarServer::start(&place, speaks)
}

fn url(server: &FarServer, protocol: &str, dir: &str) -> String {
    let user = if protocol.starts_with("ssh") || protocol == "sftp" { "root" } else { "ftp" };
    format!("{protocol}://{user}@127.0.0.1:{}{}", server.port, server.far.join(dir).display())
}

fn command(server: &FarServer, protocol: &str, dir: &str, with: &[&str]) -> Result<Command> {
    let program = programs()?.path("kdump-send");
    Ok(kdump_send(server, &program, &url(server, protocol, dir), with))
}

fn start(mut command: Command) -> Result<Child> {
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// Runs with that input, which it may refuse.
fn run(command: Command, input: &[u8]) -> Result<Output> {
    let mut child = start(command)?;
    let mut pipe = child.stdin.take().context("no pipe")?;
    std::thread::scope(|scope| {
        scope.spawn(move || pipe.write_all(input));
        Ok(child.wait_with_output()?)
    })
}

fn succeed(command: Command, input: &[u8]) -> Result<String> {
    let output = run(command, input)?;
    ensure!(output.status.success(), "it failed: {}", said(&output));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs, must fail with that exit code, and must say all of these words.
fn fail(command: Command, input: &[u8], code: i32, words: &[&str]) -> Result<()> {
    told(&run(command, input)?, code, words)
}

fn told(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let said = said(output);
    ensure!(output.status.code() == Some(code), "it ended with {}: {said}", output.status);
    for word in words {
        ensure!(said.contains(word), "it does not say `{word}`: {said}");
    }
    Ok(())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a dump is made of, and the flattened stream of it: records of many lengths, not in order.
fn dump(megabytes: usize) -> (Vec<u8>, Vec<u8>) {
    let mut noise = 0x6b64_756d_u32;
    let mut byte = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    };
    let dump: Vec<u8> = (0..megabytes << 20).map(|_| byte()).collect();
    let mut stream = vec![0; 4096];
    stream[..12].copy_from_slice(b"makedumpfile");
    stream[23] = 1;
    stream[31] = 1;
    let pieces = [300_000, 17, 1_500_000, 70_001].into_iter().cycle();
    let (mut at, mut records) = (0, Vec::new());
    for length in pieces {
        if at == dump.len() {
            break;
        }
        let end = dump.len().min(at + length);
        records.push((at, end));
        at = end;
    }
    // The start comes last, as in a dump that is not to look complete before it is.
    let first = records.remove(0);
    for pair in records.chunks(2).flat_map(|pair| pair.iter().rev()).chain([&first]) {
        stream.extend((pair.0 as u64).to_be_bytes());
        stream.extend(((pair.1 - pair.0) as u64).to_be_bytes());
        stream.extend(&dump[pair.0..pair.1]);
    }
    stream.extend([0xff; 16]);
    (dump, stream)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

#[test]
fn a_dump_arrives_whole_by_every_protocol_and_is_what_the_report_says() -> Result<()> {
    let (dump, stream) = dump(24);
    for (protocol, speaks) in PROTOCOLS {
        let server = serve(&format!("whole-{protocol}"), speaks)?;
        let dir = "new/it's a dir";
        let send = |words: &[&str]| -> Result<Command> {
            let report = server.file("report");
            let mut command = command(&server, protocol, &dir.replace(' ', "%20"), &["--report", &report])?;
            command.args(words);
            Ok(command)
        };
        succeed(send(&["check"])?, b"")?;
        // The same second, the same name.
        let made: Vec<String> = (0..3).map(|_| succeed(send(&["mkdir", "d"])?, b"")).collect::<Result<_>>()?;
        ensure!(made == ["d", "d.1", "d.2"], "{protocol}: {made:?}");
        succeed(send(&["put", "d.1/log"])?, b"a line\n")?;
        succeed(send(&["put", "d.1/log"])?, b"another\n").with_context(|| format!("{protocol}: a second time"))?;
        let began = Instant::now();
        succeed(send(&["put", "--flattened", "d.1/vmcore"])?, &stream)?;
        println!("{protocol}: {:.0} MB/s", 25.0 / began.elapsed().as_secs_f64());
        let folder = server.far.join(dir).join("d.1");
        let vmcore = if protocol == "sftp" { "vmcore" } else { "vmcore.flat" };
        ensure!(names(&folder)? == ["log", vmcore], "{protocol}: {:?}", names(&folder)?);
        ensure!(fs::read(folder.join("log"))? == b"another\n", "{protocol}: the log is another");
        let wanted = if protocol == "sftp" { &dump } else { &stream };
        ensure!(&fs::read(folder.join(vmcore))? == wanted, "{protocol}: the dump is another");
        let report: Value = serde_json::from_slice(&fs::read(server.file("report"))?)?;
        let (bytes, sum) = sha256(&folder.join(vmcore))?;
        ensure!(
            report["bytes"] == bytes && report["sha256"] == sum && report["name"] == vmcore,
            "{protocol}: {report}"
        );
        for path in [folder.clone(), folder.join(vmcore)] {
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path)?) & 0o077;
            ensure!(mode == 0, "{protocol}: others can look into {}", path.display());
        }
    }
    Ok(())
}

#[test]
fn keys_of_every_kind_open_and_others_do_not() -> Result<()> {
    let server = serve("keys", Speaks::Ssh)?;
    for protocol in ["ssh", "sftp"] {
        let check = |key: &str| -> Result<Command> {
            let mut command = command(&server, protocol, "", &["--identity", &server.file(key)])?;
            command.arg("check");
            Ok(command)
        };
        for key in ["ed25519", "ecdsa", "rsa"] {
            succeed(check(key)?, b"").with_context(|| format!("{protocol}: the key {key}"))?;
        }
        fail(check("stranger")?, b"", 1, &["does not let root in", "authorized_keys", "kdumpctl propagate"])?;
        fail(check("locked")?, b"", 1, &["has a passphrase", "nobody is there to type it"])?;
        fail(check("ed25519.pub")?, b"", 1, &["without .pub"])?;
    }
    Ok(())
}

#[test]
fn a_host_that_is_unknown_or_has_changed_is_refused_with_its_fingerprints() -> Result<()> {
    let server = serve("hosts", Speaks::Ssh)?;
    let fingerprint = |key: &str| -> Result<String> {
        let mut keygen = Command::new("ssh-keygen");
        let output = keygen.args(["-lf", &server.file(key)]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split(' ').nth(1).map(str::to_owned).context("no fingerprint")
    };
    let (shown, known) = (fingerprint("host.pub")?, fingerprint("stranger.pub")?);
    fs::write(server.file("nobody"), "# nobody\n")?;
    for protocol in ["ssh", "sftp"] {
        let check = |with: &[&str]| -> Result<Command> {
            let mut command = command(&server, protocol, "", with)?;
            command.arg("check");
            Ok(command)
        };
        fail(check(&["--known-hosts", &server.file("nobody")])?, b"", 1, &["is unknown", &shown, "ssh-keyscan"])?;
        let changed = server.file("changed");
        fail(check(&["--known-hosts", &changed])?, b"", 1, &["has changed", &shown, &known, "ssh-keygen -R"])?;
        let identity = server.file("ed25519");
        succeed(check(&["--any-host", "--identity", &identity])?, b"")?;
        // Known by another name, hashed as OpenSSH does it.
        let named = server.file("named");
        let key = fs::read_to_string(server.file("host.pub"))?;
        fs::write(&named, format!("[nas.example]:{} {key}", server.port))?;
        let hashed = Command::new("ssh-keygen")
            .args(["-H", "-f", &named])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        ensure!(hashed.success() && !fs::read_to_string(&named)?.contains("nas"), "the names are not hashed");
        succeed(check(&["--host-name", "nas.example", "--known-hosts", &named])?, b"")?;
    }
    Ok(())
}

#[test]
fn passwords_and_certificates_are_looked_at() -> Result<()> {
    let server = serve("ftp-login", Speaks::Ftp)?;
    let check = |server: &FarServer, protocol: &str, with: &[&str]| -> Result<Command> {
        let mut command = command(server, protocol, "", with)?;
        command.arg("check");
        Ok(command)
    };
    fail(check(&server, "ftp", &["--password-file", &server.file("wrong")])?, b"", 1, &["does not let ftp in", "530"])?;
    fail(check(&server, "ftps", &["--ca-file", "/etc/passwd"])?, b"", 1, &["certificates"])?;
    let server = serve("ftps-login", Speaks::Ftps)?;
    succeed(check(&server, "ftps", &[])?, b"")?;
    fail(check(&server, "ftps", &["--host-name", "other.test"])?, b"", 1, &["other.test", "mismatch"])?;
    fail(
        check(&server, "ftps", &["--password-file", &server.file("wrong")])?,
        b"",
        1,
        &["does not let ftp in", "530"],
    )?;
    fail(check(&server, "ftp", &[])?, b"", 1, &["530"])
}

#[test]
fn a_server_that_is_not_there_is_told_from_one_that_refuses() -> Result<()> {
    for (protocol, speaks) in PROTOCOLS {
        let mut server = serve(&format!("absent-{protocol}"), speaks)?;
        server.kill();
        let mut command = command(&server, protocol, "", &[])?;
        command.arg("check");
        fail(command, b"", 2, &["cannot connect to 127.0.0.1", "Connection refused"])?;
    }
    Ok(())
}

/// Sends a dump, and has something happen to the server when some of it has arrived; how kdump-send ended, and what is
/// there then.
fn in_mid_stream(
    name: &str,
    protocol: &str,
    speaks: Speaks,
    happens: fn(&mut FarServer),
) -> Result<(Output, Vec<String>)> {
    let mut server = serve(&format!("{name}-{protocol}"), speaks)?;
    let mut mkdir = command(&server, protocol, "", &[])?;
    mkdir.args(["mkdir", "d"]);
    succeed(mkdir, b"")?;
    let mut put = command(&server, protocol, "", &["--timeout", PATIENCE])?;
    put.args(["put", "--flattened", "d/vmcore"]);
    let mut child = start(put)?;
    let mut pipe = child.stdin.take().context("no pipe")?;
    let (_, stream) = dump(24);
    let (half, rest) = stream.split_at(stream.len() / 2);
    pipe.write_all(half)?;
    let folder = server.far.join("d");
    let began = Instant::now();
    let arrived = || {
        fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .any(|file| file.metadata().is_ok_and(|file| file.len() > 1 << 20))
    };
    while !arrived() {
        ensure!(began.elapsed() < Duration::from_secs(20), "nothing arrives");
        std::thread::sleep(Duration::from_millis(20));
    }
    happens(&mut server);
    let began = Instant::now();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || pipe.write_all(rest));
        child.wait_with_output()
    })?;
    // Twice: a connection that stands still while a file is ended is waited for a little longer.
    ensure!(began.elapsed() < Duration::from_secs(40), "it took {:.0} s to give up", began.elapsed().as_secs_f64());
    let names = names(&folder)?;
    Ok((output, names))
}

#[test]
fn a_server_that_dies_in_mid_stream_leaves_no_final_name() -> Result<()> {
    for (protocol, speaks) in PROTOCOLS {
        let (output, names) = in_mid_stream("killed", protocol, speaks, FarServer::kill)?;
        told(&output, 1, &["cannot deliver d/vmcore", "bytes had been sent"]).context(protocol)?;
        ensure!(names.iter().all(|name| name.ends_with("-incomplete")), "{protocol}: {names:?}");
    }
    Ok(())
}

#[test]
fn a_line_that_goes_dead_in_mid_stream_is_noticed() -> Result<()> {
    for (protocol, speaks) in PROTOCOLS {
        let (output, names) = in_mid_stream("frozen", protocol, speaks, |server| server.freeze())?;
        told(&output, 1, &["cannot deliver d/vmcore", "bytes had been sent", "accepted nothing for"])
            .context(protocol)?;
        ensure!(names.iter().all(|name| name.ends_with("-incomplete")), "{protocol}: {names:?}");
    }
    Ok(())
}

#[test]
fn a_full_or_read_only_disk_is_told_in_the_server_s_words() -> Result<()> {
    let (_, stream) = dump(24);
    for (protocol, speaks) in PROTOCOLS {
        let server = serve(&format!("full-{protocol}"), speaks)?;
        let send = |dir: &str, words: &[&str]| -> Result<Command> {
            let mut command = command(&server, protocol, dir, &["--timeout", "20"])?;
            command.args(words);
            Ok(command)
        };
        succeed(send("full", &["mkdir", "d"])?, b"")?;
        let words = match protocol {
            "ssh" => "No space left on device",
            "sftp" => "disk may be full",
            _ => "Failure writing",
        };
        fail(send("full", &["put", "--flattened", "d/vmcore"])?, &stream, 1, &["bytes had been sent", words])
            .with_context(|| format!("{protocol}: a full disk"))?;
        fail(send("readonly", &["mkdir", "d"])?, b"", 1, &["cannot make the directory"])
            .with_context(|| format!("{protocol}: a disk that is read-only"))?;
    }
    Ok(())
}

#[test]
fn a_stream_that_is_cut_short_gets_no_final_name() -> Result<()> {
    let (_, stream) = dump(2);
    for (protocol, speaks) in PROTOCOLS {
        let server = serve(&format!("cut-{protocol}"), speaks)?;
        let send = |words: &[&str]| -> Result<Command> {
            let mut command = command(&server, protocol, "", &[])?;
            command.args(words);
            Ok(command)
        };
        succeed(send(&["mkdir", "d"])?, b"")?;
        let put = send(&["put", "--flattened", "d/vmcore"])?;
        fail(put, &stream[..stream.len() - 100], 1, &["the stream ends early"]).context(protocol)?;
        let names = names(&server.far.join("d"))?;
        ensure!(names.iter().all(|name| name.ends_with("-incomplete")), "{protocol}: {names:?}");
    }
    Ok(())
}

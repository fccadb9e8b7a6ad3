//! A LUKS volume.
//!
//! In: the volume's UUID and where its key comes from: a key file of the host, copied into the image, or the kernel that
//! has crashed, which hands it over in reserved memory. At boot: nobody is there to type, so nothing is ever asked.
//!
//! May surprise: the kernel takes a key over (`CONFIG_CRASH_DM_CRYPT`, since Linux 6.16) when the capture kernel is
//! loaded, from root's keyring, where it is of type `logon`; after the crash the same key is of type `user`. An image with
//! a key file in it is as secret as the key.

use super::{STAGES, load, module, run, tool};
use crate::device::DeviceSpec;
use crate::host::{Contribution, FileNeed, Host};
use crate::machine::{Machine, MountPlan};
use crate::{Hook, Moment, Next, Stage};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the kernel's keys are asked for, before and after the crash.
const CONFIGFS: &str = "/sys/kernel/config";
const RESTORE: &str = "/sys/kernel/config/crash_dm_crypt_keys/restore";

/// Where keys are in the image.
const KEYS: &str = "/etc/kdump/keys";

/// What cryptsetup and dm-crypt may ask the kernel for; the cipher is known only to the volume.
const CIPHERS: [&str; 12] = [
    "algif_skcipher",
    "algif_hash",
    "crypto-xts",
    "crypto-aes",
    "crypto-ecb",
    "crypto-cbc",
    "crypto-essiv",
    "crypto-authenc",
    "crypto-sha1",
    "crypto-sha256",
    "crypto-sha512",
    "crypto-crc32c",
];

/// Where the key comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Key {
    /// A key file of the host.
    File {
        /// Where it is on the host.
        path: PathBuf,
        /// Where the key begins in it.
        #[serde(default)]
        offset: u64,
        /// How many bytes it has, if not all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    },
    /// The keyring of the kernel that has crashed, by the key's description.
    Kernel(String),
}

/// A LUKS volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crypt {
    /// The name of what is inside, below `/dev/mapper`.
    pub name: String,
    /// The volume.
    pub device: DeviceSpec,
    /// Its key.
    pub key: Key,
    /// The devices that it is made of, as the host named them; what puts one of them together may have failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<String>,
}

impl Crypt {
    fn key_file(&self) -> String {
        format!("{KEYS}/{}", self.name.replace('/', "!"))
    }
}

impl Hook for Crypt {
    fn name(&self) -> &'static str {
        "crypt"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        let reason = format!("the target is on the encrypted volume {}", self.name);
        let mut modules = vec![module("dm_mod", &reason, true), module("dm_crypt", &reason, true)];
        modules.extend(CIPHERS.iter().map(|cipher| module(cipher, &reason, false)));
        let mut files = Vec::new();
        if let Key::File { path, .. } = &self.key {
            let bytes = host.read(path).with_context(|| format!("cannot take the key of {} along", self.name))?;
            files.push(FileNeed {
                path: self.key_file().into(),
                bytes,
                secret: true,
                reason: format!("{}, the key of {}", path.display(), self.name),
            });
        }
        Ok(Contribution { modules, programs: vec![tool("cryptsetup", &reason)], files, ..Contribution::default() })
    }

    fn makes(&self) -> Option<String> {
        Some(format!("/dev/mapper/{}", self.name))
    }

    fn stands_on(&self) -> &[String] {
        &self.on
    }

    fn stages(&self) -> &'static [Stage] {
        STAGES
    }

    fn act(&self, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        let limit = moment.limit;
        let what = || format!("cannot open the encrypted volume {}", self.name);
        for module in ["dm_crypt", "algif_skcipher"] {
            load(machine, module);
        }
        let device = machine.wait_for_device(&self.device, limit).with_context(what)?;
        let device = device.to_string_lossy();
        let mut argv: Vec<String> = ["cryptsetup", "open", "--type", "luks", "--batch-mode"].map(str::to_owned).into();
        match &self.key {
            Key::File { offset, size, .. } => {
                argv.extend(["--key-file".to_owned(), self.key_file()]);
                argv.extend((*offset > 0).then(|| format!("--keyfile-offset={offset}")));
                argv.extend(size.map(|size| format!("--keyfile-size={size}")));
            }
            Key::Kernel(description) => {
                restore(machine).with_context(what)?;
                argv.push(format!("--volume-key-keyring=%user:{description}"));
            }
        }
        argv.extend([device.into_owned(), self.name.clone()]);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        run(machine, &argv).with_context(what)?;
        let node = DeviceSpec::from(Path::new("/dev/mapper").join(&self.name).as_path());
        machine.wait_for_device(&node, limit).with_context(what)?;
        Ok(Next::GoOn)
    }
}

/// Has the kernel put the keys of the one that crashed into the keyring.
fn restore(machine: &mut dyn Machine) -> anyhow::Result<()> {
    load(machine, "configfs");
    let plan =
        MountPlan { source: "configfs".into(), point: CONFIGFS.into(), fstype: "configfs".into(), options: Vec::new() };
    // It may be mounted already; if it cannot be, the write tells.
    if let Err(error) = machine.mount(&plan) {
        log::debug!("{error:#}");
    }
    machine
        .tell_kernel(Path::new(RESTORE), "yes")
        .context("this kernel hands no keys over; put a key file into /etc/crypttab")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};
    use crate::machine::Ended;
    use std::time::Duration;

    fn volume(key: Key) -> Crypt {
        Crypt { name: "secret".into(), device: DeviceSpec::Uuid("ab".into()), key, on: Vec::new() }
    }

    fn file() -> Key {
        Key::File { path: "/root/key".into(), offset: 0, size: Some(64) }
    }

    fn opened(key: Key) -> Vec<String> {
        let mut machine = FakeMachine::default();
        machine.devices.insert("UUID=ab".into(), "/dev/vdb".into());
        machine.devices.insert("/dev/mapper/secret".into(), "/dev/dm-0".into());
        volume(key).act(&Moment::at(Stage::Devices, Duration::from_secs(9)), &mut machine).unwrap();
        machine.journal.split_off(2)
    }

    #[test]
    fn a_volume_is_opened_by_the_key_in_the_image() {
        assert_eq!(
            opened(file()),
            [
                "wait UUID=ab 9s",
                "run DM_DISABLE_UDEV=1 MDADM_NO_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1 cryptsetup open --type luks \
                 --batch-mode --key-file /etc/kdump/keys/secret --keyfile-size=64 /dev/vdb secret",
                "wait /dev/mapper/secret 9s"
            ]
        );
    }

    #[test]
    fn a_volume_is_opened_by_the_key_that_the_kernel_hands_over() {
        assert_eq!(
            opened(Key::Kernel("kdump-cryptsetup:vk-ab".into())),
            [
                "wait UUID=ab 9s",
                "load configfs",
                "mount configfs /sys/kernel/config configfs ",
                "write yes to /sys/kernel/config/crash_dm_crypt_keys/restore",
                "run DM_DISABLE_UDEV=1 MDADM_NO_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1 cryptsetup open --type luks \
                 --batch-mode --volume-key-keyring=%user:kdump-cryptsetup:vk-ab /dev/vdb secret",
                "wait /dev/mapper/secret 9s"
            ]
        );
    }

    #[test]
    fn a_key_that_does_not_fit_is_told_in_the_words_of_cryptsetup() {
        let mut machine = FakeMachine::default();
        machine.devices.insert("UUID=ab".into(), "/dev/vdb".into());
        machine.programs.insert("cryptsetup".into(), Ended { code: 2, said: "No key available".into() });
        let error = volume(file()).act(&Moment::at(Stage::Devices, Duration::from_secs(9)), &mut machine).unwrap_err();
        let expected = "cannot open the encrypted volume secret: cryptsetup failed: exit code 2 (No key available)";
        assert_eq!(format!("{error:#}"), expected);
    }

    #[test]
    fn the_key_goes_into_the_image_as_a_secret_or_the_image_is_refused() {
        let mut host = FakeHost::default();
        assert!(volume(file()).gather(&host).unwrap_err().to_string().contains("the key of secret"));
        host.files.insert("/root/key".into(), b"k".to_vec());
        let contribution = volume(file()).gather(&host).unwrap();
        assert_eq!((contribution.files[0].bytes.as_slice(), contribution.files[0].secret), (b"k".as_slice(), true));
        assert!(volume(Key::Kernel("k".into())).gather(&host).unwrap().files.is_empty());
    }
}

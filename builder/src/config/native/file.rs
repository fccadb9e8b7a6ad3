//! The text of `kdump.toml` as TOML has it, each value with its place.

use kdump_init::config::Measure;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use toml::Spanned;

pub(super) type Text = Option<Spanned<String>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) path: Text,
    pub(super) sshkey: Text,
    pub(super) raw_force: Option<Spanned<bool>>,
    pub(super) collector: Text,
    pub(super) log_only: Option<Spanned<bool>>,
    pub(super) failure_action: Text,
    pub(super) final_action: Text,
    pub(super) shell_first: Option<Spanned<bool>>,
    pub(super) shell_on_failure: Option<Spanned<bool>>,
    pub(super) fail_command: Text,
    pub(super) rebuild: Text,
    pub(super) enabled: Option<Spanned<bool>>,
    pub(super) auto_reset_crashkernel: Option<Spanned<bool>>,
    pub(super) log_level: Option<Spanned<u8>>,
    pub(super) tell_test_result: Option<Spanned<bool>>,
    pub(super) target: Vec<Spanned<Table>>,
    pub(super) room: Room,
    pub(super) limits: BTreeMap<String, Spanned<u64>>,
    pub(super) programs: Programs,
    pub(super) image: Image,
    pub(super) fence: Option<Fence>,
    pub(super) notify: Notify,
    pub(super) kernel: Kernel,
    pub(super) remote: RemoteTable,
}

/// One target: which fields it may have depends on its kind.
pub(super) type Table = BTreeMap<Spanned<String>, Spanned<Value>>;

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Text(String),
    List(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Room {
    pub(super) keep: Option<Spanned<NonZeroU32>>,
    pub(super) free: Option<Spanned<u32>>,
    pub(super) when_short: Option<Spanned<Vec<Measure>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Programs {
    pub(super) pre: Text,
    pub(super) post: Text,
    pub(super) emergency: Text,
    pub(super) before: Option<Spanned<Vec<String>>>,
    pub(super) after: Option<Spanned<Vec<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Image {
    pub(super) modules: Vec<Spanned<String>>,
    pub(super) files: Vec<Spanned<String>>,
    pub(super) forbid: Vec<Spanned<String>>,
    pub(super) drivers: Vec<Spanned<String>>,
    pub(super) first: Vec<Spanned<String>>,
    pub(super) omit: Vec<Spanned<String>>,
    pub(super) filesystems: Vec<Spanned<String>>,
    pub(super) install: Vec<Spanned<String>>,
    pub(super) optional: Vec<Spanned<String>>,
    pub(super) programs: Vec<Spanned<String>>,
    pub(super) include: Vec<Spanned<[String; 2]>>,
    pub(super) firmware: Vec<Spanned<String>>,
    pub(super) allow_missing_firmware: Option<Spanned<bool>>,
    pub(super) compress: Text,
    pub(super) hostonly: Option<Spanned<bool>>,
    pub(super) watchdog: Option<Spanned<bool>>,
    pub(super) integrity: Option<Spanned<bool>>,
    pub(super) modsign: Option<Spanned<bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fence {
    pub(super) nodes: Spanned<Vec<String>>,
    pub(super) args: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Notify {
    pub(super) webhook: Text,
    pub(super) authorities: Text,
    pub(super) mail: Option<MailTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MailTable {
    pub(super) server: Spanned<String>,
    pub(super) to: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) cc: Vec<Spanned<String>>,
    pub(super) from: Text,
    pub(super) credentials: Text,
    #[serde(default)]
    pub(super) clear: bool,
    #[serde(default)]
    pub(super) starttls: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Kernel {
    pub(super) release: Text,
    pub(super) command_line: Text,
    pub(super) remove: Text,
    pub(super) append: Text,
    pub(super) network: Text,
    pub(super) file: Text,
    pub(super) image: Text,
    pub(super) boot_dir: Text,
    pub(super) name: Text,
    pub(super) suffix: Text,
    pub(super) syscall: Text,
    pub(super) crashkernel: Text,
    pub(super) update_bootloader: Option<Spanned<bool>>,
    pub(super) auto_resize: Option<Spanned<bool>>,
    pub(super) panic_on_oops: Option<Spanned<bool>>,
    pub(super) sysctl: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RemoteTable {
    pub(super) identities: Text,
    pub(super) host_key: Text,
    pub(super) wait: Option<Spanned<u64>>,
}

//! The targets of `kdump.toml`: which fields each kind has, and what they come to.

use super::file::{Table, Value};
use super::*;
use kdump_hooks::cifs::Cifs;
use kdump_hooks::filesystem::Filesystem;
use kdump_hooks::nfs::Nfs;
use kdump_hooks::remote::{Protocol, Remote};

/// The kinds of targets, what each must have, and what it may have.
const KINDS: [(&str, &[&str], &[&str]); 7] = [
    ("filesystem", &["type", "device"], &["path", "options"]),
    ("virtiofs", &["tag"], &["path"]),
    ("raw", &["device"], &[]),
    ("nfs", &["export"], &["path", "options"]),
    ("cifs", &["share"], &["path", "options", "credentials"]),
    ("remote", &["url"], &["password_file"]),
    ("pstore", &[], &[]),
];

impl Reader<'_> {
    pub(super) fn target(&self, table: &Spanned<Table>) -> anyhow::Result<Given<Wanted>> {
        let origin = self.origin(table);
        let fields = Fields { reader: self, table: table.get_ref(), origin: &origin };
        let kind = fields.text("kind")?;
        let kinds = KINDS.map(|(kind, ..)| kind).join(", ");
        let Some(kind) = kind else { bail!("{origin}: the target has no `kind`; write one of {kinds}") };
        let Some((_, must, may)) = KINDS.iter().find(|(known, ..)| *known == kind.value) else {
            bail!("{}: there is no kind of target `{}`; write one of {kinds}", kind.origin, kind.value);
        };
        let named = |name: &str| name == "kind" || must.contains(&name) || may.contains(&name);
        if let Some(name) = table.get_ref().keys().find(|name| !named(name.get_ref())) {
            let all = [*must, *may].concat().join(", ");
            bail!("{}: a target of kind {} has no `{}`; it has {all}", self.origin(name), kind.value, name.get_ref());
        }
        let need = |name: &str| {
            fields.text(name)?.with_context(|| format!("{origin}: a target of kind {} needs `{name}`", kind.value))
        };
        let options = fields.list("options")?;
        let mut path = fields.text("path")?.map(|path| parsed("path", &path, directory)).transpose()?;
        let line = match kind.value.as_str() {
            "filesystem" => {
                let fstype = parsed("type", &need("type")?, |fstype| match Filesystem::is_known(fstype) {
                    true => Ok(fstype.to_owned()),
                    false => bail!("{fstype} is not a file system that a dump can go to"),
                })?;
                let device = need("device")?;
                TargetLine::Filesystem { fstype, device: parsed("device", &device, from_str)? }
            }
            "virtiofs" => TargetLine::Virtiofs(parsed("tag", &need("tag")?, check_tag)?),
            "pstore" => TargetLine::Pstore,
            "raw" => TargetLine::Raw(parsed("device", &need("device")?, raw_device)?),
            "nfs" => TargetLine::Nfs(parsed("export", &need("export")?, from_str::<Nfs>)?),
            "remote" => {
                let mut far = parsed("url", &need("url")?, remote)?;
                path = Some(far.path.clone());
                if let Some(file) = fields.text("password_file")? {
                    let has_one = matches!(far.protocol, Protocol::Ftp | Protocol::Ftps) && far.user.is_some();
                    if !has_one || far.login.password.0.is_some() {
                        bail!("{}: password_file is for ftp and ftps, with a user and no password in url", file.origin);
                    }
                    far.login.password_file = Some(parsed("password_file", &file, program)?);
                }
                TargetLine::Remote(far)
            }
            _ => {
                let share = parsed("share", &need("share")?, from_str::<Cifs>)?;
                let credentials = fields.text("credentials")?;
                let credentials = credentials.map(|file| parsed("credentials", &file, program)).transpose()?;
                TargetLine::Cifs(Cifs { credentials, ..share })
            }
        };
        if let Some((_, origin)) = fields.field("options") {
            let options = options.clone();
            let can = match &line {
                TargetLine::Nfs(nfs) => Nfs { options, ..nfs.clone() }.check(),
                TargetLine::Cifs(cifs) => Cifs { options, ..cifs.clone() }.check(),
                _ => Ok(()),
            };
            can.with_context(|| format!("{origin}: options"))?;
        }
        Ok(Given { value: Wanted { line, path, options }, origin: kind.origin })
    }
}

/// A machine that is sent to.
fn remote(url: &str) -> anyhow::Result<Remote> {
    match Savedir::parse(url)?.target {
        Some(TargetLine::Remote(remote)) => Ok(remote),
        _ => bail!("write an address such as sftp://dump@nas/srv/crash, by ssh, sftp, ftp or ftps"),
    }
}

/// The fields of one target.
struct Fields<'a> {
    reader: &'a Reader<'a>,
    table: &'a Table,
    origin: &'a Origin,
}

impl Fields<'_> {
    fn field(&self, name: &str) -> Option<(&Value, Origin)> {
        let (_, value) = self.table.iter().find(|(key, _)| key.get_ref() == name)?;
        let origin = self.reader.origin(value);
        Some((value.get_ref(), origin))
    }

    fn text(&self, name: &str) -> anyhow::Result<Option<Given<String>>> {
        match self.field(name) {
            None => Ok(None),
            Some((Value::Text(text), origin)) if !text.trim().is_empty() => {
                Ok(Some(Given { value: text.clone(), origin }))
            }
            Some((_, origin)) => bail!("{origin}: write {name} = \"…\", or take the line out"),
        }
    }

    fn list(&self, name: &str) -> anyhow::Result<Vec<String>> {
        match self.field(name) {
            None => Ok(Vec::new()),
            Some((Value::List(list), origin)) => match list.iter().find(|word| !is_option(word)) {
                Some(word) => bail!("{origin}: {name}: `{word}` is not one option; write each for itself"),
                None => Ok(list.clone()),
            },
            Some((Value::Text(_), origin)) => {
                bail!("{origin}: write {name} = [\"…\", \"…\"] (target of {})", self.origin)
            }
        }
    }
}

/// One mount option.
fn is_option(word: &str) -> bool {
    !word.is_empty() && !word.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control())
}

fn parsed<T>(name: &str, given: &Given<String>, make: impl FnOnce(&str) -> anyhow::Result<T>) -> anyhow::Result<T> {
    make(&given.value).with_context(|| format!("{}: {name}", given.origin))
}

//! modules-load.d: modules that are loaded although no device asks for them.

use super::conf_files::conf_files;
use crate::cmdline::Cmdline;
use anyhow::Context;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// A module that is to be loaded, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name, or an alias.
    pub request: String,
    /// The file, or the option of the kernel command line.
    pub origin: String,
}

/// The modules named by the modules-load.d directories below `root`, by `/etc/modules`, and by `modules_load=` and
/// `rd.modules_load=`, each once.
///
/// # Errors
/// A directory or file is there but cannot be read.
pub fn load_list(root: &Path, cmdline: &Cmdline) -> anyhow::Result<Vec<Listed>> {
    let mut list: Vec<Listed> = Vec::new();
    let mut add = |request: &str, origin: &str| {
        if !list.iter().any(|listed| listed.request == request) {
            list.push(Listed { request: request.to_owned(), origin: origin.to_owned() });
        }
    };
    for path in conf_files(root, "modules-load.d")?.into_iter().chain([root.join("etc/modules")]) {
        let text = match fs::read(&path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            // Without the file, or with a link to nothing, nothing is said.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            // Debian's /etc/modules once took parameters behind the name.
            if let Some(request) = line.split_whitespace().next() {
                add(request, &path.display().to_string());
            }
        }
    }
    for option in ["modules_load", "rd.modules_load"] {
        cmdline.list(option).for_each(|request| add(request, &format!("{option}= on the kernel command line")));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_read_a_stronger_file_shadows_and_each_module_counts_once() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("etc/modules-load.d/b.conf", "one\n# comment\n; too\n  two  \n"),
            ("usr/lib/modules-load.d/b.conf", "shadowed"),
            ("run/modules-load.d/a.conf", "three\none"),
            ("usr/lib/modules-load.d/.hidden.conf", "hidden"),
            ("etc/modules", "four x=1\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let list = load_list(root.path(), &Cmdline::parse("modules-load=five,one rd.modules_load=six")).unwrap();
        let requests: Vec<_> = list.iter().map(|listed| listed.request.as_str()).collect();
        assert_eq!(requests, ["three", "one", "two", "four", "five", "six"]);
        assert!(list[0].origin.ends_with("run/modules-load.d/a.conf"), "{}", list[0].origin);
    }
}

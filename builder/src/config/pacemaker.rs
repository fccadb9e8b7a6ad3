//! The fence of a pacemaker cluster: who is told of a crash if kdump.conf names nobody.
//!
//! In: pacemaker's own copy of the cluster's configuration (`cib.xml`), and `/etc/sysconfig/fence_kdump`. Out: what
//! `fence_kdump_nodes` and `fence_kdump_args` would say. RHEL asks pcs for the same.
//! May surprise: only a cluster with a resource of the type fence_kdump waits for the messages; any other is left alone.

use super::assignments::assignments_of;
use super::fence::Options;
use super::files::read_text;
use super::{Complaints, Config, Dialect, Given, Origin};
use anyhow::Context;
use roxmltree::Document;
use std::path::Path;

/// Where pacemaker keeps the cluster's configuration, below the root.
const CIB: &str = "var/lib/pacemaker/cib/cib.xml";

/// Where RHEL has the options of fence_kdump_send for pacemaker, below the root.
const OPTIONS: &str = "etc/sysconfig/fence_kdump";

/// Asks the cluster for what the configuration does not say.
///
/// # Errors
/// A file cannot be read.
pub(super) fn follow(config: &mut Config, root: &Path, complaints: &mut Complaints) -> anyhow::Result<()> {
    let file = root.join(CIB);
    if config.dump.fence_nodes.is_some() {
        return Ok(());
    }
    let Some(text) = read_text(&file)? else { return Ok(()) };
    let place = Origin::file(&file);
    let nodes = match nodes(&text) {
        Ok(Some(nodes)) => nodes,
        Ok(None) => return Ok(()),
        Err(problem) => {
            complaints.warn(&place, format!("{problem:#}; if the cluster has a fence_kdump resource, name its nodes"));
            return Ok(());
        }
    };
    let hostname = read_text(&root.join("proc/sys/kernel/hostname")).ok().flatten().unwrap_or_default();
    let others: Vec<String> = nodes.into_iter().filter(|node| !is_same(node, hostname.trim())).collect();
    if config.dialect != Dialect::Rhel {
        complaints.warn(
            &place,
            format!("the cluster fences with fence_kdump, and nobody is told of a crash; name {}", others.join(" ")),
        );
        return Ok(());
    }
    if others.is_empty() {
        complaints.warn(&place, "the cluster fences with fence_kdump, but names no other node that could be told");
        return Ok(());
    }
    config.sources.push(file);
    config.dump.fence_nodes = Some(Given::at(others, &place));
    // As RHEL has it, fence_kdump_args belongs to fence_kdump_nodes.
    config.dump.fence_args = options(config, root, complaints)?;
    Ok(())
}

/// Whether two names are those of one machine.
fn is_same(node: &str, hostname: &str) -> bool {
    !hostname.is_empty() && (node == hostname || hostname.split('.').next() == Some(node))
}

/// All nodes of a cluster that has a resource of the type fence_kdump.
///
/// # Errors
/// It is no cluster's configuration.
pub fn nodes(cib: &str) -> anyhow::Result<Option<Vec<String>>> {
    let document = Document::parse(cib).context("this is not the configuration of a cluster")?;
    let elements = || document.descendants().filter(|node| node.is_element());
    let is_fence = |tag: &str| tag == "primitive" || tag == "template";
    if !elements().any(|it| is_fence(it.tag_name().name()) && it.attribute("type") == Some("fence_kdump")) {
        return Ok(None);
    }
    let nodes = elements().filter(|node| node.has_tag_name("nodes")).flat_map(|nodes| nodes.children());
    let names = nodes.filter(|node| node.has_tag_name("node")).filter_map(|node| node.attribute("uname"));
    Ok(Some(names.map(str::to_owned).collect()))
}

/// What `FENCE_KDUMP_OPTS` says.
fn options(config: &mut Config, root: &Path, complaints: &mut Complaints) -> anyhow::Result<Option<Given<Options>>> {
    let file = root.join(OPTIONS);
    let Some(text) = read_text(&file)? else { return Ok(None) };
    let found = match assignments_of(&text, &file) {
        Ok(found) => found.into_iter().rfind(|(_, name, _)| name == "FENCE_KDUMP_OPTS"),
        Err(problem) => {
            complaints.stop(problem);
            None
        }
    };
    config.sources.push(file.clone());
    Ok(found.and_then(|(line, name, value)| complaints.take(&name, &Origin::Line(file, line), Options::parse(&value))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;
    use proptest::prelude::*;

    /// A cluster of three nodes, and its fence.
    fn cib(fence: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<cib epoch=\"7\"><configuration><crm_config/>\n<nodes>\
             <node id=\"1\" uname=\"own\"/><node id=\"2\" uname=\"192.0.2.2\"><instance_attributes id=\"n\"/></node>\
             <node id=\"3\" uname=\"192.0.2.3\"/></nodes>\n<resources><group id=\"g\">{fence}</group></resources>\
             </configuration><status/></cib>\n"
        )
    }

    const FENCE: &str = "<primitive id=\"kdump\" class=\"stonith\" type=\"fence_kdump\"/>";

    fn machine(files: &[(&str, &str)]) -> (Config, Complaints) {
        let (root, _) = crate::fake::tree(&[&[("proc/sys/kernel/hostname", "own.example\n")], files].concat()).unwrap();
        let mut complaints = Complaints::default();
        let config = Config::examine(&Files::new(root.path(), None, None), &mut complaints).unwrap();
        (config, complaints)
    }

    #[test]
    fn the_other_nodes_of_a_cluster_that_fences_with_kdump_are_told() {
        let options = (OPTIONS, "# for pacemaker\nFENCE_KDUMP_OPTS=\"-p 8452 -i 5\"\n");
        let (config, complaints) = machine(&[("etc/kdump.conf", ""), (CIB, &cib(FENCE)), options]);
        assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{complaints:?}");
        let nodes = config.dump.fence_nodes.unwrap();
        assert_eq!(nodes.value, ["192.0.2.2", "192.0.2.3"]);
        assert!(nodes.origin.to_string().ends_with("cib.xml:1"), "{}", nodes.origin);
        let args = config.dump.fence_args.unwrap();
        assert_eq!((args.value.port, args.value.interval), (8452, 5));
        assert!(args.origin.to_string().ends_with("fence_kdump:2"), "{}", args.origin);
        assert_eq!(config.sources.len(), 3);
    }

    #[test]
    fn kdump_conf_wins_and_a_cluster_without_such_a_fence_tells_nobody() {
        let conf = "fence_kdump_nodes 192.0.2.9\nfence_kdump_args -i 3\n";
        let (config, _) = machine(&[("etc/kdump.conf", conf), (CIB, &cib(FENCE)), (OPTIONS, "FENCE_KDUMP_OPTS=-z\n")]);
        assert_eq!(config.dump.fence_nodes.unwrap().value, ["192.0.2.9"]);
        assert_eq!(config.dump.fence_args.unwrap().value.interval, 3);
        let other = "<primitive id=\"f\" class=\"stonith\" type=\"fence_ipmilan\"/>";
        let (config, complaints) = machine(&[("etc/kdump.conf", ""), (CIB, &cib(other))]);
        assert!(config.dump.fence_nodes.is_none() && complaints.warnings.is_empty(), "{complaints:?}");
    }

    #[test]
    fn what_cannot_be_followed_is_named_with_its_file() {
        let (config, complaints) = machine(&[("etc/kdump.conf", ""), (CIB, "<cib><nodes>")]);
        assert!(config.dump.fence_nodes.is_none(), "{config:?}");
        let [warning] = &complaints.warnings[..] else { panic!("{complaints:?}") };
        assert!(warning.contains("cib.xml:1: this is not the configuration of a cluster"), "{warning}");
        let bad = (OPTIONS, "\nFENCE_KDUMP_OPTS=\"-z 1\"\n");
        let (_, complaints) = machine(&[("etc/kdump.conf", ""), (CIB, &cib(FENCE)), bad]);
        assert!(complaints.errors()[0].contains("fence_kdump:2: FENCE_KDUMP_OPTS: `-z` is not"), "{complaints:?}");
        let native = ("etc/kdump/kdump.toml", "path = \"/x\"\n");
        let (config, complaints) = machine(&[native, (CIB, &cib(FENCE))]);
        assert!(config.dump.fence_nodes.is_none(), "{config:?}");
        assert!(complaints.warnings[0].ends_with("name 192.0.2.2 192.0.2.3"), "{complaints:?}");
    }

    proptest! {
        #[test]
        fn any_text_ends_in_a_result(text in "(<|>|/|cib|nodes|node|primitive| |uname=\"a\"|type=\"fence_kdump\"|&|x){0,30}") {
            let _ = nodes(&text);
        }
    }
}

//! A disk of another machine, by NVMe over TCP.
//!
//! In: the controller that the host is connected to, as its sysfs shows it. *Into the image*: modules, no program. *At
//! boot*: once the network is up, one line to `/dev/nvme-fabrics` has the kernel connect (`drivers/nvme/host/fabrics.c`,
//! `opt_tokens`); the namespaces that appear are what the next layer waits for.
//!
//! May surprise: the kernel connects while the line is written, and waits for an answer to its first packet for two
//! minutes. So for that long it is told to send it less often. Each path to a subsystem is a layer of its own, and one
//! that fails does not keep the others out: the kernel makes one disk of them.

use super::{OVER_NETWORK, load, module};
use crate::host::{Contribution, Host};
use crate::machine::Machine;
use crate::{Hook, Moment, Next, Stage};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

const FABRICS: &str = "/dev/nvme-fabrics";

/// How often a first packet is sent again, IPv6's too: with 3 the kernel gives up after 15 s.
const SYN_RETRIES: &str = "/proc/sys/net/ipv4/tcp_syn_retries";
const FEW: &str = "3";

/// How long the controller is tried again while it does not answer, such as while a switch learns our address.
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// `ECONNREFUSED`, `ENETUNREACH`, `EHOSTUNREACH`, `ETIMEDOUT`, `ECONNRESET`, `EAGAIN`.
const LATER_MAY_DO: [i32; 6] = [111, 101, 113, 110, 104, 11];
/// `EALREADY`: there is such a controller.
const THERE_ALREADY: i32 = 114;

/// A path to an NVMe subsystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NvmeTcp {
    /// The subsystem's name.
    pub subsystem: String,
    /// The controller's address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Our own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Our own identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
}

impl NvmeTcp {
    /// What the kernel is told. A lost controller is given up after as long as a broken iSCSI session, for a dump that
    /// waits is none; and one queue is enough for one processor.
    fn options(&self) -> String {
        let NvmeTcp { subsystem, address, port, host, host_id } = self;
        let mut options = vec![format!("nqn={subsystem},transport=tcp,traddr={address},trsvcid={port}")];
        options.extend(host.iter().map(|host| format!("hostnqn={host}")));
        options.extend(host_id.iter().map(|id| format!("hostid={id}")));
        options.push("nr_io_queues=1,reconnect_delay=2,ctrl_loss_tmo=120".to_owned());
        options.join(",")
    }

    fn connect(&self, machine: &mut dyn Machine, limit: Duration) -> anyhow::Result<()> {
        let began = machine.network().now();
        loop {
            let Err(error) = machine.tell_kernel(Path::new(FABRICS), &self.options()) else { return Ok(()) };
            let errno = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
            if errno == Some(THERE_ALREADY) {
                return Ok(());
            }
            let waited = machine.network().now().saturating_sub(began);
            if !errno.is_some_and(|errno| LATER_MAY_DO.contains(&errno)) {
                return Err(error.context("the controller refuses us; does it know this host's name?"));
            }
            if waited + BETWEEN_TRIES >= limit {
                return Err(error.context(format!(
                    "{} does not answer; does the capture kernel's network lead there?",
                    SocketAddr::new(self.address, self.port)
                )));
            }
            let why = error.root_cause();
            log::warn!("{}: {why}; trying again, {} of {} s", self.address, waited.as_secs(), limit.as_secs());
            machine.network().pause(BETWEEN_TRIES);
        }
    }
}

impl Hook for NvmeTcp {
    fn name(&self) -> &'static str {
        "nvme_tcp"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        for word in [Some(&self.subsystem), self.host.as_ref(), self.host_id.as_ref()].into_iter().flatten() {
            if word.contains(|c: char| c == ',' || c.is_whitespace()) {
                bail!("the NVMe name `{word}` has a comma or a blank, which the kernel's options cannot have");
            }
        }
        let reason = format!("the target is on a disk of the NVMe subsystem {}", self.subsystem);
        let modules = vec![module("nvme_tcp", &reason, true), module("crypto-crc32c", &reason, false)];
        Ok(Contribution { modules, ..Contribution::default() })
    }

    fn stages(&self) -> &'static [Stage] {
        OVER_NETWORK
    }

    fn act(&self, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        load(machine, "nvme_tcp");
        let usual = machine.network().read(SYN_RETRIES);
        if let Err(error) = machine.tell_kernel(Path::new(SYN_RETRIES), FEW) {
            log::debug!("{error:#}");
        }
        let connected = self.connect(machine, moment.limit);
        if let Some(usual) = usual
            && let Err(error) = machine.tell_kernel(Path::new(SYN_RETRIES), usual.trim())
        {
            log::debug!("{error:#}");
        }
        let portal = SocketAddr::new(self.address, self.port);
        connected
            .with_context(|| format!("cannot connect to the NVMe subsystem {} at {portal} by TCP", self.subsystem))?;
        log::info!("connected to the NVMe subsystem {} at {portal}", self.subsystem);
        Ok(Next::GoOn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};

    const LINE: &str = "write nqn=nqn.2026-01.example:crash,transport=tcp,traddr=10.0.2.2,trsvcid=4420,\
        hostnqn=nqn.2026-01.example:host,nr_io_queues=1,reconnect_delay=2,ctrl_loss_tmo=120 to /dev/nvme-fabrics";

    fn disk() -> NvmeTcp {
        NvmeTcp {
            subsystem: "nqn.2026-01.example:crash".into(),
            address: "10.0.2.2".parse().unwrap(),
            port: 4420,
            host: Some("nqn.2026-01.example:host".into()),
            host_id: None,
        }
    }

    fn act(machine: &mut FakeMachine) -> anyhow::Result<Next> {
        disk().act(&Moment::at(Stage::Storage, Duration::from_secs(9)), machine)
    }

    fn machine(errnos: &[i32]) -> FakeMachine {
        let mut machine = FakeMachine::default();
        machine.net.files.insert(SYN_RETRIES.into(), "6\n".into());
        machine.refused_writes.insert(FABRICS.into(), errnos.into());
        machine
    }

    #[test]
    fn the_kernel_is_told_where_to_connect_and_not_to_wait_for_long() {
        let mut machine = machine(&[]);
        act(&mut machine).unwrap();
        let (few, usual) = (format!("write 3 to {SYN_RETRIES}"), format!("write 6 to {SYN_RETRIES}"));
        assert_eq!(machine.journal, ["load nvme_tcp", &few, LINE, &usual]);
        assert_eq!(disk().gather(&FakeHost::default()).unwrap().modules[0].request, "nvme_tcp");
    }

    #[test]
    fn a_controller_that_does_not_answer_is_tried_again_until_the_limit() {
        act(&mut machine(&[113, 111])).unwrap();
        act(&mut machine(&[114])).unwrap();
        let mut silent = machine(&[111; 99]);
        let error = format!("{:#}", act(&mut silent).unwrap_err());
        assert!(
            error.starts_with("cannot connect to the NVMe subsystem nqn.2026-01.example:crash at 10.0.2.2:4420"),
            "{error}"
        );
        assert!(error.contains("does the capture kernel's network lead there?"), "{error}");
        assert!((2..9).contains(&silent.journal.iter().filter(|line| *line == LINE).count()));
        assert_eq!(silent.journal.last().unwrap(), &format!("write 6 to {SYN_RETRIES}"));
    }

    #[test]
    fn a_refusal_is_told_at_once() {
        let mut machine = machine(&[22; 9]);
        let error = format!("{:#}", act(&mut machine).unwrap_err());
        assert!(error.contains("does it know this host's name?"), "{error}");
        assert_eq!(machine.journal.iter().filter(|line| *line == LINE).count(), 1);
    }

    #[test]
    fn a_name_that_would_be_two_options_is_refused() {
        let odd = NvmeTcp { subsystem: "nqn.x,transport=rdma".into(), ..disk() };
        assert!(odd.gather(&FakeHost::default()).is_err());
    }
}

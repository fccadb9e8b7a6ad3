//! The administrator's own programs: `kdump_pre`, `kdump_post`, `kdump_emergency` and the directories
//! `/etc/kdump/{pre,post,emergency}.d`.
//!
//! *Into the image*: each program at its own path, with its libraries or its interpreter. *At boot*: they run one after
//! the other, without a shell in between. Their output goes to the log.
//!
//! | stage | when | exit status |
//! |---|---|---|
//! | pre | once, when the first target is open, before anything is saved | `kdump_pre`: other than 0 means no dump, and the final action follows |
//! | post | after each attempt, while the target is still open; the first argument is 0 for a complete dump, else 1 | `kdump_post`: other than 0 makes a complete dump count as failed, and the failure action follows |
//! | emergency | once, before `dump_to_rootfs` or the failure action | has no effect |
//!
//! The exit status of a program from one of the directories is logged and has no other effect.
//!
//! Each program finds in its environment, besides `PATH`:
//!
//! | variable | is |
//! |---|---|
//! | `KDUMP_STAGE` | `pre`, `post` or `emergency` |
//! | `KDUMP_KERNEL` | the release of the capture kernel |
//! | `KDUMP_TARGET` | the target in hand, as kdump.conf names it |
//! | `KDUMP_DIR` | the directory of the dump; what is put there stays beside it |
//! | `KDUMP_OUTCOME` | `complete`, `incomplete` or `failed`, once it is known |
//! | `KDUMP_REASON` | why it is not complete |
//!
//! May surprise: a program that cannot be started, or that is killed because its time is over, has said nothing. The dump
//! goes on. A `kdump_post` that ends well does not make a failed dump good.

use crate::host::{Contribution, Host, ProgramNeed};
use crate::machine::{Ended, Machine, Program};
use crate::moment::{Moment, Next, Outcome};
use crate::{Hook, Stage};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The administrator's programs, in the order in which they run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct User {
    /// Before anything is saved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre: Vec<Script>,
    /// After the dump, however it came out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post: Vec<Script>,
    /// When it went wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub emergency: Vec<Script>,
}

/// One program of the administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The program, from `/` on, and its arguments.
    pub argv: Vec<String>,
    /// The word or the directory that names it.
    pub named_by: String,
    /// Whether its exit status decides what follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decides: bool,
}

impl User {
    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.pre.is_empty() && self.post.is_empty() && self.emergency.is_empty()
    }

    /// Every one of them.
    pub fn scripts(&self) -> impl Iterator<Item = &Script> {
        self.pre.iter().chain(&self.post).chain(&self.emergency)
    }

    /// The programs of a stage as they are to be run, for who has no more of the machine than its processes.
    pub fn programs(&self, moment: &Moment) -> Vec<Program> {
        self.at(moment.stage).iter().map(|script| script.program(moment)).collect()
    }

    fn at(&self, stage: Stage) -> &[Script] {
        match stage {
            Stage::Pre => &self.pre,
            Stage::Post => &self.post,
            Stage::Emergency => &self.emergency,
            _ => &[],
        }
    }
}

impl Hook for User {
    fn name(&self) -> &'static str {
        "user"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        let programs = self.scripts().filter_map(|script| {
            let path = script.argv.first()?.into();
            Some(ProgramNeed { paths: vec![path], reason: format!("{} names it", script.named_by), required: true })
        });
        Ok(Contribution { programs: programs.collect(), ..Contribution::default() })
    }

    fn stages(&self) -> &'static [Stage] {
        &[Stage::Pre, Stage::Post, Stage::Emergency]
    }

    fn act(&self, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        let mut next = Next::GoOn;
        for script in self.at(moment.stage) {
            match machine.run(&script.program(moment)) {
                Ok(ended) => {
                    if let Some(verdict) = script.verdict(&ended)
                        && next == Next::GoOn
                    {
                        next = Next::Stop(verdict);
                    }
                }
                Err(error) => log::error!("{}: {error:#}; going on without it", script.named_by),
            }
            // Who decides before a dump decides at once: the directory's programs come after kdump_pre.
            if moment.stage == Stage::Pre && next != Next::GoOn {
                break;
            }
        }
        Ok(next)
    }
}

impl Script {
    fn program(&self, moment: &Moment) -> Program {
        let mut argv = self.argv.clone();
        if moment.stage == Stage::Post {
            argv.insert(
                1.min(argv.len()),
                if moment.outcome == Some(Outcome::Complete) { "0" } else { "1" }.to_owned(),
            );
        }
        let dir = moment.dump_dir.as_ref().map(|dir| dir.display().to_string());
        let known = [
            ("KDUMP_STAGE", Some(moment.stage.name().to_owned())),
            ("KDUMP_KERNEL", Some(moment.kernel_release.clone())),
            ("KDUMP_TARGET", moment.target.clone()),
            ("KDUMP_DIR", dir),
            ("KDUMP_OUTCOME", moment.outcome.map(|outcome| outcome.to_string())),
            ("KDUMP_REASON", moment.reason.clone()),
        ];
        // What has a NUL in it cannot be put into an environment.
        let env = known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.replace('\0', " "))));
        Program { argv, env: env.collect(), limit: moment.limit.max(Duration::from_secs(1)) }
    }

    /// What its end means, if it decides and did not end well.
    fn verdict(&self, ended: &Ended) -> Option<String> {
        if ended.code == 0 {
            return None;
        }
        let program = self.argv.first().map_or("", String::as_str);
        let said = if ended.said.is_empty() { String::new() } else { format!(" ({})", ended.said) };
        let verdict = format!("{} {program} ended with {}{said}", self.named_by, ended.code);
        if self.decides {
            return Some(verdict);
        }
        log::warn!("{verdict}; that changes nothing");
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};

    fn script(path: &str, decides: bool) -> Script {
        Script { argv: vec![path.into()], named_by: "kdump.conf:3: kdump_x".into(), decides }
    }

    fn user() -> User {
        User {
            pre: vec![script("/bin/pre", true), script("/etc/kdump/pre.d/10", false)],
            post: vec![script("/etc/kdump/post.d/10", false), script("/bin/post", true)],
            emergency: vec![script("/bin/emergency", true)],
        }
    }

    fn act(machine: &mut FakeMachine, moment: &Moment) -> Next {
        user().act(moment, machine).unwrap()
    }

    fn moment(stage: Stage) -> Moment {
        Moment { kernel_release: "6.1".into(), ..Moment::at(stage, Duration::from_secs(9)) }
    }

    fn ends(name: &str, code: i32) -> FakeMachine {
        let mut machine = FakeMachine::default();
        machine.programs.insert(name.into(), Ended { code, said: "no".into() });
        machine
    }

    #[test]
    fn each_program_runs_in_order_and_knows_how_things_stand() {
        let mut machine = FakeMachine::default();
        let moment = Moment {
            target: Some("ext4 LABEL=crash".into()),
            dump_dir: Some("/kdump/target/d".into()),
            outcome: Some(Outcome::Incomplete),
            reason: Some("disk is full".into()),
            ..moment(Stage::Post)
        };
        assert_eq!(act(&mut machine, &moment), Next::GoOn);
        let env = "KDUMP_STAGE=post KDUMP_KERNEL=6.1 KDUMP_TARGET=ext4 LABEL=crash KDUMP_DIR=/kdump/target/d \
                   KDUMP_OUTCOME=incomplete KDUMP_REASON=disk is full";
        assert_eq!(machine.journal, [format!("run {env} /etc/kdump/post.d/10 1"), format!("run {env} /bin/post 1")]);
    }

    #[test]
    fn a_post_program_is_told_0_for_a_complete_dump_before_its_own_arguments() {
        let mut machine = FakeMachine::default();
        let user = User {
            post: vec![Script { argv: vec!["/bin/post".into(), "-x".into()], ..script("", true) }],
            ..User::default()
        };
        let moment = Moment { outcome: Some(Outcome::Complete), ..Moment::at(Stage::Post, Duration::from_secs(9)) };
        user.act(&moment, &mut machine).unwrap();
        assert!(machine.journal[0].ends_with("/bin/post 0 -x"), "{:?}", machine.journal);
    }

    #[test]
    fn kdump_pre_that_fails_stops_the_dump_and_what_would_have_come_after_it() {
        let mut machine = ends("pre", 3);
        let Next::Stop(reason) = act(&mut machine, &moment(Stage::Pre)) else { panic!("it went on") };
        assert_eq!(reason, "kdump.conf:3: kdump_x /bin/pre ended with 3 (no)");
        assert_eq!(machine.journal.len(), 1);
    }

    #[test]
    fn a_program_of_the_directory_that_fails_changes_nothing() {
        assert_eq!(act(&mut ends("10", 1), &moment(Stage::Pre)), Next::GoOn);
        assert_eq!(act(&mut ends("10", 1), &moment(Stage::Post)), Next::GoOn);
    }

    #[test]
    fn kdump_post_that_fails_makes_the_dump_count_as_failed() {
        assert!(matches!(act(&mut ends("post", 1), &moment(Stage::Post)), Next::Stop(_)));
    }

    #[test]
    fn a_program_without_a_verdict_does_not_stop_the_dump() {
        let mut machine = FakeMachine::default();
        machine.stuck.insert("pre".into());
        assert_eq!(act(&mut machine, &moment(Stage::Pre)), Next::GoOn);
        assert_eq!(machine.journal.len(), 2);
    }

    #[test]
    fn every_program_goes_into_the_image_with_its_reason() {
        let contribution = user().gather(&FakeHost::default()).unwrap();
        assert_eq!(contribution.programs.len(), 5);
        assert!(contribution.programs.iter().all(|need| need.required && need.reason.contains("kdump_x names it")));
    }

    #[test]
    fn the_programs_survive_the_way_through_the_image_configuration() {
        let text = toml::to_string(&user()).unwrap();
        assert_eq!(toml::from_str::<User>(&text).unwrap(), user(), "{text}");
    }
}

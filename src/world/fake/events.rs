//! What others do between passes: people with a shell, other programs, another host, the files.
//!
//! Acts end with the faults ([`crate::world::fake::faults::FaultPlan::until`]); what they left
//! behind stays. Changes of the files always happen.
//!
//! Invariant: an act never happens within a pass, so that what a pass saw of names and tags is only
//! as old as the pass; ends of programs and the loss of ports within a pass are what the refusals
//! of the engine are for.

use crate::model::desired::Desired;
use crate::model::id::ServerId;
use crate::model::memory::{Intent, Pause, Scope};
use crate::model::time::{Span, Timestamp};
use crate::world::fake::balancer::{FakeGroup, OTHER_TARGET_ID, TARGET_ID};
use crate::world::fake::effect::By;
use crate::world::fake::image::KILLED;
use crate::world::fake::rng::Rng;
use crate::world::fake::state::State;
use std::sync::Arc;

/// Something to come.
#[derive(Clone, Debug)]
pub enum Event {
    /// The files say something else from now on.
    Files(Arc<Desired>),
    /// Somebody does something.
    Act(Act),
    /// Somebody wants servers left alone, through the program.
    Pause(Scope, Pause),
    /// Somebody asks for this host to be taken out of the load balancer, see
    /// [`crate::world::fake::FakeWorld::take_drain`].
    Drain(Pause),
    /// Somebody starts or stops a server through the program; see
    /// [`crate::world::fake::FakeWorld::take_intents`].
    Intent(ServerId, Intent),
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Act {
    StopOurs,
    KillOurs,
    PauseOurs,
    RenameOurs,
    RemoveOurs,
    HalfRemoveOurs,
    StartOurs,
    RestartEngine,
    RestartDaemon,
    LoseState,
    PruneImages,
    MoveTag,
    ForeignTakesName,
    ForeignHalfOurs,
    ForeignOtherStack,
    ForeignContainerTakesPort,
    ForeignProgramTakesPort,
    ForeignProgramLeaves,
    DeleteRule,
    EditRule,
    StripRuleTags,
    StripGroupTags,
    DeleteGroup,
    DeregisterOurs,
    EditHealthCheck,
    ForeignRule,
    ForeignGroupWithOurPrefix,
    OtherHostJoins,
    OtherHostLeaves,
    HostForgetsItself,
    OpenLeg,
    HangOurs,
    SlowOurs,
    LoseQuestions,
    CallSleeper,
}

/// Acts that are drawn together; the others are drawn apart, so that a seed stays what it was.
const DRAWN: usize = 31;

/// All acts.
pub const ACTS: [Act; 35] = [
    Act::StopOurs,
    Act::KillOurs,
    Act::PauseOurs,
    Act::RenameOurs,
    Act::RemoveOurs,
    Act::HalfRemoveOurs,
    Act::StartOurs,
    Act::RestartEngine,
    Act::RestartDaemon,
    Act::LoseState,
    Act::PruneImages,
    Act::MoveTag,
    Act::ForeignTakesName,
    Act::ForeignHalfOurs,
    Act::ForeignOtherStack,
    Act::ForeignContainerTakesPort,
    Act::ForeignProgramTakesPort,
    Act::ForeignProgramLeaves,
    Act::DeleteRule,
    Act::EditRule,
    Act::StripRuleTags,
    Act::StripGroupTags,
    Act::DeleteGroup,
    Act::DeregisterOurs,
    Act::EditHealthCheck,
    Act::ForeignRule,
    Act::ForeignGroupWithOurPrefix,
    Act::OtherHostJoins,
    Act::OtherHostLeaves,
    Act::HostForgetsItself,
    Act::OpenLeg,
    Act::HangOurs,
    Act::SlowOurs,
    Act::LoseQuestions,
    Act::CallSleeper,
];

impl State {
    pub(crate) fn happen(&mut self, event: Event) {
        self.hit_foreign = false;
        match event {
            Event::Files(desired) => {
                let words = describe(&desired);
                self.desired = Arc::new(desired.instances().into_owned());
                self.note(By::Person, "edited the files:", &words, String::new());
            }
            Event::Intent(server, intent) => {
                let kind = if intent.run { "asked to start" } else { "asked to stop" };
                self.note(By::Person, kind, server.as_str(), String::new());
                self.intents.push((server, intent));
            }
            Event::Pause(scope, pause) => {
                self.note(By::Person, "asked to leave alone", &scope.to_string(), String::new());
                self.pauses.push((scope, pause));
            }
            Event::Drain(drain) => {
                self.note(By::Person, "asked to drain this host", "", String::new());
                self.drain = Some(drain);
            }
            Event::Act(act) => {
                if !self.faults.active(self.now) {
                    return;
                }
                // An act by hand is seen at once; only our own changes may be shown late.
                self.balancer.stale = None;
                if let Some(target) = self.act(act) {
                    let kind = "act:";
                    self.note(By::Person, kind, &format!("{act:?} {target}"), String::new());
                }
                self.balancer.settle(self.now);
            }
        }
    }

    /// Does it; the thing it was done to, or `None` when there was nothing to do it to.
    fn act(&mut self, act: Act) -> Option<String> {
        match act {
            Act::StopOurs => self.end_by_hand(0),
            Act::KillOurs => self.end_by_hand(KILLED),
            Act::PauseOurs => self.pause_by_hand(),
            Act::RenameOurs => self.rename_by_hand(),
            Act::RemoveOurs => self.remove_by_hand(),
            Act::HalfRemoveOurs => self.half_remove_by_hand(),
            Act::StartOurs => self.start_by_hand(),
            Act::RestartEngine => Some(self.restart_engine()),
            Act::RestartDaemon => Some(self.restart_daemon(false)),
            Act::LoseState => Some(self.restart_daemon(true)),
            Act::PruneImages => Some(self.prune_images()),
            Act::MoveTag => self.move_tag(),
            Act::ForeignTakesName => self.foreign_takes_name(),
            Act::ForeignHalfOurs => self.foreign_half_ours(),
            Act::ForeignOtherStack => self.foreign_other_stack(),
            Act::ForeignContainerTakesPort => self.foreign_container_takes_port(),
            Act::ForeignProgramTakesPort => self.foreign_program_takes_port(),
            Act::ForeignProgramLeaves => self.foreign_program_leaves(),
            Act::DeleteRule => self.delete_rule_by_hand(),
            Act::EditRule => self.edit_rule_by_hand(),
            Act::StripRuleTags => self.strip_rule_tags(),
            Act::ForeignRule => self.foreign_rule(),
            Act::ForeignGroupWithOurPrefix => self.foreign_group(),
            Act::DeleteGroup => self.delete_group_by_hand(),
            Act::StripGroupTags => self.on_our_group(|group, _| group.tags.clear()),
            Act::DeregisterOurs => self.on_our_group(|group, _| group.remove_host(TARGET_ID)),
            Act::EditHealthCheck => self.on_our_group(|group, _| "/edited".clone_into(&mut group.check.path)),
            Act::OtherHostJoins => self.on_our_group(FakeGroup::add_other_host),
            Act::OtherHostLeaves => self.on_our_group(|group, _| group.remove_host(OTHER_TARGET_ID)),
            Act::OpenLeg => self.open_leg(),
            Act::HangOurs => self.hang(),
            Act::SlowOurs => self.slow_down(),
            Act::CallSleeper => self.call_a_sleeper(),
            Act::LoseQuestions => Some(self.lose_questions()),
            Act::HostForgetsItself => {
                self.balancer.nameless = !self.balancer.nameless;
                Some(String::new())
            }
        }
    }
}

/// The files in one line.
fn describe(desired: &Desired) -> String {
    let list = |ids: Vec<String>| ids.join(" ");
    let mut words = list(
        desired
            .servers
            .values()
            .map(|s| if s.enabled { s.id.to_string() } else { format!("({})", s.id) })
            .collect(),
    );
    if !desired.broken.is_empty() {
        words += &format!(" broken: {}", list(desired.broken.keys().map(ToString::to_string).collect()));
    }
    if !desired.nameless.is_empty() {
        words += " and an entry whose name gives no id";
    }
    match &desired.stale {
        Some(why) => format!("not readable ({why}), still {words}"),
        None if words.is_empty() => "nothing in them".to_owned(),
        None => words,
    }
}

/// Some acts at times between `from` and `until`.
pub(crate) fn acts(rng: &mut Rng, from: Timestamp, until: Timestamp) -> Vec<(Timestamp, Event)> {
    let many = rng.below(4) * rng.below(5);
    let mut out = Vec::new();
    for _ in 0..many {
        let at = from.after(Span::millis(rng.below(until.since(from).0)));
        out.extend(rng.pick(ACTS.get(..DRAWN).unwrap_or(&ACTS)).map(|act| (at, Event::Act(*act))));
    }
    out
}

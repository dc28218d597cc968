//! How well servers are: what the gateway's questions would show of containers that answer, hang, are
//! slow, or are not asked for a while.
//!
//! The verdicts come from the same machine as in production; only who answers is played.

use crate::model::health::{Condition, Event, Health, State as Verdict};
use crate::model::id::{ContainerId, ServerId};
use crate::model::server::{Server, ServerKind};
use crate::model::time::{Span, Timestamp};
use crate::world::fake::engine::Unit;
use crate::world::fake::state::State;
use std::collections::BTreeMap;

/// Longest time for which nobody is asked, in milliseconds.
const LOST_MILLIS_MAX: u64 = 300_000;
/// Questions that are made up for at once.
const MADE_UP_MAX: u32 = 16;

/// How a program answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// At once.
    #[default]
    Well,
    /// Not at all, although it runs.
    Hung,
    /// Slowly.
    Slow,
}

/// What is known of all servers' health.
#[derive(Debug, Default)]
pub(crate) struct HealthState {
    known: BTreeMap<ServerId, Known>,
    /// Nobody is asked before.
    lost_until: Option<Timestamp>,
}

/// What is known of one.
#[derive(Clone, Debug)]
struct Known {
    health: Health,
    /// The container that was asked, and when that was started.
    of: (ContainerId, Option<Timestamp>),
    asked: Timestamp,
}

impl HealthState {
    /// The program that knew it is gone.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }
}

impl State {
    /// The verdicts of now.
    pub(crate) fn health(&mut self) -> BTreeMap<ServerId, Condition> {
        let desired = std::sync::Arc::clone(&self.desired);
        let mut known = std::mem::take(&mut self.health.known);
        known.retain(|id, _| desired.servers.contains_key(id));
        for server in desired.servers.values() {
            self.ask(server, &mut known);
        }
        let condition = |one: &Known| Condition {
            health: one.health.clone(),
            why: if one.health.state.serves() { String::new() } else { "no answer to ping".to_owned() },
            latency: None,
            busy_until: None,
        };
        let all = known.iter().map(|(id, one)| (id.clone(), condition(one))).collect();
        self.health.known = known;
        all
    }

    /// Asks a server as often as its interval has passed.
    fn ask(&self, server: &Server, known: &mut BTreeMap<ServerId, Known>) {
        let (id, now, policy) = (&server.id, self.now, &server.health);
        let name = format!("{}{id}", self.policy.name_prefix);
        let main = self.engine.containers.iter().find(|unit| unit.seen.name == name && unit.ours);
        let container = matches!(server.kind, ServerKind::Container(_));
        let Some(main) = main.filter(|unit| container && unit.is_up()) else {
            if let Some(one) = known.get_mut(id)
                && one.health.state != Verdict::Critical
            {
                one.health.take(Event::Ended, now, policy);
            }
            return;
        };
        let of = (main.seen.id.clone(), main.details.started);
        if known.get(id).is_none_or(|one| one.of != of) {
            let first = Known { health: Health::new(now), of, asked: now };
            known.insert(id.clone(), first);
            if let Some(one) = known.get_mut(id) {
                one.health.take(answer(main, now), now, policy);
            }
        }
        let Some(one) = known.get_mut(id) else { return };
        if self.health.lost_until.is_some_and(|until| now < until) {
            return;
        }
        for _ in 0..MADE_UP_MAX {
            let next = one.asked.after(policy.interval);
            if next > now {
                return;
            }
            one.asked = next;
            one.health.take(answer(main, next), next, policy);
        }
        one.asked = now;
    }

    /// A program stops answering, and goes on running.
    pub(crate) fn hang(&mut self) -> Option<String> {
        self.turn_mood(Mood::Hung)
    }

    /// A program answers slowly.
    pub(crate) fn slow_down(&mut self) -> Option<String> {
        self.turn_mood(Mood::Slow)
    }

    fn turn_mood(&mut self, mood: Mood) -> Option<String> {
        let at = self.pick_running()?;
        let unit = self.engine.containers.get_mut(at)?;
        unit.mood = mood;
        Some(unit.seen.name.clone())
    }

    /// Nobody is asked for a while.
    pub(crate) fn lose_questions(&mut self) -> String {
        let lost = self.rng.millis(1_000, LOST_MILLIS_MAX);
        self.health.lost_until = Some(self.now.after(lost));
        format!("for {lost}")
    }

    /// Servers that should be well once the world is at rest, and are not.
    pub(crate) fn ill(&mut self) -> Vec<String> {
        let bad = |(id, seen): (ServerId, Condition)| {
            let state = seen.health.state;
            (state == Verdict::Unhealthy)
                .then(|| format!("{id} is {} although it could serve", state.as_str()))
        };
        self.health().into_iter().filter_map(bad).collect()
    }
}

fn answer(unit: &Unit, at: Timestamp) -> Event {
    match unit.mood {
        Mood::Hung => Event::Failed,
        Mood::Slow => Event::Answered(Span::millis(3_000)),
        Mood::Well if unit.answers(at) => Event::Answered(Span::millis(5)),
        Mood::Well => Event::Failed,
    }
}

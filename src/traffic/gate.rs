//! So many requests at once, and a queue before them.
//!
//! ```text
//! a place is free, nobody waits    in at once
//! the queue has room               waits, under a ticket
//! the queue is full                refused
//! one leaves                       who waited longest goes in, with their ticket
//! ```
//! Whoever has a ticket gives it up or is let in, once. Must never let more in than the limit, and
//! never let somebody pass another who came before.

use crate::model::traffic::AtOnce;
use std::collections::VecDeque;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What becomes of one who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In.
    In,
    /// To the queue.
    Wait(Ticket),
    /// Away: the queue is full.
    Full,
}

/// The gate of one server.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    running: u32,
    waiting: VecDeque<Ticket>,
    next: u64,
}

impl Gate {
    /// Somebody comes.
    pub fn enter(&mut self, limit: &AtOnce) -> Way {
        if self.running < limit.max && self.waiting.is_empty() {
            self.running += 1;
            return Way::In;
        }
        if self.waiting() >= limit.waiting_max {
            return Way::Full;
        }
        let ticket = Ticket(self.next);
        self.next = self.next.wrapping_add(1);
        self.waiting.push_back(ticket);
        Way::Wait(ticket)
    }

    /// Somebody who was in leaves. Gives those who go in instead; without a limit all who wait.
    pub fn leave(&mut self, limit: Option<&AtOnce>) -> Vec<Ticket> {
        self.running = self.running.saturating_sub(1);
        self.let_in(limit)
    }

    /// Lets in who may come in by this limit, after it changed.
    pub fn let_in(&mut self, limit: Option<&AtOnce>) -> Vec<Ticket> {
        let mut let_in = Vec::new();
        while limit.is_none_or(|limit| self.running < limit.max) {
            let Some(ticket) = self.waiting.pop_front() else { break };
            self.running = self.running.saturating_add(1);
            let_in.push(ticket);
        }
        let_in
    }

    /// Somebody does not wait any longer; false when they were let in meanwhile and must leave.
    pub fn give_up(&mut self, ticket: Ticket) -> bool {
        let at = self.waiting.iter().position(|waiting| *waiting == ticket);
        at.and_then(|at| self.waiting.remove(at)).is_some()
    }

    /// Requests that are in.
    #[must_use]
    pub const fn running(&self) -> u32 {
        self.running
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Span;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const fn limit(max: u32, waiting_max: u32) -> AtOnce {
        AtOnce { max, waiting_max, wait: Span::ZERO }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Come,
        Leave,
        GiveUp(usize),
        Limit(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Come),
            3 => Just(Step::Leave),
            2 => (0_usize..8).prop_map(Step::GiveUp),
            1 => (1_u32..5, 0_u32..5).prop_map(|(max, waiting)| Step::Limit(max, waiting)),
        ]
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_in_order_and_nobody_is_lost(steps in prop::collection::vec(step(), 0..200)) {
            let mut gate = Gate::default();
            let mut now = limit(2, 3);
            let (mut inside, mut queue, mut ever) = (0_u32, Vec::new(), BTreeSet::new());
            for step in steps {
                let before = inside;
                let let_in = match step {
                    Step::Come => {
                        match gate.enter(&now) {
                            Way::In => {
                                prop_assert!(queue.is_empty() && inside < now.max);
                                inside += 1;
                            }
                            Way::Wait(ticket) => {
                                prop_assert!(ever.insert(ticket), "a ticket is for one");
                                queue.push(ticket);
                                prop_assert!(queue.len() <= now.waiting_max as usize);
                            }
                            Way::Full => prop_assert!(queue.len() >= now.waiting_max as usize),
                        }
                        Vec::new()
                    }
                    Step::Leave if inside > 0 => {
                        inside -= 1;
                        gate.leave(Some(&now))
                    }
                    Step::Leave => Vec::new(),
                    Step::GiveUp(at) if at < queue.len() => {
                        prop_assert!(gate.give_up(queue.remove(at)));
                        Vec::new()
                    }
                    Step::GiveUp(_) => Vec::new(),
                    Step::Limit(max, waiting_max) => {
                        now = limit(max, waiting_max);
                        gate.let_in(Some(&now))
                    }
                };
                for ticket in let_in {
                    prop_assert_eq!(ticket, queue.remove(0), "first come, first in");
                    prop_assert!(!gate.give_up(ticket), "who is in has nothing to give up");
                    inside += 1;
                }
                prop_assert!(inside <= now.max.max(before), "{} of {}", inside, now.max);
                prop_assert_eq!((gate.running(), gate.waiting() as usize), (inside, queue.len()));
                prop_assert!(queue.is_empty() || inside >= now.max, "nobody waits before a free place");
            }
            prop_assert_eq!(gate.let_in(None), queue, "without a limit nobody waits");
        }
    }
}

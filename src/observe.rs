//! Asks the world and assembles what it said. A part that did not answer is Unknown, with the
//! reason; the others are still worth having.
//!
//! Must never decide what to ask: the planner asks, this answers.

use crate::model::balancer::BalancerSeen;
use crate::model::id::ServerId;
use crate::model::observed::{LogAsk, Observed, Question, Seen};
use crate::model::policy::Policy;
use crate::model::time::Span;
use crate::world::{TargetsToRead, World, WorldError};
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};

/// Lines read of a container whose last words are asked for: those of its next run are among them.
const WORDS_TAIL: usize = 100;

/// What is seen of the load balancer. The future stands on its own: it may run on beside passes.
pub fn balancer(
    world: &World,
    targets: &TargetsToRead,
) -> impl Future<Output = BalancerSeen> + Send + 'static + use<> {
    let (balancer, targets) = (world.balancer.clone(), targets.clone());
    async move {
        match balancer {
            Err(why) => BalancerSeen::Off(why),
            Ok(balancer) => BalancerSeen::On(seen(balancer.view(&targets).await.map(Box::new))),
        }
    }
}

/// The first look: containers, what `balancer` sees, our own listeners, at the same time.
pub async fn look(
    world: &World,
    balancer: impl Future<Output = BalancerSeen>,
    busy: BTreeSet<ServerId>,
) -> Observed {
    let containers = world.engine.containers();
    let (containers, balancer) = futures_util::future::join(containers, balancer).await;
    Observed {
        containers: seen(containers),
        images: BTreeMap::new(),
        details: BTreeMap::new(),
        reachable: BTreeMap::new(),
        free_ports: None,
        balancer,
        busy,
        edges: world.edges.as_ref().map(|edges| edges.served()),
        contacts: world.edges.as_ref().and_then(|edges| edges.contacts()),
        health: world.edges.as_ref().map(|edges| edges.health()).unwrap_or_default(),
        restarts: world.edges.as_ref().map(|edges| edges.restarts()).unwrap_or_default(),
        ends: world.edges.as_ref().map(|edges| edges.ends()).unwrap_or_default(),
        words: BTreeMap::new(),
        uses: world.edges.as_ref().map(|edges| edges.uses()).unwrap_or_default(),
        run: world.edges.as_ref().map(|edges| edges.run()),
    }
}

fn seen<T>(answer: Result<T, WorldError>) -> Seen<T> {
    match answer {
        Ok(value) => Seen::Known(value),
        Err(error) => Seen::Unknown(error.to_string()),
    }
}

/// Answers the planner's questions into `observed`.
pub async fn answer(world: &World, policy: &Policy, observed: &mut Observed, questions: &[Question]) {
    let answers = questions.iter().map(|question| async move {
        match question {
            Question::Image(reference) => Told::Image(reference, seen(world.engine.image(reference).await)),
            Question::Details(id) => Told::Details(id, seen(world.engine.details(id).await)),
            Question::Words(id) => {
                let ask = LogAsk { container: id.clone(), after: 0, tail: WORDS_TAIL, wait: Span::ZERO };
                Told::Words(id, seen(world.engine.log(&ask).await))
            }
            Question::Reachable(port) => {
                Told::Reachable(*port, world.host.reachable(*port).await.unwrap_or(false))
            }
            Question::FreePorts => {
                Told::FreePorts(seen(world.host.free_ports(&policy.host, policy.ports).await))
            }
        }
    });
    for told in join_all(answers).await {
        match told {
            Told::Image(reference, image) => {
                observed.images.insert(reference.clone(), image);
            }
            Told::Details(id, details) => {
                observed.details.insert(id.clone(), details);
            }
            Told::Words(id, lines) => {
                observed.words.insert(id.clone(), lines);
            }
            Told::Reachable(port, yes) => {
                observed.reachable.insert(port, yes);
            }
            Told::FreePorts(free) => observed.free_ports = Some(free),
        }
    }
}

/// One answer, beside what was asked.
enum Told<'a> {
    Image(&'a String, Seen<Option<crate::model::observed::Image>>),
    Details(&'a crate::model::id::ContainerId, Seen<Option<crate::model::observed::Details>>),
    Words(&'a crate::model::id::ContainerId, Seen<Vec<crate::model::observed::LogLine>>),
    Reachable(crate::model::net::HostPort, bool),
    FreePorts(Seen<Vec<crate::model::net::HostPort>>),
}

//! Servers that hang, are slow, say garbage, end and come back, on a clock of their own.

use super::Checkup;
use crate::gateway::Gateway;
use crate::gateway::hub::Entry;
use crate::gateway::places::{Place, Places};
use crate::gateway::played::{Act, EXIT, Played, RETRY, SLOWLY, Stage, id, mood, place, shared};
use crate::mcp::wire::Era;
use crate::model::health::{Condition, State};
use crate::model::id::ServerId;
use crate::model::time::Span;
use crate::world::fake::FakeSessions;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

struct Bench {
    gateway: Arc<Gateway>,
    stage: Arc<Stage>,
    on_stage: mpsc::UnboundedReceiver<Played>,
}

impl Bench {
    fn new(era: Era, servers: &[&str]) -> Self {
        let (stage, on_stage) = Stage::new(&[], Act::Serve(era));
        let gateway = Gateway::new(shared(&stage), Arc::new(FakeSessions::default()), [7; 32]);
        let places: Places = servers.iter().map(|name| (id(name), place(name, RETRY))).collect();
        gateway.set_places(&places);
        Self { gateway, stage, on_stage }
    }

    fn entry(&self, server: &str) -> Arc<Entry> {
        self.gateway.entry(&id(server)).expect("an entry")
    }

    fn condition(&self, server: &str) -> Option<Condition> {
        self.entry(server).checkup.condition()
    }

    fn state(&self, server: &str) -> Option<State> {
        self.condition(server).map(|condition| condition.health.state)
    }

    fn turns(&self, server: &ServerId, mood: u8) {
        self.stage.mood(server).store(mood, Ordering::Relaxed);
    }

    /// How long it takes until a server is in this state.
    async fn until(&self, server: &str, state: State) -> Duration {
        let began = Instant::now();
        while self.state(server) != Some(state) {
            assert!(began.elapsed() < Duration::from_secs(600), "{:?}", self.condition(server));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    }

    async fn serves(&self, server: &str) -> Result<(), String> {
        self.entry(server).health(&self.gateway).await
    }
}

/// Three questions at most 30 s apart, each with 5 s for its answer.
const TOLD_WITHIN: Duration = Duration::from_secs(3 * 30 + 5 + 1);

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_or_says_garbage_is_unhealthy_in_time_and_the_others_are_not() {
    for (era, mood) in [(Era::Legacy, mood::HUNG), (Era::Modern, mood::HUNG), (Era::Legacy, mood::GARBAGE)] {
        let bench = Bench::new(era, &["a", "b"]);
        bench.until("a", State::Healthy).await;
        bench.until("b", State::Healthy).await;
        bench.turns(&id("a"), mood);
        let took = bench.until("a", State::Unhealthy).await;
        assert!(took <= TOLD_WITHIN, "{took:?}");
        let why = bench.serves("a").await.expect_err("a reason");
        assert!(why.starts_with("no answer to ") && why.ends_with(" within 5 s"), "{why}");
        assert_eq!((bench.serves("b").await, bench.state("b")), (Ok(()), Some(State::Healthy)));
        bench.turns(&id("a"), mood::WELL);
        let took = bench.until("a", State::Healthy).await;
        assert!(took <= Duration::from_secs(2 * 30 + 1), "{took:?}");
        assert_eq!(bench.serves("a").await, Ok(()));
        assert_eq!(bench.stage.opened(), 2, "nobody opened another connection");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_is_degraded_and_goes_on_serving() {
    let bench = Bench::new(Era::Legacy, &["a"]);
    bench.until("a", State::Healthy).await;
    bench.turns(&id("a"), mood::SLOW);
    bench.until("a", State::Degraded).await;
    let condition = bench.condition("a").expect("a condition");
    let slowly = Span(u64::try_from(SLOWLY.as_millis()).expect("small"));
    let took = condition.latency.expect("a time");
    assert!((slowly..=Span(slowly.0 + 100)).contains(&took), "{took}");
    let why = &condition.why;
    assert!(why.starts_with("it answers after ") && why.ends_with(", usually 0 ms"), "{why}");
    assert_eq!(bench.serves("a").await, Ok(()));
    bench.turns(&id("a"), mood::WELL);
    bench.until("a", State::Healthy).await;
    assert!(bench.condition("a").is_some_and(|condition| condition.why.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_slow_from_its_first_line_on_is_not_asked_faster_than_it_works() {
    for era in [Era::Legacy, Era::Modern] {
        let bench = Bench::new(era, &[]);
        bench.turns(&id("a"), mood::SLOW);
        // A line takes two thirds of what an answer may take: two lines take more.
        let mut hasty = (*place("a", RETRY)).clone();
        hasty.health.timeout = Span::secs(3);
        bench.gateway.set_places(&[(id("a"), Arc::new(hasty))].into());
        let took = bench.until("a", State::Healthy).await;
        assert!(took < Duration::from_secs(30), "{took:?}");
        bench.until("a", State::Degraded).await;
        assert!(bench.condition("a").is_some_and(|seen| seen.why.starts_with("it answers after 2")));
        assert_eq!(bench.serves("a").await, Ok(()));
        bench.turns(&id("a"), mood::WELL);
        bench.until("a", State::Healthy).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_is_critical_until_it_answers_again_and_one_that_is_stopped_has_no_health() {
    let mut bench = Bench::new(Era::Legacy, &["a"]);
    bench.until("a", State::Healthy).await;
    let played = bench.on_stage.recv().await.expect("a server");
    bench.turns(&id("a"), mood::HUNG);
    played.say.send(EXIT.to_owned()).expect("it is there");
    bench.until("a", State::Critical).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let told = bench.condition("a").map(|condition| condition.why);
    assert_eq!(told.as_deref(), Some("it exited with code 1"), "how it ended, long before the next question");
    let why = bench.serves("a").await.expect_err("a reason");
    assert!(!why.is_empty());
    bench.turns(&id("a"), mood::WELL);
    bench.until("a", State::Healthy).await;
    assert_eq!(bench.serves("a").await, Ok(()));
    let down = crate::gateway::places::Down::Stopped("stopped by anna".to_owned());
    let stopped = Place { down: Some(down), ..(*place("a", RETRY)).clone() };
    bench.gateway.set_places(&[(id("a"), Arc::new(stopped))].into());
    while bench.condition("a").is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bench.serves("a").await, Err("stopped by anna".to_owned()));
    assert!(bench.gateway.conditions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_are_told_with_the_verdict() {
    let mut bench = Bench::new(Era::Legacy, &["a"]);
    bench.until("a", State::Healthy).await;
    let _played = bench.on_stage.recv().await.expect("a server");
    let patient = Place { timeout: Duration::from_secs(3_000), ..(*place("a", RETRY)).clone() };
    bench.gateway.set_places(&[(id("a"), Arc::new(patient))].into());
    let leg = bench.entry("a").slot.live().expect("a connection").leg.clone();
    let call = tokio::spawn(async move { leg.request("tools/call", None, Duration::from_secs(9_000)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.turns(&id("a"), mood::HUNG);
    bench.until("a", State::Unhealthy).await;
    let Condition { health, busy_until, .. } = bench.condition("a").expect("a condition");
    let left = busy_until.expect("a time").since(health.judged);
    assert!((Span::secs(2_800)..=Span::secs(3_000)).contains(&left), "{left}");
    bench.turns(&id("a"), mood::WELL);
    bench.until("a", State::Healthy).await;
    assert_eq!(bench.condition("a").and_then(|condition| condition.busy_until), None);
    call.abort();
}

#[tokio::test(start_paused = true)]
async fn many_servers_are_asked_at_different_times_and_few_at_once() {
    let names: Vec<String> = (0..50).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bench = Bench::new(Era::Legacy, &names);
    for name in &names {
        bench.until(name, State::Healthy).await;
    }
    let asked = |checkup: &Checkup| checkup.answered.load(Ordering::Relaxed);
    let total = || names.iter().map(|name| asked(&bench.entry(name).checkup)).sum::<u64>();
    let before = total();
    // A third of an interval has about a third of the questions.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let part = total() - before;
    assert!((5..=30).contains(&part), "{part} of 50");
    tokio::time::sleep(Duration::from_secs(290)).await;
    let rounds = (total() - before) / 50;
    assert!((9..=11).contains(&rounds), "{rounds} rounds in ten intervals");
}

/// Prints what a round of questions to fifty servers takes.
#[tokio::test]
async fn a_round_of_fifty_takes_less_than_a_second() {
    let names: Vec<String> = (0..50).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bench = Bench::new(Era::Legacy, &names);
    for name in &names {
        bench.until(name, State::Healthy).await;
    }
    let began = Instant::now();
    let asks = names.iter().map(|name| {
        let (entry, gateway) = (bench.entry(name), Arc::clone(&bench.gateway));
        async move {
            let (place, live) =
                (entry.slot.place().expect("a place"), entry.slot.live().expect("a connection"));
            entry.checkup.ask(&entry.slot, (&place, &live), &gateway.shared, &gateway.room).await;
        }
    });
    futures_util::future::join_all(asks).await;
    let took = began.elapsed();
    println!("a round of questions to 50 servers took {took:?}");
    assert!(names.iter().all(|name| bench.state(name) == Some(State::Healthy)));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn few_processes_start_at_once_and_those_of_a_higher_priority_first() {
    let (stage, _on_stage) = Stage::new(&[], Act::Silent);
    let gateway = Gateway::new(shared(&stage), Arc::new(FakeSessions::default()), [7; 32]);
    gateway.set_starts_max(2);
    let of = |priority: i32, name: &str| Arc::new(Place { priority, ..(*place(name, RETRY)).clone() });
    let places = [("a", 0), ("b", -1), ("c", 5), ("d", 9), ("e", 0), ("f", 7)];
    let places: Places = places.iter().map(|(name, priority)| (id(name), of(*priority, name))).collect();
    gateway.set_places(&places);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.order(), ["d", "f"]);
    // One that says nothing does not hold up the next.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.order(), ["d", "f", "c", "a"]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.order(), ["d", "f", "c", "a", "e", "b"]);
}

//! Servers that do not start, that start late and that end, on a clock of their own.

use crate::gateway::places::{Down, Place, Retry};
use crate::gateway::played::{Act, Played, RETRY, Stage, id, place, shared};
use crate::gateway::slot::keep::keep;
use crate::gateway::slot::{PARK_MAX, Shared, Slot, Unavailable};
use crate::mcp::wire::Era;
use crate::model::observed::ContactState as Contact;
use crate::model::time::Span;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

struct Bench {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    stage: Arc<Stage>,
    on_stage: mpsc::UnboundedReceiver<Played>,
}

impl Bench {
    fn new(script: &[Act], rest: Act) -> Self {
        let (stage, on_stage) = Stage::new(script, rest);
        let shared = Arc::new(shared(&stage));
        let (slot, inlets) = Slot::new(id("a"), Arc::clone(&shared.news));
        std::mem::forget(inlets);
        tokio::spawn(keep(Arc::clone(&slot), Arc::clone(&shared)));
        Self { slot, shared, stage, on_stage }
    }

    fn contact(&self) -> Contact {
        self.slot.contact(self.shared.clock.now()).state
    }

    async fn until(&self, what: &str, reached: impl Fn(&Contact) -> bool) {
        let wait = async {
            while !reached(&self.contact()) {
                self.shared.news.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), wait)
            .await
            .unwrap_or_else(|_late| panic!("never {what}"));
    }

    /// Waits until this connection is none any more.
    async fn over(&self, generation: u64) {
        let slot = Arc::clone(&self.slot);
        self.until("over", |_| slot.live().is_none_or(|live| live.generation != generation)).await;
    }

    async fn failed(&self) {
        self.until("failed", |contact| matches!(contact, Contact::Failed { .. })).await;
    }
}

/// The answer and how long it took.
async fn asked(slot: &Slot) -> (Result<(), Unavailable>, Duration) {
    let began = Instant::now();
    let answer = slot.ready().await.map(drop);
    (answer, began.elapsed())
}

fn down(place: &Arc<Place>, down: Down) -> Arc<Place> {
    Arc::new(Place { down: Some(down), ..(**place).clone() })
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_server_that_did_not_start_is_refused_at_once_with_the_time_of_the_next_try() {
    for (act, says) in [(Act::Refuse, "starting it: no such program"), (Act::Dead, " (exited with code 1)")] {
        let bench = Bench::new(&[], act);
        assert_eq!(bench.contact(), Contact::Starting);
        bench.slot.set_place(place("k", RETRY));
        bench.failed().await;
        for round in 0..8_u32 {
            let Contact::Failed { why, next_try } = bench.contact() else { panic!("{:?}", bench.contact()) };
            assert!(why.contains(says), "{why}");
            let left = next_try.since(bench.shared.clock.now());
            let (refused, took) = asked(&bench.slot).await;
            let refused = refused.expect_err("a refusal");
            assert_eq!(took, Duration::ZERO);
            assert_eq!(refused.retry_after_secs(), Some(left.as_secs_ceil().max(1)));
            assert!(refused.to_string().contains("; the next try is in "), "{refused}");
            let wait = Duration::from_millis(500).saturating_mul(1 << round).min(Duration::from_secs(60));
            assert_eq!(Duration::from_millis(left.0), wait, "round {round}");
            tokio::time::sleep(wait).await;
            bench
                .until("failed again", |contact| match contact {
                    Contact::Failed { next_try: again, .. } => *again > next_try,
                    Contact::Up | Contact::Starting => false,
                })
                .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_a_start_is_under_way_waits_for_it() {
    let mut bench = Bench::new(&[Act::Refuse, Act::Silent, Act::Silent], Act::Serve(Era::Legacy));
    bench.slot.set_place(place("k", RETRY));
    bench.failed().await;
    // A start that says nothing for 30 s, and another one: all the time something is under way.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let (refused, took) = asked(&bench.slot).await;
    assert_eq!((took, bench.stage.opened()), (PARK_MAX.min(took), 3));
    assert!(took >= Duration::from_secs(29), "{took:?}");
    assert!(matches!(refused, Err(Unavailable::Later(_) | Unavailable::Failing(..))), "{refused:?}");
    bench.failed().await;
    let waiting = tokio::spawn({
        let slot = Arc::clone(&bench.slot);
        async move {
            loop {
                match slot.ready().await {
                    Ok(_) => return,
                    Err(why) => {
                        let secs = why.retry_after_secs().expect("a time");
                        tokio::time::sleep(Duration::from_secs(secs)).await;
                    }
                }
            }
        }
    });
    waiting.await.expect("an answer");
    assert_eq!(bench.contact(), Contact::Up);
    assert!(bench.on_stage.recv().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_comes_back_at_once_and_ever_later_if_it_goes_on_ending() {
    let mut bench = Bench::new(&[], Act::Serve(Era::Legacy));
    bench.slot.set_place(place("k", RETRY));
    let mut waits = Vec::new();
    for _ in 0..4 {
        let played = bench.on_stage.recv().await.expect("a server");
        let live = bench.slot.ready().await.expect("up");
        drop(played);
        bench.over(live.generation).await;
        let (answer, took) = asked(&bench.slot).await;
        assert_eq!(took, Duration::ZERO, "at once, back or not");
        waits.push(answer.err().and_then(|why| why.retry_after_secs()));
        if let Contact::Failed { next_try, .. } = bench.contact() {
            let left = next_try.since(bench.shared.clock.now());
            tokio::time::sleep(Duration::from_millis(left.0)).await;
        }
    }
    assert_eq!(waits, [None, Some(1), Some(1), Some(2)]);
    // One that stayed long has its ends counted anew.
    let played = bench.on_stage.recv().await.expect("a server");
    let live = bench.slot.ready().await.expect("up");
    tokio::time::sleep(RETRY.stable).await;
    drop(played);
    bench.over(live.generation).await;
    assert!(asked(&bench.slot).await.0.is_ok());
}

#[tokio::test(start_paused = true)]
async fn while_somebody_else_starts_a_server_its_failures_are_part_of_the_start() {
    let grace = Duration::from_secs(20);
    let retry = Retry { delay_max: Duration::from_secs(5), grace, ..RETRY };
    let mut bench = Bench::new(&[Act::Refuse, Act::Dead, Act::Dead, Act::Refuse], Act::Serve(Era::Legacy));
    bench.slot.set_place(place("k", retry));
    let (answer, took) = asked(&bench.slot).await;
    assert!(answer.is_ok() && took > Duration::from_secs(2), "{answer:?} after {took:?}");
    assert!(bench.on_stage.recv().await.is_some());
    // But not for ever.
    let bench = Bench::new(&[], Act::Refuse);
    bench.slot.set_place(place("k", retry));
    let (answer, took) = asked(&bench.slot).await;
    assert!(matches!(answer, Err(Unavailable::Failing(..))), "{answer:?}");
    assert!(took >= grace && took < grace + Duration::from_secs(6), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_loop_says_of_a_server_that_is_down_decides_who_waits() {
    let bench = Bench::new(&[], Act::Silent);
    let held = place("k", RETRY);
    bench.slot.set_place(Arc::clone(&held));
    let waiting = tokio::spawn({
        let slot = Arc::clone(&bench.slot);
        async move { asked(&slot).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let until = bench.shared.clock.now().after(Span::secs(7));
    bench.slot.set_place(down(&held, Down::Failed("restart 2".to_owned(), Some(until))));
    let (answer, took) = waiting.await.expect("an answer");
    assert_eq!(took, Duration::from_secs(3), "a try that was under way is given up with its place");
    let refused = answer.expect_err("a refusal");
    assert_eq!(refused.to_string(), "restart 2; the next try is in 7 s");
    assert_eq!(refused.retry_after_secs(), Some(7));
    bench.slot.set_place(down(&held, Down::Stopped("stopped by ada".to_owned())));
    tokio::task::yield_now().await;
    let refused = asked(&bench.slot).await.0.expect_err("a refusal");
    assert_eq!((refused.to_string().as_str(), refused.retry_after_secs()), ("stopped by ada", None));
    bench.slot.set_place(down(&held, Down::Coming("it is being created".to_owned())));
    tokio::task::yield_now().await;
    let (refused, took) = asked(&bench.slot).await;
    assert_eq!((took, refused.expect_err("a refusal").retry_after_secs()), (PARK_MAX, Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_new_place_is_opened_while_the_old_one_still_serves() {
    let mut bench = Bench::new(&[Act::Serve(Era::Legacy), Act::Refuse], Act::Serve(Era::Legacy));
    bench.slot.set_place(place("one", RETRY));
    let _first = bench.on_stage.recv().await.expect("a server");
    let one = bench.slot.ready().await.expect("up");
    bench.slot.set_place(place("two", RETRY));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(matches!(bench.contact(), Contact::Failed { .. }), "the old one serves while the new one fails");
    assert_eq!(bench.slot.ready().await.expect("up").generation, one.generation);
    let _second = bench.on_stage.recv().await.expect("a server");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(bench.slot.ready().await.expect("up").key, "two");
}

//! Servers that do not start, that start late and that end, on a clock of their own.

use crate::gateway::places::{Down, Place, Retry};
use crate::gateway::played::{Act, Played, RETRY, Stage, id, place, shared};
use crate::gateway::slot::keep::keep;
use crate::gateway::slot::{PARK_MAX, Shared, Slot, Unavailable};
use crate::mcp::wire::Era;
use crate::model::observed::ContactState as Contact;
use crate::model::server::RestartWhen;
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
        let (slot, inlets) = Slot::touching(id("a"), Arc::clone(&shared.news), &Arc::default());
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
                    _ => false,
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

#[tokio::test(start_paused = true)]
async fn a_process_that_ended_is_started_again_left_or_given_up_as_its_policy_says() {
    use RestartWhen::{Always, Never, OnFailure};
    for (when, code, again) in
        [(Always, 0, true), (Always, 1, true), (OnFailure, 0, false), (OnFailure, 1, true), (Never, 1, false)]
    {
        let mut bench = Bench::new(&[], Act::Serve(Era::Legacy));
        bench.stage.exit_with(code);
        bench.slot.set_place(place("k", Retry { when, ..RETRY }));
        let played = bench.on_stage.recv().await.expect("a server");
        let live = bench.slot.ready().await.expect("up");
        drop(played);
        bench.over(live.generation).await;
        let answer = asked(&bench.slot).await.0;
        assert_eq!(answer.is_ok(), again, "{when:?} {code}: {answer:?}");
        assert_eq!(
            bench.slot.contact(bench.shared.clock.now()).ends,
            (1, format!("it exited with code {code}"))
        );
        if again {
            continue;
        }
        let refused = answer.expect_err("a refusal");
        let says = format!("it exited with code {code} and its restart policy leaves it so");
        assert_eq!((refused.to_string(), refused.retry_after_secs()), (says.clone(), None));
        assert_eq!(bench.contact(), Contact::Left(says));
        // It stays so, until somebody wants it.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(bench.stage.opened(), 1);
        bench.slot.restart().await.expect("in time");
        assert!(bench.slot.ready().await.is_ok());
        assert_eq!((bench.stage.opened(), bench.contact()), (2, Contact::Up));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_is_given_up_after_as_many_restarts_as_are_allowed_until_somebody_wants_it() {
    let retry = Retry { restarts_max: Some(2), ..RETRY };
    for act in [Act::Refuse, Act::Dead] {
        let bench = Bench::new(&[], act);
        bench.slot.set_place(place("k", retry));
        let given_up = |contact: &Contact| matches!(contact, Contact::GaveUp(_));
        bench.until("given up", given_up).await;
        // A process that dies at its first message is asked in the other era at once.
        let tries = if act == Act::Dead { 2 } else { 1 };
        assert_eq!(bench.stage.opened(), 3 * tries, "a start and two restarts");
        let refused = asked(&bench.slot).await.0.expect_err("a refusal");
        assert!(
            refused.to_string().ends_with("; gave up after 2 restarts in a row (restart-server tries again)"),
            "{refused}"
        );
        assert_eq!(refused.retry_after_secs(), None);
        bench.slot.restart().await.expect("in time");
        bench.until("given up again", given_up).await;
        assert_eq!(bench.stage.opened(), 6 * tries, "counted anew");
        // An entry that allows more is tried by itself.
        bench.slot.set_place(place("k", RETRY));
        bench.until("tried again", |contact| matches!(contact, Contact::Failed { .. })).await;
    }
    // One that ran long enough in between is not given up.
    let mut bench = Bench::new(&[], Act::Serve(Era::Legacy));
    bench.slot.set_place(place("k", retry));
    for _ in 0..5 {
        let played = bench.on_stage.recv().await.expect("a server");
        let live = bench.slot.ready().await.expect("up");
        tokio::time::sleep(retry.stable).await;
        assert_eq!(bench.slot.contact(bench.shared.clock.now()).ends, (0, String::new()));
        drop(played);
        bench.over(live.generation).await;
    }
}

#[tokio::test(start_paused = true)]
async fn processes_that_end_again_and_again_are_held_back_when_the_host_has_had_enough() {
    let bench = Bench::new(&[], Act::Refuse);
    // Half of what the host bears is taken by containers.
    let now = bench.shared.clock.now();
    bench.shared.storm.tell(4, &[now, now]);
    let retry = Retry { delay: Duration::from_millis(10), delay_max: Duration::from_millis(10), ..RETRY };
    bench.slot.set_place(place("k", retry));
    bench.until("held back", |contact| matches!(contact, Contact::Held { .. })).await;
    // A start, a first restart that is free, and two more.
    assert_eq!(bench.stage.opened(), 4);
    let Contact::Held { why, until } = bench.contact() else { panic!("held back") };
    assert!(why.ends_with("; restart 4, once this host has had fewer restarts within a minute"), "{why}");
    assert!(until.since(now) >= Span::secs(59), "{until:?}");
    let refused = asked(&bench.slot).await.0.expect_err("a refusal");
    assert!(refused.retry_after_secs().is_some_and(|secs| secs > 50), "{refused}");
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(bench.stage.opened(), 4);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(bench.stage.opened() > 4, "it goes on by itself");
    // Who asks for it by hand is not held up.
    let before = bench.stage.opened();
    bench.slot.restart().await.expect("in time");
    bench.until("tried", |contact| !matches!(contact, Contact::Starting)).await;
    assert!(bench.stage.opened() > before);
}

#[tokio::test(start_paused = true)]
async fn a_restart_ends_what_serves_before_it_starts_another_and_who_asks_meanwhile_waits() {
    let mut bench = Bench::new(&[], Act::Serve(Era::Legacy));
    bench.slot.restart().await.expect("nothing to end");
    bench.slot.set_place(place("k", RETRY));
    let first = bench.on_stage.recv().await.expect("a server");
    let before = bench.slot.ready().await.expect("up");
    let asks = async {
        tokio::task::yield_now().await;
        bench.slot.ready().await
    };
    let (restarted, after) = tokio::join!(bench.slot.restart(), asks);
    restarted.expect("in time");
    assert!(before.leg.is_closed(), "the old one is gone");
    assert_ne!(after.expect("another one").generation, before.generation);
    assert_eq!(bench.stage.opened(), 2);
    drop(first);
    // One that failed and waits is tried at once.
    let bench = Bench::new(&[], Act::Refuse);
    bench.slot.set_place(place(
        "k",
        Retry { delay: Duration::from_secs(600), delay_max: Duration::from_secs(600), ..RETRY },
    ));
    bench.failed().await;
    bench.slot.restart().await.expect("in time");
    bench.failed().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.stage.opened(), 2);
    // One that is stopped stays so.
    let bench = Bench::new(&[], Act::Serve(Era::Legacy));
    bench.slot.set_place(down(&place("k", RETRY), Down::Stopped("stopped by ada".to_owned())));
    tokio::task::yield_now().await;
    bench.slot.restart().await.expect("in time");
    assert_eq!((bench.stage.opened(), asked(&bench.slot).await.0.is_err()), (0, true));
}

//! When the loop looks again, with a clock of its own.

use crate::execute::{Limits, Teller};
use crate::model::balancer::{BalancerOp, BalancerView};
use crate::model::desired::Desired;
use crate::model::id::ServerId;
use crate::model::memory::{Intent, Memory};
use crate::model::time::{Span, Timestamp};
use crate::plan::{Input, Plan, plan};
use crate::reconcile::{Ended, Pass, Reconciler};
use crate::service::{Observer, Service, Snapshot, Wish, look_again, next_pass};
use crate::world::fake::{FakeWorld, nothing_seen};
use crate::world::{Answer, Balancer, Clock, ErrorKind, TargetsToRead, World, WorldError};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Time that passes when the loop sleeps.
#[derive(Default)]
struct Turned(AtomicU64);

impl Turned {
    fn secs(&self) -> u64 {
        self.0.load(Ordering::SeqCst) / 1000
    }
}

impl Clock for Turned {
    fn now(&self) -> Timestamp {
        Timestamp(0).after(Span::millis(self.0.load(Ordering::SeqCst)))
    }

    fn sleep(&self, span: Span) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(span.0)).await;
            self.0.fetch_add(span.0, Ordering::SeqCst);
        })
    }
}

/// A load balancer that is away until some second; when it was asked.
struct Away {
    clock: Arc<Turned>,
    until: u64,
    fake: Arc<FakeWorld>,
    asked: Mutex<Vec<u64>>,
}

impl Balancer for Away {
    fn view<'a>(&'a self, targets: &'a TargetsToRead) -> Answer<'a, BalancerView> {
        let now = self.clock.secs();
        self.asked.lock().unwrap().push(now);
        if now < self.until {
            let error = WorldError::new("reading the listener", ErrorKind::Unreachable, "no route to host");
            return Box::pin(std::future::ready(Err(error)));
        }
        self.fake.view(targets)
    }

    fn apply<'a>(&'a self, _op: &'a BalancerOp) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Silent;

impl Observer for Silent {
    fn passed(&mut self, _pass: &Pass, _snapshot: &Snapshot) {}
    fn ended(&mut self, _ended: &Ended) {}
}

#[tokio::test(start_paused = true)]
async fn what_is_away_is_looked_for_soon_and_then_less_often() {
    let (fake, clock) = (FakeWorld::new(1).expect("a world"), Arc::new(Turned::default()));
    let away = Arc::new(Away {
        clock: Arc::clone(&clock),
        until: 150,
        fake: Arc::clone(&fake),
        asked: Mutex::default(),
    });
    let world = World {
        engine: Arc::clone(&fake) as Arc<dyn crate::world::Engine>,
        balancer: Ok(Arc::clone(&away) as Arc<dyn Balancer>),
        host: Arc::clone(&fake) as Arc<dyn crate::world::Host>,
        edges: None,
        store: Arc::clone(&fake) as Arc<dyn crate::world::Store>,
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
    };
    let silent: Teller = Arc::new(|_action, _step| {});
    let reconciler = Reconciler::new(world, Limits::new(1), silent, Memory::default());
    let wish = Wish {
        desired: Arc::new(Desired::default()),
        policy: fake.policy(),
        generation: 1,
        interval: Span::secs(60),
    };
    let (_wishes, wish) = watch::channel(Arc::new(wish));
    let (service, _handle) = Service::new(reconciler, clock, wish, Silent);
    service.run(tokio::time::sleep(Duration::from_secs(330)), Duration::ZERO).await;
    // 5 s at first, doubled up to the interval; once it is back, the interval again.
    assert_eq!(*away.asked.lock().unwrap(), [0, 5, 10, 20, 40, 80, 140, 200, 260, 320]);
}

#[test]
fn targets_are_read_soon_whatever_else_is_to_be_looked_at_and_when() {
    let at = |millis: u64| Timestamp(0).after(Span::millis(millis));
    let (desired, observed, memory) = (Desired::default(), nothing_seen(), Memory::default());
    let policy = FakeWorld::new(1).expect("a world").policy();
    let empty =
        plan(Input { desired: &desired, observed: &observed, memory: &memory, policy: &policy, now: at(0) });
    let next = |next_look: Option<u64>, reads: bool| {
        let server = ServerId::new("a").expect("an id");
        let read_next = reads.then_some(server).into_iter().collect();
        let plan = Plan { next_look: next_look.map(at), read_next, ..empty.clone() };
        next_pass(&plan, at(0), Span::secs(60))
    };
    for (next_look, reads, expected) in [
        (None, false, 60_000),
        (None, true, 1_000),
        // A back-off, a pause or a drain that ends much later.
        (Some(45_000), true, 1_000),
        (Some(45_000), false, 45_000),
        (Some(90_000), true, 1_000),
        (Some(90_000), false, 60_000),
        // One that ends at once does not have the balancer read ten times a second.
        (Some(10), true, 1_000),
        (Some(10), false, 100),
    ] {
        assert_eq!(next(next_look, reads), at(expected), "{next_look:?} {reads}");
    }
    assert_eq!(next_pass(&Plan { next_look: Some(at(5)), ..empty }, at(0), Span::millis(50)), at(50));
}

#[test]
fn nothing_is_later_than_the_interval() {
    let at = |secs: u64| Timestamp(0).after(Span::secs(secs));
    assert_eq!(look_again(None, at(100), Span::secs(60)), at(160));
    assert_eq!(look_again(Some(at(100)), at(100), Span::secs(60)), at(105));
    assert_eq!(look_again(Some(at(100)), at(130), Span::secs(60)), at(160));
    assert_eq!(look_again(Some(at(0)), at(100), Span::secs(60)), at(160));
    assert_eq!(look_again(Some(at(100)), at(100), Span::secs(2)), at(102));
}

/// A clock that somebody turns on while time passes.
#[derive(Default)]
struct Ticking(AtomicU64);

impl Ticking {
    const TICK_MILLIS: u64 = 10;

    async fn tick(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(Self::TICK_MILLIS)).await;
            self.0.fetch_add(Self::TICK_MILLIS, Ordering::SeqCst);
        }
    }
}

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp(0).after(Span::millis(self.0.load(Ordering::SeqCst)))
    }

    fn sleep(&self, span: Span) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(Duration::from_millis(span.0)))
    }
}

/// A load balancer that takes its time: for each look, and whether it then answers.
struct Slow {
    looks: Mutex<Vec<(u64, bool)>>,
    fake: Arc<FakeWorld>,
}

impl Balancer for Slow {
    fn view<'a>(&'a self, targets: &'a TargetsToRead) -> Answer<'a, BalancerView> {
        let look = self.looks.lock().unwrap().pop();
        Box::pin(async move {
            let Some((secs, answers)) = look else { return self.fake.view(targets).await };
            tokio::time::sleep(Duration::from_secs(secs)).await;
            if answers {
                return self.fake.view(targets).await;
            }
            Err(WorldError::new("reading the listener", ErrorKind::TimedOut, "no answer in time"))
        })
    }

    fn apply<'a>(&'a self, _op: &'a BalancerOp) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// When passes were decided, in tenths of a second, and whether each knew the load balancer.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<(u64, bool, bool)>>>);

impl Observer for Noted {
    fn passed(&mut self, pass: &Pass, snapshot: &Snapshot) {
        let at = (pass.decided.since(Timestamp(0)).0 + 50) / 100;
        self.0.lock().unwrap().push((at, !pass.observed.balancer.is_unknown(), snapshot.settled));
    }

    fn ended(&mut self, _ended: &Ended) {}
}

/// A world whose load balancer looks as long as `looks` say, the last one first.
fn slow(looks: Vec<(u64, bool)>) -> (World, Arc<Ticking>, Arc<FakeWorld>) {
    let (fake, clock) = (FakeWorld::new(1).expect("a world"), Arc::new(Ticking::default()));
    let slow = Slow { looks: Mutex::new(looks), fake: Arc::clone(&fake) };
    let world = World {
        engine: Arc::clone(&fake) as Arc<dyn crate::world::Engine>,
        balancer: Ok(Arc::new(slow) as Arc<dyn Balancer>),
        host: Arc::clone(&fake) as Arc<dyn crate::world::Host>,
        edges: None,
        store: Arc::clone(&fake) as Arc<dyn crate::world::Store>,
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
    };
    (world, clock, fake)
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_that_hangs_holds_up_no_pass() {
    // The first look takes 5 s and the second one 30 s, without an answer; then it is back.
    let (world, clock, fake) = slow(vec![(3, true), (30, false), (5, true)]);
    let silent: Teller = Arc::new(|_action, _step| {});
    let reconciler = Reconciler::new(world, Limits::new(1), silent, Memory::default());
    let wish = Wish {
        desired: Arc::new(Desired::default()),
        policy: fake.policy(),
        generation: 1,
        interval: Span::secs(60),
    };
    let (_wishes, wish) = watch::channel(Arc::new(wish));
    let noted = Noted::default();
    let (service, handle) =
        Service::new(reconciler, Arc::clone(&clock) as Arc<dyn Clock>, wish, noted.clone());
    let run = service.run(tokio::time::sleep(Duration::from_secs(140)), Duration::ZERO);
    let waker = handle.clone();
    let wakes = async move {
        tokio::time::sleep(Duration::from_secs(68)).await;
        waker.wake();
        tokio::time::sleep(Duration::from_secs(12)).await;
        waker.wake();
    };
    tokio::select! {
        _ = async { tokio::join!(run, wakes) } => {}
        () = clock.tick() => {}
    }
    let noted = noted.0.lock().unwrap().clone();
    let first = [(20, false, false), (50, true, true)];
    // The timer's pass at 65 s waits for a moment; those of the wake-ups at 68 and 80 s do not at all.
    let hangs = [(670, false, false), (680, false, false), (730, false, false), (800, false, false)];
    // It gave up at 95 s, and was asked again as long after that as it had been away.
    let back = [(950, false, true), (1250, false, false), (1280, true, true)];
    assert_eq!(noted, [&first[..], &hangs, &back].concat());
}

#[tokio::test(start_paused = true)]
async fn a_stop_by_hand_waits_for_the_load_balancer() {
    let knows = |memory: Memory| async {
        let (world, _clock, fake) = slow(vec![(5, true)]);
        let silent: Teller = Arc::new(|_action, _step| {});
        let mut reconciler = Reconciler::new(world, Limits::new(1), silent, memory);
        reconciler.be_brief();
        let (_, observed, _) = reconciler.preview(&Desired::default(), &fake.policy()).await;
        !observed.balancer.is_unknown()
    };
    let (by, at) = ("anna".to_owned(), Timestamp(0));
    let intent = |run| Intent { run, by: by.clone(), at, until: None, file_enabled: true, restart: None };
    let memory = |run| {
        let time = crate::model::id::ServerId::new("time").expect("an id");
        Memory { intents: [(time, intent(run))].into(), ..Memory::default() }
    };
    assert!(!knows(Memory::default()).await);
    assert!(!knows(memory(true)).await);
    assert!(knows(memory(false)).await, "it is stopped though the load balancer cannot be asked");
}

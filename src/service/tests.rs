//! When the loop looks again, with a clock of its own.

use crate::execute::{Limits, Teller};
use crate::model::balancer::{BalancerOp, BalancerView};
use crate::model::desired::Desired;
use crate::model::memory::Memory;
use crate::model::time::{Span, Timestamp};
use crate::reconcile::{Ended, Pass, Reconciler};
use crate::service::{Observer, Service, Snapshot, Wish, look_again};
use crate::world::fake::FakeWorld;
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
fn nothing_is_later_than_the_interval() {
    let at = |secs: u64| Timestamp(0).after(Span::secs(secs));
    assert_eq!(look_again(None, at(100), Span::secs(60)), at(160));
    assert_eq!(look_again(Some(at(100)), at(100), Span::secs(60)), at(105));
    assert_eq!(look_again(Some(at(100)), at(130), Span::secs(60)), at(160));
    assert_eq!(look_again(Some(at(0)), at(100), Span::secs(60)), at(160));
    assert_eq!(look_again(Some(at(100)), at(100), Span::secs(2)), at(102));
}

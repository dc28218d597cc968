//! Readings and history with a clock, an engine and a store of the tests' own.

use super::{Reading, Sources, Tally, Usage};
use crate::model::id::{ContainerId, ServerId};
use crate::model::time::{Span, Timestamp};
use crate::model::usage::{Counters, HostCounters, KeptPoint, Step};
use crate::plan::report::Row;
use crate::service::Snapshot;
use crate::world::{Answer, Clock, ErrorKind, Meter, UsageStore, WorldError};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The runtime's own time, which stands still while something can go on.
#[derive(Default)]
struct Runtime {
    began: std::sync::OnceLock<tokio::time::Instant>,
    shift: AtomicI64,
}

const EPOCH: i64 = 1_795_260_000_000;

impl Clock for Runtime {
    fn now(&self) -> Timestamp {
        let began = self.began.get_or_init(tokio::time::Instant::now);
        let since = i64::try_from(began.elapsed().as_millis()).unwrap();
        Timestamp(EPOCH + since + self.shift.load(SeqCst))
    }

    fn sleep(&self, span: Span) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(Duration::from_millis(span.0)))
    }
}

/// Containers that use half a processor and send 1000 bytes a second.
struct Engine {
    clock: Arc<Runtime>,
    reads: AtomicUsize,
    at_once: AtomicUsize,
    most: AtomicUsize,
    away: std::sync::atomic::AtomicBool,
}

impl Meter for Engine {
    fn container<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Counters> {
        Box::pin(async move {
            self.reads.fetch_add(1, SeqCst);
            self.most.fetch_max(self.at_once.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.at_once.fetch_sub(1, SeqCst);
            if self.away.load(SeqCst) {
                return Err(WorldError::new("reading", ErrorKind::Unreachable, "nobody is there"));
            }
            let millis = u64::try_from(self.clock.now().0 - EPOCH).unwrap();
            // Another container counts from another beginning.
            let millis = if id.0.ends_with("-new") { millis / 2 } else { millis };
            Ok(Counters {
                cpu_nanos: Some(millis * 500_000),
                memory_bytes: Some(10 << 20),
                network_out_bytes: Some(millis),
                pids: Some(2),
                ..Counters::default()
            })
        })
    }

    fn processes(&self) -> Answer<'_, BTreeMap<ServerId, (String, Counters)>> {
        Box::pin(async { Ok(BTreeMap::new()) })
    }

    fn host(&self) -> Answer<'_, HostCounters> {
        let millis = u64::try_from(self.clock.now().0 - EPOCH).unwrap();
        Box::pin(async move {
            Ok(HostCounters { cpu_ticks: Some((millis / 4, millis)), ..HostCounters::default() })
        })
    }
}

#[derive(Default)]
struct Kept {
    points: Mutex<Vec<KeptPoint>>,
    writes: AtomicUsize,
}

impl UsageStore for Kept {
    fn load_usage(&self, _now: Timestamp) -> Answer<'_, Vec<KeptPoint>> {
        Box::pin(async { Ok(self.points.lock().unwrap().clone()) })
    }

    fn keep_usage<'a>(&'a self, points: &'a [KeptPoint], _now: Timestamp) -> Answer<'a, ()> {
        Box::pin(async {
            self.writes.fetch_add(1, SeqCst);
            self.points.lock().unwrap().extend(points.to_vec());
            Ok(())
        })
    }
}

fn id(name: &str) -> ServerId {
    ServerId::new(name).unwrap()
}

fn row(container: &str) -> Row {
    Row {
        container_id: Some(container.to_owned()),
        container_state: Some("running".to_owned()),
        ..Row::new("container")
    }
}

struct Setting {
    usage: Usage,
    engine: Arc<Engine>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    requests: Arc<Mutex<BTreeMap<ServerId, Tally>>>,
}

fn snapshot(containers: &[(&str, &str)]) -> Arc<Snapshot> {
    let mut snapshot = Snapshot { pass: 1, ..Snapshot::default() };
    snapshot.report.servers =
        containers.iter().map(|(server, container)| (id(server), row(container))).collect();
    Arc::new(snapshot)
}

async fn setting(containers: &[(&str, &str)], store: Arc<Kept>) -> Setting {
    let clock = Arc::new(Runtime::default());
    clock.now();
    let engine = Arc::new(Engine {
        clock: Arc::clone(&clock),
        reads: AtomicUsize::new(0),
        at_once: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        away: false.into(),
    });
    let usage = Usage::load(clock, store as Arc<dyn UsageStore>).await;
    let (snapshots, seen) = watch::channel(snapshot(containers));
    let requests = Arc::new(Mutex::new(BTreeMap::new()));
    let counted = Arc::clone(&requests);
    let sources = Sources {
        meter: Arc::clone(&engine) as Arc<dyn Meter>,
        snapshots: seen,
        tallies: Arc::new(move || counted.lock().unwrap().clone()),
    };
    tokio::spawn(usage.clone().run(sources));
    Setting { usage, engine, snapshots, requests }
}

/// The reading, without looking.
fn reading(setting: &Setting) -> Arc<Reading> {
    Arc::clone(&super::locked(&setting.usage.inner.reading))
}

async fn pass(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn rates_are_over_the_time_between_two_readings() {
    let setting = setting(&[("a", "c1")], Arc::default()).await;
    let tally = Tally { requests: 5, ..Tally::default() };
    setting.requests.lock().unwrap().insert(id("a"), tally);
    pass(65).await;
    let mut classes = tally.classes;
    classes[3] = 60;
    let tally = Tally { requests: 65, errors: 6, classes };
    setting.requests.lock().unwrap().insert(id("a"), tally);
    pass(60).await;
    let now = reading(&setting);
    let used = now.servers[&id("a")];
    let near =
        |value: Option<f64>, wanted: f64| value.is_some_and(|value| (value - wanted).abs() < wanted / 50.0);
    assert!(used.cpu_millis.is_some_and(|cpu| (499..=500).contains(&cpu)), "{used:?}");
    assert!(near(used.network_out_per_sec, 1000.0) && used.network_in_per_sec.is_none(), "{used:?}");
    assert!(near(used.requests_per_sec, 1.0) && near(used.errors_per_sec, 0.1), "{used:?}");
    assert_eq!((used.p95_micros, used.pids), (Some(1000), Some(2)));
    assert!(now.host_cpu_thousandths.is_some_and(|cpu| (249..=251).contains(&cpu)), "{now:?}");
    // Another container is no going back of the counters, and has no rate yet.
    setting.snapshots.send_replace(snapshot(&[("a", "c1-new")]));
    pass(60).await;
    assert_eq!(reading(&setting).servers[&id("a")].cpu_millis, None);
    pass(60).await;
    assert!(reading(&setting).servers[&id("a")].cpu_millis.is_some());
    // What does not run is not shown, and is read no more.
    setting.snapshots.send_replace(snapshot(&[]));
    pass(60).await;
    let reads = setting.engine.reads.load(SeqCst);
    pass(300).await;
    assert_eq!((reading(&setting).servers.len(), setting.engine.reads.load(SeqCst)), (0, reads));
}

#[tokio::test(start_paused = true)]
async fn readings_come_often_only_while_somebody_looks() {
    let setting = setting(&[("a", "c1"), ("b", "c2")], Arc::default()).await;
    let reads = || setting.engine.reads.load(SeqCst);
    pass(600).await;
    assert!((20..=24).contains(&reads()), "{} in ten minutes of quiet", reads());
    let before = reads();
    setting.usage.look();
    pass(2).await;
    assert_eq!(reads(), before + 2, "the first look is answered with new figures");
    for _ in 0..10 {
        setting.usage.look();
        pass(10).await;
    }
    let watched = reads() - before;
    assert!((18..=30).contains(&watched), "{watched} in 100 s of looking");
    pass(60).await;
    let before = reads();
    pass(600).await;
    assert!(reads() - before <= 24, "and quiet again");
}

#[tokio::test(start_paused = true)]
async fn what_readings_cost_does_not_grow_with_the_fleet() {
    let names: Vec<(String, String)> = (0..250).map(|n| (format!("s{n}"), format!("c{n}"))).collect();
    let containers: Vec<(&str, &str)> = names.iter().map(|(s, c)| (s.as_str(), c.as_str())).collect();
    let setting = setting(&containers, Arc::default()).await;
    pass(1).await;
    let before = setting.engine.reads.load(SeqCst);
    pass(1200).await;
    let reads = setting.engine.reads.load(SeqCst) - before;
    assert!(reads <= 20 * super::sampler::READS_A_MINUTE, "{reads} in twenty minutes");
    assert!(reads >= 250, "each was read: {reads}");
    assert!(setting.engine.most.load(SeqCst) <= 4, "{} at once", setting.engine.most.load(SeqCst));
    assert!(setting.usage.history(&id("s7"), Span::secs(3600)).1.len() >= 3);
    // An engine that does not answer is not asked for each of them.
    setting.engine.away.store(true, SeqCst);
    let before = setting.engine.reads.load(SeqCst);
    pass(360).await;
    assert!(setting.engine.reads.load(SeqCst) - before <= 16);
}

#[tokio::test(start_paused = true)]
async fn the_history_is_bounded_and_outlives_the_process() {
    let store = Arc::<Kept>::default();
    {
        let setting = setting(&[("a", "c1")], Arc::clone(&store)).await;
        pass(4 * 3600).await;
        let (step, points) = setting.usage.history(&id("a"), Span::secs(3 * 3600));
        assert_eq!((step, points.len() <= step.points(), points.len() >= 170), (Step::Minute, true, true));
        let (step, tens) = setting.usage.history(&id("a"), Span::secs(24 * 3600));
        assert!(step == Step::TenMinutes && (22..=24).contains(&tens.len()), "{}", tens.len());
        assert!(tens.iter().all(|point| point.memory_kib == Some(10 << 10)), "{tens:?}");
        assert!(store.writes.load(SeqCst) <= 4 * 12 + 1, "{} writes", store.writes.load(SeqCst));
        setting.usage.flush().await;
    }
    let clock = Arc::new(Runtime::default());
    clock.now();
    clock.shift.store(4 * 3_600_000, SeqCst);
    let again = Usage::load(clock, Arc::clone(&store) as Arc<dyn UsageStore>).await;
    let (_, points) = again.history(&id("a"), Span::secs(3 * 3600));
    assert!((170..=180).contains(&points.len()), "{} points after a restart", points.len());
    let trace = again.traces(Span::secs(3600), 30).remove(&id("a")).expect("a trace");
    assert_eq!(trace.cpu_millis.len(), 30);
    let known = trace.cpu_millis.iter().filter(|cpu| cpu.is_some_and(|cpu| (495..=505).contains(&cpu)));
    assert!(known.count() >= 28, "{trace:?}");
}

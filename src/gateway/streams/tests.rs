//! Streams and their store, with time in the tests' hands.

use super::store::{ENDED_MAX, EventStore, KEPT_BYTES_MAX, STREAMS_MAX};
use super::{
    EventBody, Greeting, KEEP_ALIVE, Keep, Pushed, QUEUED_BYTES_MAX, QUEUED_MAX, Stream, StreamKind,
};
use crate::model::time::{Span, Timestamp};
use crate::world::Clock;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    fn sleep(&self, _span: Span) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

fn store() -> (EventStore, Arc<TestClock>) {
    let clock = Arc::new(TestClock(AtomicI64::new(7)));
    (EventStore::new(Arc::clone(&clock) as Arc<dyn Clock>), clock)
}

/// What is there now, and whether the connection ended.
fn read(body: &mut EventBody) -> (String, bool) {
    let mut out = String::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match body.poll_bytes(&mut cx) {
            Poll::Ready(Some(bytes)) => out.push_str(std::str::from_utf8(&bytes).unwrap()),
            Poll::Ready(None) => return (out, true),
            Poll::Pending => return (out, false),
        }
    }
}

async fn next(body: &mut EventBody) -> Option<String> {
    poll_fn(|cx| body.poll_bytes(cx)).await.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

/// `(id, data)` of every event with data.
fn events(text: &str) -> Vec<(String, String)> {
    let field = |block: &str, key: &str| {
        block.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().to_owned()
    };
    let blocks = text.split("\n\n").map(|block| (field(block, "id: "), field(block, "data: ")));
    blocks.filter(|(_, data)| !data.is_empty()).collect()
}

#[tokio::test]
async fn a_modern_stream_has_no_ids_and_ends_after_its_last_message() {
    let stream = Stream::unstored(StreamKind::Post);
    let mut body = stream.body(Greeting::Priming);
    assert_eq!(stream.push("1", Keep::May), Pushed::Queued);
    assert_eq!(stream.push("2", Keep::Must), Pushed::Queued);
    assert_eq!(next(&mut body).await.unwrap(), "event: message\ndata: 1\n\nevent: message\ndata: 2\n\n");
    assert_eq!(read(&mut body), (String::new(), false));
    stream.finish_with("3");
    assert_eq!(read(&mut body), ("event: message\ndata: 3\n\n".to_owned(), true));
    assert_eq!(stream.push("4", Keep::Must), Pushed::Over);
    drop(body);
    assert!(!is_abandoned(&stream).await, "it was read to its end");
}

async fn is_abandoned(stream: &Stream) -> bool {
    tokio::time::timeout(Duration::ZERO, stream.abandoned()).await.is_ok()
}

#[tokio::test]
async fn dropping_a_modern_body_is_seen() {
    let stream = Stream::unstored(StreamKind::Post);
    let body = stream.body(Greeting::None);
    stream.push("1", Keep::Must);
    let waiter = tokio::spawn({
        let stream = Arc::clone(&stream);
        async move { stream.abandoned().await }
    });
    tokio::task::yield_now().await;
    assert!(!is_abandoned(&stream).await);
    drop(body);
    tokio::time::timeout(Duration::from_secs(5), waiter).await.unwrap().unwrap();
    assert!(is_abandoned(&stream).await);
    assert_eq!(stream.push("2", Keep::Must), Pushed::Over);
    let ended = Stream::unstored(StreamKind::Get);
    let mut body = ended.body(Greeting::None);
    body.ender().end();
    assert_eq!(read(&mut body), (String::new(), true));
    assert!(is_abandoned(&ended).await);
}

#[tokio::test]
async fn a_legacy_stream_greets_and_is_resumed_where_the_client_was() {
    let (store, _) = store();
    let stream = store.open(StreamKind::Post);
    let mut body = stream.body(Greeting::Priming);
    assert_eq!(next(&mut body).await.unwrap(), "retry: 3000\n\nid: 7-0\ndata: \n\n");
    stream.push("a", Keep::May);
    assert_eq!(next(&mut body).await.unwrap(), "event: message\nid: 7-1\ndata: a\n\n");
    drop(body);
    assert!(!stream.is_connected());
    stream.push("b", Keep::Must);
    stream.push("c", Keep::Must);
    let mut body = store.resume("7-1", Greeting::None).unwrap();
    assert_eq!(events(&read(&mut body).0).len(), 2);
    let mut again = store.resume("7-0", Greeting::Priming).unwrap();
    assert_eq!(read(&mut body), (String::new(), true), "a second reader ends the first");
    drop(body);
    stream.finish_with("d");
    let (text, ended) = read(&mut again);
    assert!(ended && text.starts_with("retry: 3000\n\nid: 7-0\ndata: \n\nevent"), "{text}");
    let data: String = events(&text).into_iter().map(|(_, data)| data).collect();
    assert_eq!(data, "abcd");
    assert_eq!(read(&mut store.resume("7-4", Greeting::None).unwrap()), (String::new(), true));
    for unknown in ["", "7", "7-", "8-1", "7-5", "x-1", "7-1-1"] {
        assert!(store.resume(unknown, Greeting::None).is_none(), "{unknown}");
    }
}

#[tokio::test]
async fn streams_of_a_session_do_not_mix() {
    let (store, _) = store();
    let (one, two) = (store.open(StreamKind::Post), store.open(StreamKind::Post));
    let get = store.open(StreamKind::Get);
    assert!(Arc::ptr_eq(&get, &store.open(StreamKind::Get)), "one GET stream");
    one.push("one", Keep::Must);
    two.push("two", Keep::Must);
    get.push("get", Keep::Must);
    for (stream, id) in [(&one, "7-1"), (&two, "8-1"), (&get, "9-1")] {
        let text = read(&mut stream.body(Greeting::None)).0;
        assert_eq!(events(&text).len(), 1);
        assert!(text.contains(&format!("id: {id}\n")), "{text}");
        assert_eq!(
            read(&mut stream.body(Greeting::None)).0,
            "",
            "what was sent is sent again on demand only"
        );
    }
    get.finish();
    assert!(!Arc::ptr_eq(&get, &store.open(StreamKind::Get)));
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_comments() {
    let stream = Stream::unstored(StreamKind::Get);
    let mut body = stream.body(Greeting::None);
    let start = tokio::time::sleep(Duration::ZERO).deadline();
    let passed = || tokio::time::sleep(Duration::ZERO).deadline() - start;
    assert_eq!(next(&mut body).await.unwrap(), ": keep-alive\n\n");
    assert_eq!(passed(), KEEP_ALIVE);
    assert_eq!(next(&mut body).await.unwrap(), ": keep-alive\n\n");
    assert_eq!(passed(), KEEP_ALIVE * 2);
    tokio::time::advance(KEEP_ALIVE / 2).await;
    stream.push("1", Keep::May);
    assert!(next(&mut body).await.unwrap().contains("data: 1"));
    assert_eq!(next(&mut body).await.unwrap(), ": keep-alive\n\n");
    assert_eq!(passed(), KEEP_ALIVE * 7 / 2, "counted from the message on");
}

#[tokio::test]
async fn a_slow_client_loses_only_what_may_be_lost() {
    let stream = Stream::unstored(StreamKind::Post);
    let mut body = stream.body(Greeting::None);
    for _ in 0..QUEUED_MAX {
        assert_eq!(stream.push("progress", Keep::May), Pushed::Queued);
    }
    assert_eq!(stream.push("progress", Keep::May), Pushed::Dropped);
    assert_eq!(stream.finish_with("answer"), Pushed::Queued);
    assert_eq!(stream.dropped(), u64::try_from(QUEUED_MAX).unwrap() + 1);
    let (text, ended) = read(&mut body);
    assert_eq!((text.as_str(), ended), ("event: message\ndata: answer\n\n", true));
}

#[tokio::test]
async fn too_slow_for_what_must_arrive_closes_the_connection() {
    let (store, _) = store();
    let big = "x".repeat(QUEUED_BYTES_MAX);
    let stream = store.open(StreamKind::Post);
    let mut body = stream.body(Greeting::None);
    assert_eq!(stream.push(&big, Keep::Must), Pushed::Queued, "one message may be larger than the queue");
    assert_eq!(stream.push("answer", Keep::Must), Pushed::Closed);
    assert_eq!(read(&mut body), (String::new(), true));
    let text = read(&mut stream.body(Greeting::None)).0;
    assert!(text.ends_with("data: answer\n\n"), "the newest is kept");

    let modern = Stream::unstored(StreamKind::Get);
    let mut body = modern.body(Greeting::None);
    modern.push(&big, Keep::Must);
    assert_eq!(modern.push("change", Keep::Must), Pushed::Over);
    assert_eq!(read(&mut body), (String::new(), true));
    assert!(is_abandoned(&modern).await);
}

#[tokio::test]
async fn a_session_keeps_no_more_than_its_bound() {
    let (store, _) = store();
    let half = "x".repeat(KEPT_BYTES_MAX / 2);
    let (get, stream) = (store.open(StreamKind::Get), store.open(StreamKind::Post));
    let mut body = stream.body(Greeting::None);
    for round in 0..8 {
        stream.push(&half, Keep::Must);
        assert!(read(&mut body).0.len() > half.len());
        get.push(&half, Keep::Must);
        assert!(store.bytes() <= KEPT_BYTES_MAX, "round {round}: {}", store.bytes());
    }
    assert!(store.resume("8-0", Greeting::None).is_none(), "not all of it is there");
    assert!(!get.is_connected());
    let huge = "x".repeat(KEPT_BYTES_MAX * 2);
    drop(body);
    stream.finish_with(&huge);
    assert!(store.bytes() < huge.len() + 100);
    assert!(
        read(&mut store.resume("8-8", Greeting::None).unwrap()).0.len() > huge.len(),
        "it can be fetched"
    );
    store.sweep();
    assert!(store.bytes() <= KEPT_BYTES_MAX, "{}", store.bytes());
    store.close();
    assert_eq!(store.bytes(), 0);
}

#[tokio::test]
async fn ended_streams_go_by_time_and_number() {
    let (store, clock) = store();
    let stream = store.open(StreamKind::Post);
    stream.finish_with("late");
    clock.0.fetch_add(299_999, Ordering::Relaxed);
    assert!(store.resume("7-0", Greeting::None).is_some());
    clock.0.fetch_add(1, Ordering::Relaxed);
    store.sweep();
    assert_eq!((store.bytes(), store.resume("7-0", Greeting::None).is_none()), (0, true));
    let mut bodies = Vec::new();
    for _ in 0..ENDED_MAX + 5 {
        let stream = store.open(StreamKind::Post);
        bodies.push(stream.body(Greeting::None));
        stream.finish_with("answer");
    }
    store.sweep();
    for body in &mut bodies {
        assert!(read(body).0.contains("answer"), "what is being read is never cut");
    }
    store.sweep();
    assert!(store.resume("8-0", Greeting::None).is_none());
    assert!(store.resume("40-0", Greeting::None).is_some());
    for _ in 0..STREAMS_MAX * 2 {
        let _stream = store.open(StreamKind::Post);
    }
    assert!(store.resume("100-0", Greeting::None).is_none());
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_connections() {
    let (store, _) = store();
    let stream = store.open(StreamKind::Get);
    let mut body = stream.body(Greeting::None);
    assert_eq!(read(&mut body), (String::new(), false));
    drop(store);
    assert_eq!(read(&mut body), (String::new(), true));
    assert_eq!(stream.push("1", Keep::Must), Pushed::Over);
}

#[tokio::test]
async fn many_small_events_are_one_piece_and_large_ones_are_not_copied() {
    let stream = Stream::unstored(StreamKind::Post);
    let mut body = stream.body(Greeting::None);
    for number in 0..100 {
        stream.push(&number.to_string(), Keep::Must);
    }
    assert_eq!(events(&next(&mut body).await.unwrap()).len(), 100);
    stream.push("small", Keep::Must);
    stream.push(&"x".repeat(100_000), Keep::Must);
    stream.push("small", Keep::Must);
    for length in [28, 100_023, 28] {
        assert_eq!(next(&mut body).await.unwrap().len(), length);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(bool),
    Connect(bool),
    Read,
    /// The connection breaks; the client saw all but this many of the events that were sent.
    Break(usize),
    Disconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<bool>().prop_map(Step::Push),
        2 => any::<bool>().prop_map(Step::Connect),
        4 => proptest::strategy::Just(Step::Read),
        2 => (0..4_usize).prop_map(Step::Break),
        1 => proptest::strategy::Just(Step::Disconnect),
    ];
    prop::collection::vec(step, 0..80)
}

proptest::proptest! {
    /// Each message reaches the client once and in order, whatever the points where it comes back.
    #[test]
    fn each_message_is_delivered_once(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let (store, _) = store();
        let stream = store.open(StreamKind::Post);
        let other = store.open(StreamKind::Post);
        let (mut pushed, mut seen) = (0, Vec::<(String, String)>::new());
        let mut body: Option<EventBody> = None;
        let connect = |seen: &[(String, String)], greet| {
            let greeting = if greet { Greeting::Priming } else { Greeting::None };
            match seen.last() {
                Some((id, _)) => store.resume(id, greeting),
                None => store.resume("7-0", greeting),
            }
        };
        for step in steps {
            match step {
                Step::Push(must) => {
                    pushed += 1;
                    stream.push(&pushed.to_string(), if must { Keep::Must } else { Keep::May });
                    other.push("other", Keep::Must);
                }
                Step::Connect(greet) => {
                    // What the earlier connection had sent on its way arrives first.
                    if let Some(mut earlier) = body.take() {
                        seen.extend(events(&read(&mut earlier).0));
                    }
                    body = connect(&seen, greet);
                    prop_assert!(body.is_some());
                }
                Step::Read => {
                    if let Some(body) = &mut body {
                        seen.extend(events(&read(body).0));
                    }
                }
                Step::Break(unseen) => {
                    if let Some(mut body) = body.take() {
                        let mut got = events(&read(&mut body).0);
                        got.truncate(got.len().saturating_sub(unseen));
                        seen.extend(got);
                    }
                }
                Step::Disconnect => stream.disconnect(),
            }
        }
        stream.finish();
        seen.extend(body.as_mut().map(|body| events(&read(body).0)).unwrap_or_default());
        let (rest, ended) = read(&mut connect(&seen, false).unwrap());
        seen.extend(events(&rest));
        prop_assert!(ended);
        let data: Vec<String> = seen.into_iter().map(|(_, data)| data).collect();
        prop_assert_eq!(data, (1..=pushed).map(|n: u32| n.to_string()).collect::<Vec<_>>());
    }
}

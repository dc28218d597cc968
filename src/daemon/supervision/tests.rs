//! The watchdog is fed by what moves, and by nothing else.

use super::{Moved, STEP_WITHIN, answers, watchdog};
use crate::host::systemd::Manager;
use crate::service::Pulse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::time::{Instant, advance};

const EVERY: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_loop_that_waits_must_turn_when_asked() {
    let pulse = Pulse::default();
    let mut moved = Moved { count: pulse.count(), at: Instant::now() };
    for _ in 0..3 {
        pulse.turn(true);
        advance(EVERY).await;
        assert!(moved.lately(&pulse, EVERY));
    }
    advance(EVERY * 2).await;
    assert!(moved.lately(&pulse, EVERY));
    advance(Duration::from_millis(1)).await;
    assert!(!moved.lately(&pulse, EVERY), "it was asked and did not turn");
    pulse.turn(true);
    assert!(moved.lately(&pulse, EVERY), "and is well again when it does");
}

#[tokio::test(start_paused = true)]
async fn a_slow_step_is_waited_for_and_a_stuck_one_is_not() {
    let steps = Arc::new(AtomicU64::new(0));
    let pulse = Pulse::new(Arc::clone(&steps));
    pulse.turn(false);
    let mut moved = Moved { count: 0, at: Instant::now() };
    // Ten calls that take nearly as long as they may.
    for _ in 0..10 {
        assert!(moved.lately(&pulse, EVERY));
        advance(STEP_WITHIN).await;
        assert!(moved.lately(&pulse, EVERY));
        steps.fetch_add(1, Ordering::Relaxed);
    }
    assert!(moved.lately(&pulse, EVERY));
    advance(STEP_WITHIN + Duration::from_millis(1)).await;
    assert!(!moved.lately(&pulse, EVERY));
}

#[tokio::test]
async fn only_an_answer_counts_as_an_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control.sock");
    let within = Duration::from_millis(100);
    assert!(answers(&path, within).await, "a file that was removed by somebody is no reason to be killed");
    let listener = UnixListener::bind(&path).expect("bind");
    assert!(!answers(&path, within).await, "nobody accepts");
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let _request = stream.read(&mut [0_u8; 256]).await;
            // Those who asked before are gone.
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        }
    });
    assert!(answers(&path, Duration::from_secs(5)).await);
    server.abort();
    let _ended = server.await;
    assert!(!answers(&path, within).await, "nobody listens");
}

#[tokio::test]
async fn a_loop_that_stands_still_is_not_fed_though_the_way_in_answers() {
    let dir = tempfile::tempdir().expect("a directory");
    let (notify, path) = (dir.path().join("notify"), dir.path().join("control.sock"));
    let heard = tokio::net::UnixDatagram::bind(&notify).expect("a socket");
    let listener = UnixListener::bind(&path).expect("bind");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _request = stream.read(&mut [0_u8; 256]).await;
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        }
    });
    let env = [("NOTIFY_SOCKET", notify.display().to_string()), ("WATCHDOG_USEC", "800000".to_owned())];
    let env = env.map(|(name, value)| (name.to_owned(), value)).into();
    let pulse = Arc::new(Pulse::default());
    let turning = Arc::clone(&pulse);
    let turns = tokio::spawn(async move {
        loop {
            turning.turn(true);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let feeder = tokio::spawn(watchdog(Manager::find(&env, 1), pulse, path));
    let mut bytes = [0; 64];
    for _ in 0..3 {
        let read = heard.recv(&mut bytes).await.expect("a message");
        assert_eq!(&bytes[..read], b"WATCHDOG=1\n");
    }
    turns.abort();
    // What was on its way, and the two looks that a loop has.
    let silent = async {
        while tokio::time::timeout(Duration::from_millis(1500), heard.recv(&mut bytes)).await.is_ok() {}
    };
    tokio::time::timeout(Duration::from_secs(10), silent).await.expect("it is fed no more");
    feeder.abort();
}

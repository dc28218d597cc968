//! Legs against scripted peers, over in-memory pipes and with paused time.

use crate::mcp::handshake::ClientInfo;
use crate::mcp::wire::Era;
use crate::upstream::error::{CallError, CloseReason, LegError};
use crate::upstream::leg::{Call, Leg, LegIo};
use crate::upstream::open::{Mode, OpenOptions};
use crate::upstream::table::{Diagnostic, FromServer, IN_FLIGHT_MAX, Notice, Outlets};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub(crate) const SHORT: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_secs(3600);

/// The server's side of the pipes.
pub(crate) struct Peer {
    pub(crate) heard: Lines<BufReader<DuplexStream>>,
    pub(crate) out: DuplexStream,
    pub(crate) err: DuplexStream,
}

impl Peer {
    pub(crate) fn new(pipe_bytes: usize) -> (LegIo, Self) {
        let (stdout, out) = tokio::io::duplex(pipe_bytes);
        let (stdin, input) = tokio::io::duplex(pipe_bytes);
        let (stderr, err) = tokio::io::duplex(pipe_bytes);
        let io = LegIo { stdout: Box::new(stdout), stdin: Box::new(stdin), stderr: Some(Box::new(stderr)) };
        (io, Self { heard: BufReader::new(input).lines(), out, err })
    }

    pub(crate) async fn hear(&mut self) -> Value {
        // Far beyond every deadline, so that what never comes fails instead of hanging.
        let line = tokio::time::timeout(NEVER, self.heard.next_line()).await.expect("heard in time");
        serde_json::from_str(&line.expect("readable").expect("a line")).expect("json")
    }

    pub(crate) async fn say(&mut self, text: impl AsRef<[u8]>) {
        self.out.write_all(text.as_ref()).await.expect("writable");
        self.out.write_all(b"\n").await.expect("writable");
    }

    pub(crate) async fn answer(&mut self, request: &Value, result: Value) {
        self.say(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string()).await;
    }

    pub(crate) async fn shake(&mut self) {
        let request = self.hear().await;
        assert_eq!(request["method"], "initialize");
        assert_eq!(request["params"]["protocolVersion"], "2025-11-25");
        assert_eq!(request["params"]["capabilities"], json!({}));
        self.answer(&request, hello()).await;
        assert_eq!(self.hear().await["method"], "notifications/initialized");
    }
}

pub(crate) fn hello() -> Value {
    json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "peer", "version": "1"}})
}

pub(crate) fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("json")
}

pub(crate) fn options(mode: Mode) -> OpenOptions {
    let client = ClientInfo { name: "tests".into(), version: "0".into() };
    OpenOptions { known: Some(Era::Legacy), ..OpenOptions::new(mode, client) }
}

fn notice(heard: Option<FromServer>) -> Notice {
    match heard {
        Some(FromServer::Notice(notice)) => notice,
        other => panic!("no notice: {other:?}"),
    }
}

/// A leg and its peer after the handshake.
async fn leg(pipe_bytes: usize, options: OpenOptions) -> (Leg, Peer) {
    let (io, mut peer) = Peer::new(pipe_bytes);
    let (leg, ()) = tokio::join!(Leg::open(io, options), peer.shake());
    (leg.expect("a leg"), peer)
}

async fn fresh() -> (Leg, Peer) {
    leg(64 * 1024, options(Mode::Fresh)).await
}

fn spawn_call(
    leg: &Leg,
    method: &'static str,
    params: Option<Box<RawValue>>,
) -> JoinHandle<Result<String, CallError>> {
    let leg = leg.clone();
    tokio::spawn(
        async move { leg.request(method, params.as_deref(), SHORT).await.map(|r| r.get().to_owned()) },
    )
}

#[tokio::test(start_paused = true)]
async fn a_fresh_server_is_greeted_and_asked() {
    let (leg, mut peer) = fresh().await;
    assert_eq!(leg.server_info().map(|s| s.name.as_str()), Some("peer"));
    let call = spawn_call(&leg, "tools/call", Some(raw(r#"{"name":"t","arguments":{"a":1.0,"b":1e400}}"#)));
    let line = peer.heard.next_line().await.expect("line").expect("line");
    assert_eq!(
        line,
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"t","arguments":{"a":1.0,"b":1e400}}}"#
    );
    peer.say(
        "{\"result\":{\"x\":1.0,\"\\u00e9\":123456789012345678901234567890},\"id\":2,\"jsonrpc\":\"2.0\"}\r",
    )
    .await;
    assert_eq!(
        call.await.expect("join").expect("result"),
        "{\"x\":1.0,\"\\u00e9\":123456789012345678901234567890}"
    );
    let metrics = leg.metrics();
    assert_eq!((metrics.requests, metrics.results, metrics.in_flight, metrics.queued_bytes), (2, 2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn lists_are_not_at_stake_when_a_server_hangs() {
    let (leg, _silent) = fresh().await;
    let asked = ["tools/list", "server/discover", "tools/call", "subscriptions/listen"];
    let running = asked.map(|method| leg.start(Call::new(method, None)).expect("room"));
    assert_eq!((leg.working(), leg.at_stake()), (3, 1), "a call is");
    drop(running);
    assert_eq!((leg.working(), leg.at_stake()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn answers_out_of_order_reach_their_callers() {
    let (leg, mut peer) = fresh().await;
    let calls: Vec<_> =
        (0..50).map(|n| spawn_call(&leg, "m", Some(raw(&format!("{{\"n\":{n}}}"))))).collect();
    let mut requests = Vec::new();
    for _ in 0..50 {
        requests.push(peer.hear().await);
    }
    for request in requests.iter().rev() {
        let result = request["params"]["n"].clone();
        peer.answer(request, result).await;
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.expect("join").expect("result"), n.to_string());
    }
}

/// A peer that does not read while it writes, and pipes far smaller than the messages: whoever
/// lets its reader wait for its writer stands still here.
#[tokio::test(start_paused = true)]
async fn large_messages_both_ways_never_stand_still() {
    let (leg, mut peer) = leg(4096, options(Mode::Fresh)).await;
    let text = "é".repeat(50_000);
    let params = raw(&json!({"text": text}).to_string());
    let calls: Vec<_> = (0..8).map(|_| spawn_call(&leg, "echo", Some(params.clone()))).collect();
    let script = tokio::spawn(async move {
        for _ in 0..8 {
            let request = peer.hear().await;
            let result = request["params"].clone();
            peer.answer(&request, result).await;
        }
        peer
    });
    for call in calls {
        let result =
            tokio::time::timeout(SHORT, call).await.expect("stands still").expect("join").expect("result");
        assert_eq!(result, params.get());
    }
    drop(script.await);
}

#[tokio::test(start_paused = true)]
async fn noise_stderr_and_split_characters_do_no_harm() {
    let (diagnostics, mut told) = mpsc::channel(100);
    let mut options = options(Mode::Fresh);
    options.outlets.diagnostics = Some(diagnostics);
    let (leg, mut peer) = leg(64 * 1024, options).await;
    let call = spawn_call(&leg, "m", None);
    let request = peer.hear().await;
    peer.say("Server listening on stdio").await;
    peer.say("").await;
    peer.say("{\"level\":\"info\",\"msg\":\"not a message\"}").await;
    peer.say(b"\xff\xfe binary").await;
    peer.err.write_all("wärning\n".as_bytes()).await.expect("stderr");
    let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": "\u{1f600}é"}).to_string() + "\n";
    for byte in answer.as_bytes() {
        peer.out.write_all(&[*byte]).await.expect("written");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(call.await.expect("join").expect("result"), "\"\u{1f600}é\"");
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(told.recv().await.expect("diagnostic"));
    }
    assert!(heard.contains(&Diagnostic::Stderr("wärning".into())), "{heard:?}");
    assert!(heard.contains(&Diagnostic::Noise("Server listening on stdio".into())), "{heard:?}");
    assert_eq!(leg.metrics().noise, 3);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_server_fails_everybody_at_once() {
    let (leg, mut peer) = fresh().await;
    let calls: Vec<_> = (0..3).map(|_| spawn_call(&leg, "m", None)).collect();
    for _ in 0..3 {
        peer.hear().await;
    }
    let before = tokio::time::Instant::now();
    peer.out.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"resu").await.expect("half a line");
    drop(peer);
    for call in calls {
        let error = call.await.expect("join").expect_err("closed");
        assert!(matches!(error, CallError::Closed(CloseReason::Eof)), "{error:?}");
        assert_eq!(error.to_string(), "server closed its output");
    }
    assert!(before.elapsed() < Duration::from_millis(50));
    assert_eq!(leg.closed().await, CloseReason::Eof);
    assert!(matches!(leg.request("m", None, SHORT).await, Err(CallError::Unsent(CloseReason::Eof))));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_line_end_counts_when_the_server_ends() {
    let (leg, mut peer) = fresh().await;
    let call = spawn_call(&leg, "m", None);
    peer.hear().await;
    peer.out.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":7}").await.expect("written");
    drop(peer);
    assert_eq!(call.await.expect("join").expect("result"), "7");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_cancels_upstream_and_a_late_answer_hurts_nobody() {
    let (leg, mut peer) = fresh().await;
    let call = spawn_call(&leg, "slow", None);
    let request = peer.hear().await;
    assert!(matches!(call.await.expect("join"), Err(CallError::TimedOut { after }) if after == SHORT));
    let cancelled = peer.hear().await;
    assert_eq!(cancelled["method"], "notifications/cancelled");
    assert_eq!(cancelled["params"]["requestId"], request["id"]);
    let next = spawn_call(&leg, "m", None);
    let second = peer.hear().await;
    assert_ne!(second["id"], request["id"]);
    peer.answer(&request, json!("late")).await;
    peer.answer(&second, json!("mine")).await;
    assert_eq!(next.await.expect("join").expect("result"), "\"mine\"");
    let metrics = leg.metrics();
    assert_eq!((metrics.timeouts, metrics.late, metrics.abandoned, metrics.in_flight), (1, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_caller_cancels_what_was_sent_and_unqueues_what_was_not() {
    let (leg, mut peer) = leg(64, options(Mode::Fresh)).await;
    let large = raw(&json!({"text": "x".repeat(1000)}).to_string());
    let sent = spawn_call(&leg, "sent", Some(large));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let queued = spawn_call(&leg, "queued", None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    sent.abort();
    queued.abort();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let request = peer.hear().await;
    assert_eq!(request["method"], "sent");
    let cancelled = peer.hear().await;
    assert_eq!(cancelled["params"], json!({"requestId": request["id"], "reason": "the caller went away"}));
    leg.notify("notifications/last", None);
    assert_eq!(peer.hear().await["method"], "notifications/last", "the queued request was never sent");
    assert_eq!((leg.metrics().in_flight, leg.metrics().queued_bytes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn progress_reaches_its_caller_under_its_own_token() {
    let (leg, mut peer) = fresh().await;
    let mut heard = Vec::new();
    let mut calls = Vec::new();
    for _ in 0..2 {
        let (sink, progress) = mpsc::channel(8);
        let leg = leg.clone();
        heard.push(progress);
        calls.push(tokio::spawn(async move {
            let params = raw(r#"{"name":"slow","_meta":{"progressToken":"same","v":1.0}}"#);
            let call = Call { events: Some(sink), ..Call::new("tools/call", Some(&params)) };
            leg.start(call)?.answer(SHORT).await.map(|r| r.get().to_owned())
        }));
    }
    for n in 0..2 {
        let request = peer.hear().await;
        let token = &request["params"]["_meta"]["progressToken"];
        assert_eq!(token, &request["id"]);
        peer.say(format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progress":{n}.50,"progressToken":{token}}}}}"#
        ))
        .await;
        peer.answer(&request, json!(n)).await;
    }
    peer.say(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"progressToken":"same"}}"#).await;
    let mut shown = Vec::new();
    for (progress, call) in heard.iter_mut().zip(calls) {
        let result = call.await.expect("join").expect("result");
        let params = notice(progress.recv().await).params.expect("params").get().to_owned();
        assert_eq!(params, format!(r#"{{"progress":{result}.50,"progressToken":"same"}}"#));
        assert!(progress.recv().await.is_none(), "one each");
        shown.push(result);
    }
    shown.sort();
    assert_eq!(shown, ["0", "1"]);
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_requests_are_answered_at_once() {
    let (leg, mut peer) = fresh().await;
    peer.say(r#"{"jsonrpc":"2.0","id":"p-1","method":"ping"}"#).await;
    peer.say(r#"{"jsonrpc":"2.0","id":1.5,"method":"sampling/createMessage","params":{}}"#).await;
    assert_eq!(peer.hear().await, json!({"jsonrpc": "2.0", "id": "p-1", "result": {}}));
    let refused = peer.hear().await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(1.5), &json!(-32601)));
    assert_eq!((leg.metrics().pings, leg.metrics().refused), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_reads_cannot_stop_its_own_answers() {
    let (leg, mut peer) = leg(256, options(Mode::Fresh)).await;
    let call = spawn_call(&leg, "m", None);
    let request = peer.hear().await;
    // Far more pings than the pipe and the queue hold, none of whose answers is read.
    for _ in 0..10_000 {
        peer.say(r#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#).await;
    }
    peer.answer(&request, json!("here")).await;
    assert_eq!(call.await.expect("join").expect("result"), "\"here\"");
    assert!(leg.metrics().dropped > 0);
}

#[tokio::test(start_paused = true)]
async fn notices_before_the_handshake_ends_are_not_lost() {
    let (notices, mut heard) = mpsc::channel(8);
    let mut options = options(Mode::Fresh);
    options.outlets = Outlets { owner: Some(notices), diagnostics: None };
    let (io, mut peer) = Peer::new(1024);
    let script = async {
        let request = peer.hear().await;
        peer.say(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#).await;
        peer.answer(&request, hello()).await;
        peer.hear().await;
    };
    let (leg, ()) = tokio::join!(Leg::open(io, options), script);
    let _leg = leg.expect("a leg");
    assert_eq!(notice(heard.recv().await).method, "notifications/tools/list_changed");
}

#[tokio::test(start_paused = true)]
async fn errors_come_as_written_and_one_without_id_is_nobodys() {
    let (leg, mut peer) = fresh().await;
    let call = spawn_call(&leg, "m", None);
    peer.hear().await;
    peer.say(r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"no","data":1.0}}"#).await;
    let Err(CallError::Rpc(error)) = call.await.expect("join") else { panic!("an error") };
    assert_eq!(error.raw.get(), r#"{"code":-32602,"message":"no","data":1.0}"#);
    let call = spawn_call(&leg, "m", None);
    peer.hear().await;
    peer.say(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what"}}"#).await;
    peer.say(r#"{"jsonrpc":"2.0","id":3,"result":7}"#).await;
    assert_eq!(call.await.expect("join").expect("result"), "7");
}

#[tokio::test(start_paused = true)]
async fn an_answer_too_long_fails_its_call_only() {
    let mut options = options(Mode::Fresh);
    options.line_bytes_max = 1000;
    let (leg, mut peer) = leg(64 * 1024, options).await;
    let first = spawn_call(&leg, "m", None);
    let request = peer.hear().await;
    let second = spawn_call(&leg, "m", None);
    let other = peer.hear().await;
    peer.answer(&request, json!("x".repeat(2000))).await;
    assert!(matches!(first.await.expect("join"), Err(CallError::TooLong { bytes }) if bytes > 2000));
    peer.answer(&other, json!("fits")).await;
    assert_eq!(second.await.expect("join").expect("result"), "\"fits\"");
}

#[tokio::test(start_paused = true)]
async fn too_much_at_once_is_refused_and_not_stored() {
    let (leg, peer) = leg(64, options(Mode::Fresh)).await;
    let calls: Vec<_> = (0..IN_FLIGHT_MAX + 100).map(|_| spawn_call(&leg, "m", None)).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(leg.metrics().in_flight, u64::try_from(IN_FLIGHT_MAX).expect("small"));
    assert_eq!(leg.metrics().busy, 100);
    drop(peer);
    let mut busy = 0;
    for call in calls {
        busy += usize::from(matches!(call.await.expect("join"), Err(CallError::Busy)));
    }
    assert_eq!(busy, 100);
}

#[tokio::test(start_paused = true)]
async fn lists_are_read_to_their_end_and_no_further() {
    let (leg, mut peer) = fresh().await;
    let list = tokio::spawn({
        let leg = leg.clone();
        async move { leg.list(("tools/list", "tools"), |params| params, SHORT).await }
    });
    for (cursor, next) in [(json!(null), json!("2")), (json!("2"), json!(null))] {
        let request = peer.hear().await;
        assert_eq!(request["params"]["cursor"], cursor);
        let name = request["id"].to_string();
        let mut result = json!({"tools": [{"name": name}]});
        if next != json!(null) {
            result["nextCursor"] = next;
        }
        peer.answer(&request, result).await;
    }
    assert_eq!(list.await.expect("join").expect("list").len(), 2);
    let endless =
        tokio::spawn(async move { leg.list(("tools/list", "tools"), |params| params, SHORT).await });
    for _ in 0..2 {
        let request = peer.hear().await;
        peer.answer(&request, json!({"tools": [{"name": "a"}], "nextCursor": "same"})).await;
    }
    assert_eq!(endless.await.expect("join").expect("what there is").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn letting_go_closes_the_input_and_ends_the_calls() {
    let (leg, mut peer) = fresh().await;
    drop(leg);
    assert!(peer.heard.next_line().await.expect("readable").is_none(), "end of input");
    let (leg, mut peer) = fresh().await;
    let closing = tokio::spawn({
        let leg = leg.clone();
        async move { leg.close(SHORT).await }
    });
    assert!(peer.heard.next_line().await.expect("readable").is_none(), "end of input");
    drop(peer);
    closing.await.expect("join");
    assert_eq!(leg.closed().await, CloseReason::Eof);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_reading_for_good_is_closed() {
    let (leg, peer) = fresh().await;
    let Peer { heard, out, err: _err } = peer;
    drop(heard);
    let call = spawn_call(&leg, "m", None);
    let error = call.await.expect("join").expect_err("closed");
    assert!(matches!(error, CallError::Closed(CloseReason::WriteFailed(_))), "{error:?}");
    drop(out);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_written_is_told_from_what_may_have_arrived() {
    let (leg, peer) = leg(1024, options(Mode::Fresh)).await;
    let large = raw(&format!(r#"{{"x":"{}"}}"#, "y".repeat(4096)));
    let written = spawn_call(&leg, "m", Some(large));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let waits = spawn_call(&leg, "m", None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(peer);
    let (written, waits) = (written.await.expect("join"), waits.await.expect("join"));
    assert!(matches!(written, Err(CallError::Closed(_))), "{written:?}");
    assert!(matches!(waits, Err(CallError::Unsent(_))), "{waits:?}");
}

/// The second process of a probe: whatever it says is the last word.
fn second() -> OpenOptions {
    OpenOptions { second: true, ..options(Mode::Fresh) }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_server_that_says_nothing_or_no_is_reported() {
    let (io, peer) = Peer::new(1024);
    let error = Leg::open(io, second()).await.expect_err("silent");
    assert_eq!(error.to_string(), "server did not answer the first message in time");
    drop(peer);
    for (answer, expected) in [
        (
            r#""error":{"code":-32603,"message":"no key"}"#,
            "server refused to open a connection: no key (code -32603)",
        ),
        (
            r#""error":{"code":-32022,"message":"modern","data":{"supported":["2030-01-01"]}}"#,
            "server speaks no protocol version of ours, only 2030-01-01",
        ),
        (
            r#""result":{"protocolVersion":"1999-01-01"}"#,
            "server speaks no protocol version of ours, only 1999-01-01",
        ),
        (r#""result":{}"#, "server answered initialize with something else"),
    ] {
        let (io, mut peer) = Peer::new(1024);
        let script = async {
            peer.hear().await;
            peer.say(format!(r#"{{"jsonrpc":"2.0","id":1,{answer}}}"#)).await;
        };
        let (leg, ()) = tokio::join!(Leg::open(io, second()), script);
        assert_eq!(leg.expect_err("refused").to_string(), expected);
    }
    let (io, peer) = Peer::new(1024);
    drop(peer);
    assert!(matches!(Leg::open(io, second()).await, Err(LegError::Closed(_))));
}

/// A server that served and ends: its output is closed first, why is said on the other stream.
#[tokio::test(start_paused = true)]
async fn the_last_words_of_a_server_that_served_are_heard_before_its_end_is_told() {
    for left_open in [false, true] {
        let (diagnostics, mut told) = mpsc::channel(100);
        let mut options = options(Mode::Fresh);
        options.outlets.diagnostics = Some(diagnostics);
        let (leg, Peer { heard, out, mut err }) = leg(64 * 1024, options).await;
        drop((heard, out));
        assert_eq!(leg.closed().await, CloseReason::Eof);
        let script = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            err.write_all(b"fatal: out of luck\n").await.expect("somebody reads");
            left_open.then_some(err)
        };
        let began = tokio::time::Instant::now();
        let ((), _err) = tokio::join!(leg.hear_out(), script);
        assert_eq!(told.try_recv(), Ok(Diagnostic::Stderr("fatal: out of luck".to_owned())));
        assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

//! Re-attaching to whatever an earlier run left behind.

use crate::mcp::wire::Era;
use crate::upstream::error::LegError;
use crate::upstream::leg::Leg;
use crate::upstream::leg_tests::{Peer, SHORT, hello, options, raw};
use crate::upstream::open::{Mode, Remembered};
use crate::upstream::table::Diagnostic;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

fn reattach(remembered: Option<Box<RawValue>>) -> Mode {
    let remembered = remembered.map(|info| Remembered { era: Era::Legacy, info });
    Mode::Reattach { unix_secs: 1_800_000_000, remembered }
}

fn remembered() -> Option<Box<RawValue>> {
    Some(raw(&hello().to_string()))
}

/// The first thing that must arrive is an empty line.
async fn hear_newline(peer: &mut Peer) {
    let line = peer.heard.next_line().await.expect("readable").expect("a line");
    assert_eq!(line, "", "a newline first");
}

/// Then a ping, where somebody remembers the server.
async fn hear_ping(peer: &mut Peer) -> Value {
    hear_newline(peer).await;
    let ping = peer.hear().await;
    assert_eq!(ping["method"], "ping");
    assert!(ping["id"].as_u64().expect("id") >= 1_800_000_000 << 20, "a fresh epoch");
    ping
}

#[tokio::test(start_paused = true)]
async fn a_server_never_spoken_to_is_initialized() {
    let (io, mut peer) = Peer::new(4096);
    let script = async {
        hear_newline(&mut peer).await;
        peer.shake().await;
    };
    let (leg, ()) = tokio::join!(Leg::open(io, options(reattach(None))), script);
    assert_eq!(leg.expect("a leg").server_info().map(|s| s.name.clone()).as_deref(), Some("peer"));
}

#[tokio::test(start_paused = true)]
async fn a_remembered_server_is_adopted_without_a_second_handshake() {
    let (io, mut peer) = Peer::new(4096);
    let script = async {
        let ping = hear_ping(&mut peer).await;
        peer.answer(&ping, json!({})).await;
        let list = peer.hear().await;
        assert_eq!(list["method"], "tools/list");
        peer.answer(&list, json!({"tools": []})).await;
        let call = peer.hear().await;
        assert_eq!(call["method"], "m", "nothing in between");
        peer.answer(&call, json!(1)).await;
    };
    let opened = async {
        let leg = Leg::open(io, options(reattach(remembered()))).await.expect("a leg");
        assert_eq!(leg.server_info().map(|s| s.raw.get().to_owned()), Some(hello().to_string()));
        assert_eq!(leg.request("m", None, SHORT).await.expect("result").get(), "1");
    };
    tokio::join!(opened, script);
}

#[tokio::test(start_paused = true)]
async fn a_remembered_server_that_was_restarted_is_initialized_again() {
    let (io, mut peer) = Peer::new(4096);
    let script = async {
        let ping = hear_ping(&mut peer).await;
        peer.answer(&ping, json!({})).await;
        let list = peer.hear().await;
        let refusal =
            json!({"code": -32602, "message": "Received request before initialization was complete"});
        peer.say(json!({"jsonrpc": "2.0", "id": list["id"], "error": refusal}).to_string()).await;
        peer.shake().await;
    };
    let (leg, ()) = tokio::join!(Leg::open(io, options(reattach(remembered()))), script);
    assert!(leg.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_one_handshake_only_is_adopted_when_it_works() {
    for works in [true, false] {
        let (io, mut peer) = Peer::new(4096);
        let script = async {
            hear_newline(&mut peer).await;
            let second = peer.hear().await;
            peer.say(
                json!({"jsonrpc": "2.0", "id": second["id"], "error": {"code": -32600, "message": "twice"}})
                    .to_string(),
            )
            .await;
            let list = peer.hear().await;
            assert_eq!(list["method"], "tools/list");
            let outcome =
                if works { r#""result":{"tools":[]}"# } else { r#""error":{"code":1,"message":"x"}"# };
            peer.say(format!(r#"{{"jsonrpc":"2.0","id":{},{outcome}}}"#, list["id"])).await;
        };
        let (leg, ()) = tokio::join!(Leg::open(io, options(reattach(None))), script);
        match leg {
            Ok(leg) => assert!(works && leg.server_info().is_none()),
            Err(error) => assert!(!works && matches!(error, LegError::Again(Era::Modern)), "{error}"),
        }
    }
}

/// What is left of an answer to the earlier run comes first, cut within a character, then whole
/// answers to it whose ids were small, then ours.
#[tokio::test(start_paused = true)]
async fn left_over_output_falls_away() {
    let (told, mut diagnostics) = tokio::sync::mpsc::channel(8);
    let mut options = options(reattach(None));
    options.outlets.diagnostics = Some(told);
    let (io, mut peer) = Peer::new(4096);
    let script = async {
        peer.out.write_all(&"é\",\"secret\":{\"id\":3}}}\n".as_bytes()[1..]).await.expect("left over");
        peer.say(r#"{"jsonrpc":"2.0","id":3,"result":{"protocolVersion":"2024-11-05"}}"#).await;
        hear_newline(&mut peer).await;
        peer.shake().await;
    };
    let (leg, ()) = tokio::join!(Leg::open(io, options), script);
    let leg = leg.expect("a leg");
    assert_eq!(leg.server_info().map(|s| s.protocol_version.as_str()), Some("2025-11-25"));
    assert_eq!((leg.metrics().late, leg.metrics().noise), (1, 0));
    assert!(diagnostics.try_recv().is_err(), "what is left of another's answer is shown to nobody");
}

/// The line that the earlier run left half written is answered with an error that names no id,
/// before or after the answer to our first question.
#[tokio::test(start_paused = true)]
async fn the_error_for_a_half_written_line_is_nobodys() {
    const ERROR: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what"}}"#;
    for before in [true, false] {
        let (io, mut peer) = Peer::new(4096);
        let script = async {
            hear_newline(&mut peer).await;
            if before {
                peer.say(ERROR).await;
            }
            let request = peer.hear().await;
            if !before {
                peer.say(ERROR).await;
            }
            peer.answer(&request, hello()).await;
            peer.hear().await;
        };
        let (leg, ()) = tokio::join!(Leg::open(io, options(reattach(None))), script);
        let metrics = leg.expect("a leg").metrics();
        assert_eq!((metrics.results, metrics.errors, metrics.late), (1, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up() {
    let (io, peer) = Peer::new(4096);
    let error = Leg::open(io, options(reattach(remembered()))).await.expect_err("silent");
    assert_eq!(error.to_string(), "server did not answer ping within 10000 ms");
    drop(peer);
    let (io, mut peer) = Peer::new(4096);
    let script = async {
        hear_newline(&mut peer).await;
        let first = peer.hear().await;
        peer.say(
            json!({"jsonrpc": "2.0", "id": first["id"], "error": {"code": -32022, "message": "modern"}})
                .to_string(),
        )
        .await;
    };
    let (leg, ()) = tokio::join!(Leg::open(io, options(reattach(None))), script);
    assert!(matches!(leg, Err(LegError::Again(Era::Modern))));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_writes_anything_but_messages_is_told_from_a_silent_one() {
    for babbles in [false, true] {
        let (io, mut peer) = Peer::new(4096);
        let script = async {
            let _first = peer.hear().await;
            for _ in 0..if babbles { 3 } else { 0 } {
                peer.say("Listening on port 3000").await;
            }
            // It hears the second first message of the probe, if there is one, and says nothing.
            let _closed = peer.heard.next_line().await;
        };
        let (leg, ()) = tokio::join!(Leg::open(io, options(Mode::Fresh)), script);
        let said = leg.expect_err("no server").to_string();
        assert_eq!(said.contains("3 lines on its output are no messages"), babbles, "{said}");
        assert!(said.contains("did not answer the first message in time"), "{said}");
    }
}

/// Its output is closed first, its words come a moment later; a child of it may keep that stream open.
#[tokio::test(start_paused = true)]
async fn the_last_words_of_a_server_that_ends_at_once_are_heard() {
    for left_open in [false, true] {
        let (diagnostics, mut told) = mpsc::channel(100);
        let (io, Peer { mut heard, out, mut err }) = Peer::new(4096);
        let mut options = options(Mode::Fresh);
        options.outlets.diagnostics = Some(diagnostics);
        let script = async {
            let _first = heard.next_line().await;
            drop((out, heard));
            tokio::time::sleep(Duration::from_millis(20)).await;
            err.write_all(b"no such option\n").await.expect("somebody reads");
            left_open.then_some(err)
        };
        let began = Instant::now();
        let (leg, _err) = tokio::join!(Leg::open(io, options), script);
        assert!(leg.is_err());
        assert_eq!(told.recv().await, Some(Diagnostic::Stderr("no such option".to_owned())));
        assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

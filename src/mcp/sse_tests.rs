//! Event streams: what is written is read back, whatever the chunks.

use crate::mcp::sse::{Decoder, comment, event, retry};
use proptest::prelude::*;

const MAX: usize = 1 << 16;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    name: Option<String>,
    id: Option<String>,
    data: String,
    retry: Option<u64>,
}

fn read(max: usize, chunks: &[&[u8]]) -> (Vec<Seen>, Decoder) {
    let mut decoder = Decoder::new(max);
    let mut seen = Vec::new();
    for chunk in chunks {
        decoder.push(chunk, &mut |e| {
            seen.push(Seen {
                name: e.name.map(ToOwned::to_owned),
                id: e.id.map(ToOwned::to_owned),
                data: e.data.to_owned(),
                retry: e.retry,
            });
        });
    }
    (seen, decoder)
}

fn seen(name: Option<&str>, id: Option<&str>, data: &str) -> Seen {
    Seen { name: name.map(Into::into), id: id.map(Into::into), data: data.into(), retry: None }
}

#[test]
fn events_are_written_line_by_line() {
    let mut out = Vec::new();
    event(&mut out, Some("message"), Some("a-1"), "one\ntwo\r\nthree\rfour");
    event(&mut out, None, Some("a-2"), "");
    event(&mut out, Some("x\ny"), Some("1\r\ndata: forged\0"), "d");
    retry(&mut out, 3000);
    comment(&mut out, "");
    comment(&mut out, "keep\nalive");
    assert_eq!(
        String::from_utf8(out).expect("text"),
        "event: message\nid: a-1\ndata: one\ndata: two\ndata: three\ndata: four\n\n\
         id: a-2\ndata: \n\n\
         event: xy\nid: 1data: forged\ndata: d\n\n\
         retry: 3000\n\n:\n\n: keep\n: alive\n\n"
    );
}

#[test]
fn the_rules_of_the_standard_hold() {
    for (stream, events) in [
        ("data: a\n\n", vec![seen(None, None, "a")]),
        ("data:a\n\ndata:  b\n\n", vec![seen(None, None, "a"), seen(None, None, " b")]),
        ("\u{feff}data: a\r\rdata: b\r\n\r\n", vec![seen(None, None, "a"), seen(None, None, "b")]),
        ("data\n\n", vec![seen(None, None, "")]),
        ("data\ndata\n\n", vec![seen(None, None, "\n")]),
        (
            "data: a\nid: 1\nevent: e\ndata: b\n\ndata: c\n\n",
            vec![seen(Some("e"), Some("1"), "a\nb"), seen(None, None, "c")],
        ),
        (": note\n\nevent: lost\n\nid: 7\n\n", vec![]),
        ("id: p\ndata:\n\n", vec![seen(None, Some("p"), "")]),
        ("id: a\0b\ndata: x\n\n", vec![seen(None, None, "x")]),
        ("nothing: 1\nDATA: 2\ndata: x\n\n", vec![seen(None, None, "x")]),
        ("data: never ended\n", vec![]),
        ("data: a: b\n\n", vec![seen(None, None, "a: b")]),
    ] {
        assert_eq!(read(MAX, &[stream.as_bytes()]).0, events, "{stream:?}");
    }
}

#[test]
fn what_a_resumption_needs_is_learnt() {
    let (events, decoder) =
        read(MAX, &[b"id: p-1\nretry: 250\ndata:\n\nretry: 1x\ndata: a\n\nretry: 9\n\nid\n"]);
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].retry, Some(250));
    assert_eq!(events[1].retry, None);
    assert_eq!((decoder.last_id(), decoder.wait()), (Some("p-1"), Some(9)));
    let (_, decoder) = read(MAX, &[b"id: a\ndata: x\n\nid\n\n"]);
    assert_eq!(decoder.last_id(), Some(""));
    let (_, decoder) = read(MAX, &[b"id: not yet\n"]);
    assert_eq!(decoder.last_id(), None);
}

#[test]
fn a_long_event_is_dropped_and_the_next_one_read() {
    let long = "x".repeat(100);
    for stream in [
        format!("data: {long}\n\ndata: ok\n\n"),
        format!("data: {}\ndata: {}\n\ndata: ok\n\n", &long[..12], &long[..12]),
        format!("data: small\nid: {long}\n\ndata: ok\n\n"),
        format!("{long}\ndata: small\n\ndata: ok\n\n"),
    ] {
        for size in [1, 7, stream.len()] {
            let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            let (events, decoder) = read(20, &chunks);
            assert_eq!(events, [seen(None, None, "ok")], "{stream}");
            assert_eq!(decoder.dropped(), 1);
        }
    }
    let (events, decoder) = read(20, &[format!(":{long}\ndata: {}\n\n", &long[..20]).as_bytes()]);
    assert_eq!((events.len(), decoder.dropped()), (1, 0));
}

fn stream() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("data".to_owned()),
        "(data|id|event|retry|x)?:? ?[a-c0-9é: \u{0}]{0,6}",
        Just(String::new()),
    ];
    let end = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
    (any::<bool>(), proptest::collection::vec((line, end), 0..30)).prop_map(|(bom, lines)| {
        let body: String = lines.into_iter().map(|(line, end)| line + end).collect();
        if bom { format!("\u{feff}{body}") } else { body }
    })
}

proptest! {
    #[test]
    fn chunks_do_not_matter(stream in stream(), cuts in proptest::collection::vec(1_usize..9, 1..40), max in 4_usize..40) {
        let bytes = stream.as_bytes();
        let (mut chunks, mut from): (Vec<&[u8]>, usize) = (Vec::new(), 0);
        for cut in cuts.iter().cycle().take(bytes.len()) {
            let end = (from + cut).min(bytes.len());
            chunks.push(&bytes[from..end]);
            from = end;
        }
        let (whole, one) = read(max, &[bytes]);
        let (parts, many) = read(max, &chunks);
        prop_assert_eq!(whole, parts);
        prop_assert_eq!(one.dropped(), many.dropped());
        prop_assert_eq!(one.last_id(), many.last_id());
        prop_assert_eq!(one.wait(), many.wait());
    }

    #[test]
    fn what_is_written_is_read_back(
        events in proptest::collection::vec(
            (proptest::option::of("[^\r\n\u{0}]{1,8}"), proptest::option::of("[^\r\n\u{0}]{0,8}"), any::<String>()), 0..6),
        size in 1_usize..17,
    ) {
        let mut out = Vec::new();
        let mut expected = Vec::new();
        for (name, id, data) in &events {
            comment(&mut out, data);
            event(&mut out, name.as_deref(), id.as_deref(), data);
            let data = data.replace("\r\n", "\n").replace('\r', "\n");
            expected.push(Seen { name: name.clone(), id: id.clone(), data, retry: None });
        }
        let chunks: Vec<&[u8]> = out.chunks(size).collect();
        prop_assert_eq!(read(MAX, &chunks).0, expected);
    }
}

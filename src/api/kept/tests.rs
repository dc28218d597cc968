//! Bytes that are shared, and when they are not.

use super::{BYTES_MAX, Kept, PAGES_MAX, Page, Pages, QUERY_BYTES_MAX, lock, names};
use crate::world::fake::FakeRecords;
use crate::world::{ErrorKind, Recorded, WorldError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use warp::http::HeaderValue;

/// A list of which only the text is of interest.
fn list(text: &str) -> Page {
    Page::of(&[text])
}

fn said(page: &Page) -> String {
    String::from_utf8(page.body.to_vec()).unwrap()
}

fn key(query: &str) -> super::Key {
    ("servers", query.to_owned())
}

#[test]
fn the_same_bytes_until_something_is_different() {
    let kept = Kept::default();
    let of = |number, query: &str, text: &str| said(&kept.of_servers(number, key(query), || list(text)));
    assert_eq!(of(1, "", "one"), r#"["one"]"#);
    assert_eq!(of(1, "", "never made"), r#"["one"]"#);
    assert_eq!(of(1, "state=stopped", "other"), r#"["other"]"#, "another question");
    assert_eq!(of(2, "", "two"), r#"["two"]"#, "something is different");
    assert_eq!(of(1, "", "never made"), r#"["two"]"#, "what is newer is good for all");
    let (one, again) = (list("one"), list("one"));
    assert!(one.etag == again.etag && one.etag != list("two").etag && one.etag.is_some());
}

#[test]
fn what_is_kept_has_bounds() {
    let mut pages = Pages::default();
    for n in 0..PAGES_MAX * 2 {
        pages.put(key(&n.to_string()), 1, list("x"));
        assert!(pages.find(&key("0"), 1).is_some(), "whoever is asked for stays");
    }
    assert_eq!(pages.held.len(), PAGES_MAX);
    let large = "x".repeat(BYTES_MAX / 3);
    for n in 0..5 {
        pages.put(key(&format!("large {n}")), 1, list(&large));
        assert_eq!(pages.bytes, pages.held.values().map(|held| held.page.body.len()).sum::<usize>());
        assert!(pages.bytes <= BYTES_MAX, "{}", pages.bytes);
    }
    assert!(pages.find(&key("large 4"), 1).is_some() && pages.find(&key("large 0"), 1).is_none());
    pages.put(key("too large"), 1, list(&"x".repeat(BYTES_MAX)));
    pages.put(key(&"q".repeat(QUERY_BYTES_MAX + 1)), 1, list("x"));
    assert!(pages.held.keys().all(|(_, query)| query != "too large" && query.len() <= QUERY_BYTES_MAX));
    // The same once more takes no more room.
    let before = pages.bytes;
    pages.put(key("large 4"), 2, list(&large));
    assert_eq!(pages.bytes, before);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_it_is_read_waits_for_a_reading_that_began_later_and_all_share_that() {
    let kept = Arc::new(Kept::default());
    let records = Arc::new(FakeRecords::default());
    let reads = Arc::new(AtomicU64::new(0));
    let ask = || {
        let (kept, records, reads) = (Arc::clone(&kept), Arc::clone(&records), Arc::clone(&reads));
        tokio::spawn(async move {
            let made = async {
                reads.fetch_add(1, Ordering::SeqCst);
                // What it sees is what was written by now.
                let seen = records.written.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok(list(&seen.to_string()))
            };
            said(
                &kept
                    .of_records((records.as_ref(), Recorded::Audit), ("audit", String::new()), made)
                    .await
                    .unwrap(),
            )
        })
    };
    let first: Vec<_> = (0..32).map(|_| ask()).collect();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(reads.load(Ordering::SeqCst), 1);
    records.written.fetch_add(1, Ordering::SeqCst);
    let second: Vec<_> = (0..32).map(|_| ask()).collect();
    for one in first {
        assert!([r#"["0"]"#, r#"["1"]"#].contains(&one.await.unwrap().as_str()));
    }
    for one in second {
        assert_eq!(one.await.unwrap(), r#"["1"]"#, "what was written before the request is in it");
    }
    assert_eq!(reads.load(Ordering::SeqCst), 2, "64 readers, two readings");
    ask().await.unwrap();
    assert_eq!(reads.load(Ordering::SeqCst), 2, "nothing was written since");
}

#[tokio::test]
async fn a_reading_that_fails_is_an_answer_to_one_and_not_kept() {
    let kept = Kept::default();
    let records = FakeRecords::default();
    let failing = async { Err(WorldError::new("reading", ErrorKind::Failed, "the disk")) };
    kept.of_records((&records, Recorded::Audit), key(""), failing).await.unwrap_err();
    assert!(lock(&kept.pages).held.is_empty());
    let page =
        kept.of_records((&records, Recorded::Audit), key(""), async { Ok(list("good")) }).await.unwrap();
    assert_eq!(said(&page), r#"["good"]"#);
}

#[test]
fn versions_are_named_as_http_has_it() {
    let etag = HeaderValue::from_static("\"abc\"");
    for has in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*", " \"abc\" ,\"y\""] {
        assert!(names(has, &etag), "{has}");
    }
    for has in ["", "abc", "\"abcd\"", "\"ab\", \"c\"", "W/abc"] {
        assert!(!names(has, &etag), "{has}");
    }
    let page = list("one");
    let etag = page.etag.clone().unwrap();
    let same = page.clone().answer(etag.to_str().ok());
    assert_eq!((same.status().as_u16(), same.headers()["etag"].clone()), (304, etag));
    assert!(same.headers().get("content-type").is_none());
    let other = page.answer(Some("\"other\""));
    assert_eq!(other.status().as_u16(), 200);
    assert_eq!(other.headers()["content-type"], "application/json");
    assert_eq!(other.headers()["cache-control"], "private, no-cache");
}

//! Trouble around the daemon at run time: a full disk, a journal that takes large entries and goes
//! away.

use crate::support::{Site, eventually, stdio};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::io::{IoSliceMut, Read as _, Seek as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// A state directory of half a megabyte.
const SMALL: &str = r#"mkdir -p "$1"; mount -t tmpfs -o size=512k,mode=0700 tmpfs "$1""#;
/// The journal's socket is ours.
const JOURNAL: &str = r#"mkdir -p /run/systemd; mount -t tmpfs -o mode=0755 tmpfs /run/systemd
mkdir /run/systemd/journal; : >/run/systemd/journal/socket
mount --bind "$1" /run/systemd/journal/socket"#;
/// No journal at all.
const NONE: &str = r#"mkdir -p /run/systemd; mount -t tmpfs -o mode=0755 tmpfs /run/systemd; test -n "$1""#;
/// Bytes of a value that no datagram takes.
const LARGE: usize = 200_000;

#[test]
fn a_full_disk_is_said_once_and_ends_by_itself() {
    let site = Site::new("full");
    site.write(&json!({ "one": stdio(&[]), "two": stdio(&[]) }));
    let state = site.state_dir();
    let mut daemon = site.daemon_of(&mut site.in_namespace(SMALL, &state, &["run"]));
    eventually("both run", 60, || {
        let status = site.run(&["status", "--json"]);
        (status.code == 0 && status.json()["snapshot"]["settled"] == true).then_some(())
    });
    // The daemon's own view of its directory.
    let inside = format!("/proc/{}/root{}", daemon.pid(), state.display());
    let filler = std::path::Path::new(&inside).join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file");
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);

    let id = site.id("one");
    site.run(&["stop-server", "two", "--no-wait"]).exits(1).says("could not be kept").says("full");
    for _ in 0..3 {
        site.run(&["sync", "--no-wait"]).exits(0);
    }
    eventually("it is said", 30, || daemon.log().contains("9bb95325d76143ca9ebf3b4a86ca0dce").then_some(()));
    site.run(&["status"]).exits(1).says("state cannot be saved").says("MCPO-S002");
    assert!(daemon.alive());
    assert_eq!(id, site.id("one"), "servers go on");
    site.run(&["call", "one", "echo", r#"{"text":"still here"}"#]).exits(0).says("still here");

    std::fs::remove_file(&filler).expect("a file");
    site.run(&["sync", "--no-wait"]).exits(0);
    eventually("it is saved again", 30, || {
        daemon.log().contains("b2533ecb494149498a57937fce12b952").then_some(())
    });
    eventually("all is well", 30, || (site.run(&["status"]).code == 0).then_some(()));
    let log = daemon.log();
    assert_eq!(log.matches("9bb95325d76143ca9ebf3b4a86ca0dce").count(), 1, "once: {log}");
    assert_eq!(log.matches("b2533ecb494149498a57937fce12b952").count(), 1, "once: {log}");
    assert_eq!(daemon.stop(), 0);
}

/// An entry as it came: in the datagram, or in the memory that came with it.
fn entry(journal: &UnixDatagram) -> Option<Vec<u8>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut bytes = vec![0; 1 << 20];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(journal, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::empty()).ok()?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            let mut file = std::fs::File::from(files.last().expect("one"));
            let mut all = Vec::new();
            file.rewind().expect("memory");
            file.read_to_end(&mut all).expect("memory");
            return Some(all);
        }
    }
    bytes.truncate(received.bytes);
    Some(bytes)
}

/// A field of an entry: `NAME=value`, or the name, eight bytes of length and the value.
fn field(entry: &[u8], name: &str) -> Option<String> {
    let mut rest = entry;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        let (key, value, next) = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => (&line[..at], &line[at + 1..], after),
            None => {
                let length = u64::from_le_bytes(after[..8].try_into().expect("a length"));
                let end = 8 + usize::try_from(length).expect("a length");
                (line, &after[8..end], &after[end + 1..])
            }
        };
        if key == name.as_bytes() {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        rest = next;
    }
    None
}

#[test]
fn the_journal_gets_large_entries_whole_and_stderr_what_it_does_not_take() {
    let mut site = Site::new("journal");
    site.setting("LOGGING__FORMAT", "journald");
    let long = "x".repeat(LARGE);
    site.write(&json!({ "wrong": { "command": "docker", "args": ["run", format!("--{long}"), "image"] } }));
    let path = site.path("journal.sock");
    let journal = UnixDatagram::bind(&path).expect("a socket");
    journal.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    let daemon = site.daemon_of(&mut site.in_namespace(JOURNAL, &path, &["run"]));
    let whole = loop {
        let entry = entry(&journal).unwrap_or_else(|| panic!("no large entry: {}", daemon.log()));
        if field(&entry, "MCP_SERVER").is_some_and(|server| server == "wrong") && entry.len() > LARGE {
            break entry;
        }
    };
    let field = |name| field(&whole, name).unwrap_or_default();
    assert!(field("MESSAGE").contains(&long), "nothing is cut");
    assert_eq!((field("PRIORITY").as_str(), field("SYSLOG_IDENTIFIER").as_str()), ("4", "mcp-orchestrator"));
    assert!(field("MCP_ERROR_CODE").starts_with("MCPO-C0"), "{}", field("MCP_ERROR_CODE"));
    assert_eq!(daemon.log(), "", "nothing is told twice");

    drop(journal);
    std::thread::sleep(Duration::from_millis(1100));
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::USR1).expect("a signal");
    eventually("lines go to stderr", 20, || {
        let log = daemon.log();
        let said = log.lines().find(|line| line.contains("log level is DEBUG"))?;
        serde_json::from_str::<serde_json::Value>(said).ok()
    });
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn without_a_journal_at_the_start_lines_go_to_stderr() {
    let mut site = Site::new("nojournal");
    site.setting("LOGGING__FORMAT", "journald");
    site.write(&json!({}));
    let nothing = site.path("nothing");
    let daemon = site.daemon_of(&mut site.in_namespace(NONE, &nothing, &["run"]));
    eventually("it says that it started", 20, || {
        let log = daemon.log();
        let said = log.lines().find(|line| line.contains("a7ac75732a8646c0a635cdcc4f754405"))?;
        serde_json::from_str::<serde_json::Value>(said).ok()
    });
    eventually("it answers", 20, || (site.run(&["status"]).code != 4).then_some(()));
    assert_eq!(daemon.stop(), 0);
}

//! `logs` against a daemon that is played: what it asks for, what it prints, when it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest a command may take to notice its end.
const END_WITHIN: Duration = Duration::from_secs(20);

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-orchestrator"));
    command.args(args).env_clear().env("HOME", folder).current_dir(folder);
    command.env("XDG_STATE_HOME", folder).env("XDG_RUNTIME_DIR", folder);
    command.env("DOCKER_HOST", "unix:///nowhere/docker.sock").stdin(Stdio::null());
    command
}

/// The socket that commands in this folder look for.
fn socket(folder: &Path) -> PathBuf {
    let output = command(folder, &["status"]).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(4), "nobody listens yet");
    let text = String::from_utf8(output.stderr).expect("text");
    let rest = text.split_once("reaching the daemon at ").expect("the path is told").1;
    PathBuf::from(rest.lines().next().expect("a line"))
}

/// Answers every request with what `answer` makes of its path; tells the paths.
fn daemon(folder: &Path, answer: fn(&str) -> String) -> Arc<Mutex<Vec<String>>> {
    let path = socket(folder);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
    let listener = UnixListener::bind(&path).expect("the socket");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
            let Some(Ok(first)) = lines.next() else { continue };
            for line in lines.by_ref() {
                if line.is_ok_and(|line| line.is_empty()) {
                    break;
                }
            }
            let path = first.split(' ').nth(1).expect("a path").to_owned();
            let body = answer(&path);
            told.lock().expect("paths").push(path);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _gone = stream.write_all((head + &body).as_bytes());
        }
    });
    asked
}

fn ends(child: &mut Child) -> Option<i32> {
    let until = Instant::now() + END_WITHIN;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _dead = child.kill();
    panic!("it goes on");
}

/// A server that prints a line whenever it is asked for one.
fn prints(path: &str) -> String {
    let after = path.split_once("after=").expect("a number").1;
    let number: u64 = after.split('&').next().expect("a number").parse().expect("a number");
    std::thread::sleep(Duration::from_millis(20));
    let next = number + 1;
    format!(
        "{{\"lines\":[{{\"number\":{next},\"stream\":\"stderr\",\"text\":\"\\u001b[31mline {next}\\u001b[0m\"}}]}}"
    )
}

#[test]
fn following_ends_when_nobody_reads_and_with_ctrl_c() {
    let home = tempfile::tempdir().expect("a folder");
    let asked = daemon(home.path(), prints);
    let args = ["logs", "My Time", "--follow", "--tail", "5"];
    for signal in [false, true] {
        let mut child = command(home.path(), &args).stdout(Stdio::piped()).spawn().expect("it runs");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        for number in 1..=3 {
            let mut line = String::new();
            out.read_line(&mut line).expect("a line");
            assert_eq!(line, format!("line {number}\n"), "in order, once, without colours of others");
        }
        if signal {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is there");
            let mut rest = String::new();
            out.read_to_string(&mut rest).expect("the rest");
        } else {
            drop(out);
        }
        assert_eq!(ends(&mut child), Some(0), "signal: {signal}");
    }
    let asked = asked.lock().expect("paths");
    assert_eq!(asked[0], "/api/v1/servers/My%20Time/logs?after=0&tail=5");
    assert_eq!(asked[1], "/api/v1/servers/My%20Time/logs?after=1&wait=50");
}

#[test]
fn lines_of_the_engine_are_counted_by_their_time() {
    let home = tempfile::tempdir().expect("a folder");
    let asked = daemon(home.path(), |path| {
        if path.contains("after=0") {
            let first = r#"{"number":1795284000000000001,"stream":"stdout","text":"one"}"#;
            return format!(r#"{{"lines":[{first}]}}"#);
        }
        r#"{"lines":[{"number":1795284000000000002,"stream":"stderr","text":"two"}]}"#.to_owned()
    });
    let mut child =
        command(home.path(), &["logs", "search", "-f"]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    for expected in ["one\n", "two\n"] {
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        assert_eq!(line, expected);
    }
    drop(out);
    assert_eq!(ends(&mut child), Some(0));
    let asked = asked.lock().expect("paths");
    assert_eq!(asked[1], "/api/v1/servers/search/logs?after=1795284000000000001&wait=50");
}

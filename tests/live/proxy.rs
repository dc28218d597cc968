//! Stands between the program and the engine, counts requests, and kills the program with SIGKILL
//! at the n-th of them.

use crate::support::engine_socket;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// When the program dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The n-th request never reaches the engine.
    Before(usize),
    /// The engine does what the n-th request asks; the answer is lost.
    After(usize),
    /// Not by our hand.
    Never,
}

#[derive(Debug)]
struct State {
    death: Death,
    /// First lines of requests, in order.
    requests: Vec<String>,
    victim: Option<Child>,
    done: bool,
}

/// The proxy; it ends with its listener's thread when the test process does.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// Listens on `socket`.
    pub(crate) fn start(socket: &Path, death: Death) -> Self {
        let _absent = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket");
        let state = State { death, requests: Vec::new(), victim: None, done: false };
        let proxy = Self { socket: socket.to_owned(), state: Arc::new(Mutex::new(state)) };
        let this = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if this.held().done {
                    return;
                }
                let this = this.clone();
                std::thread::spawn(move || this.serve(client));
            }
        });
        proxy
    }

    fn held(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program to kill.
    pub(crate) fn victim(&self, child: Child) {
        self.held().victim = Some(child);
    }

    /// Whether the program has ended, by our hand or by itself.
    pub(crate) fn ended(&self) -> bool {
        self.held().victim.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// First lines of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.held().requests.clone()
    }

    fn serve(&self, mut client: UnixStream) {
        let Ok(mut engine) = UnixStream::connect(engine_socket()) else { return };
        let (Ok(mut from_engine), Ok(mut to_client)) = (engine.try_clone(), client.try_clone()) else {
            return;
        };
        let lost = Arc::new(Mutex::new(false));
        let (this, answers_lost) = (self.clone(), Arc::clone(&lost));
        std::thread::spawn(move || {
            let mut bytes = [0; 16 * 1024];
            while let Ok(count @ 1..) = from_engine.read(&mut bytes) {
                if *answers_lost.lock().unwrap_or_else(PoisonError::into_inner) {
                    this.kill();
                    continue;
                }
                if to_client.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            let _gone = to_client.shutdown(std::net::Shutdown::Both);
        });
        let mut bytes = [0; 16 * 1024];
        while let Ok(count @ 1..) = client.read(&mut bytes) {
            let chunk = bytes.get(..count).unwrap_or_default();
            match self.note(chunk) {
                Some(Death::Before(_)) => {
                    self.kill();
                    return;
                }
                Some(_) => *lost.lock().unwrap_or_else(PoisonError::into_inner) = true,
                None => {}
            }
            if engine.write_all(chunk).is_err() {
                break;
            }
        }
        // A client that is gone is gone for the engine too; what it was asked for, it still does.
        let _gone = engine.shutdown(std::net::Shutdown::Write);
    }

    /// Counts the requests that begin in a chunk; says when the time has come.
    fn note(&self, chunk: &[u8]) -> Option<Death> {
        let text = String::from_utf8_lossy(chunk);
        let mut state = self.held();
        for line in text.split("\r\n").filter(|line| line.ends_with(" HTTP/1.1")) {
            state.requests.push(line.trim_end_matches(" HTTP/1.1").to_owned());
            let number = state.requests.len();
            if matches!(state.death, Death::Before(n) | Death::After(n) if n == number) {
                return Some(state.death);
            }
        }
        None
    }

    fn kill(&self) {
        // The program may be heard before whoever started it handed it over.
        loop {
            if let Some(child) = self.held().victim.as_mut() {
                let _gone = child.kill();
                let _gone = child.wait();
                return;
            }
            std::thread::yield_now();
        }
    }
}

impl Proxy {
    /// Ends it and the program: nobody listens any more.
    pub(crate) fn end(&self) {
        self.kill();
        self.held().done = true;
        let _wakes_it = UnixStream::connect(&self.socket);
        let _gone = std::fs::remove_file(&self.socket);
    }
}

//! `demo-server`: a small real MCP server, for the quick start, the example image and the tests.
//!
//! It speaks both protocol eras over stdio: a client that opens with `initialize` gets a legacy
//! connection, a request with the modern metadata is served on its own, and both may be mixed.
//! Its `lookup` tool proves that name look-ups work inside a static binary.
//!
//! One thread reads; calls that take time get a thread each, so that they can be cancelled and
//! `ping` is answered meanwhile. The end of input is the end of the server.
//!
//! Must never read a clock itself, write anything but messages to its output, or keep running once
//! nobody can speak to it.

pub mod http;
pub mod protocol;
pub mod tools;

#[cfg(test)]
mod tests;

use crate::mcp::build;
use crate::mcp::lines::{Assembler, LINE_BYTES_MAX, Line};
use crate::mcp::wire::{self, INVALID_REQUEST, Message, PARSE_ERROR};
use crate::model::time::Timestamp;
use protocol::{Begun, Job};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Calls that run at the same time.
pub const CALLS_MAX: usize = 32;
/// After the end of input, answers under way are waited for this long.
pub const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How the server learns what time it is.
pub type Clock = fn() -> Timestamp;

/// Serves one client until its input ends.
///
/// # Errors
/// When the input cannot be read. A client that stops reading is an end like any other.
pub fn serve(mut input: impl BufRead, output: impl Write + Send + 'static, clock: Clock) -> io::Result<()> {
    let desk = Arc::new(Desk {
        output: Mutex::new(Box::new(output)),
        clock,
        initialized: AtomicBool::new(false),
        gone: AtomicBool::new(false),
        running: Mutex::new(BTreeMap::new()),
        one_done: Condvar::new(),
    });
    let mut lines = Assembler::new(LINE_BYTES_MAX);
    while !desk.gone.load(Relaxed) {
        let chunk = match input.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let taken = chunk.len();
        if taken == 0 {
            break;
        }
        lines.push(chunk, &mut |line| desk.on_line(line));
        input.consume(taken);
    }
    lines.finish(&mut |line| desk.on_line(line));
    desk.end();
    Ok(())
}

/// Tells a call to stop, and wakes it.
#[derive(Debug, Default)]
pub struct Stop {
    told: Mutex<bool>,
    bell: Condvar,
}

impl Stop {
    /// Tells it.
    pub fn tell(&self) {
        *held(&self.told) = true;
        self.bell.notify_all();
    }

    /// Sleeps; true when told to stop before or meanwhile.
    #[must_use]
    pub fn sleep(&self, time: Duration) -> bool {
        let told = held(&self.told);
        let slept = self.bell.wait_timeout_while(told, time, |told| !*told);
        *slept.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A lock that a panicking holder has not spoilt: what it guards is always whole.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Desk {
    output: Mutex<Box<dyn Write + Send>>,
    clock: Clock,
    /// Whether a legacy handshake was made.
    initialized: AtomicBool,
    /// Whether the client stopped reading.
    gone: AtomicBool,
    /// Calls under way, by their id as written.
    running: Mutex<BTreeMap<String, Arc<Stop>>>,
    one_done: Condvar,
}

impl Desk {
    fn say(&self, line: &str) {
        let mut output = held(&self.output);
        let written = output.write_all(line.as_bytes()).and_then(|()| output.write_all(b"\n"));
        if written.and_then(|()| output.flush()).is_err() {
            self.gone.store(true, Relaxed);
        }
    }

    fn on_line(self: &Arc<Self>, line: Line<'_>) {
        match line {
            Line::Object(bytes) | Line::Batch(bytes) | Line::Noise(bytes) => self.on_message(bytes),
            Line::TooLong { bytes, .. } => {
                let message = format!("message of {bytes} bytes is too long");
                self.say(&build::error(None, INVALID_REQUEST, &message));
            }
        }
    }

    fn on_message(self: &Arc<Self>, bytes: &[u8]) {
        match wire::read(bytes) {
            Ok(Message::Request { id, method, params }) => {
                match protocol::begin(id, &method, params, self.initialized.load(Relaxed)) {
                    Begun::Answered(answer) => self.say(&answer),
                    Begun::Initialized(answer) => {
                        self.initialized.store(true, Relaxed);
                        self.say(&answer);
                    }
                    Begun::Call(job) if job.is_quick() => self.say_some(self.run(&job, &Stop::default())),
                    Begun::Call(job) => self.start(id, job),
                }
            }
            Ok(Message::Notification { method, params }) if method == "notifications/cancelled" => {
                self.cancel(params.and_then(|params| wire::member(params, "requestId")));
            }
            // Answers to nothing we asked, and notifications that mean nothing to us.
            Ok(Message::Notification { .. } | Message::Response { .. } | Message::Error { .. }) => {}
            Err(why) if why.code() == PARSE_ERROR => {
                self.say(&build::error(None, PARSE_ERROR, &why.to_string()));
            }
            Err(why) => self.say(&build::error(wire::id_of(bytes), why.code(), &why.to_string())),
        }
    }

    fn start(self: &Arc<Self>, id: &RawValue, job: Job) {
        let stop = Arc::new(Stop::default());
        {
            let mut running = held(&self.running);
            if running.len() >= CALLS_MAX || running.contains_key(id.get()) {
                drop(running);
                let message = "too many calls are running, or one has this id already";
                self.say(&build::error(Some(id), INVALID_REQUEST, message));
                return;
            }
            running.insert(id.get().to_owned(), Arc::clone(&stop));
        }
        let (desk, key) = (Arc::clone(self), id.get().to_owned());
        std::thread::spawn(move || {
            let answer = desk.run(&job, &stop);
            // Its id is free again before the client can know that, and before anybody who waits
            // for the last call can go on, its answer is out.
            let mut running = held(&desk.running);
            running.remove(&key);
            desk.say_some(answer);
            drop(running);
            desk.one_done.notify_all();
        });
    }

    fn run(&self, job: &Job, stop: &Stop) -> Option<String> {
        job.run((self.clock)(), stop, &|progress| self.say(&progress))
    }

    fn say_some(&self, answer: Option<String>) {
        if let Some(answer) = answer {
            self.say(&answer);
        }
    }

    fn cancel(&self, id: Option<&RawValue>) {
        let stop = id.and_then(|id| held(&self.running).get(id.get()).cloned());
        if let Some(stop) = stop {
            stop.tell();
        }
    }

    fn end(&self) {
        let running = held(&self.running);
        for stop in running.values() {
            stop.tell();
        }
        let _waited = self.one_done.wait_timeout_while(running, LAST_ANSWERS, |running| !running.is_empty());
    }
}

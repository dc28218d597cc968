//! Servers as tests play them: just enough of either era, over in-memory pipes, on the runtime's
//! clock.

use crate::gateway::places::{HowEnded, Keeper, Opened, Opener, Place, Retry, Source};
use crate::gateway::room::Room;
use crate::gateway::slot::{Handshakes, Shared};
use crate::gateway::storm::Storm;
use crate::gateway::streams::reader::EventBody;
use crate::mcp::wire::Era;
use crate::model::fingerprint::{Fingerprint, HashKey};
use crate::model::id::{ContainerId, ServerId};
use crate::model::server::{HealthPolicy, ProcessDecl, RestartWhen, Sharing};
use crate::model::time::{Span, Timestamp};
use crate::upstream::leg::{Greeting, LegIo};
use crate::upstream::open::Remembered;
use crate::world::{Answer, Clock, ErrorKind, WorldError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::time::Instant;

const PIPE_BYTES: usize = 64 * 1024;
/// What a server is told to say to have it end.
pub(crate) const EXIT: &str = "exit";

/// How a server on the stage behaves.
pub(crate) mod mood {
    /// It answers.
    pub(crate) const WELL: u8 = 0;
    /// It reads and says nothing.
    pub(crate) const HUNG: u8 = 1;
    /// It says what is no message.
    pub(crate) const GARBAGE: u8 = 2;
    /// It takes its time.
    pub(crate) const SLOW: u8 = 3;
}

/// What a slow one takes.
pub(crate) const SLOWLY: Duration = Duration::from_secs(2);

/// What becomes of one try to open a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// No streams.
    Refuse,
    /// Streams of a process that has ended.
    Dead,
    /// Streams over which nobody says anything.
    Silent,
    /// A server of this era.
    Serve(Era),
}

/// A server on the stage.
pub(crate) struct Played {
    /// Everything after the handshake but pings, as it came.
    pub(crate) heard: mpsc::UnboundedReceiver<Value>,
    /// Lines for it to say; dropping it ends the server.
    pub(crate) say: mpsc::UnboundedSender<String>,
}

impl Played {
    /// The next message with this method; others before it are skipped.
    pub(crate) async fn hear(&mut self, method: &str) -> Value {
        loop {
            let heard = tokio::time::timeout(Duration::from_secs(60), self.heard.recv()).await;
            let heard = heard.unwrap_or_else(|_late| panic!("never heard {method}")).expect("a connection");
            if heard["method"] == method {
                return heard;
            }
        }
    }

    pub(crate) fn answer(&self, request: &Value, result: &Value) {
        self.tell(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    }

    pub(crate) fn tell(&self, message: &Value) {
        // A server that was let go says nothing any more.
        let _gone = self.say.send(message.to_string());
    }
}

/// Opens connections as its test says.
pub(crate) struct Stage {
    script: Mutex<VecDeque<Act>>,
    rest: Act,
    opened: AtomicUsize,
    order: Mutex<Vec<ServerId>>,
    /// What processes end with.
    code: AtomicU8,
    moods: Mutex<BTreeMap<ServerId, Arc<AtomicU8>>>,
    servers: mpsc::UnboundedSender<Played>,
}

impl Stage {
    /// First these, then always `rest`; servers that come on stage come out of the receiver.
    pub(crate) fn new(script: &[Act], rest: Act) -> (Arc<Self>, mpsc::UnboundedReceiver<Played>) {
        let (servers, on_stage) = mpsc::unbounded_channel();
        let script = Mutex::new(script.iter().copied().collect());
        let (opened, code) = (AtomicUsize::new(0), AtomicU8::new(1));
        let (moods, order) = (Mutex::default(), Mutex::default());
        (Arc::new(Self { script, rest, opened, order, code, moods, servers }), on_stage)
    }

    /// Processes that are opened from now on end with this code.
    pub(crate) fn exit_with(&self, code: u8) {
        self.code.store(code, Ordering::Relaxed);
    }

    /// Whose connections were opened, in their order.
    pub(crate) fn order(&self) -> Vec<String> {
        self.order.lock().unwrap().iter().map(ToString::to_string).collect()
    }

    /// How a server behaves from now on, see [`mood`].
    pub(crate) fn mood(&self, server: &ServerId) -> Arc<AtomicU8> {
        Arc::clone(self.moods.lock().unwrap().entry(server.clone()).or_default())
    }

    /// Tries so far.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    fn open(&self, server: &ServerId) -> Result<Opened, WorldError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.order.lock().unwrap().push(server.clone());
        let act = self.script.lock().unwrap().pop_front().unwrap_or(self.rest);
        if act == Act::Refuse {
            return Err(WorldError::new("starting it", ErrorKind::NotFound, "no such program"));
        }
        let (stdout, out) = tokio::io::duplex(PIPE_BYTES);
        let (stdin, input) = tokio::io::duplex(PIPE_BYTES);
        let io = LegIo { stdout: Box::new(stdout), stdin: Box::new(stdin), stderr: None };
        match act {
            Act::Refuse | Act::Dead => drop((out, input)),
            Act::Silent => {
                tokio::spawn(async move {
                    let _held = (out, input);
                    std::future::pending::<()>().await;
                });
            }
            Act::Serve(era) => {
                let (hears, heard) = mpsc::unbounded_channel();
                let (say, says) = mpsc::unbounded_channel();
                tokio::spawn(play((era, self.mood(server)), (input, out), hears, says));
                let _nobody = self.servers.send(Played { heard, say });
            }
        }
        Ok(Opened { io, keeper: Some(Box::new(Ended(self.code.load(Ordering::Relaxed)))), fresh: true })
    }
}

impl Opener for Stage {
    fn shared<'a>(&'a self, server: &'a ServerId, _place: &'a Place) -> Answer<'a, Opened> {
        Box::pin(async { self.open(server) })
    }

    fn dedicated<'a>(&'a self, server: &'a ServerId, _place: &'a Place) -> Answer<'a, Opened> {
        Box::pin(async { self.open(server) })
    }

    fn renew<'a>(&'a self, _server: &'a ServerId, _place: &'a Place) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// With this code.
struct Ended(u8);

impl Keeper for Ended {
    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = Option<HowEnded>> + Send>> {
        Box::pin(async move {
            Some(HowEnded { how: format!("exited with code {}", self.0), clean: self.0 == 0, oom: None })
        })
    }
}

async fn play(
    (era, mood): (Era, Arc<AtomicU8>),
    (input, mut out): (tokio::io::DuplexStream, tokio::io::DuplexStream),
    hears: mpsc::UnboundedSender<Value>,
    mut says: mpsc::UnboundedReceiver<String>,
) {
    let mut lines = BufReader::new(input).lines();
    loop {
        let said = tokio::select! {
            biased;
            said = says.recv() => match said {
                Some(said) if said != EXIT => said,
                _ => return,
            },
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                match mood.load(Ordering::Relaxed) {
                    mood::HUNG => continue,
                    mood::GARBAGE => {
                        let _gone = out.write_all(b"this is no message\n").await;
                        continue;
                    }
                    mood::SLOW => tokio::time::sleep(SLOWLY).await,
                    _ => {}
                }
                let message: Value = serde_json::from_str(&line).expect("a message");
                match hello(era, &message) {
                    Some(answer) => answer.to_string(),
                    None => {
                        let _gone = hears.send(message);
                        continue;
                    }
                }
            }
        };
        if out.write_all(format!("{said}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What a server answers by itself.
fn hello(era: Era, message: &Value) -> Option<Value> {
    let capabilities = json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}});
    let id = &message["id"];
    let result = match (message["method"].as_str()?, era) {
        ("initialize", Era::Legacy) => json!({
            "protocolVersion": "2025-11-25", "capabilities": capabilities,
            "serverInfo": {"name": "played", "version": "1"},
        }),
        ("server/discover", Era::Modern) => json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": capabilities,
            "ttlMs": 0, "cacheScope": "private",
        }),
        ("ping", _) => json!({}),
        ("initialize" | "server/discover", _) => {
            let error = json!({"code": -32601, "message": "no such method"});
            return Some(json!({"jsonrpc": "2.0", "id": id, "error": error}));
        }
        _ => return None,
    };
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

/// The runtime's clock, which a test can stop.
#[derive(Debug)]
pub(crate) struct RuntimeClock(Instant);

impl Default for RuntimeClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.0.elapsed().as_millis()).unwrap();
        Timestamp(1_000_000_000).after(Span(passed))
    }

    fn sleep(&self, span: Span) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(Duration::from_millis(span.0)))
    }
}

struct Forgetful;

impl Handshakes for Forgetful {
    fn recall(&self, _container: &ContainerId) -> Option<Remembered> {
        None
    }

    fn keep(&self, _container: &ContainerId, _greeting: &Greeting) {}

    fn forget(&self, _container: &ContainerId) {}
}

impl crate::gateway::known::Offers for Forgetful {
    fn recall(&self, _server: &ServerId) -> Option<String> {
        None
    }

    fn keep(&self, _server: &ServerId, _text: String) {}
}

/// What slots need, with this stage.
pub(crate) fn shared(stage: &Arc<Stage>) -> Shared {
    Shared {
        opener: Arc::clone(stage) as Arc<dyn Opener>,
        memory: Arc::new(Forgetful),
        clock: Arc::new(RuntimeClock(Instant::now())),
        offers: Arc::new(Forgetful),
        eras: Mutex::new(BTreeMap::new()),
        news: Arc::default(),
        starts: Room::new(64),
        storm: Storm::default(),
    }
}

/// A local process, at a place with this key.
pub(crate) fn place(key: &str, retry: Retry) -> Arc<Place> {
    let decl = ProcessDecl {
        command: "played".to_owned(),
        args: Vec::new(),
        env: BTreeMap::new(),
        cwd: None,
        limits: crate::model::server::ProcessLimits::default(),
        fingerprint: Fingerprint::new(&HashKey::new([0; 32]), key, ""),
    };
    Arc::new(Place {
        key: key.to_owned(),
        name: "Played Server".to_owned(),
        spec: format!("spec-{key}"),
        program: key.to_owned(),
        source: Source::Process(Box::new(decl)),
        container: None,
        sharing: Sharing::Auto,
        offer: Arc::default(),
        timeout: Duration::from_secs(30),
        priority: 0,
        retry,
        health: HealthPolicy::default(),
        check_fails: false,
        on_demand: None,
        down: None,
    })
}

/// Half a second, doubling to a minute; nobody else starts it.
pub(crate) const RETRY: Retry = Retry {
    delay: Duration::from_millis(500),
    delay_max: Duration::from_secs(60),
    stable: Duration::from_secs(10),
    grace: Duration::ZERO,
    when: RestartWhen::Always,
    restarts_max: None,
};

/// The messages that a client reads off a stream, until its end.
pub(crate) fn events(mut body: EventBody) -> mpsc::UnboundedReceiver<Value> {
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut text = String::new();
        while let Some(bytes) = std::future::poll_fn(|cx| body.poll_bytes(cx)).await {
            text.push_str(std::str::from_utf8(&bytes).expect("text"));
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                if let Some(data) = data.filter(|data| !data.is_empty()) {
                    let _gone = tell.send(serde_json::from_str(data).expect("JSON"));
                }
            }
        }
    });
    told
}

/// An id.
pub(crate) fn id(text: &str) -> ServerId {
    ServerId::new(text).unwrap()
}

//! Servers with several instances: real containers, 32 clients, one endpoint.

use crate::gateway::client::{At, Client, fixture_with};
use crate::gateway::wire::Ask;
use crate::support::{Site, engine, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CLIENTS: usize = 32;

fn replicas(count: u32) -> Value {
    let mut entry = fixture_with(&[], &["--era", "legacy"]);
    entry["orchestrator"] = json!({"replicas": count});
    json!({ "it": entry })
}

/// Which container answers.
fn of_modern(at: &At) -> Result<String, String> {
    let params = json!({"name": "nasty_env", "arguments": {"name": "HOSTNAME"}}).to_string();
    let reply = at.modern("1", "tools/call", &params, "{}").try_send(at.port)?;
    let body = reply.try_body()?;
    let text: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    let said = text.pointer("/result/content/0/text").and_then(Value::as_str);
    said.map(str::to_owned).ok_or(body)
}

fn of_session(client: &Client) -> Result<String, String> {
    client.try_call("nasty_env", &json!({"name": "HOSTNAME"}))
}

#[derive(Default)]
struct Seen {
    answers: Mutex<BTreeMap<String, usize>>,
    failures: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Seen {
    fn call_on(&self, call: impl Fn() -> Result<String, String>) {
        while !self.stop.load(Ordering::Relaxed) {
            match call() {
                Ok(name) => *self.answers.lock().unwrap().entry(name).or_default() += 1,
                Err(why) => self.failures.lock().unwrap().push(why),
            }
        }
    }

    /// Forgets what there was.
    fn anew(&self) -> (BTreeMap<String, usize>, Vec<String>) {
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        (answers, std::mem::take(&mut *self.failures.lock().unwrap()))
    }

    /// Whether so many containers answer.
    fn by(&self, count: usize) -> bool {
        self.anew();
        std::thread::sleep(Duration::from_secs(1));
        self.answers.lock().unwrap().len() == count
    }
}

#[test]
fn one_of_three_instances_dies_and_two_are_taken_away_under_32_clients() {
    let site = Site::new("gw-replicas");
    site.write(&replicas(3));
    let _daemon = site.daemon();
    let at = At { port: site.main_port(), path: "/mcp/it".to_owned(), auth: None };
    eventually("all three answer", 90, || {
        let names: Vec<String> = (0..6).filter_map(|_| of_modern(&at).ok()).collect();
        (names.iter().collect::<std::collections::BTreeSet<_>>().len() == 3).then_some(())
    });
    for hidden in ["/mcp/it-R2", "/openapi/it-R2/tools", "/healthz/it-R2"] {
        assert_eq!(Ask::new("GET", hidden).send(site.main_port()).status, 404, "{hidden}");
    }
    let clients: Vec<Client> = (0..CLIENTS / 2).map(|_| at.open()).collect();
    let homes: Vec<String> = clients.iter().map(|client| of_session(client).expect("an answer")).collect();
    for (client, home) in clients.iter().zip(&homes) {
        assert_eq!(of_session(client).as_ref(), Ok(home), "a session stays");
    }
    let seen = Seen::default();
    std::thread::scope(|scope| {
        for client in &clients {
            let seen = &seen;
            scope.spawn(move || seen.call_on(|| of_session(client)));
        }
        for _ in 0..CLIENTS / 2 {
            let (seen, at) = (&seen, &at);
            scope.spawn(move || seen.call_on(|| of_modern(at)));
        }
        eventually("all three work", 60, || seen.by(3).then_some(()));
        let (answers, failures) = seen.anew();
        assert_eq!(failures, Vec::<String>::new(), "{answers:?}");
        let victim = homes[0].clone();
        assert_eq!(engine("POST", &format!("/containers/{victim}/kill"), &Value::Null).0, 204);
        std::thread::sleep(Duration::from_secs(2));
        let (_, failures) = seen.anew();
        // One call of each client at most was under way, and not all of them there.
        assert!(failures.len() < CLIENTS, "{} failures: {:?}", failures.len(), failures.first());
        assert!(failures.iter().all(|why| why.contains("-32603")), "{failures:?}");
        eventually("all three work again", 60, || seen.by(3).then_some(()));
        seen.anew();
        site.write(&replicas(1));
        eventually("one is left", 60, || seen.by(1).then_some(()));
        std::thread::sleep(Duration::from_secs(2));
        let (answers, failures) = seen.anew();
        assert_eq!(failures, Vec::<String>::new(), "{answers:?}");
        seen.stop.store(true, Ordering::Relaxed);
    });
    for client in &clients {
        of_session(client).expect("sessions go on");
    }
}

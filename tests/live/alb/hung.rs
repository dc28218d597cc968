//! Calls of AWS that hang, and what goes on meanwhile: all that needs no AWS.

use super::aws::Aws;
use super::drain::{SERVERS, fault, scene};
use crate::support::{engine, eventually, runs, text};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Longest from a container's death to its next start, the moment in which a pass waits for AWS included.
const RESTART_WITHIN: Duration = Duration::from_secs(8);

#[test]
fn r30_what_ends_while_aws_hangs_is_started_again_at_once() {
    let aws = Aws::start();
    let (site, world, _daemon) = scene(&aws, "hung-aws");
    fault(&site, &world, &json!({ "action": "*", "kind": "hang", "seconds": 300, "times": -1 }));
    for server in SERVERS {
        let before = site.running(server);
        let (id, started) = (text(&before, "/Id"), text(&before, "/State/StartedAt"));
        let begin = Instant::now();
        assert_eq!(engine("POST", &format!("/containers/{id}/kill"), &Value::Null).0, 204);
        eventually("it runs again", 60, || {
            let now = site.container(server).filter(runs)?;
            (text(&now, "/State/StartedAt") != started).then_some(())
        });
        let took = begin.elapsed();
        println!("{server}: seen running {} ms after the kill", took.as_millis());
        assert!(took < RESTART_WITHIN, "{server}: {took:?}");
    }
    eventually("the status says what is away", 60, || {
        site.run(&["status"]).all().contains("the load balancer could not be read").then_some(())
    });
    aws.ask("DELETE", "/_fault", &Value::Null);
    eventually("all is in sync again", 90, || {
        site.run(&["status"]).all().contains("ALB in sync").then_some(())
    });
}

//! Facts about the engine: whether it answers, its clock, its images, what it killed for memory.

use crate::daemon::doctor::Case;
use crate::daemon::now;
use crate::docker::DockerEngine;
use crate::docker::credentials::{self, RegistryConfig};
use crate::doctor::judge::{self, ImageFacts};
use crate::doctor::{Check, Verdict};
use crate::model::observed::ContainerState;
use crate::model::server::{PullPolicy, ServerKind};
use crate::world::{Engine as _, ErrorKind, WorldError};
use futures_util::StreamExt as _;
use std::collections::BTreeMap;

/// Images asked for at once.
const ASKED_AT_ONCE: usize = 8;
/// Ended containers that are asked for why.
const INSPECTED_MAX: usize = 100;
/// Images that are asked for.
const IMAGES_MAX: usize = 100;

pub(super) async fn checks(case: &Case<'_>) -> Vec<Check> {
    let engine = case.home.engine();
    let began = now();
    let mut checks = match engine.facts().await {
        Err(error) => return vec![judge::no_engine(&error.to_string(), case.containers())],
        Ok(facts) => {
            let ended = now();
            let mut checks = vec![judge::engine_version(engine.host(), &facts.version, &facts.api)];
            for warning in facts.warnings {
                checks.push(Check::warn(
                    "engine",
                    warning,
                    "see `docker info`; limits named here are not kept",
                ));
            }
            let spread = u64::try_from(ended.0.saturating_sub(began.0)).unwrap_or_default();
            checks.push(match facts.time {
                Some(time) => judge::engine_clock(ended.0.saturating_sub(time.0), spread),
                None => Check::unknown("clock", "the engine does not say what time it has"),
            });
            checks
        }
    };
    checks.extend(memory(case, &engine).await);
    checks.extend(registry_config(case));
    checks.extend(images(case, &engine).await);
    checks
}

/// Servers whose container the kernel ended for memory and that are not up again.
async fn memory(case: &Case<'_>, engine: &DockerEngine) -> Vec<Check> {
    // An engine that answered for itself and has no list is not this check's to tell of.
    let Ok(all) = engine.containers().await else { return Vec::new() };
    let ended = all.iter().filter(|one| matches!(one.state, ContainerState::Exited(_)));
    let ours = ended.filter_map(|one| {
        let mark = one.mark.as_ref().filter(|mark| mark.stack == case.home.stack)?;
        Some((one, case.desired.servers.get(&mark.server.as_ref()?.server())?))
    });
    let mut checks = Vec::new();
    for (container, server) in ours.take(INSPECTED_MAX) {
        let ServerKind::Container(decl) = &server.kind else { continue };
        let killed = engine.details(&container.id).await.ok().flatten().is_some_and(|seen| seen.oom_killed);
        if killed {
            checks.push(judge::memory(&server.id, decl.spec.resources.memory_bytes));
        }
    }
    checks
}

fn registry_config(case: &Case<'_>) -> Option<Check> {
    let dir = credentials::config_dir(&case.home.env)?;
    match RegistryConfig::load(&dir) {
        Ok(_) => None,
        Err(error) => {
            let remedy = "`docker login` writes it anew; until then private images cannot be pulled";
            Some(Check::warn("credentials", error.to_string(), remedy))
        }
    }
}

async fn images(case: &Case<'_>, engine: &DockerEngine) -> Vec<Check> {
    let mut wanted: BTreeMap<String, PullPolicy> = BTreeMap::new();
    for server in case.servers() {
        if let ServerKind::Container(decl) = &server.kind {
            wanted.insert(decl.spec.image.clone(), server.pull);
        }
    }
    if wanted.is_empty() {
        return Vec::new();
    }
    let total = wanted.len();
    let asked = wanted.into_iter().take(IMAGES_MAX).map(|(reference, pull)| async move {
        let facts = facts(engine, &reference, pull).await;
        judge::image(&reference, &facts)
    });
    let mut checks: Vec<Check> = futures_util::stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await;
    // Fifty lines that say that all is well hide the one that does not.
    let good = checks.iter().filter(|check| check.verdict == Verdict::Ok).count();
    if good > 3 {
        checks.retain(|check| check.verdict != Verdict::Ok);
        checks.insert(0, Check::ok("images", format!("{good} images are on the engine or can be pulled")));
    }
    if total > IMAGES_MAX {
        checks.push(Check::unknown("images", format!("{} more were not asked for", total - IMAGES_MAX)));
    }
    checks
}

async fn facts(engine: &DockerEngine, reference: &str, pull: PullPolicy) -> ImageFacts {
    let here = match engine.has_image(reference).await {
        Ok(true) if pull != PullPolicy::Always => return ImageFacts::Here,
        Ok(false) if pull == PullPolicy::Never => return ImageFacts::NeverPulled,
        Ok(here) => here,
        Err(error) => return ImageFacts::Silent { here: true, said: error.to_string() },
    };
    match engine.pullable(reference).await {
        Ok(_) => ImageFacts::Pullable,
        Err(WorldError { kind: ErrorKind::NotFound, cause, .. }) => ImageFacts::Absent(cause),
        Err(WorldError { kind: ErrorKind::Denied, cause, .. }) => ImageFacts::Denied(cause),
        Err(error) => ImageFacts::Silent { here, said: error.cause },
    }
}

//! What else is on the engine: images and running containers that may be MCP servers of others.
//!
//! Two lists tell nearly everything; only what a name or label makes worth it is inspected. Must never
//! change, stop or remove anything, nor read an environment (an inspect has it; it is dropped here).

use crate::docker::errors::deadline;
use crate::docker::{DockerEngine, READ_WITHIN, labels};
use crate::model::foreign::{Foreign, ForeignContainer, ForeignImage};
use crate::model::mark::{MANAGED_BY, MANAGER};
use crate::model::time::Timestamp;
use crate::world::WorldError;
use bollard::Docker;
use bollard::query_parameters as query;
use std::collections::BTreeMap;

/// Images and containers that are inspected; more are told of without.
const INSPECTED_MAX: usize = 200;

impl DockerEngine {
    /// Images, and containers that run and are not ours. `concerns` says by labels and image name
    /// which of them are worth a closer look; the others are left out.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn foreign(
        &self,
        concerns: &(dyn Fn(&BTreeMap<String, String>, &str) -> bool + Send + Sync),
    ) -> Result<Foreign, WorldError> {
        let client = self.client()?;
        let options: Option<query::ListImagesOptions> = None;
        let listed = deadline("listing images", READ_WITHIN, client.list_images(options)).await?;
        let mut foreign = Foreign::default();
        for image in listed {
            let of_image: BTreeMap<String, String> = image.labels.into_iter().collect();
            for reference in image.repo_tags.iter().filter(|tag| !tag.contains("<none>")) {
                if concerns(&of_image, reference) {
                    let (reference, labels) = (reference.clone(), of_image.clone());
                    foreign.images.push(ForeignImage { reference, labels, exposed: None });
                }
            }
        }
        let options: Option<query::ListContainersOptions> = None;
        let running = deadline("listing containers", READ_WITHIN, client.list_containers(options)).await?;
        for row in running {
            let of_container = labels(row.labels);
            let image = row.image.unwrap_or_default();
            let ours = of_container.get(MANAGED_BY).is_some_and(|by| by == MANAGER);
            if ours || !concerns(&of_container, &image) {
                continue;
            }
            let mut host_ports: Vec<u16> =
                row.ports.unwrap_or_default().iter().filter_map(|port| port.public_port).collect();
            host_ports.sort_unstable();
            host_ports.dedup();
            let name = row.names.unwrap_or_default().into_iter().next().unwrap_or_default();
            foreign.containers.push(ForeignContainer {
                id: row.id.unwrap_or_default(),
                name: name.trim_start_matches('/').to_owned(),
                image,
                labels: of_container,
                created: Timestamp(row.created.unwrap_or_default().saturating_mul(1000)),
                host_ports,
                interactive: None,
            });
        }
        look_closer(&client, &mut foreign).await;
        Ok(foreign)
    }
}

/// Asks for what the lists do not have; what does not answer stays unknown.
async fn look_closer(client: &Docker, foreign: &mut Foreign) {
    for image in foreign.images.iter_mut().take(INSPECTED_MAX) {
        let doing = format!("inspecting image {}", image.reference);
        if let Ok(seen) = deadline(&doing, READ_WITHIN, client.inspect_image(&image.reference)).await {
            let exposed = seen.config.and_then(|config| config.exposed_ports).unwrap_or_default();
            let ports = exposed.iter().filter_map(|port| port.strip_suffix("/tcp")?.parse().ok());
            image.exposed = Some(ports.collect());
        }
    }
    for container in foreign.containers.iter_mut().take(INSPECTED_MAX) {
        let doing = format!("inspecting container {}", container.name);
        let none: Option<query::InspectContainerOptions> = None;
        let seen = deadline(&doing, READ_WITHIN, client.inspect_container(&container.id, none)).await;
        container.interactive = seen.ok().and_then(|seen| seen.config?.open_stdin);
    }
}

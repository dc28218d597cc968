//! The streams of a running container, for MCP over stdio.
//!
//! Frames come as the engine sends them, not as lines; [`crate::upstream::chunks`] puts them
//! together per stream.

use crate::docker::DockerEngine;
use crate::docker::errors::deadline;
use crate::model::id::ContainerId;
use crate::upstream::chunks::{Side, split};
use crate::upstream::leg::LegIo;
use crate::world::WorldError;
use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::query_parameters::AttachContainerOptionsBuilder;
use futures_util::StreamExt;
use std::time::Duration;

/// Longest wait for the engine to hand over the streams.
const ATTACH_WITHIN: Duration = Duration::from_secs(15);

impl DockerEngine {
    /// Attaches to stdin, stdout and stderr of a container without a TTY.
    ///
    /// # Errors
    /// When the container is not there, or the engine does not answer. One that was made but not
    /// started can be attached to: then nothing of its output is lost.
    pub async fn attach_streams(&self, container: &ContainerId) -> Result<LegIo, WorldError> {
        attach(&self.client()?, container).await
    }
}

/// Attaches; see [`DockerEngine::attach_streams`].
pub(crate) async fn attach(client: &Docker, container: &ContainerId) -> Result<LegIo, WorldError> {
    let doing = format!("attaching to container {container}");
    let options =
        AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
    let attached =
        deadline(&doing, ATTACH_WITHIN, client.attach_container(container.as_str(), Some(options)));
    let AttachContainerResults { output, input } = attached.await?;
    let chunks = output.map(|frame| match frame {
        Ok(LogOutput::StdErr { message }) => Ok((Side::Stderr, message)),
        Ok(LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message }) => {
            Ok((Side::Stdout, message))
        }
        Err(error) => Err(std::io::Error::other(error.to_string())),
    });
    let (stdout, stderr) = split(chunks);
    Ok(LegIo { stdout: Box::new(stdout), stdin: Box::new(input), stderr: Some(Box::new(stderr)) })
}

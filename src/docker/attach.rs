//! The streams of a running container, for MCP over stdio.
//!
//! Frames come as the engine sends them, not as lines; [`crate::upstream::chunks`] puts them
//! together per stream.

use crate::docker::DockerEngine;
use crate::docker::errors::world_error;
use crate::model::id::ContainerId;
use crate::upstream::chunks::{Side, split};
use crate::upstream::leg::LegIo;
use crate::world::WorldError;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::query_parameters::AttachContainerOptionsBuilder;
use futures_util::StreamExt;

impl DockerEngine {
    /// Attaches to stdin, stdout and stderr of a container without a TTY.
    ///
    /// # Errors
    /// When the container is not there or does not run.
    pub async fn attach_streams(&self, container: &ContainerId) -> Result<LegIo, WorldError> {
        let doing = format!("attaching to container {container}");
        let options =
            AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
        let client = self.client()?;
        let attached = client.attach_container(container.as_str(), Some(options)).await;
        let AttachContainerResults { output, input } =
            attached.map_err(|error| world_error(&doing, error))?;
        let chunks = output.map(|frame| match frame {
            Ok(LogOutput::StdErr { message }) => Ok((Side::Stderr, message)),
            Ok(
                LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message },
            ) => Ok((Side::Stdout, message)),
            Err(error) => Err(std::io::Error::other(error.to_string())),
        });
        let (stdout, stderr) = split(chunks);
        Ok(LegIo { stdout: Box::new(stdout), stdin: Box::new(input), stderr: Some(Box::new(stderr)) })
    }
}

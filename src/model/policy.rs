//! The settings that a decision may depend on, validated, with no default left open.
//!
//! Must never hold anything only adapters or surfaces need.

use crate::model::balancer::BalancerPolicy;
use crate::model::id::Stack;
use crate::model::net::PortRange;
use crate::model::time::Span;

/// What the end of the process asks of a plan (`[service] on_shutdown`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It goes on, or leaves everything as it is.
    #[default]
    None,
    /// This host leaves the load balancer; containers and listeners stay as they are.
    Leave,
    /// Containers are stopped; listeners and load balancer stay as they are.
    Stop,
}

/// Settings as the planner sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Owner of everything made here.
    pub stack: Stack,
    /// Container name prefix (`[service] name_prefix`).
    pub name_prefix: String,
    /// Ports that may be leased.
    pub ports: PortRange,
    /// Address that published direct ports bind (`[gateway] host`, resolved).
    pub host: String,
    /// Removing more than half, or all, is allowed (`allow_mass_delete`, `--allow-mass-delete`).
    pub allow_mass_delete: bool,
    /// Replacements in flight at once.
    pub replacements_max: usize,
    /// Failed replacements after which a roll-out stops.
    pub rollout_failures_max: usize,
    /// Restarts within a minute that nobody asked for; the first one of a server that was stable is not
    /// counted (`[recovery] restarts_per_minute_max`).
    pub restarts_per_minute_max: usize,
    /// How long a server waits for a section it depends on (`[recovery] dependency_wait_seconds`).
    pub dependency_wait: Span,
    /// How long a new container must run before it counts as up.
    pub settle: Span,
    /// Whether the process is about to end.
    pub ending: Ending,
    /// The load balancer half.
    pub balancer: BalancerPolicy,
}

//! One effect of a plan with its reason and its order.

use crate::model::id::ServerId;
use crate::model::op::Op;

/// One effect, fully determined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The server it is for; `None` for what all share.
    pub server: Option<ServerId>,
    /// The effect.
    pub op: Op,
    /// Why, in words.
    pub why: String,
    /// Indices of earlier actions that must have succeeded.
    pub after: Vec<usize>,
}

impl Action {
    /// Whether it is for `server`, or for one of its instances.
    #[must_use]
    pub fn is_of(&self, server: &ServerId) -> bool {
        self.server.as_ref().is_some_and(|id| id == server || id.server() == *server)
    }
}

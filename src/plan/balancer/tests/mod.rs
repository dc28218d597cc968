//! The planner against a small pure model of a listener.

mod cloud;
mod examples;
mod properties;

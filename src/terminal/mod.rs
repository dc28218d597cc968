//! What a process tells the person who started it: output on the two streams, and how it failed.
//!
//! Below the commands and the daemon, which both end this way. Must never decide what to tell.

pub mod failure;
pub mod output;
pub mod screen;

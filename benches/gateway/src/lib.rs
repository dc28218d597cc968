//! Tools for measuring gateways that bring MCP servers over stdio to HTTP.
//!
//! Four programs: `fastmcp`, the stdio server behind every gateway, as fast as it can be, so that
//! the gateway is what is measured; `floor`, an HTTP server that answers the same requests itself,
//! which no gateway can beat; `load`, which calls any of them and checks every reply; `pages`, which
//! reads pages and lists of any server, and is the floor under them.
//!
//! Nothing here knows the product: each gateway is reached as its clients reach it.

pub mod answer;
pub mod attach;
pub mod calls;
pub mod churn;
pub mod client;
pub mod options;
pub mod process;
pub mod reply;
pub mod target;

//! The way in for MCP clients. So far: one connection per stdio container, shared by every caller.

pub mod pool;

//! MCP tools as HTTP operations, without IO: what mcpo's clients know, made from what MCP servers say.
//!
//! - [`names`]: paths, operation ids and summaries of tools.
//! - [`schema`]: a tool's JSON Schema as schemas of an OpenAPI 3.1 document.
//! - [`document`]: the documents, of one server and of all.
//! - [`check`]: a value against a schema; [`arguments`]: a request's body against the tool's.
//! - [`answer`]: results and errors as HTTP answers.
//!
//! Must never change what a valid call says or what a tool answers.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod answer;
pub mod arguments;
pub mod check;
pub mod document;
pub mod names;
pub mod schema;

#[cfg(test)]
mod check_tests;
#[cfg(test)]
mod schema_tests;

//! Pages of the tool proxy, under the dashboard's style and headers.
//!
//! Must never answer without the headers that every page has.

use crate::gateway::body::Response;
use crate::gateway::toolproxy::{Page, Pages};
use crate::panel::{assets, file, page, pages, secured};
use hyper::StatusCode;

/// Makes them.
#[derive(Clone, Copy, Debug)]
pub struct ToolPages;

impl Pages for ToolPages {
    fn page(&self, shown: &Page) -> Response {
        secured(page(StatusCode::OK, pages::tools::page(shown)), false, None)
    }

    fn asset(&self, name: &str) -> Option<Response> {
        assets::find(name).map(|asset| secured(file(asset, false), true, None))
    }
}

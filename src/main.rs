//! The program: hands everything to the library.

use std::process::ExitCode;

/// Keeps what large messages took for the next one, where the C library's gives it back to the
/// kernel and pays for fresh pages at every call (docs/decisions/0018).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mcp_orchestrator::cli::main()
}

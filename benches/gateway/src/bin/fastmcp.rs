//! A stdio MCP server as fast as one can be: it takes what the pipe holds, answers all whole lines
//! in it and writes the answers at once.
//!
//! One thread that blocks: whoever stops reading its answers stops it, as with most real servers.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;

use gateway_bench::answer::answer;

/// Room for one read at least: as much as a pipe holds by default.
const READ_BYTES: usize = 64 * 1024;

fn main() -> io::Result<()> {
    // Not through std's own buffers: these here are enough.
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut input = vec![0; 2 * READ_BYTES];
    let mut output = Vec::with_capacity(READ_BYTES);
    // Bytes at the beginning of `input` that belong to a line without an end yet.
    let mut held = 0;
    loop {
        if input.len() - held < READ_BYTES {
            input.resize(2 * input.len(), 0);
        }
        let read = match stdin.read(&mut input[held..]) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let filled = held + read;
        let mut done = 0;
        // What was held has no newline: only the new bytes are searched.
        for end in memchr::memchr_iter(b'\n', &input[held..filled]).map(|at| held + at) {
            let before = output.len();
            answer(&input[done..end], &mut output);
            if output.len() > before {
                output.push(b'\n');
            }
            done = end + 1;
        }
        input.copy_within(done..filled, 0);
        held = filled - done;
        if !output.is_empty() {
            stdout.write_all(&output)?;
            output.clear();
        }
    }
}

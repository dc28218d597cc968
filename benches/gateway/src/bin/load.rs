//! Calls a gateway and prints what was measured as one line of JSON.
//!
//! ```text
//! load calls  --url URL [--sessions N] [--payload BYTES] [--seconds S] [--warm-up S] [--pid PID]
//! load churn  --url URL [--count N] [--at-once N] [--hold N] [--pid PID]
//! load attach --container ID [--socket PATH] [--window N] [--payload BYTES] [--seconds S]
//! load pipe   [--window N] [--payload BYTES] [--seconds S] -- COMMAND [ARG…]
//! ```
//!
//! With `--url` also `--tool NAME`, `--style mcp|rest`, `--header 'Name: value'` (any number) and
//! `--threads N`; one thread is the default, so that a gateway has the other cores to itself.

use std::process::ExitCode;

use gateway_bench::attach::{Trip, over_attach, over_pipe};
use gateway_bench::calls::{self, Cell};
use gateway_bench::churn::{self, Churn};
use gateway_bench::options::Options;
use serde_json::Value;

const ENGINE: &str = "/var/run/docker.sock";

fn run() -> Result<Value, String> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let options = Options::read(words)?;
    let trip = || {
        let (window, payload) = (options.get("window", 1)?, options.get("payload", 100)?);
        Ok::<_, String>(Trip { window, payload, seconds: options.get("seconds", 2.0)? })
    };
    match command.as_str() {
        "calls" => runtime(&options)?.block_on(calls::run(cell(&options)?)),
        "churn" => runtime(&options)?.block_on(churn::run(churn(&options)?)),
        "attach" => {
            let container: Option<String> = options.find("container")?;
            let socket = options.get("socket", ENGINE.to_owned())?;
            over_attach(&socket, &container.ok_or("--container is missing")?, trip()?)
        }
        "pipe" => over_pipe(&options.rest, trip()?),
        _ => Err("commands: calls, churn, attach, pipe; see benches/README.md".to_owned()),
    }
}

fn cell(options: &Options) -> Result<Cell, String> {
    Ok(Cell {
        target: options.target()?,
        sessions: options.get("sessions", 1)?,
        payload: options.get("payload", 100)?,
        seconds: options.get("seconds", 2.0)?,
        warm_up: options.get("warm-up", 0.5)?,
        pid: options.find("pid")?,
    })
}

fn churn(options: &Options) -> Result<Churn, String> {
    Ok(Churn {
        target: options.target()?,
        count: options.get("count", 10_000)?,
        at_once: options.get("at-once", 32)?,
        hold: options.get("hold", 1_000)?,
        pid: options.find("pid")?,
    })
}

fn runtime(options: &Options) -> Result<tokio::runtime::Runtime, String> {
    let mut builder = match options.get("threads", 1)? {
        1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    builder.enable_all().build().map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match run() {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

//! The checks under a plain mutation loop: no sanitizer, no coverage, any compiler.
//!
//! `mutate TARGET [--seconds N] [--seed N] [FILE-OR-FOLDER …]`: changes the seeds and checks what
//! comes out, until the time is over. An input that breaks a promise, or takes too long, is written
//! to `fuzz/artifacts/TARGET/` and ends the run with code 1.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[path = "../checks/mod.rs"]
mod checks;

/// Longest input made.
const BYTES_MAX: usize = 16 * 1024;
/// Longest a check may take; the limit of the file's size is far above what is made here.
const TOO_SLOW: Duration = Duration::from_secs(2);
/// Changes made to one input at most.
const CHANGES_MAX: u64 = 6;
/// Bytes that matter to some parser here.
const SPICE: &[&str] = &[
    "\n",
    "\r\n",
    "\u{feff}",
    "\0",
    "\"",
    "'",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "=",
    "#",
    ";",
    "- ",
    "${",
    "$$",
    "${A:-${B}}",
    "${file:/x}",
    "null",
    "true",
    "1e999",
    "-1",
    "18446744073709551616",
    "é",
    "\u{202e}",
    "&a",
    "*a",
    "data: ",
    "event: ",
    "id: ",
    "retry: ",
    ": ",
    "\n\n",
    "--",
    "-v",
    "/",
    "..",
    "%",
    "*",
    "?",
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let target = words.next().unwrap_or_default();
    let Some((_, check)) = checks::TARGETS.iter().find(|(name, _)| *name == target) else {
        let names: Vec<&str> = checks::TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "usage: mutate TARGET [--seconds N] [--seed N] [FILE-OR-FOLDER …]; targets: {}",
            names.join(" ")
        );
        return ExitCode::from(2);
    };
    let (mut seconds, mut random, mut paths) = (60, Random(0x9e37_79b9_7f4a_7c15), Vec::new());
    while let Some(word) = words.next() {
        let number =
            |words: &mut dyn Iterator<Item = String>| words.next().and_then(|text| text.parse().ok());
        match word.as_str() {
            "--seconds" => seconds = number(&mut words).unwrap_or(seconds),
            "--seed" => random = Random(number(&mut words).unwrap_or(1) | 1),
            _ => paths.push(PathBuf::from(word)),
        }
    }
    if paths.is_empty() {
        paths = seeds_of(&target);
    }
    let mut seeds = read_all(&paths);
    if target == "docker_run" {
        // The fixtures have many lines in one file.
        seeds = seeds.iter().flat_map(|seed| seed.split(|byte| *byte == b'\n')).map(<[u8]>::to_vec).collect();
    }
    println!("{target}: {} seeds, {seconds} s", seeds.len());
    run(&target, *check, &seeds, &mut random, Duration::from_secs(seconds))
}

fn run(
    target: &str,
    check: checks::Check,
    seeds: &[Vec<u8>],
    random: &mut Random,
    time: Duration,
) -> ExitCode {
    let (begin, mut count, mut slowest) = (Instant::now(), 0_u64, Duration::ZERO);
    while begin.elapsed() < time {
        let input = match seeds.get(usize::try_from(count).unwrap_or(usize::MAX)) {
            Some(seed) => seed.clone(),
            None => random.input(seeds),
        };
        let start = Instant::now();
        let good = catch_unwind(AssertUnwindSafe(|| check(&input))).is_ok();
        let took = start.elapsed();
        slowest = slowest.max(took);
        count += 1;
        if !good || took > TOO_SLOW {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(target);
            let file = folder.join(format!("found-{count}"));
            std::fs::create_dir_all(&folder).expect("a folder for what is found");
            std::fs::write(&file, &input).expect("what is found is kept");
            eprintln!("{target}: input {count} ({took:?}): {}", file.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{target}: {count} inputs, slowest {slowest:?}");
    ExitCode::SUCCESS
}

/// The target's own seeds, and the fixtures where they are of the same kind.
fn seeds_of(target: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("seeds").join(target)];
    if matches!(target, "config" | "settings") {
        paths.push(root.join("../tests/fixtures/config"));
    }
    if target == "docker_run" {
        paths.push(root.join("../tests/fixtures/docker-run/lines.txt"));
        paths.push(root.join("../tests/fixtures/docker-run/refused.txt"));
    }
    paths
}

fn read_all(paths: &[PathBuf]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for path in paths {
        match std::fs::read_dir(path) {
            Ok(entries) => {
                let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
                files.retain(|file| file.extension().is_none_or(|extension| extension != "snap"));
                files.sort();
                found.extend(files.iter().filter_map(|file| std::fs::read(file).ok()));
            }
            Err(_) => found.extend(std::fs::read(path).ok()),
        }
    }
    found
}

/// xorshift: what comes is a function of the seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    fn piece<'a>(&mut self, of: &'a [u8]) -> &'a [u8] {
        let from = self.below(of.len() + 1);
        let length = self.below((of.len() - from).min(64) + 1);
        &of[from..from + length]
    }

    fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let nothing = Vec::new();
        let first = self.below(seeds.len());
        let mut input = seeds.get(first).unwrap_or(&nothing).clone();
        for _ in 0..=self.next() % CHANGES_MAX {
            self.change(&mut input, seeds);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let cut = self.below((input.len() - at).min(32) + 1);
        match self.next() % 8 {
            0 if at < input.len() => input[at] ^= 1 << (self.next() % 8),
            1 if at < input.len() => input[at] = self.next() as u8,
            2 => drop(input.drain(at..at + cut)),
            3 => {
                let copy = self.piece(&input.clone()).to_vec();
                input.splice(at..at, copy);
            }
            4 => {
                let times = if self.next() % 64 == 0 { 1000 } else { 1 };
                let spice = SPICE[self.below(SPICE.len())];
                input.splice(at..at, spice.repeat(times).into_bytes());
            }
            _ => {
                let other = self.below(seeds.len());
                if let Some(other) = seeds.get(other) {
                    let piece = self.piece(other).to_vec();
                    input.splice(at..at + cut, piece);
                }
            }
        }
    }
}

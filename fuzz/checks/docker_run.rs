//! A `docker run` line: taken or refused, never a panic; what is taken prints to a line that means
//! the same; no value of the environment or of a file in a problem or in the redacted line.

use std::collections::BTreeMap;

use mcp_orchestrator::config::docker_run::{RunContext, RunLine, files_needed, parse, print, print_redacted};
use mcp_orchestrator::model::container::dangers;

use super::{PLANTED, contains};

/// Bytes as words of a shell, behind `run`.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut args = vec!["run".to_owned()];
    args.extend(words(&text));
    // Lines of a container may be given whole too.
    if args.get(1).is_some_and(|word| word == "run" || word == "container") {
        args.remove(0);
    }
    // Labels are shown, so what a file of labels holds is no secret.
    let value = if contains(bytes, "label-file") { "shown" } else { PLANTED };
    let planted = format!("TOKEN={value}\nSET_VAR\n# x\n");
    let files = files_needed(&args).into_iter().filter(|file| file.len() % 2 == 0);
    let files: BTreeMap<String, String> = files.map(|file| (file, planted.clone())).collect();
    let env = [("SET_VAR".to_owned(), PLANTED.to_owned()), ("EMPTY_VAR".to_owned(), String::new())].into();
    let ctx = RunContext { env: &env, files: &files, base_dir: "/base", own_name: Some("mcp-own") };
    match parse(&args, &ctx) {
        Ok(line) => is_stable(&line, &ctx, bytes),
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(problem.arg <= args.len() && !problem.message.ends_with('.'), "{problem:?}");
                let shown = format!("{problem:?}");
                assert!(contains(bytes, PLANTED) || !shown.contains(PLANTED), "{shown}");
            }
        }
    }
}

fn is_stable(line: &RunLine, ctx: &RunContext<'_>, bytes: &[u8]) {
    let printed = print(line);
    let again = parse(&printed, ctx).unwrap_or_else(|problems| panic!("{printed:?}: {problems:?}"));
    assert_eq!(line, &again, "{printed:?}");
    assert_eq!(printed, print(&again));
    let stored = serde_json::to_string(line).expect("a line is JSON");
    assert_eq!(&serde_json::from_str::<RunLine>(&stored).expect("and back"), line, "{stored}");
    let shown = format!("{:?} {line:?}", print_redacted(line));
    assert!(contains(bytes, PLANTED) || !shown.contains(PLANTED), "{shown}");
    drop(dangers(&line.spec));
}

/// Splits words as a shell does: quotes, double quotes, backslashes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, ' ' | '\n') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(q), c) if c == q => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

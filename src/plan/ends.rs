//! How servers ended lately: kept for whoever asks hours later why one was restarted.
//!
//! ```text
//! ended            how, when, and whether for memory: at once
//! a container      its last words with the next look, which does not hold up its restart
//! a process        everything at once, from whoever holds its pipes
//! stopped by us    is no end
//! ```
//! Must never keep a value of a server's environment, nor more than [`ENDS_MAX`] ends of a server.

use crate::model::id::ServerId;
use crate::model::memory::{End, Memory};
use crate::model::observed::{Container, Details, LogLine, Question, Seen};
use crate::model::server::{Server, ServerKind};
use crate::model::time::{Span, Timestamp};
use crate::plan::containers::Site;
use crate::plan::draft::Draft;
use crate::plan::oom::KILLED;
use crate::plan::report::{Reason, ReasonKind};

/// Ends kept of each server.
pub(crate) const ENDS_MAX: usize = 5;
/// Last lines kept of an end.
const LINES_MAX: usize = 3;
/// Bytes kept of such a line.
const LINE_BYTES_MAX: usize = 200;
/// What is said of an end for memory is said for so long.
const ADVICE_FOR: Span = Span::secs(24 * 60 * 60);
/// Values of the environment that are shorter are words like any other.
const VALUE_BYTES_MIN: usize = 6;
/// Arguments that are shorter are no secrets.
const ARGUMENT_BYTES_MIN: usize = 16;
/// What stands for a value.
const MASK: &str = "[redacted]";
const NANOS_PER_MILLI: u64 = 1_000_000;

/// Forgets the ends of servers that are no more, and takes in what containers said last.
pub(crate) fn settle(draft: &mut Draft<'_>) {
    let desired = draft.input.desired;
    let known = |id: &ServerId| {
        desired.servers.contains_key(id) || desired.stale.is_some() || desired.broken.contains_key(id)
    };
    draft.memory.ends.retain(|id, _| known(id));
    let Some(containers) = draft.input.observed.containers.known() else { return };
    let mut questions = Vec::new();
    for (id, ends) in &mut draft.memory.ends {
        let Some(container) = ends.words_of.clone() else { continue };
        let there = containers.iter().any(|seen| seen.id == container);
        match draft.input.observed.words.get(&container) {
            None if there => questions.push(Question::Words(container)),
            Some(Seen::Known(lines)) => {
                ends.words_of = None;
                let Some(end) = ends.list.last_mut() else { continue };
                let values = desired.servers.get(id).map(hidden).unwrap_or_default();
                end.words = before(lines, end.at).map(|lines| words(&lines, &values));
            }
            None | Some(Seen::Unknown(_)) => ends.words_of = None,
        }
    }
    for question in questions {
        draft.ask(question);
    }
}

/// Lines until a point in time; `None` when there are others only, which may have pushed them out.
fn before(lines: &[LogLine], at: Timestamp) -> Option<Vec<&str>> {
    let until = u64::try_from(at.0).unwrap_or(0).saturating_add(1).saturating_mul(NANOS_PER_MILLI);
    let of_it: Vec<&str> =
        lines.iter().filter(|line| line.number <= until).map(|line| line.text.as_str()).collect();
    (!of_it.is_empty() || lines.is_empty()).then_some(of_it)
}

/// A container ended with this code; the details are there where they were worth asking for.
pub(crate) fn container(
    draft: &mut Draft<'_>,
    site: &Site<'_>,
    main: &Container,
    (code, details): &(i64, Option<&Details>),
) {
    let (id, now) = (&site.server.id, draft.input.now);
    // Without a start that is remembered it was stopped by us.
    let Some(started) = draft.memory.attempts.get(id).and_then(|attempts| attempts.started) else { return };
    let run = format!("{}@{}", main.id, started.0);
    let killed = *code == KILLED;
    let oom = match details {
        Some(details) => Some(details.oom_killed),
        None => (!killed).then_some(false),
    };
    let how = match oom {
        Some(true) => format!("it was killed for memory (exit code {code})"),
        Some(false) if killed => format!("it was killed (exit code {code}), and not for memory"),
        None => format!("it was killed (exit code {code}): perhaps out of memory"),
        Some(false) => format!("it ended with exit code {code}"),
    };
    let finished = details.and_then(|details| details.finished).filter(|at| *at <= now && *at >= started);
    let ends = draft.memory.ends.entry(id.clone()).or_default();
    if ends.run != run {
        let end = End { at: finished.unwrap_or(now), how, oom, words: None };
        (ends.run, ends.words_of) = (run, Some(main.id.clone()));
        push(&mut ends.list, end);
        return;
    }
    // The same end, seen more closely.
    if let Some(end) = ends.list.last_mut().filter(|_| details.is_some()) {
        (end.how, end.oom, end.at) = (how, oom, finished.unwrap_or(end.at));
    }
}

/// A process may have ended since the last look.
pub(crate) fn process(draft: &mut Draft<'_>, server: &Server) {
    let ServerKind::Process(decl) = &server.kind else { return };
    let id = &server.id;
    let last = draft.memory.ends.get(id).and_then(|ends| ends.list.last()).map(|last| last.at);
    if let Some(end) = draft.input.observed.ends.get(id).filter(|end| last.is_none_or(|last| last < end.at)) {
        let said = end.words.as_ref();
        let lines = said.map(|lines| lines.iter().map(String::as_str).collect::<Vec<_>>());
        let words = lines.map(|lines| words(&lines, &hidden(server)));
        let end = End { words, ..end.clone() };
        push(&mut draft.memory.ends.entry(id.clone()).or_default().list, end);
    }
    let limited = decl.limits.memory_bytes.is_some();
    advise(draft, server, &|_| {
        let advice = if limited {
            "raise its limits.memory, or find what it needs so much for"
        } else {
            "it has no limit of its own: this host ran out of memory; give it and the others limits (limits.memory)"
        };
        advice.to_owned()
    });
}

fn push(list: &mut Vec<End>, end: End) {
    list.push(end);
    let many = list.len().saturating_sub(ENDS_MAX);
    list.drain(..many);
}

/// The ends of a server for its row.
pub(crate) fn newest_first(memory: &Memory, id: &ServerId) -> Vec<End> {
    memory.ends.get(id).map(|ends| ends.list.iter().rev().cloned().collect()).unwrap_or_default()
}

/// How often in a row a server was killed for memory, if that was its last end and not long ago.
fn killed_lately(draft: &Draft<'_>, id: &ServerId) -> Option<usize> {
    let (now, list) = (draft.input.now, &draft.memory.ends.get(id)?.list);
    // A raise of its limit answers the ends before it, and says so itself.
    let raised = draft.memory.raises.get(id).map(|raise| raise.at);
    let lately = |end: &&End| {
        let new = raised.is_none_or(|raised| end.at > raised) && now.since(end.at) < ADVICE_FOR;
        end.oom == Some(true) && new
    };
    Some(list.iter().rev().take_while(lately).count()).filter(|times| *times > 0)
}

/// Says of a server that runs what is to be done about its end for memory.
pub(crate) fn advise(draft: &mut Draft<'_>, server: &Server, advice: &dyn Fn(&Draft<'_>) -> String) {
    let Some(times) = killed_lately(draft, &server.id) else { return };
    let often = if times == 1 { "once".to_owned() } else { format!("{times} times in a row") };
    let text = format!("it was killed for memory lately, {often}; {}", advice(draft));
    draft.say(&server.id, Reason::new(ReasonKind::Note, text).code("MCPO-P045"));
}

/// What of a declaration is never shown: values of the environment, and arguments that may be secrets.
fn hidden(server: &Server) -> Vec<&str> {
    let long = |value: &&str| value.len() >= VALUE_BYTES_MIN;
    let mut values: Vec<&str> = match &server.kind {
        ServerKind::Container(decl) => {
            let env = decl.spec.env.iter().filter_map(|var| var.value.as_ref()).map(|value| value.expose());
            let args = decl.spec.command.iter().map(|arg| arg.expose()).filter(|arg| may_be_secret(arg));
            env.filter(long).chain(args).collect()
        }
        ServerKind::Process(decl) => {
            let env = decl.env.values().map(String::as_str);
            let args = decl.args.iter().map(String::as_str).filter(|arg| may_be_secret(arg));
            env.filter(long).chain(args).collect()
        }
        ServerKind::Remote(_) => Vec::new(),
    };
    // A value that holds another one goes first.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values
}

/// Neither a path, nor a package, nor an option.
fn may_be_secret(argument: &str) -> bool {
    argument.len() >= ARGUMENT_BYTES_MIN && !argument.starts_with('-') && !argument.contains(['/', ' '])
}

/// The last lines as they are kept.
fn words(lines: &[&str], hidden: &[&str]) -> Vec<String> {
    let full = lines.iter().filter(|line| !line.trim().is_empty());
    let mut last: Vec<String> = full.rev().take(LINES_MAX).map(|line| kept(line, hidden)).collect();
    last.reverse();
    last
}

fn kept(line: &str, hidden: &[&str]) -> String {
    let shown = hidden.iter().fold(line.to_owned(), |line, value| line.replace(value, MASK));
    let plain: String = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let plain = plain.trim();
    let end = (0..=LINE_BYTES_MAX.min(plain.len())).rev().find(|at| plain.is_char_boundary(*at));
    plain.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{LINE_BYTES_MAX, before, may_be_secret, words};
    use crate::model::observed::LogLine;
    use crate::model::time::Timestamp;

    #[test]
    fn last_words_are_few_short_and_without_values() {
        let long = "ü".repeat(LINE_BYTES_MAX);
        let lines = ["first", "token is s3cret-token!", "", "\u{1b}[31mred", long.as_str(), "  "];
        let kept = words(&lines, &["s3cret-token", "s3cret"]);
        assert_eq!(kept[..2], ["token is [redacted]!", "[31mred"].map(str::to_owned));
        assert_eq!((kept.len(), kept[2].len()), (3, LINE_BYTES_MAX));
        assert!(words(&[], &[]).is_empty());
    }

    #[test]
    fn lines_of_the_next_run_are_not_its_words() {
        let line = |millis: u64, text: &str| LogLine {
            number: millis * 1_000_000 + 5,
            stream: "stderr",
            text: text.to_owned(),
        };
        let lines = [line(10, "a"), line(20, "b"), line(30, "c")];
        assert_eq!(before(&lines, Timestamp(20)), Some(vec!["a", "b"]));
        assert_eq!(before(&lines, Timestamp(5)), None, "they may have been pushed out");
        assert_eq!(before(&[], Timestamp(5)), Some(Vec::new()), "it printed nothing");
    }

    #[test]
    fn only_what_may_be_a_secret_is_masked_of_arguments() {
        for plain in ["-y", "@modelcontextprotocol/server-time", "--some-very-long-option", "stdio"] {
            assert!(!may_be_secret(plain), "{plain}");
        }
        assert!(may_be_secret("ghp_0123456789abcdef"));
    }
}

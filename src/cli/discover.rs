//! `discover` and `import`: what is found, what would be written, and writing it with consent.
//!
//! Finds are foreign text: shown without control characters and without secrets. Nothing is written
//! without a yes, typed or given by `--yes`; nothing written runs without `--enable`.

use crate::cli::args::{Discover, Import};
use crate::cli::inside::plain;
use crate::cli::offline::running_daemon;
use crate::daemon::discovery::{self, Found, Search};
use crate::daemon::importing::{self, Merged, Proposal};
use crate::daemon::{Home, Options};
use crate::discovery::Find;
use crate::discovery::engine::Stray;
use crate::discovery::merge::{Outcome, Wish};
use crate::plan::display;
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use serde_json::{Value, json};
use std::io::{BufRead as _, IsTerminal as _};

/// Columns of names, and of images.
const NAME_COLUMNS: usize = 24;
const IMAGE_COLUMNS: usize = 30;

/// `discover [PATH…]`.
pub(super) async fn discover(options: Options, asked: Discover) -> Result<Exit, Failure> {
    let Discover { paths, rescan, write, apply, json } = asked;
    let home = Home::find(options)?;
    if rescan && paths.is_empty() && !write && rescanned(&home, json.json).await? {
        return Ok(Exit::Done);
    }
    let cwd = std::env::current_dir().unwrap_or_default();
    let search = if paths.is_empty() {
        Search::usual(&home, &cwd)
    } else {
        if let Some(missing) = paths.iter().find(|path| !path.exists()) {
            return Err(Failure::new(Exit::Usage, format!("{} is not there", missing.display())));
        }
        Search { roots: paths, clients: false, engine: false }
    };
    let found = discovery::search(&home, search).await;
    if write {
        tell_notes(&found);
        let wish = Wish { enable: apply.enable, least: apply.least, only: apply.only.into_iter().collect() };
        return merge(&home, &found.finds, (&wish, "discover --write"), (apply.yes, json.json)).await;
    }
    if json.json {
        output::line(&found.json().to_string());
        return Ok(Exit::Done);
    }
    output::data(&shown(&found, output::width(), output::colour()));
    tell_notes(&found);
    output::tell(&sentence(&found));
    Ok(Exit::Done)
}

/// Has the daemon search, and shows what it finds; false when no daemon runs.
async fn rescanned(home: &Home, as_json: bool) -> Result<bool, Failure> {
    let Some(client) = running_daemon(home).await? else { return Ok(false) };
    let view = client.post("/api/v1/discovery", String::new()).await?;
    if as_json {
        output::line(&view.to_string());
        return Ok(true);
    }
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let finds = view.pointer("/found/finds").and_then(Value::as_array).cloned().unwrap_or_default();
    let rows: Vec<[String; 4]> = finds
        .iter()
        .map(|find| [text(find, "name"), text(find, "confidence"), text(find, "source"), text(find, "place")])
        .collect();
    output::data(&table(&rows, output::width(), output::colour()));
    output::tell(&format!("the daemon found {} just now", counted(finds.len(), "server")));
    Ok(true)
}

/// `import FILE` and `import --undo`.
pub(super) async fn import(options: Options, asked: Import) -> Result<Exit, Failure> {
    let Import { file, undo, apply, json } = asked;
    let home = Home::find(options)?;
    let Some(file) = file.filter(|_| !undo) else {
        let (proposal, what) = importing::propose_undo(&home)?;
        output::tell(&format!("undoing {what}"));
        output::data(&plain_lines(&proposal.diff));
        if !agreed(apply.yes)? {
            return Ok(Exit::Failed);
        }
        importing::undo(&home, &proposal)?;
        output::tell(&format!("{} is as it was before", proposal.file.display()));
        return Ok(Exit::Done);
    };
    let found = discovery::import(&file)?;
    tell_notes(&found);
    // Who names a file means all of it.
    let least = crate::discovery::Confidence::Low;
    let wish = Wish { enable: apply.enable, least, only: apply.only.into_iter().collect() };
    let what = format!("import {}", file.display());
    merge(&home, &found.finds, (&wish, &what), (apply.yes, json.json)).await
}

/// Proposes, asks, writes.
async fn merge(
    home: &Home,
    finds: &[Find],
    (wish, what): (&Wish, &str),
    (yes, as_json): (bool, bool),
) -> Result<Exit, Failure> {
    let unknown: Vec<&str> = wish
        .only
        .iter()
        .filter(|name| !finds.iter().any(|find| find.name == **name))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!("nothing is found by the name of {}", unknown.join(", ")),
        ));
    }
    let merged = importing::propose(home, finds, wish).await?;
    if as_json {
        let written = yes && merged.added() > 0;
        if written {
            importing::write(home, &merged.proposal, what)?;
        }
        output::line(&json_of(&merged, finds, written).to_string());
        return Ok(Exit::Done);
    }
    tell_outcomes(&merged, finds);
    if merged.added() == 0 {
        output::tell("nothing to write");
        return Ok(Exit::Done);
    }
    output::data(&plain_lines(&merged.proposal.diff));
    if !agreed(yes)? {
        return Ok(Exit::Failed);
    }
    write(home, &merged.proposal, what, merged.added())?;
    if !wish.enable {
        output::tell("they are disabled: take `disabled` away, or `mcp-orchestrator start-server NAME`");
    }
    Ok(Exit::Done)
}

fn write(home: &Home, proposal: &Proposal, what: &str, added: usize) -> Result<(), Failure> {
    let backup = importing::write(home, proposal, what)?;
    output::tell(&format!("{} written to {}", counted(added, "entry"), proposal.file.display()));
    if let Some(backup) = backup {
        output::tell(&format!("before: {}; undo with `mcp-orchestrator import --undo`", backup.display()));
    }
    Ok(())
}

/// Asks a person; without one and without `--yes` the answer is no.
fn agreed(yes: bool) -> Result<bool, Failure> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        output::tell("nothing is written without a yes: add --yes");
        return Ok(false);
    }
    output::prompt("write this? [y/N] ");
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::new(Exit::Failed, "reading the answer").cause(error.to_string()))?;
    let yes = matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if !yes {
        output::tell("nothing is written");
    }
    Ok(yes)
}

fn tell_outcomes(merged: &Merged, finds: &[Find]) {
    for (find, outcome) in finds.iter().zip(&merged.outcomes) {
        let line = match outcome {
            Outcome::Add { name, .. } if *name == find.name => format!("+ {name}  ({})", find.place),
            Outcome::Add { name, .. } => {
                format!("+ {name}  ({} of {}: the name is taken)", find.name, find.place)
            }
            Outcome::Same(name) => format!("= {}  ({}) is {name} already", find.name, find.place),
            Outcome::Left(why) => format!("- {}  ({}) is left: {why}", find.name, find.place),
        };
        output::tell(&plain(&line));
        let notes: &[String] = if matches!(outcome, Outcome::Add { .. }) { &find.notes } else { &[] };
        for note in notes {
            output::tell(&plain(&format!("    {note}")));
        }
    }
    for warning in &merged.warnings {
        output::tell(&plain(&format!("warning: {warning}")));
    }
}

fn json_of(merged: &Merged, finds: &[Find], written: bool) -> Value {
    let outcomes = finds.iter().zip(&merged.outcomes).map(|(find, outcome)| {
        let (key, value) = match outcome {
            Outcome::Add { name, .. } => ("added", name),
            Outcome::Same(name) => ("sameAs", name),
            Outcome::Left(why) => ("left", why),
        };
        json!({"name": find.name, "place": find.place, key: value})
    });
    json!({
        "schemaVersion": 1, "written": written, "file": merged.proposal.file.display().to_string(),
        "finds": outcomes.collect::<Vec<Value>>(), "warnings": merged.warnings, "diff": merged.proposal.diff,
    })
}

fn tell_notes(found: &Found) {
    for note in &found.notes {
        output::tell(&plain(&format!("note: {note}")));
    }
}

fn counted(count: usize, noun: &str) -> String {
    let plural = match (count, noun.strip_suffix('y')) {
        (1, _) => noun.to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) => format!("{noun}s"),
    };
    format!("{count} {plural}")
}

fn sentence(found: &Found) -> String {
    format!(
        "{} found; {} entries and {} files looked at in {} ms",
        counted(found.finds.len(), "server"),
        found.entries,
        found.files,
        found.millis
    )
}

/// Finds and strays for people.
fn shown(found: &Found, width: usize, colour: bool) -> String {
    let rows: Vec<[String; 4]> = found
        .finds
        .iter()
        .map(|find| {
            [find.name.clone(), find.confidence.to_string(), find.source.to_string(), find.place.clone()]
        })
        .collect();
    let mut out = table(&rows, width, colour);
    let noted = found.finds.iter().filter(|find| !find.notes.is_empty());
    for find in noted {
        for note in &find.notes {
            display::wrapped(&mut out, "  ", &plain(&format!("{}: {note}", find.name)), width);
        }
    }
    out.push_str(&strays(&found.strays, width));
    out
}

fn table(rows: &[[String; 4]], width: usize, colour: bool) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let used = NAME_COLUMNS + "CONFIDENCE".len() + "claude-desktop".len() + 6;
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|[name, confidence, source, place]| {
            let place = tail(&plain(place), width.saturating_sub(used).max(16));
            vec![head(&plain(name), NAME_COLUMNS), confidence.clone(), source.clone(), place]
        })
        .collect();
    output::table(&["NAME", "CONFIDENCE", "SOURCE", "WHERE"], &rows, width, colour)
}

fn strays(strays: &[Stray], width: usize) -> String {
    if strays.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = strays
        .iter()
        .map(|one| {
            vec![
                head(&plain(&one.name), NAME_COLUMNS),
                head(&plain(&one.image), IMAGE_COLUMNS),
                plain(&one.why),
            ]
        })
        .collect();
    let table = output::table(&["CONTAINER", "IMAGE", "WHY"], &rows, width, false);
    format!("\nContainers of other tools (never touched from here):\n{table}")
}

/// The beginning of a text.
fn head(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(columns.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// The end of a text: of paths it says more.
fn tail(text: &str, columns: usize) -> String {
    let count = text.chars().count();
    if count <= columns {
        return text.to_owned();
    }
    let rest: String = text.chars().skip(count + 1 - columns).collect();
    format!("…{rest}")
}

/// Lines of foreign text, each plain.
fn plain_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", plain(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::{counted, shown, tail};
    use crate::daemon::discovery::Found;
    use crate::discovery::engine::Stray;
    use crate::discovery::{Confidence, Find, Source};
    use crate::model::time::Timestamp;
    use serde_json::json;

    #[test]
    fn a_list_fits_and_paths_keep_their_ends() {
        let mut find = Find::new(
            "time\u{1b}[2J",
            Source::ClaudeDesktop,
            "/home/ann/.config/Claude/claude_desktop_config.json",
            json!({}),
        );
        find.notes.push("a note".to_owned());
        let low =
            Find::new("a-name-that-goes-on-and-on-and-on", Source::Pyproject, "/p/pyproject.toml", json!({}))
                .because(Confidence::Low, "");
        let stray = Stray {
            id: "abc".into(),
            name: "old_time".into(),
            image: "mcp/time:latest".into(),
            tool: None,
            created: Timestamp(0),
            orphaned: Some(true),
            why: "its image's name has the word mcp; started with -i".into(),
        };
        let found = Found { finds: vec![find, low], strays: vec![stray], ..Found::default() };
        let text = shown(&found, 80, false);
        let expected = "\
NAME                      CONFIDENCE  SOURCE          WHERE
time                      high        claude-desktop  …laude_desktop_config.json
a-name-that-goes-on-and…  low         pyproject       /p/pyproject.toml
  time: a note

Containers of other tools (never touched from here):
CONTAINER  IMAGE            WHY
old_time   mcp/time:latest  its image's name has the word mcp; started with -i
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn words_are_counted() {
        assert_eq!(counted(1, "entry"), "1 entry");
        assert_eq!(counted(2, "entry"), "2 entries");
        assert_eq!(counted(0, "server"), "0 servers");
        assert_eq!(tail("abcdef", 3), "…ef");
    }
}

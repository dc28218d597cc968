//! Data on stdout, everything else on stderr; a closed pipe is no error; no colour where nobody
//! sees it.

use std::io::{IsTerminal, Write};

/// Width that is assumed where nobody looks.
const WIDTH: usize = 80;
/// Narrowest and widest that tables adapt to.
const WIDTH_MIN: usize = 40;
const WIDTH_MAX: usize = 200;
/// A column that is cut keeps this much.
const COLUMN_MIN: usize = 6;

/// Writes data. A reader that went away is not an error of ours.
pub fn data(text: &str) {
    let _closed = try_data(text);
}

/// Writes data; false when nobody reads any more, for whoever would go on for ever.
pub fn try_data(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Writes a line of data.
pub fn line(text: &str) {
    data(&format!("{text}\n"));
}

/// Writes a line for people.
pub fn tell(text: &str) {
    let mut err = std::io::stderr().lock();
    let _closed = writeln!(err, "{text}");
}

/// Asks for something, without ending the line.
pub fn prompt(text: &str) {
    let mut err = std::io::stderr().lock();
    let _closed = write!(err, "{text}").and_then(|()| err.flush());
}

/// Columns of the terminal, else 80.
#[must_use]
pub fn width() -> usize {
    let known = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let seen = || {
        rustix::termios::tcgetwinsize(std::io::stdout())
            .ok()
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0)
    };
    known.or_else(seen).unwrap_or(WIDTH).clamp(WIDTH_MIN, WIDTH_MAX)
}

/// Whether stdout may have colour.
#[must_use]
pub fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Paints a word by what it means.
#[must_use]
pub fn paint(word: &str, shown: &str, colour: bool) -> String {
    let code = match word {
        "converged" | "running" | "healthy" | "ok" | "done" => "32",
        "changing" | "waiting" | "starting" | "degraded" | "interrupted" => "33",
        "blocked" | "failed" | "error" | "refused" | "unhealthy" | "critical" => "31",
        "stopped" | "asleep" => "2",
        _ => return shown.to_owned(),
    };
    if colour { format!("\x1b[{code}m{shown}\x1b[0m") } else { shown.to_owned() }
}

/// A table that fits `width`: the last column gives way first, then the widest; what is cut has an ellipsis.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>], width: usize, colour: bool) -> String {
    let columns = head.len();
    let length = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = head.iter().map(|text| length(text)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(length(cell));
        }
    }
    let gaps = columns.saturating_sub(1) * 2;
    let total: usize = widths.iter().sum::<usize>() + gaps;
    if let Some(last) = widths.last_mut() {
        *last = last.saturating_sub(total.saturating_sub(width)).max(COLUMN_MIN);
    }
    // What is still too much goes from the widest, one by one.
    for _ in width..widths.iter().sum::<usize>() + gaps {
        let widest = widths.iter_mut().max();
        if let Some(widest) = widest.filter(|widest| **widest > COLUMN_MIN) {
            *widest -= 1;
        }
    }
    let mut out = String::new();
    let heads: Vec<String> = head.iter().map(|text| (*text).to_owned()).collect();
    for (number, row) in std::iter::once(&heads).chain(rows).enumerate() {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let shown = cut(cell, *width);
            let pad = width.saturating_sub(length(&shown));
            let painted = if number == 0 { shown.clone() } else { paint(cell, &shown, colour) };
            line.push_str(&painted);
            if index + 1 < columns {
                line.push_str(&" ".repeat(pad + 2));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(width.saturating_sub(1)).collect();
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn tables_fit() {
        let rows = vec![vec![
            "time".to_owned(),
            "converged".to_owned(),
            "registry.example/very/long/image:1".to_owned(),
        ]];
        let shown = table(&["SERVER", "STATE", "IMAGE"], &rows, 40, false);
        assert_eq!(shown, "SERVER  STATE      IMAGE\ntime    converged  registry.example/ver…\n");
        assert!(shown.lines().all(|line| line.chars().count() <= 40), "{shown}");
        let rows =
            vec![vec!["a-server-with-quite-a-long-name".to_owned(), "converged".to_owned(), "i:1".repeat(9)]];
        let shown = table(&["SERVER", "STATE", "IMAGE"], &rows, 44, false);
        assert!(
            shown.lines().all(|line| line.chars().count() <= 44) && shown.contains("a-server-with-quite"),
            "{shown}"
        );
    }
}

//! A reader of INI text that keeps the place of everything.
//!
//! Rules: `[section]`, `key = value`, comments with `#` or `;` at the start of a line or behind
//! white space after a value. `pa#ss` keeps its hash. A value in double or single quotes is kept
//! as it is; in double quotes `\"` and `\\` stand for themselves. An empty value is there and
//! empty, which the caller takes for "unset".

use crate::config::codes;
use crate::config::error::Sink;

/// One `key = value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// The section it is in, lower case.
    pub(crate) section: String,
    /// Offset of the section's name.
    pub(crate) section_at: usize,
    /// The key, lower case.
    pub(crate) key: String,
    /// Offset of the key.
    pub(crate) key_at: usize,
    /// The value, unquoted.
    pub(crate) value: String,
    /// Offset of the value; of the comment or of the end of the line when it is empty.
    pub(crate) value_at: usize,
    /// Where the value ends, quotes included.
    pub(crate) value_end: usize,
    /// Where its line begins.
    pub(crate) line_at: usize,
    /// Where its line ends, line feed included.
    pub(crate) line_end: usize,
}

/// A section's heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    /// Its name, lower case.
    pub(crate) name: String,
    /// Offset of the name.
    pub(crate) at: usize,
    /// Where its line ends, line feed included.
    pub(crate) line_end: usize,
}

/// What a text holds, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ini {
    /// All headings.
    pub(crate) headings: Vec<Heading>,
    /// All pairs but those outside a section.
    pub(crate) items: Vec<Item>,
}

/// Reads `text`; what cannot be read goes to `sink` and is left out.
pub(crate) fn read(text: &str, sink: &mut Sink<'_>) -> Ini {
    let mut ini = Ini::default();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        read_line(line.trim_end_matches(['\n', '\r']), (start, end), &mut ini, sink);
        start = end;
    }
    ini
}

fn read_line(line: &str, (start, line_end): (usize, usize), ini: &mut Ini, sink: &mut Sink<'_>) {
    let content = line.trim_start();
    let at = start + (line.len() - content.len());
    if content.is_empty() || content.starts_with(['#', ';']) {
        return;
    }
    if let Some(inner) = content.strip_prefix('[') {
        read_heading(inner, (at, line_end), ini, sink);
        return;
    }
    let Some((key, value)) = content.split_once('=') else {
        sink.error(codes::INI_SYNTAX, at, "this line is neither '[section]' nor 'key = value'");
        return;
    };
    let value_at = at + key.len() + 1;
    let key = key.trim_end();
    if key.is_empty() {
        sink.error(codes::INI_SYNTAX, at, "there is no key before '='");
        return;
    }
    let Some(heading) = ini.headings.last() else {
        sink.error(codes::INI_SYNTAX, at, format!("key '{key}' stands before the first [section]"));
        return;
    };
    let (section, section_at) = (heading.name.clone(), heading.at);
    if let Some((value, (value_at, value_end))) = read_value(value, value_at, sink) {
        ini.items.push(Item {
            section,
            section_at,
            key: key.to_ascii_lowercase(),
            key_at: at,
            value,
            value_at,
            value_end,
            line_at: start,
            line_end,
        });
    }
}

fn read_heading(inner: &str, (at, line_end): (usize, usize), ini: &mut Ini, sink: &mut Sink<'_>) {
    let Some((name, tail)) = inner.split_once(']') else {
        sink.error(codes::INI_SYNTAX, at, "the section is not closed with ']'");
        return;
    };
    let tail = tail.trim_start();
    if !tail.is_empty() && !tail.starts_with(['#', ';']) {
        sink.error(codes::INI_SYNTAX, at, "there is text behind the section's ']'");
    }
    let trimmed = name.trim();
    let name_at = at + 1 + (name.len() - name.trim_start().len());
    ini.headings.push(Heading { name: trimmed.to_ascii_lowercase(), at: name_at, line_end });
}

/// The value of `raw` (all behind `=`), where it begins and where it ends.
fn read_value(raw: &str, raw_at: usize, sink: &mut Sink<'_>) -> Option<(String, (usize, usize))> {
    let content = raw.trim_start();
    let at = raw_at + (raw.len() - content.len());
    if let Some(quote) = content.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        return quoted(content, quote, at, sink).map(|(value, length)| (value, (at, at + length)));
    }
    let mut end = content.len();
    let mut before_is_space = true;
    for (index, c) in content.char_indices() {
        if matches!(c, '#' | ';') && before_is_space {
            end = index;
            break;
        }
        before_is_space = c.is_whitespace();
    }
    let value = content.get(..end).unwrap_or_default().trim_end();
    Some((value.to_owned(), (at, at + value.len())))
}

/// A quoted value and its length with its quotes.
fn quoted(content: &str, quote: char, at: usize, sink: &mut Sink<'_>) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = content.char_indices().skip(1).peekable();
    while let Some((index, c)) = chars.next() {
        if c == quote {
            let tail = content.get(index + 1..).unwrap_or_default();
            let rest = tail.trim_start();
            let comment = rest.starts_with(['#', ';']) && rest.len() < tail.len();
            if rest.is_empty() || comment {
                return Some((value, index + 1));
            }
            sink.error(codes::INI_SYNTAX, at, "there is text behind the closing quote");
            sink.hint("quote the whole value, or write \\\" inside double quotes");
            return None;
        }
        let escaped = chars.peek().map(|(_, next)| *next);
        match escaped {
            Some(next @ ('"' | '\\')) if c == '\\' && quote == '"' => {
                value.push(next);
                chars.next();
            }
            _ => value.push(c),
        }
    }
    sink.error(codes::INI_SYNTAX, at, "the quoted value is not closed on this line");
    None
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::config::error::Sink;

    fn values(text: &str) -> (Vec<(String, String, String)>, usize) {
        let mut sink = Sink::new("t", text);
        let ini = read(text, &mut sink);
        let items = ini.items.into_iter().map(|i| (i.section, i.key, i.value)).collect();
        (items, sink.finish().len())
    }

    #[test]
    fn comments_quotes_and_empty_values() {
        let text = "# c\r\n[ a ] ; c\r\nk=v\r\nKey = pa#ss # c\n  e = # c\ne2=\nq = \"a # b\\\"\" # c\ns=' x ' ;c\nu = a;b";
        let (items, problems) = values(text);
        let found: Vec<(&str, &str)> =
            items.iter().map(|(_, key, value)| (key.as_str(), value.as_str())).collect();
        let wanted = [
            ("k", "v"),
            ("key", "pa#ss"),
            ("e", ""),
            ("e2", ""),
            ("q", "a # b\""),
            ("s", " x "),
            ("u", "a;b"),
        ];
        assert_eq!(found, wanted);
        assert_eq!(problems, 0);
    }

    #[test]
    fn every_bad_line_is_reported() {
        let (items, problems) = values("x = 1\n[a\n[b]\nno equals\n = 2\nq = \"open\nr = \"a\" b\nok = 1\n");
        assert_eq!(items.len(), 1);
        assert_eq!(problems, 6);
    }
}

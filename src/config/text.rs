//! Text helpers of the readers: positions, decoding, "did you mean".

use crate::config::codes;
use crate::config::error::{Place, Problem};

/// Longest file read, in bytes: some hundred times the largest configuration seen.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Likeness (Jaro-Winkler, 0 to 1) from which a known word is offered for an unknown one.
const LIKENESS_MIN: f64 = 0.8;

/// Turns byte offsets into lines and columns.
#[derive(Debug)]
pub(crate) struct LineIndex<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineIndex<'a> {
    /// Indexes `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        let mut starts = vec![0];
        starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        Self { text, starts }
    }

    /// Line and column, both from 1, of byte offset `at`; columns count characters.
    pub(crate) fn line_column(&self, at: usize) -> (u32, u32) {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at = at.saturating_sub(1);
        }
        let line = self.starts.partition_point(|start| *start <= at);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..at).map_or(0, |head| head.chars().count());
        (narrow(line), narrow(column.saturating_add(1)))
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The text of a file: UTF-8, without byte order mark, not too long.
///
/// # Errors
/// A [`codes::NOT_TEXT`] problem at the first byte that is not UTF-8.
pub fn decode<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Box<Problem>> {
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes, more than 4 MiB", bytes.len());
        return Err(Box::new(Problem::error(codes::NOT_TEXT, Place::whole(file), message)));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let good = std::str::from_utf8(good).unwrap_or_default();
            let good = good.strip_prefix('\u{feff}').unwrap_or(good);
            let (line, column) = LineIndex::new(good).line_column(good.len());
            let place = Place { file: file.to_owned(), line, column };
            let problem = Problem::error(codes::NOT_TEXT, place, "the file is not UTF-8 text")
                .hint("save it as UTF-8; UTF-16 files from Windows editors are not read");
            Err(Box::new(problem))
        }
    }
}

/// The word of `known` that `word` most likely stands for.
pub(crate) fn closest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-', '.', ' '], "");
    let wanted = plain(word);
    let mut best: Option<(f64, &str)> = None;
    for candidate in known {
        let likeness = strsim::jaro_winkler(&wanted, &plain(candidate));
        if likeness >= LIKENESS_MIN && best.is_none_or(|(most, _)| likeness > most) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// `did you mean 'x'?` for a word near a known one, else the list of what is known.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str> + Clone) -> String {
    match closest(word, known.clone()) {
        Some(candidate) => format!("did you mean '{candidate}'?"),
        None => {
            let known: Vec<&str> = known.into_iter().collect();
            format!("known: {}", known.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LineIndex, closest, decode};

    #[test]
    fn columns_count_characters() {
        let index = LineIndex::new("aé\nb");
        assert_eq!(index.line_column(3), (1, 3));
        assert_eq!(index.line_column(4), (2, 1));
        assert_eq!(index.line_column(99), (2, 2));
        assert_eq!(index.line_column(2), (1, 2));
    }

    #[test]
    fn decoding_says_where_it_stops() {
        assert_eq!(decode("a", b"\xef\xbb\xbfx").unwrap(), "x");
        let problem = decode("a", b"ab\nc\xff").unwrap_err();
        assert_eq!((problem.place.line, problem.place.column), (2, 2));
    }

    #[test]
    fn near_words_are_offered() {
        assert_eq!(closest("regoin", ["region", "enabled"]), Some("region"));
        assert_eq!(closest("container_port", ["containerPort"]), Some("containerPort"));
        assert_eq!(closest("zzz", ["region", "enabled"]), None);
    }
}

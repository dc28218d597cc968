//! Numbers with units as people write them: `10m`, `512m`, `1.5`, `30s`, `true`.
//!
//! Every parser is checked: overflow is an error, never a wrapped number.

use crate::model::time::Span;

/// Longest span accepted: a hundred years, so that sums of spans stay far from overflow.
pub(crate) const SPAN_SECS_MAX: u64 = 100 * 366 * 24 * 3600;

/// Bytes of `10m`, `1g`, `512k`, `1024`, `1.5GiB`; units are powers of 1024 as in the docker CLI.
///
/// # Errors
/// What a size looks like, when `text` is none.
pub(crate) fn size_bytes(text: &str) -> Result<i64, String> {
    let wrong = || format!("'{text}' is no size; write for example 512m, 1g or 1048576");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = lower.get(digits.len()..).unwrap_or_default();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    let thousandths = decimal(digits.trim_end(), 3).ok_or_else(wrong)?;
    let bytes = i128::from(thousandths) * (1_i128 << shift) / 1000;
    i64::try_from(bytes).map_err(|_overflow| wrong())
}

/// CPUs in 10^-9, of `0.5`, `2`.
///
/// # Errors
/// What a number of CPUs looks like, when `text` is none.
pub(crate) fn nano_cpus(text: &str) -> Result<i64, String> {
    decimal(text.trim(), 9)
        .filter(|nanos| *nanos > 0)
        .ok_or_else(|| format!("'{text}' is no number of CPUs; write for example 0.5 or 2"))
}

/// A span of `30` (seconds), `30s`, `500ms`, `5m`, `1h`, `2d`, `1m30s`.
///
/// # Errors
/// What a span looks like, when `text` is none.
pub(crate) fn span(text: &str) -> Result<Span, String> {
    let wrong = || format!("'{text}' is no length of time; write for example 30, 30s, 500ms or 5m");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let millis: u64 = match unit {
            "ms" => 1,
            "" | "s" | "sec" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let thousandths = decimal(number, 3).and_then(|n| u64::try_from(n).ok()).ok_or_else(wrong)?;
        let part = thousandths.checked_mul(millis).ok_or_else(wrong)? / 1000;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    if total > SPAN_SECS_MAX.saturating_mul(1000) {
        return Err(wrong());
    }
    Ok(Span::millis(total))
}

/// `text` times 10^`places`, when it is a plain decimal number with at most so many places.
fn decimal(text: &str, places: u32) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) {
        return None;
    }
    let part = part.trim_end_matches('0');
    let missing = places.checked_sub(u32::try_from(part.len()).ok()?)?;
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: i64 = if part.is_empty() { 0 } else { part.parse().ok()? };
    let scale = 10_i64.checked_pow(places)?;
    whole.checked_mul(scale)?.checked_add(part.checked_mul(10_i64.checked_pow(missing)?)?)
}

/// `true`, `yes`, `on`, `1` and their opposites.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{nano_cpus, size_bytes, span};
    use crate::model::time::Span;

    #[test]
    fn sizes() {
        let good = [("10m", 10 << 20), ("1G", 1 << 30), ("512", 512), ("1.5k", 1536), ("2GiB", 2 << 30)];
        for (text, bytes) in good {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "99999999999t", "1e3", "ten"] {
            assert!(size_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus_and_spans() {
        assert_eq!(nano_cpus("0.5"), Ok(500_000_000));
        assert!(nano_cpus("0").is_err());
        let good = [("30", 30_000), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1500), ("2d", 172_800_000)];
        for (text, millis) in good {
            assert_eq!(span(text), Ok(Span::millis(millis)), "{text}");
        }
        for bad in ["", "s", "-1", "5 parsecs", "99999999999999999999", "9999999999d"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}

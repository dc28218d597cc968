//! Scalars as the client reads them: switches, integers, sizes, CPU counts, durations.
//!
//! Why by hand: the client's rules are those of Go's standard library (`0x10` and `1_000` are
//! integers, `1.5g` is a size, `1m30s` a duration), and a size that reads differently here would
//! silently be another limit.

/// Nanoseconds in a second.
const NANOS_PER_SEC: i128 = 1_000_000_000;

/// Digits read of a fraction or exponent; more cannot matter in 64 bits.
const DIGITS_MAX: usize = 40;

/// `true`, `false` and their short forms.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// A 64-bit integer: decimal, `0x`, `0o`, `0b`, leading `0` for octal, `_` between digits.
pub(super) fn integer(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not an integer");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body, prefixed) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest, true)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest, true)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest, true)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, lower.get(1..).unwrap_or_default(), true)
    } else {
        (10, lower.as_str(), false)
    };
    let unprefixed_underscore = !prefixed && body.starts_with('_');
    if body.ends_with('_') || body.contains("__") || unprefixed_underscore {
        return Err(bad());
    }
    let body: String = body.chars().filter(|c| *c != '_').collect();
    if !body.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(bad());
    }
    let value = i128::from_str_radix(&body, radix).map_err(|_error| bad())?;
    let value = if negative { -value } else { value };
    i64::try_from(value).map_err(|_error| format!("{text:?} is out of range"))
}

/// A plain decimal integer, as in lists (`count=2`).
pub(super) fn decimal(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_error| format!("{text:?} is not an integer"))
}

/// Refuses a sign, which the client does not take before unsigned numbers.
pub(super) fn without_sign(text: &str) -> Result<&str, String> {
    if text.starts_with(['+', '-']) {
        return Err(format!("{text:?} has a sign"));
    }
    Ok(text)
}

/// A size with an optional binary unit: `512`, `10k`, `1.5g`, `64MiB`.
pub(super) fn bytes(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a size");
    if !text.is_ascii() {
        return Err(bad());
    }
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(bad)?;
    let (number, unit) = text.split_at_checked(last + 1).ok_or_else(bad)?;
    let number = number.strip_suffix(' ').unwrap_or(number);
    let number = without_underscores(number).ok_or_else(bad)?;
    let size: f64 = number.parse().map_err(|_error| bad())?;
    if size < 0.0 {
        return Err(format!("{text:?} is negative"));
    }
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tb" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "p" | "pb" | "pib" => 1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("{text:?} has an unknown unit (b, k, m, g, t or p)")),
    };
    whole(size * factor).ok_or_else(|| format!("{text:?} is out of range"))
}

/// Takes underscores out that stand between two digits; any other is a mistake.
fn without_underscores(number: &str) -> Option<String> {
    let groups: Vec<&str> = number.split('_').collect();
    let digit = |c: char| c.is_ascii_digit();
    let separated = groups.windows(2).all(|pair| match pair {
        [before, after] => before.ends_with(digit) && after.starts_with(digit),
        _ => true,
    });
    separated.then(|| groups.concat())
}

/// The whole part of a float that fits into 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "checked against the range before")]
fn whole(value: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_807.0;
    (value.is_finite() && value < LIMIT).then_some(value as i64)
}

/// A number of CPUs (`1.5`, `3/2`, `1e-1`) in 10^-9 CPUs.
pub(super) fn nano_cpus(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a number of CPUs");
    let (numerator, denominator) = match text.split_once('/') {
        Some((above, below)) => (
            above.parse::<i64>().map(i128::from).map_err(|_e| bad())?,
            below.parse::<u32>().map(i128::from).map_err(|_e| bad())?,
        ),
        None => fraction(text).ok_or_else(bad)?,
    };
    if denominator == 0 {
        return Err(bad());
    }
    if numerator < 0 {
        return Err(format!("{text:?} is negative"));
    }
    let nanos = numerator.checked_mul(NANOS_PER_SEC).ok_or_else(|| format!("{text:?} is out of range"))?;
    if nanos % denominator != 0 {
        return Err(format!("{text:?} is more precise than a billionth of a CPU"));
    }
    i64::try_from(nanos / denominator).map_err(|_error| format!("{text:?} is out of range"))
}

/// A decimal with optional fraction and exponent as numerator and denominator.
fn fraction(text: &str) -> Option<(i128, i128)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (units, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let joined = format!("{units}{decimals}");
    let all_digits = joined.bytes().all(|byte| byte.is_ascii_digit());
    if joined.is_empty() || joined.len() > DIGITS_MAX || !all_digits {
        return None;
    }
    let numerator: i128 = joined.parse().ok()?;
    let shift = i64::from(exponent) - i64::try_from(decimals.len()).ok()?;
    let power = 10_i128.checked_pow(u32::try_from(shift.unsigned_abs()).ok()?)?;
    if shift < 0 { Some((sign * numerator, power)) } else { Some((sign * numerator.checked_mul(power)?, 1)) }
}

/// Units of a duration in nanoseconds, longest name first.
const UNITS: &[(&str, i128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS_PER_SEC),
    ("m", 60 * NANOS_PER_SEC),
    ("h", 3_600 * NANOS_PER_SEC),
];

/// A duration such as `1m30s`, `1.5h` or `0`, in nanoseconds; never negative.
pub(super) fn duration(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a duration such as 1m30s");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| format!("{text:?} lacks a unit (ns, us, ms, s, m or h)"))?;
        let (number, behind) = rest.split_at_checked(end).ok_or_else(bad)?;
        let unit_end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, next) = behind.split_at_checked(unit_end).ok_or_else(bad)?;
        let (_, nanos) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| format!("{text:?} has an unknown unit {unit:?} (ns, us, ms, s, m or h)"))?;
        let (numerator, denominator) = fraction(number).ok_or_else(bad)?;
        let part = numerator.checked_mul(*nanos).ok_or_else(bad)? / denominator;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = next;
    }
    if negative && total > 0 {
        return Err(format!("{text:?} is negative"));
    }
    i64::try_from(total).map_err(|_error| format!("{text:?} is out of range"))
}

/// Prints nanoseconds so that [`duration`] reads them back, in the longest whole unit.
pub(super) fn print_duration(nanos: i64) -> String {
    for (name, unit) in [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
    ] {
        if nanos != 0 && nanos % unit == 0 {
            return format!("{}{name}", nanos / unit);
        }
    }
    format!("{nanos}ns")
}

/// Prints 10^-9 CPUs so that [`nano_cpus`] reads them back.
pub(super) fn print_cpus(nanos: i64) -> String {
    let whole = nanos / 1_000_000_000;
    let part = format!("{:09}", nanos % 1_000_000_000);
    let part = part.trim_end_matches('0');
    if part.is_empty() { whole.to_string() } else { format!("{whole}.{part}") }
}

/// Prints bytes so that [`bytes`] reads them back, in the largest whole unit.
pub(super) fn print_bytes(bytes: i64) -> String {
    for (name, unit) in [("g", 1_i64 << 30), ("m", 1 << 20), ("k", 1 << 10)] {
        if bytes > 0 && bytes % unit == 0 {
            return format!("{}{name}", bytes / unit);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_integers_as_the_client() {
        for (text, value) in [
            ("10", 10),
            ("-1", -1),
            ("+7", 7),
            ("0x10", 16),
            ("010", 8),
            ("0o17", 15),
            ("0b11", 3),
            ("1_000", 1000),
            ("0x_f", 15),
            ("0", 0),
        ] {
            assert_eq!(integer(text), Ok(value), "{text}");
        }
        for text in ["", "-", "1.5", "08", "1__0", "_1", "1_", "0x", "--1", "9223372036854775808"] {
            assert!(integer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_sizes_as_the_client() {
        for (text, value) in [
            ("512", 512),
            ("512b", 512),
            ("1k", 1024),
            ("1.5g", 1_610_612_736),
            ("64MiB", 67_108_864),
            ("2 gb", 2_147_483_648),
            (".5m", 524_288),
            ("1e3", 1000),
            ("5 ", 5),
            ("6_4k", 65_536),
        ] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for text in
            ["", "m", "-1", "1x", "1bb", "1kk", "1__0", "1_", "_1", "1.2.3", "inf", "1000000p", "nan1"]
        {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_cpus_and_durations_as_the_client() {
        assert_eq!(nano_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(nano_cpus("3/2"), Ok(1_500_000_000));
        assert_eq!(nano_cpus("1e-1"), Ok(100_000_000));
        assert!(nano_cpus("0.0000000001").is_err());
        assert!(nano_cpus("1/0").is_err());
        assert!(nano_cpus("x").is_err());
        assert_eq!(duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(duration("1.5h"), Ok(5_400_000_000_000));
        assert_eq!(duration("0"), Ok(0));
        assert_eq!(duration("10ms5us"), Ok(10_005_000));
        for text in ["", "10", "-5s", "5x", "s", "."] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for nanos in [1, 1_000, 90_000_000_000, 3_600_000_000_000, 1_500_000] {
            assert_eq!(duration(&print_duration(nanos)), Ok(nanos));
            assert_eq!(nano_cpus(&print_cpus(nanos)), Ok(nanos));
            assert_eq!(bytes(&print_bytes(nanos)), Ok(nanos));
        }
    }
}

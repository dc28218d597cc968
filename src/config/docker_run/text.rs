//! Small text forms several flags share: comma-separated records, addresses, paths.

use std::net::IpAddr;

/// Splits one record of comma-separated values, where a field may stand in double quotes.
pub(super) fn split_record(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text.trim_start_matches(['\r', '\n']);
    if rest.is_empty() {
        return Err("it is empty".to_owned());
    }
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find([',', '\n']).unwrap_or(rest.len());
                let (field, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
                if field.contains('"') {
                    return Err("a quote stands inside of an unquoted field".to_owned());
                }
                let at_line_end = !behind.starts_with(',');
                let field = if at_line_end { field.strip_suffix('\r').unwrap_or(field) } else { field };
                (field.to_owned(), behind)
            }
        };
        fields.push(field);
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// Reads up to the closing quote; returns the field and what follows.
fn quoted_field(quoted: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let Some((inside, behind)) = rest.split_once('"') else {
            return Err("a quote is not closed".to_owned());
        };
        field.push_str(inside);
        if let Some(next) = behind.strip_prefix('"') {
            field.push('"');
            rest = next;
        } else if behind.is_empty() || behind.starts_with([',', '\n']) {
            return Ok((field, behind));
        } else {
            return Err("text follows a closing quote".to_owned());
        }
    }
}

/// Joins fields so that [`split_record`] gives them back.
pub(super) fn join_record(fields: &[String]) -> String {
    let quoted: Vec<String> = fields
        .iter()
        .map(|field| {
            let plain = !field.is_empty() && !field.contains([',', '"', '\n', '\r']);
            if plain { field.clone() } else { format!("\"{}\"", field.replace('"', "\"\"")) }
        })
        .collect();
    quoted.join(",")
}

/// An IP address in canonical form; white space around it is allowed.
pub(super) fn ip_address(text: &str) -> Result<String, String> {
    let address: IpAddr = text.trim().parse().map_err(|_error| format!("{text:?} is not an IP address"))?;
    Ok(address.to_canonical().to_string())
}

/// Checks a MAC address of 6, 8 or 20 octets, written with colons, dashes or dots.
pub(super) fn mac_address(text: &str) -> Result<(), String> {
    let bad = || format!("{text:?} is not a MAC address");
    let trimmed = text.trim();
    let (separator, digits) = if trimmed.contains(':') {
        (':', 2)
    } else if trimmed.contains('-') {
        ('-', 2)
    } else {
        ('.', 4)
    };
    let groups: Vec<&str> = trimmed.split(separator).collect();
    let well_formed =
        groups.iter().all(|group| group.len() == digits && group.bytes().all(|b| b.is_ascii_hexdigit()));
    let octets = groups.len() * digits / 2;
    if well_formed && matches!(octets, 6 | 8 | 20) { Ok(()) } else { Err(bad()) }
}

/// The shortest path of the same meaning, without looking at the file system.
pub(super) fn clean_path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") => parts.push(".."),
                Some(_) => {
                    parts.pop();
                }
                None if rooted => {}
                None => parts.push(".."),
            },
            name => parts.push(name),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// A host path that starts with a dot made absolute from `base`; any other as it is.
pub(super) fn from_base(base: &str, path: &str) -> String {
    if path.starts_with('.') { clean_path(&format!("{base}/{path}")) } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_split_and_join() {
        assert_eq!(split_record("a,b=c").unwrap(), ["a", "b=c"]);
        assert_eq!(split_record("\"a,b\",c").unwrap(), ["a,b", "c"]);
        assert_eq!(split_record("\"a\"\"b\"").unwrap(), ["a\"b"]);
        assert_eq!(split_record("a,").unwrap(), ["a", ""]);
        for text in ["", "a\"b", "\"a", "\"a\"b"] {
            assert!(split_record(text).is_err(), "{text}");
        }
        let fields = ["a,b".to_owned(), "c\"d".to_owned(), String::new()];
        assert_eq!(split_record(&join_record(&fields)).unwrap(), fields);
    }

    #[test]
    fn paths_are_cleaned_lexically() {
        assert_eq!(clean_path("/a//b/../c/."), "/a/c");
        assert_eq!(clean_path("/../.."), "/");
        assert_eq!(clean_path("a/../../b"), "../b");
        assert_eq!(clean_path(""), ".");
        assert_eq!(from_base("/etc/x", "./d"), "/etc/x/d");
        assert_eq!(from_base("/etc/x", ".."), "/etc");
        assert_eq!(from_base("/etc/x", "/d/"), "/d/");
    }

    #[test]
    fn addresses_are_canonical() {
        assert_eq!(ip_address(" 0:0:0:0:0:0:0:1 ").unwrap(), "::1");
        assert_eq!(ip_address("::ffff:1.2.3.4").unwrap(), "1.2.3.4");
        assert!(ip_address("1.2.3").is_err());
        assert!(ip_address("01.2.3.4").is_err());
        assert!(mac_address("92:d0:c6:0a:29:33").is_ok());
        assert!(mac_address("92d0.c60a.2933").is_ok());
        assert!(mac_address("92:d0:c6:0a:29").is_err());
    }
}

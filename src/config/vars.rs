//! References in text: `${VAR}`, `${env:VAR}`, `${file:/path}`, `${credential:NAME}`,
//! `${secretsmanager:ID#key}`, `${ssm:NAME}`, `${NAME:-default}`, `$$`.
//!
//! Everything a reference can name is handed in. A dollar sign before anything else but `{` and
//! `$` stays as it is, so that `sh -c 'echo $HOME'` means what it says.
//!
//! Invariant: no message holds a value, only references as written.

use std::collections::BTreeMap;

use crate::config::codes;
use crate::config::load::{Contents, Needs};

/// Deepest nesting of defaults, `${A:-${B:-c}}`.
const NESTING_MAX: usize = 8;
/// Names that editors fill in.
const EDITOR_NAMES: &[&str] =
    &["workspaceFolder", "workspaceFolderBasename", "userHome", "pathSeparator", "cwd", "file"];

/// Where references are looked up.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    /// Environment.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// Files by absolute path.
    pub(crate) files: &'a Contents,
    /// Credentials by name.
    pub(crate) credentials: &'a Contents,
    /// Secrets by id.
    pub(crate) secrets_manager: &'a Contents,
    /// Parameters by name.
    pub(crate) ssm: &'a Contents,
    /// Directory that relative paths start from.
    pub(crate) base_dir: &'a str,
}

/// A reference that was resolved.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// As written, braces included.
    pub(crate) reference: String,
    /// What it stands for.
    pub(crate) value: String,
    /// It came from the environment and not from a store of secrets.
    pub(crate) from_env: bool,
}

/// One thing wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// See [`codes`].
    pub(crate) code: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl Fault {
    fn new(code: &'static str, message: String, hint: &str) -> Self {
        Self { code, message, hint: Some(hint.to_owned()) }
    }
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<'t> {
    /// As it stands.
    Literal(&'t str),
    /// `${…}`: what stands between the braces.
    Reference(&'t str),
}

/// What a reference names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target<'t> {
    Env { name: &'t str, default: Option<&'t str> },
    File(&'t str),
    Credential(&'t str),
    SecretsManager { id: &'t str, key: Option<&'t str> },
    Ssm(&'t str),
}

/// Cuts `text` into pieces.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Fault> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, tail) = rest.split_at(at);
        pieces.push(Piece::Literal(before));
        if let Some(after) = tail.strip_prefix("$$") {
            pieces.push(Piece::Literal("$"));
            rest = after;
        } else if let Some(inside) = tail.strip_prefix("${") {
            let Some(end) = closing_brace(inside) else {
                let message = "a reference '${' is not closed with '}'".to_owned();
                return Err(Fault::new(codes::REFERENCE_SYNTAX, message, "write $${ for a literal ${"));
            };
            let (inner, after) = inside.split_at(end);
            pieces.push(Piece::Reference(inner));
            rest = after.strip_prefix('}').unwrap_or(after);
        } else {
            pieces.push(Piece::Literal("$"));
            rest = tail.strip_prefix('$').unwrap_or(tail);
        }
    }
    pieces.push(Piece::Literal(rest));
    Ok(pieces)
}

/// Offset of the brace that closes what begins with `inside`.
fn closing_brace(inside: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut previous = ' ';
    for (at, c) in inside.char_indices() {
        match c {
            '{' if previous == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        previous = c;
    }
    None
}

fn target(inner: &str) -> Result<Target<'_>, Fault> {
    let wrong = |what: String| {
        Fault::new(
            codes::REFERENCE_SYNTAX,
            what,
            "known: ${VAR}, ${VAR:-default}, ${env:VAR}, ${file:/path}, ${credential:NAME}, \
             ${secretsmanager:ID#key}, ${ssm:NAME}; $$ is a dollar sign",
        )
    };
    if let Some((name, default)) = inner.split_once(":-") {
        let name = name.strip_prefix("env:").unwrap_or(name);
        if is_name(name) {
            return Ok(Target::Env { name, default: Some(default) });
        }
    }
    let Some((scheme, rest)) = inner.split_once(':') else {
        if EDITOR_NAMES.contains(&inner) {
            return Err(Fault::new(
                codes::INPUT_UNSUPPORTED,
                format!("${{{inner}}} is filled in by an editor"),
                "write the path itself, or ${VAR} for a variable of the environment",
            ));
        }
        if !is_name(inner) {
            return Err(wrong(format!("'${{{inner}}}' is no reference")));
        }
        return Ok(Target::Env { name: inner, default: None });
    };
    match scheme {
        "input" | "promptString" | "command" | "config" => Err(Fault::new(
            codes::INPUT_UNSUPPORTED,
            format!("'${{{inner}}}' would have to be asked for, and a service has nobody to ask"),
            "use ${VAR}, ${file:/path} or ${credential:NAME}",
        )),
        _ if rest.is_empty() => Err(wrong(format!("'${{{inner}}}' names nothing"))),
        "env" if is_name(rest) => Ok(Target::Env { name: rest, default: None }),
        "file" => Ok(Target::File(rest)),
        "credential" => Ok(Target::Credential(rest)),
        "ssm" => Ok(Target::Ssm(rest)),
        "secretsmanager" => {
            let (id, key) = match rest.rsplit_once('#') {
                Some((id, key)) => (id, Some(key)),
                None => (rest, None),
            };
            Ok(Target::SecretsManager { id, key })
        }
        _ => Err(wrong(format!("'${{{inner}}}' is no reference"))),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `path`, absolute: relative ones start from `base_dir`.
pub(crate) fn absolute(path: &str, base_dir: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let path = path.strip_prefix("./").unwrap_or(path);
    format!("{}/{path}", base_dir.trim_end_matches('/'))
}

/// Adds what `text` refers to.
pub(crate) fn collect(text: &str, lookup_env: &BTreeMap<String, String>, base_dir: &str, needs: &mut Needs) {
    for piece in pieces(text).unwrap_or_default() {
        let Piece::Reference(inner) = piece else {
            continue;
        };
        match target(inner) {
            Ok(Target::File(path)) => {
                needs.files.insert(absolute(path, base_dir));
            }
            Ok(Target::Credential(name)) => {
                needs.credentials.insert(name.to_owned());
            }
            Ok(Target::SecretsManager { id, .. }) => {
                needs.secrets_manager.insert(id.to_owned());
            }
            Ok(Target::Ssm(name)) => {
                needs.ssm.insert(name.to_owned());
            }
            Ok(Target::Env { name, default: Some(default) })
                if lookup_env.get(name).is_none_or(String::is_empty) =>
            {
                // Shorter than the text it is part of, so this ends.
                collect(default, lookup_env, base_dir, needs);
            }
            Ok(Target::Env { .. }) | Err(_) => {}
        }
    }
}

/// `text` with every reference replaced; what was resolved goes to `resolved`.
///
/// # Errors
/// Everything in `text` that could not be resolved.
pub(crate) fn expand(
    text: &str,
    lookup: &Lookup<'_>,
    resolved: &mut Vec<Resolved>,
) -> Result<String, Vec<Fault>> {
    expand_at(text, lookup, resolved, 0)
}

fn expand_at(
    text: &str,
    lookup: &Lookup<'_>,
    resolved: &mut Vec<Resolved>,
    depth: usize,
) -> Result<String, Vec<Fault>> {
    let mut out = String::with_capacity(text.len());
    let mut faults = Vec::new();
    for piece in pieces(text).map_err(|fault| vec![fault])? {
        match piece {
            Piece::Literal(literal) => out.push_str(literal),
            Piece::Reference(inner) => match resolve(inner, lookup, resolved, depth) {
                Ok(value) => out.push_str(&value),
                Err(more) => faults.extend(more),
            },
        }
    }
    if faults.is_empty() { Ok(out) } else { Err(faults) }
}

fn resolve(
    inner: &str,
    lookup: &Lookup<'_>,
    resolved: &mut Vec<Resolved>,
    depth: usize,
) -> Result<String, Vec<Fault>> {
    let target = target(inner).map_err(|fault| vec![fault])?;
    let stored = |contents: &Contents, name: &str| from_store(inner, contents, name);
    let (value, from_env) = match target {
        Target::Env { name, default } => match (lookup.env.get(name), default) {
            (Some(value), None) => (value.clone(), true),
            (Some(value), Some(_)) if !value.is_empty() => (value.clone(), true),
            (_, Some(default)) if depth < NESTING_MAX => {
                return expand_at(default, lookup, resolved, depth + 1);
            }
            (_, Some(_)) => {
                let message = "defaults inside defaults are nested too deeply".to_owned();
                return Err(vec![Fault::new(codes::REFERENCE_SYNTAX, message, "flatten them")]);
            }
            (None, None) => return Err(vec![unset(name)]),
        },
        Target::File(path) => (stored(lookup.files, &absolute(path, lookup.base_dir))?, false),
        Target::Credential(name) => (stored(lookup.credentials, name)?, false),
        Target::Ssm(name) => (stored(lookup.ssm, name)?, false),
        Target::SecretsManager { id, key } => {
            let whole = stored(lookup.secrets_manager, id)?;
            (json_member(inner, whole, key)?, false)
        }
    };
    resolved.push(Resolved { reference: format!("${{{inner}}}"), value: value.clone(), from_env });
    Ok(value)
}

fn unset(name: &str) -> Fault {
    Fault::new(
        codes::UNSET_VARIABLE,
        format!("variable '{name}' is not set"),
        &format!("set it in the service's environment, or give a default: ${{{name}:-default}}"),
    )
}

/// The content behind a reference, without the line break that ends most files.
fn from_store(inner: &str, contents: &Contents, name: &str) -> Result<String, Vec<Fault>> {
    let why = match contents.get(name) {
        Some(Ok(value)) => {
            let value = value.strip_suffix('\n').unwrap_or(value);
            return Ok(value.strip_suffix('\r').unwrap_or(value).to_owned());
        }
        Some(Err(why)) => why.as_str(),
        None => "it was not read",
    };
    Err(vec![Fault::new(
        codes::SECRET_UNAVAILABLE,
        format!("'${{{inner}}}' cannot be resolved: {why}"),
        "check that it exists and that the service may read it",
    )])
}

/// The member `key` of a secret that is a JSON object; the whole secret without a key.
fn json_member(inner: &str, whole: String, key: Option<&str>) -> Result<String, Vec<Fault>> {
    let Some(key) = key else {
        return Ok(whole);
    };
    let parsed: Option<serde_json::Value> = serde_json::from_str(&whole).ok();
    match parsed.as_ref().and_then(|json| json.get(key)) {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(other) if !other.is_null() => Ok(other.to_string()),
        _ => Err(vec![Fault::new(
            codes::SECRET_UNAVAILABLE,
            format!("'${{{inner}}}' cannot be resolved: the secret is no JSON object with that key"),
            "check the part behind '#'",
        )]),
    }
}

#[cfg(test)]
mod tests {
    use super::{Lookup, collect, expand};
    use crate::config::load::{Contents, Needs};
    use std::collections::BTreeMap;

    fn run(text: &str) -> Result<String, Vec<&'static str>> {
        let pairs = |list: &[(&str, &str)]| -> Contents {
            list.iter().map(|(k, v)| ((*k).to_owned(), Ok((*v).to_owned()))).collect()
        };
        let env: BTreeMap<String, String> =
            [("A", "1"), ("EMPTY", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let files = pairs(&[("/etc/x", "f\n"), ("/base/rel", "r")]);
        let credentials = pairs(&[("c", "cred\r\n")]);
        let secrets = pairs(&[("id", "{\"k\": \"v\", \"n\": 5}"), ("plain", "p")]);
        let ssm = Contents::from([("/a/b".to_owned(), Err("access denied".to_owned()))]);
        let lookup = Lookup {
            env: &env,
            files: &files,
            credentials: &credentials,
            secrets_manager: &secrets,
            ssm: &ssm,
            base_dir: "/base",
        };
        expand(text, &lookup, &mut Vec::new())
            .map_err(|faults| faults.iter().map(|fault| fault.code).collect())
    }

    #[test]
    fn every_form_resolves() {
        let forms = [
            ("a${A}b${env:A}", "a1b1"),
            ("$$ $A $ ${A", ""),
            ("$$ $A $", "$ $A $"),
            ("$${A}", "${A}"),
            ("${NO:-d}${EMPTY:-e}${EMPTY}${A:-x}", "de1"),
            ("${NO:-${NEITHER:-${A}}}", "1"),
            ("${NO:-}", ""),
            ("${file:/etc/x}${file:./rel}${file:rel}", "frr"),
            ("${credential:c}", "cred"),
            ("${secretsmanager:id#k}${secretsmanager:id#n}${secretsmanager:plain}", "v5p"),
            ("ü${A}ü", "ü1ü"),
        ];
        for (text, value) in forms {
            if value.is_empty() && text.ends_with("${A") {
                assert_eq!(run(text), Err(vec!["MCPO-C032"]));
            } else {
                assert_eq!(run(text), Ok(value.to_owned()), "{text}");
            }
        }
    }

    #[test]
    fn every_fault_has_its_code() {
        let faults = [
            ("${NO}", "MCPO-C030"),
            ("${file:/none}", "MCPO-C031"),
            ("${ssm:/a/b}", "MCPO-C031"),
            ("${secretsmanager:id#x}", "MCPO-C031"),
            ("${}", "MCPO-C032"),
            ("${1a}", "MCPO-C032"),
            ("${vault:x}", "MCPO-C032"),
            ("${credential:}", "MCPO-C032"),
            ("${input:key}", "MCPO-C033"),
            ("${workspaceFolder}", "MCPO-C033"),
        ];
        for (text, code) in faults {
            assert_eq!(run(text), Err(vec![code]), "{text}");
        }
        assert_eq!(run("${NO} ${input:x}"), Err(vec!["MCPO-C030", "MCPO-C033"]));
    }

    #[test]
    fn needs_are_collected() {
        let mut needs = Needs::default();
        let text = "${file:a}${credential:b}${secretsmanager:c#d}${ssm:e}${X:-${ssm:f}}${HOME:-${ssm:g}}";
        let env = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
        collect(text, &env, "/base", &mut needs);
        assert_eq!(needs.files, ["/base/a".to_owned()].into());
        assert_eq!(needs.credentials, ["b".to_owned()].into());
        assert_eq!(needs.secrets_manager, ["c".to_owned()].into());
        assert_eq!(needs.ssm, ["e".to_owned(), "f".to_owned()].into());
    }
}

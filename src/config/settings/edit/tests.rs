//! Edits of settings.conf: what changes, what stays, what is refused and what is hidden.

use super::{Changes, apply, shown, unknown};
use crate::config::edit::RefusalKind;
use crate::config::error::Sink;
use crate::config::ini;
use crate::config::settings::render::settings_conf;
use crate::config::settings::table::KEYS;
use crate::model::fingerprint::HashKey;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn changes(pairs: &[(&str, Option<&str>)]) -> Changes {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
}

fn edited(text: &str, pairs: &[(&str, Option<&str>)]) -> String {
    apply("s.conf", text.as_bytes(), &changes(pairs)).expect("an edit")
}

fn read(text: &str) -> BTreeMap<String, String> {
    let mut sink = Sink::new("s.conf", text);
    let ini = ini::read(text, &mut sink);
    assert!(sink.finish().is_empty(), "{text}");
    ini.items.into_iter().map(|item| (format!("{}.{}", item.section, item.key), item.value)).collect()
}

const TEXT: &str = "# mine\n[Service]\nport_range_start = 8100 # low\n; about the end\nPORT_RANGE_END=8200\nstack =   ; none\n\n# logs\n[logging]\nlevel = \"INFO\" # c\n";

#[test]
fn a_value_changes_where_it_stands() {
    for (name, value, line) in [
        ("service.port_range_start", "8001", "port_range_start = 8001 # low\n"),
        ("service.port_range_end", "9", "PORT_RANGE_END=9\n"),
        ("service.stack", "a", "stack =   a ; none\n"),
        ("logging.level", "info,access=debug", "level = info,access=debug # c\n"),
        ("logging.level", " a #b\"\\", "level = \" a #b\\\"\\\\\" # c\n"),
    ] {
        let text = edited(TEXT, &[(name, Some(value))]);
        assert!(text.contains(line), "{text}");
        assert_eq!(text.lines().count(), TEXT.lines().count());
        assert_eq!(read(&text).get(name).map(String::as_str), Some(value));
    }
    for (before, after) in [
        ("[service]\nstack =", "[service]\nstack = a"),
        ("[service]\nstack=\n", "[service]\nstack=a\n"),
        ("[service]\nstack =# c\n", "[service]\nstack = a # c\n"),
        ("[service]\nstack=# c\n", "[service]\nstack=a # c\n"),
    ] {
        assert_eq!(edited(before, &[("service.stack", Some("a"))]), after);
    }
    assert_eq!(
        edited(TEXT, &[("service.port_range_start", Some(""))]).lines().nth(2),
        Some("port_range_start =  # low")
    );
}

#[test]
fn a_line_goes_and_a_line_comes_where_it_belongs() {
    let text = edited(TEXT, &[("service.port_range_start", None), ("service.name_prefix", Some("x-"))]);
    let wanted = TEXT
        .replace("port_range_start = 8100 # low\n", "")
        .replace("stack =   ; none\n", "stack =   ; none\nname_prefix = x-\n");
    assert_eq!(text, wanted);
    assert_eq!(edited(TEXT, &[("aws.region", None)]), TEXT);
    let new = edited(TEXT, &[("aws.region", Some("eu-west-1"))]);
    assert_eq!(new, format!("{TEXT}\n[aws]\nregion = eu-west-1\n"));
    assert_eq!(edited("", &[("aws.region", Some("x"))]), "[aws]\nregion = x\n");
    assert_eq!(edited("[aws]", &[("aws.region", Some("x"))]), "[aws]\nregion = x\n");
    assert_eq!(
        edited("[aws]\r\n[tls]\r\n", &[("aws.region", Some("x"))]),
        "[aws]\r\nregion = x\r\n[tls]\r\n"
    );
    assert_eq!(edited("\u{feff}[aws]\n", &[("aws.region", Some("x"))]), "\u{feff}[aws]\nregion = x\n");
}

#[test]
fn in_the_shipped_file_a_line_stands_behind_the_one_that_describes_it() {
    let shipped = settings_conf();
    for key in KEYS {
        let text = edited(&shipped, &[(&format!("{}.{}", key.section, key.key), Some("7"))]);
        let at = text.lines().position(|line| line == format!("{} = 7", key.key)).expect("the line");
        let before = text.lines().nth(at - 1).expect("a line before");
        assert_eq!(before, format!("#{} = {}", key.key, key.default).trim_end());
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let broken = apply("s.conf", b"[aws]\nregion\n", &changes(&[("aws.region", Some("x"))])).unwrap_err();
    assert_eq!(broken.kind, RefusalKind::Uneditable);
    assert!(broken.message.contains("s.conf:2:1"), "{}", broken.message);
    let broken = apply("s.conf", b"", &changes(&[("aws.region", Some("a\nb = c"))])).unwrap_err();
    assert_eq!(broken.kind, RefusalKind::Invalid);
    let all = unknown(&changes(&[
        ("aws.regoin", Some("x")),
        ("awz.region", None),
        ("stack", None),
        ("aws.region", None),
        ("aws.port_range_start", None),
    ]));
    let hints: Vec<&str> = all.iter().filter_map(|problem| problem.hint.as_deref()).collect();
    assert_eq!(
        hints,
        [
            "'port_range_start' belongs to [service]",
            "did you mean 'region'?",
            "did you mean 'aws'?",
            "settings are named SECTION.KEY, for example service.port_range_start"
        ]
    );
}

#[test]
fn no_secret_is_shown() {
    let key = HashKey::new([7; 32]);
    let text = "[dashboard]\npassword = planted1 # c\n#password=planted2\n# old: Password = planted3\nusername = me\n[aws]\nendpoint_url = http://me:planted4@x/\n[openapi]\napi_key = \"planted5\"\r\n";
    let out = shown(text, &key);
    assert!(!out.contains("planted") && out.contains("username = me\n"), "{out}");
    assert_eq!(out.matches("[redacted:").count(), 5, "{out}");
    assert_ne!(out, shown(&text.replace("planted1", "other"), &key), "a change shows");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any value of any setting, written over any text that can be read.
    #[test]
    fn what_is_not_named_stays(
        lines in proptest::collection::vec((0..KEYS.len(), "[ -~é]{0,12}", 0..4_u8), 0..8),
        which in 0..KEYS.len(),
        value in proptest::option::of("[ -~é]{0,16}"),
        feed in proptest::bool::ANY,
    ) {
        let end = if feed { "\r\n" } else { "\n" };
        let mut text = String::new();
        let mut seen = std::collections::BTreeSet::new();
        for (index, said, kind) in &lines {
            let key = KEYS[*index];
            if !seen.insert(key.section) {
                continue;
            }
            let said: String = said.chars().filter(|c| !"\"'".contains(*c)).collect();
            text += &match kind {
                0 => format!("[{}]{end}{} = {said}{end}", key.section, key.key),
                1 => format!("# {said}{end}[{}] ; c{end}#{} = {said}{end}", key.section, key.key),
                2 => format!("[{}]{end}  {}={said} # c{end}{end}", key.section, key.key),
                _ => format!("[{}]{end}{} = \"{}\"", key.section, key.key, said.replace('\\', "")) + end,
            };
        }
        let name = format!("{}.{}", KEYS[which].section, KEYS[which].key);
        let before = read(&text);
        let wanted: Changes = [(name.clone(), value.clone())].into();
        let new = apply("s.conf", text.as_bytes(), &wanted).expect("an edit");
        let mut after = read(&new);
        prop_assert_eq!(after.remove(&name), value, "{}", new);
        let mut others = before.clone();
        others.remove(&name);
        prop_assert_eq!(after, others);
        // Every line but one is there as it was, in its order.
        let (old, now): (Vec<&str>, Vec<&str>) = (text.lines().collect(), new.lines().collect());
        let head = old.iter().zip(&now).take_while(|(a, b)| a == b).count();
        let tail = old.iter().rev().zip(now.iter().rev()).take_while(|(a, b)| a == b).count();
        prop_assert!(head + tail + 1 >= old.len(), "{}\n---\n{}", text, new);
        prop_assert_eq!(apply("s.conf", new.as_bytes(), &wanted).expect("again"), new);
    }
}

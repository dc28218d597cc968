//! `dependsOn`: which sections wait for which, and what is wrong with that.

use crate::config::load_fixture;
use mcp_orchestrator::config::load::Loaded;

fn loaded(global: &str, sections: &str, entries: &str) -> Loaded {
    let text = format!(
        "{{\"orchestrator\": {{\"globalDefaults\": {{{global}}},\n\"sections\": {{{sections}}}}},\n\"mcpServers\": {{{entries}}}}}"
    );
    load_fixture("a.json", text.as_bytes())
}

fn entry(name: &str, section: &str, more: &str) -> String {
    format!("\"{name}\": {{\"command\": \"x\", \"orchestrator\": {{\"section\": \"{section}\"{more}}}}}")
}

/// What each server waits for.
fn waits(loaded: &Loaded) -> Vec<(String, Vec<String>)> {
    let servers = loaded.desired.as_ref().expect("servers").servers.values();
    let names = |server: &mcp_orchestrator::model::server::Server| {
        server.depends_on.iter().map(ToString::to_string).collect()
    };
    servers.map(|server| (server.id.to_string(), names(server))).collect()
}

fn errors(loaded: &Loaded) -> Vec<String> {
    let errors = loaded.problems.iter().filter(|problem| problem.is_error());
    errors
        .map(|one| {
            let hint = one.hint.clone().unwrap_or_default();
            format!("{}:{}: {} ({hint})", one.place.line, one.place.column, one.message)
        })
        .collect()
}

#[test]
fn sections_and_entries_say_what_they_wait_for() {
    let sections = r#""My Databases": {}, "app": {"dependsOn": ["My Databases"]}, "net": {}"#;
    let entries = [
        entry("db", "My Databases", ""),
        entry("api", "app", ""),
        entry("other", "app", r#", "dependsOn": ["net"]"#),
        entry("free", "app", r#", "dependsOn": []"#),
    ];
    let all = loaded("", sections, &entries.join(","));
    assert_eq!(errors(&all), Vec::<String>::new());
    let want = [("api", vec!["my-databases"]), ("db", vec![]), ("free", vec![]), ("other", vec!["net"])];
    let want = want.map(|(id, to)| (id.to_owned(), to.into_iter().map(str::to_owned).collect::<Vec<_>>()));
    assert_eq!(waits(&all), want);
    // What the global defaults ask for holds for whoever is not waited for itself.
    let sections = r#""db": {"dependsOn": ["net"]}, "net": {}, "app": {}"#;
    let entries = [entry("d", "db", ""), entry("n", "net", ""), entry("a", "app", "")];
    let all = loaded(r#""dependsOn": ["db"]"#, sections, &entries.join(","));
    assert_eq!(errors(&all), Vec::<String>::new());
    let want = [("a", vec!["db"]), ("d", vec!["net"]), ("n", vec![])];
    let want = want.map(|(id, to)| (id.to_owned(), to.into_iter().map(str::to_owned).collect::<Vec<_>>()));
    assert_eq!(waits(&all), want);
}

#[test]
fn unknown_sections_and_circles_are_errors_of_whoever_asks_for_them() {
    let sections =
        r#""databases": {}, "app": {"dependsOn": ["database"]}, "fine": {"dependsOn": ["databases"]}"#;
    let entries = [entry("api", "app", ""), entry("good", "fine", "")];
    let all = loaded("", sections, &entries.join(","));
    let said = errors(&all);
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(
        said[0],
        "2:53: 'dependsOn' names section 'database', which is not declared (did you mean 'databases'?)"
    );
    let broken: Vec<&str> = all.desired.as_ref().unwrap().broken.keys().map(|id| id.as_str()).collect();
    assert_eq!(broken, ["api"], "one bad section stops no other");

    let sections = r#""a": {"dependsOn": ["b"]}, "b": {"dependsOn": ["c"]}, "c": {"dependsOn": ["a"]}, "d": {"dependsOn": ["d"]}, "e": {"dependsOn": ["a"]}"#;
    let all = loaded("", sections, &entry("x", "e", ""));
    let said = errors(&all).join("\n");
    for circle in ["a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"] {
        assert!(
            said.contains(&format!("sections wait for each other in a circle: {circle} (take one")),
            "{said}"
        );
    }
    assert!(said.contains("'dependsOn' names 'd', the section itself"), "{said}");
    assert_eq!(errors(&all).len(), 4, "{said}");
    assert_eq!(waits(&all).len(), 1, "e only waits for a section that is wrong");

    // An entry that closes a circle is wrong, and its section is not.
    let sections = r#""a": {"dependsOn": ["b"]}, "b": {}"#;
    let entries = [entry("x", "a", ""), entry("y", "b", r#", "dependsOn": ["a"]"#), entry("z", "b", "")];
    let all = loaded("", sections, &entries.join(","));
    let said = errors(&all);
    assert!(said.len() == 1 && said[0].contains("in a circle: b -> a -> b"), "{said:?}");
    assert_eq!(waits(&all).iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["x", "z"]);

    let all = loaded(r#""dependsOn": ["nowhere"]"#, r#""a": {}"#, &entry("x", "a", ""));
    assert!(errors(&all)[0].contains("'nowhere', which is not declared"), "{:?}", errors(&all));
    let all = loaded("", r#""a": {"dependsOn": "b"}, "b": {}"#, &entry("x", "a", ""));
    assert!(
        errors(&all)[0].contains("'dependsOn' in section 'a' takes a list of strings"),
        "{:?}",
        errors(&all)
    );
}

#[test]
fn a_raise_takes_a_boolean_or_a_size() {
    use mcp_orchestrator::model::server::OomRaise;
    let of = |value: &str| {
        let more = format!(r#", "restart": {{"oomRaise": {value}}}"#);
        let all = loaded(r#""restart": {"oomRaise": true}"#, r#""a": {}"#, &entry("x", "a", &more));
        let raise = all.desired.as_ref().unwrap().servers.values().next().map(|one| one.restart.oom_raise);
        raise.ok_or_else(|| errors(&all).join(";"))
    };
    assert_eq!(of("true"), Ok(OomRaise::Half));
    assert_eq!(of("false"), Ok(OomRaise::No));
    assert_eq!(of("null"), Ok(OomRaise::No), "null takes what is inherited away");
    assert_eq!(of("\"512m\""), Ok(OomRaise::To(512 * 1024 * 1024)));
    let wrong = of("\"1.5x\"").unwrap_err();
    assert!(wrong.contains("takes true, false or a size, for example 512m"), "{wrong}");
    assert!(of("[]").is_err());
}

//! Which requests are let in, and what the others are told.

use crate::mcp::front::{
    Class, Head, check_accept_get, check_accept_post, check_content_type, check_legacy_version, check_modern,
    check_params, classify, is_modern_version, known_method_modern, missing_capability, modern_status,
    unknown_method,
};
use crate::mcp::mirror::{annotated, name_header, param_headers};
use crate::mcp::wire::{Message, read};
use proptest::prelude::*;
use serde_json::value::RawValue;

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{"sampling":{}}}"#;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("json")
}

fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
}

fn call() -> String {
    request("tools/call", &format!(r#"{META},"name":"look_it_up","arguments":{{}}"#))
}

fn head<'a>() -> Head<'a> {
    Head {
        protocol_version: Some("2026-07-28"),
        mcp_method: Some("tools/call"),
        mcp_name: Some("look_it_up"),
        ..Head::default()
    }
}

/// Status and code; (200, 0) when it is let in.
fn verdict(head: &Head<'_>, text: &str) -> (u16, i64) {
    let message = read(text.as_bytes()).expect("message");
    assert_eq!(classify(head, &message), Class::Modern, "{text}");
    check_modern(head, &message).map_or_else(|no| (no.status, no.code), |_| (200, 0))
}

#[test]
fn content_types_and_accepts() {
    for (kind, ok) in [
        (Some("application/json"), true),
        (Some("Application/JSON ; charset=utf-8"), true),
        (Some("application/jsonp"), false),
        (Some("text/plain"), false),
        (None, false),
    ] {
        let checked = check_content_type(&Head { content_type: kind, ..Head::default() });
        assert_eq!(checked.map_err(|no| no.status), if ok { Ok(()) } else { Err(415) }, "{kind:?}");
    }
    for (accept, post, get) in [
        (None, true, true),
        (Some(""), true, true),
        (Some("*/*"), true, true),
        (Some("application/json, text/event-stream"), true, true),
        (Some("text/event-stream;q=0.5 ,APPLICATION/JSON;q=0.1"), true, true),
        (Some("application/*, text/*"), true, true),
        (Some("application/json"), false, false),
        (Some("text/event-stream"), false, true),
        (Some("application/*"), false, false),
        (Some("text/html, */*;q=0.1"), true, true),
        (Some("*/*, application/json;q=0"), false, true),
        (Some("text/event-stream; q=0.0, */*"), false, false),
        (Some("application/json;q=0, application/json, text/*"), true, true),
        (Some("application/json, application/json;q=0, text/*"), true, true),
        (Some("application/json;q=none, text/*"), false, true),
    ] {
        let head = Head { accept, ..Head::default() };
        assert_eq!(check_accept_post(&head).is_ok(), post, "{accept:?}");
        assert_eq!(check_accept_get(&head).is_ok(), get, "{accept:?}");
        assert!(check_accept_post(&head).map_or_else(|no| no.status == 406, |()| true));
    }
}

#[test]
fn the_request_alone_decides_the_era() {
    let marked = request("tools/list", META);
    let plain = request("tools/list", "");
    for (version, text, class) in [
        (None, marked.as_str(), Class::Modern),
        (Some("2025-11-25"), &marked, Class::Modern),
        (None, &plain, Class::Legacy),
        (Some("2025-11-25"), &plain, Class::Legacy),
        (Some("2026-07-28"), &plain, Class::Modern),
        (Some("2027-01-01"), &plain, Class::Modern),
        (Some("1900-01-01"), &plain, Class::Legacy),
        (Some("v999.0.0"), &plain, Class::Legacy),
        (Some("2026-07-28"), &request("initialize", r#""protocolVersion":"2025-11-25""#), Class::Legacy),
        (None, &request("initialize", META), Class::Modern),
        (None, &request("server/discover", ""), Class::Modern),
        (Some("2026-07-28"), r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Class::Modern),
        (None, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Class::Legacy),
        (Some("2026-07-28"), r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#, Class::Modern),
    ] {
        let head = Head { protocol_version: version, ..Head::default() };
        assert_eq!(classify(&head, &read(text.as_bytes()).expect("message")), class, "{version:?} {text}");
    }
    assert!(
        is_modern_version(" 2026-07-28 ")
            && !is_modern_version("2026-06-30")
            && !is_modern_version("2026-7-281")
    );
}

#[test]
fn a_good_request_tells_who_asks() {
    let text = call()
        .replace(r#"{"sampling":{}}"#, r#"{"sampling": {}},"io.modelcontextprotocol/logLevel":"debug""#);
    let message = read(text.as_bytes()).expect("message");
    let modern = check_modern(&head(), &message).expect("let in");
    assert_eq!(modern.version, "2026-07-28");
    assert_eq!(modern.client_capabilities.get(), r#"{"sampling": {}}"#);
    assert_eq!(modern.client_info.map(RawValue::get), Some(r#"{"name":"c","version":"1"}"#));
    assert_eq!(modern.log_level.as_deref(), Some("debug"));
}

#[test]
fn metadata_comes_first() {
    let discover = Head { mcp_method: Some("server/discover"), mcp_name: None, ..head() };
    let without = |key: &str| META.replace(key, "x/y");
    for params in [
        String::new(),
        r#""_meta":7"#.to_owned(),
        without("io.modelcontextprotocol/protocolVersion"),
        without("io.modelcontextprotocol/clientCapabilities"),
        META.replace(r#"{"sampling":{}}"#, "[]"),
        META.replace(r#""2026-07-28""#, "7"),
        format!("{META},{META}"),
    ] {
        assert_eq!(verdict(&discover, &request("server/discover", &params)), (400, -32602), "{params}");
    }
    let nameless = without("io.modelcontextprotocol/clientInfo");
    assert_eq!(verdict(&discover, &request("server/discover", &nameless)), (200, 0));
    // Metadata is checked before the headers.
    let bare = Head { protocol_version: None, mcp_method: None, ..discover };
    assert_eq!(verdict(&bare, &request("server/discover", "")), (400, -32602));
}

#[test]
fn versions_must_agree_and_be_ours() {
    let text = call();
    assert_eq!(verdict(&Head { protocol_version: None, ..head() }, &text), (400, -32020));
    assert_eq!(verdict(&Head { protocol_version: Some("2025-11-25"), ..head() }, &text), (400, -32020));
    assert_eq!(verdict(&Head { protocol_version: Some(" 2026-07-28\t"), ..head() }, &text), (200, 0));
    let odd = text.replace("2026-07-28", "v999.0.0");
    assert_eq!(verdict(&head(), &odd), (400, -32020));
    // An unknown version is told before anything else about its headers, and echoed.
    let unknown = Head { protocol_version: Some("v999.0.0"), mcp_method: None, ..head() };
    let message = read(odd.as_bytes()).expect("message");
    let no = check_modern(&unknown, &message).expect_err("refused");
    assert_eq!((no.status, no.code), (400, -32022));
    assert_eq!(
        no.body(Some(&raw("301"))),
        r#"{"jsonrpc":"2.0","id":301,"error":{"code":-32022,"message":"unsupported protocol version","data":{"supported":["2026-07-28"],"requested":"v999.0.0"}}}"#
    );
}

#[test]
fn method_and_name_must_agree() {
    let text = call();
    for (method, name, ok) in [
        (Some("tools/call"), Some("look_it_up"), true),
        (Some("  tools/call "), Some("\tlook_it_up  "), true),
        (Some("tools/call"), Some("=?base64?bG9va19pdF91cA==?="), true),
        (Some("tools/call"), Some("=?base64?bG9va19pdF91cA?="), false),
        (Some("tools/call"), Some("=?base64?bG9va19pdF91cA=="), false),
        (Some("tools/call"), Some("look_It_up"), false),
        (Some("tools/call"), Some("look_it_up, look_it_up"), false),
        (Some("tools/call"), Some("look_it_up\u{7f}"), false),
        (Some("tools/call"), None, false),
        (Some("TOOLS/CALL"), Some("look_it_up"), false),
        (Some("tools/list"), Some("look_it_up"), false),
        (Some("=?base64?dG9vbHMvY2FsbA==?="), Some("look_it_up"), false),
        (Some("tools/call\u{e9}"), Some("look_it_up"), false),
        (None, Some("look_it_up"), false),
    ] {
        let head = Head { mcp_method: method, mcp_name: name, ..head() };
        let expected = if ok { (200, 0) } else { (400, -32020) };
        assert_eq!(verdict(&head, &text), expected, "{method:?} {name:?}");
    }
}

#[test]
fn names_are_those_of_their_methods() {
    for (method, key) in
        [("prompts/get", "name"), ("resources/read", "uri"), ("tasks/get", "taskId"), ("tools/call", "name")]
    {
        let text = request(method, &format!(r#"{META},"{key}":"file:///a\u0062 世""#));
        let at = |name| Head { mcp_method: Some(method), mcp_name: name, ..head() };
        assert_eq!(verdict(&at(Some("=?base64?ZmlsZTovLy9hYiDkuJY=?=")), &text), (200, 0), "{method}");
        assert_eq!(verdict(&at(Some("file:///ab")), &text), (400, -32020), "{method}");
        assert_eq!(verdict(&at(None), &text), (400, -32020), "{method}");
        let Ok(Message::Request { params, .. }) = read(text.as_bytes()) else { panic!("request") };
        assert_eq!(name_header(method, params).as_deref(), Some("=?base64?ZmlsZTovLy9hYiDkuJY=?="));
        assert_eq!(name_header("tools/list", params), None);
        let nameless = request(method, META);
        assert_eq!(verdict(&at(None), &nameless), (400, -32602), "{method}");
        assert_eq!(verdict(&at(Some("x")), &nameless), (400, -32020), "{method}");
        let twice = request(method, &format!(r#"{META},"{key}":"x","{key}":"y""#));
        assert_eq!(verdict(&at(Some("x")), &twice), (400, -32602), "{method}");
    }
    let list = Head { mcp_method: Some("tools/list"), mcp_name: None, ..head() };
    assert_eq!(verdict(&list, &request("tools/list", META)), (200, 0));
    let own = Head { mcp_method: Some("vendor/x"), mcp_name: None, ..head() };
    assert_eq!(verdict(&own, &request("vendor/x", META)), (200, 0));
}

#[test]
fn notifications_need_no_metadata_and_answers_are_refused() {
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let bare = Head { protocol_version: Some("2026-07-28"), ..Head::default() };
    assert_eq!(verdict(&bare, cancelled), (200, 0));
    let message = read(cancelled.as_bytes()).expect("message");
    assert_eq!(check_modern(&bare, &message).expect("let in").client_capabilities.get(), "{}");
    assert_eq!(verdict(&Head { mcp_method: Some("x"), ..bare.clone() }, cancelled), (400, -32020));
    assert_eq!(
        verdict(&Head { protocol_version: Some("2027-01-01"), ..Head::default() }, cancelled),
        (400, -32022)
    );
    for answer in
        [r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#]
    {
        assert_eq!(verdict(&bare, answer), (400, -32600));
    }
}

#[test]
fn removed_methods_are_unknown_and_others_are_the_servers_business() {
    for gone in ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"] {
        assert!(!known_method_modern(gone));
        let head = Head { mcp_method: Some(gone), mcp_name: None, ..head() };
        assert_eq!(verdict(&head, &request(gone, META)), (200, 0), "well formed, only unknown");
    }
    assert!(
        known_method_modern("tools/call")
            && known_method_modern("vendor/x")
            && known_method_modern("server/discover")
    );
    let no = unknown_method("ping");
    assert_eq!((no.status, no.code), (404, -32601));
    assert_eq!(
        no.body(None),
        r#"{"jsonrpc":"2.0","error":{"code":-32601,"message":"method not found: ping"}}"#
    );
    assert_eq!(
        (modern_status(-32601), modern_status(-32021), modern_status(-32602), modern_status(-1)),
        (404, 400, 200, 200)
    );
    assert_eq!(
        missing_capability("sampling").body(Some(&raw("\"a\""))),
        r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32021,"message":"server requires the sampling capability for this request","data":{"requiredCapabilities":{"sampling":{}}}}}"#
    );
}

#[test]
fn legacy_versions() {
    let at = |version| Head { protocol_version: version, ..Head::default() };
    assert_eq!(check_legacy_version(&at(None)).ok(), Some("2025-03-26"));
    assert_eq!(check_legacy_version(&at(Some(" 2025-11-25"))).ok(), Some("2025-11-25"));
    for odd in ["1999-01-01", "", "2026-07-28", "2025-11-25, 2025-11-25"] {
        let no = check_legacy_version(&at(Some(odd))).expect_err("refused");
        assert_eq!((no.status, no.code), (400, -32600));
    }
}

const SCHEMA: &str = r#"{"type":"object","properties":{
  "region":{"type":"string","x-mcp-header":"Region"},
  "count":{"type":"integer","x-mcp-header":"Count"},
  "dry":{"type":"boolean","x-mcp-header":"Dry-Run"},
  "where":{"type":"object","properties":{"zone":{"type":["string","null"],"x-mcp-header":"Zone"}}},
  "ratio":{"type":"number","x-mcp-header":"Ratio"},
  "bad":{"type":"string","x-mcp-header":"no token"},
  "none":{"type":"string","x-mcp-header":""},
  "one":{"type":"string","x-mcp-header":"Same"},"two":{"type":"string","x-mcp-header":"sAME"},
  "list":{"type":"array","items":{"properties":{"x":{"type":"string","x-mcp-header":"Item"}}}},
  "any":{"anyOf":[{"properties":{"x":{"type":"string","x-mcp-header":"Any"}}}]},
  "query":{"type":"string"}}}"#;

#[test]
fn only_annotations_that_can_be_followed_count() {
    let mut names: Vec<String> = annotated(&raw(SCHEMA)).into_iter().map(|a| a.header).collect();
    names.sort();
    assert_eq!(names, ["Count", "Dry-Run", "Region", "Zone"]);
    for none in ["{}", "true", r#"{"properties":7}"#, r#"{"properties":{"x-mcp-header":{"type":"string"}}}"#]
    {
        assert!(annotated(&raw(none)).is_empty());
    }
}

#[test]
fn arguments_and_their_headers_agree() {
    for (headers, arguments, ok) in [
        (&[][..], "{}", true),
        (&[], r#"{"region":null,"where":{}}"#, true),
        (&[("region", "north-2")], r#"{"region":"north-2","query":"x"}"#, true),
        (&[("region", "=?base64?SGVsbG8=?=")], r#"{"region":"Hello"}"#, true),
        (&[("region", "SGVsbG8=")], r#"{"region":"SGVsbG8="}"#, true),
        (&[("region", "=?base64?SGVsbG8=")], r#"{"region":"=?base64?SGVsbG8="}"#, true),
        (&[("region", "a"), ("other", "ignored\u{1}")], r#"{"region":"\u0061"}"#, true),
        (&[("zone", "b")], r#"{"where":{"zone":"b"}}"#, true),
        (&[("count", "42.0"), ("dry-run", "true")], r#"{"count":42,"dry":true}"#, true),
        (&[("count", "42")], r#"{"count":4.2e1}"#, true),
        (&[], r#"{"ratio":0.5,"list":[{"x":"y"}],"bad":"z","one":"1","two":"2"}"#, true),
        (&[], r#"{"region":["wrong kind"]}"#, true),
        (&[], r#"{"region":"north-2"}"#, false),
        (&[], r#"{"where":{"zone":"b"}}"#, false),
        (&[("region", "north-2")], "{}", false),
        (&[("region", "null")], r#"{"region":null}"#, false),
        (&[("region", "=?base64?SGVsbG8?=")], r#"{"region":"Hello"}"#, false),
        (&[("region", "=?base64?SGV!sbG8?=")], r#"{"region":"Hello"}"#, false),
        (&[("region", "NORTH-2")], r#"{"region":"north-2"}"#, false),
        (&[("region", "a"), ("region", "a")], r#"{"region":"a"}"#, false),
        (&[("region", "a")], r#"{"region":"a","region":"b"}"#, false),
        (&[("count", "9007199254740993")], r#"{"count":9007199254740992}"#, false),
        (&[("count", "9007199254740993.0")], r#"{"count":9007199254740992}"#, false),
        (&[("count", "nan")], r#"{"count":42}"#, false),
        (&[("count", "+42")], r#"{"count":4.2e1}"#, false),
        (&[("count", "042")], r#"{"count":42}"#, false),
        (&[("count", "0x2a")], r#"{"count":42}"#, false),
        (&[("dry-run", "True")], r#"{"dry":true}"#, false),
        (&[("count", "42")], r#"{"count":"42 "}"#, false),
    ] {
        let head = Head { params: headers.to_vec(), ..Head::default() };
        let checked = check_params(&head, &raw(SCHEMA), Some(&raw(arguments)));
        assert_eq!(
            checked.map_err(|no| (no.status, no.code)),
            if ok { Ok(()) } else { Err((400, -32020)) },
            "{headers:?} {arguments}"
        );
    }
    assert!(check_params(&Head::default(), &raw(SCHEMA), None).is_ok());
}

#[test]
fn errors_repeat_little_of_a_client() {
    let long = "é".repeat(500);
    let head = Head { mcp_name: Some("x"), ..head() };
    let text = call().replace("look_it_up", &long);
    let message = read(text.as_bytes()).expect("message");
    let no = check_modern(&head, &message).expect_err("refused");
    assert!(no.message.len() < 256, "{}", no.message);
}

proptest! {
    #[test]
    fn our_own_headers_pass_our_own_check(region in any::<String>(), count in any::<i32>(), dry in any::<bool>(), zone in proptest::option::of(any::<String>())) {
        let arguments = serde_json::json!({"region": region, "count": count, "dry": dry, "where": {"zone": zone}});
        let arguments = raw(&arguments.to_string());
        let made = param_headers(&annotated(&raw(SCHEMA)), &arguments);
        let lower: Vec<(String, &str)> = made.iter().map(|(k, v)| (k["Mcp-Param-".len()..].to_lowercase(), v.as_str())).collect();
        let head = Head { params: lower.iter().map(|(k, v)| (k.as_str(), *v)).collect(), ..Head::default() };
        prop_assert!(check_params(&head, &raw(SCHEMA), Some(&arguments)).is_ok());
        for gone in 0..head.params.len() {
            let mut less = head.clone();
            less.params.remove(gone);
            prop_assert!(check_params(&less, &raw(SCHEMA), Some(&arguments)).is_err());
        }
    }

    #[test]
    fn headers_of_any_kind_are_decided(version in any::<Option<String>>(), method in any::<Option<String>>(), name in any::<Option<String>>()) {
        let text = call();
        let Ok(message) = read(text.as_bytes()) else { panic!("message") };
        let head = Head { protocol_version: version.as_deref(), mcp_method: method.as_deref(), mcp_name: name.as_deref(), ..Head::default() };
        let trimmed = |value: &Option<String>, wanted: &str| value.as_deref().map(|v| v.trim_matches([' ', '\t'])) == Some(wanted);
        let good = trimmed(&version, "2026-07-28") && trimmed(&method, "tools/call") && trimmed(&name, "look_it_up");
        prop_assert_eq!(check_modern(&head, &message).is_ok(), good);
        let is_request = matches!(message, Message::Request { .. });
        prop_assert!(is_request);
    }
}

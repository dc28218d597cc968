//! Between the eras: nothing but what differs is touched.

use crate::mcp::input::{
    ROUND_MAX, can_be_asked, input_required, input_required_result, input_responses, url_elicitations,
    with_input_responses,
};
use crate::mcp::listen::{
    ListenFilter, acknowledged, closed, listen_filter, listen_params, subscription_of, tagged,
};
use crate::mcp::translate::{
    discover_result, initialize_result, legacy_result, modern_error, modern_result, with_modern_meta,
    without_modern_meta,
};
use crate::mcp::wire::{Message, member, read};
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("json")
}

const INIT: &str = r#"{"protocolVersion":"2025-11-25", "capabilities" : {"tools":{"listChanged":true,"x":1.0},"tasks":{"list":{}},"vendor":{}},"serverInfo":{"name":"s","version":"2"},"instructions":"do\u0020it","x-more":1e2}"#;

#[test]
fn a_legacy_server_is_discovered() {
    assert_eq!(
        discover_result(&raw(INIT), 5000).expect("object").get(),
        r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true,"x":1.0},"vendor":{}},"ttlMs":5000,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"2"}},"instructions":"do\u0020it","x-more":1e2}"#
    );
    assert_eq!(
        discover_result(&raw(r#"{"_meta":{"v/k":1},"serverInfo":{"name":"s"}}"#), 0).expect("object").get(),
        r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{},"ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"},"v/k":1}}"#
    );
    assert!(discover_result(&raw("[]"), 0).is_none());
}

#[test]
fn a_modern_server_is_initialized() {
    let discovered = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"x":1.0}},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"S","version":"1.0.0"},"v/k":1},"instructions":"i","ttlMs":1,"cacheScope":"public"}"#;
    assert_eq!(
        initialize_result(&raw(discovered), "2025-06-18").expect("object").get(),
        r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"x":1.0}},"serverInfo":{"name":"S","version":"1.0.0"},"_meta":{"v/k":1},"instructions":"i"}"#
    );
    assert_eq!(
        initialize_result(&raw("{}"), "2025-06-18").expect("object").get(),
        r#"{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"unknown","version":"unknown"}}"#
    );
    let there = discover_result(&raw(INIT), 0).expect("object");
    let back: Value =
        serde_json::from_str(initialize_result(&there, "2025-11-25").expect("object").get()).expect("json");
    let mut first: Value = serde_json::from_str(INIT).expect("json");
    first["capabilities"].as_object_mut().expect("object").remove("tasks");
    assert_eq!(back, first);
}

#[test]
fn results_get_what_modern_clients_need() {
    let info = raw(r#"{"name":"s","version":"1"}"#);
    let done =
        |method, result: &str| modern_result(method, &raw(result), Some(&info)).map(|r| r.get().to_owned());
    const ME: &str = r#""io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}"#;
    for (method, before, after) in [
        (
            "tools/call",
            r#"{"content":[ 1.0 ]}"#,
            format!(r#"{{"resultType":"complete","_meta":{{{ME}}},"content":[ 1.0 ]}}"#),
        ),
        ("tools/call", "{}", format!(r#"{{"resultType":"complete","_meta":{{{ME}}}}}"#)),
        (
            "tools/list",
            r#"{"tools":[]}"#,
            format!(
                r#"{{"resultType":"complete","ttlMs":0,"cacheScope":"private","_meta":{{{ME}}},"tools":[]}}"#
            ),
        ),
        (
            "resources/read",
            r#"{"contents":[],"ttlMs":9}"#,
            format!(
                r#"{{"resultType":"complete","cacheScope":"private","_meta":{{{ME}}},"contents":[],"ttlMs":9}}"#
            ),
        ),
        (
            "resources/read",
            r#"{"resultType":"input_required"}"#,
            format!(r#"{{"_meta":{{{ME}}},"resultType":"input_required"}}"#),
        ),
        (
            "prompts/get",
            r#"{"messages":[],"_meta":{"a/b":1e0}}"#,
            format!(r#"{{"resultType":"complete","_meta":{{{ME},"a/b":1e0}},"messages":[]}}"#),
        ),
        (
            "prompts/get",
            &format!(r#"{{"_meta":{{{ME}}} ,"resultType":"complete"}}"#),
            format!(r#"{{"_meta":{{{ME}}} ,"resultType":"complete"}}"#),
        ),
        ("x/y", r#"{"_meta":7}"#, r#"{"resultType":"complete","_meta":7}"#.to_owned()),
    ] {
        assert_eq!(done(method, before).as_deref(), Some(after.as_str()), "{before}");
    }
    assert_eq!(done("x", "[]"), None);
    assert_eq!(modern_result("x", &raw("{}"), None).expect("object").get(), r#"{"resultType":"complete"}"#);
    assert_eq!(
        legacy_result(&raw(r#"{"resultType":"complete","a":1.0}"#)).expect("object").get(),
        r#"{"a":1.0}"#
    );
    assert!(legacy_result(&raw(r#"{"resultType":"input_required","requestState":"s"}"#)).is_none());
}

#[test]
fn only_the_code_for_a_missing_resource_changes() {
    let gone = raw(r#"{"message":"no\u0020such","code":-32002,"data":{"uri":"x"}}"#);
    assert_eq!(
        modern_error("resources/read", &gone).get(),
        r#"{"code":-32602,"message":"no\u0020such","data":{"uri":"x"}}"#
    );
    assert_eq!(modern_error("tools/call", &gone).get(), gone.get());
    let other = raw(r#"{"code":-32001 ,"message":"m"}"#);
    assert_eq!(modern_error("resources/read", &other).get(), other.get());
}

#[test]
fn metadata_comes_and_goes() {
    let params = raw(
        r#"{"name":"t","_meta":{"progressToken":1.0,"io.modelcontextprotocol/protocolVersion":"2026-07-28","v/k":{},"io.modelcontextprotocol/x":1},"arguments":{"inputResponses":1},"inputResponses":{},"requestState":"s"}"#,
    );
    assert_eq!(
        without_modern_meta(Some(&params)).expect("params").get(),
        r#"{"_meta":{"progressToken":1.0,"v/k":{}},"name":"t","arguments":{"inputResponses":1}}"#
    );
    for (before, after) in [
        (r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"x"}}"#, "{}"),
        (r#"{"a":1,"_meta":{ }}"#, r#"{"a":1}"#),
        (r#"{"a": 1}"#, r#"{"a": 1}"#),
        (r#"{"_meta":7}"#, r#"{"_meta":7}"#),
        ("[1]", "[1]"),
    ] {
        assert_eq!(without_modern_meta(Some(&raw(before))).expect("params").get(), after);
    }
    assert!(without_modern_meta(None).is_none());
    let caps = raw(r#"{"roots": {}}"#);
    assert_eq!(
        with_modern_meta(
            Some(&raw(r#"{"a":1.0,"_meta":{"progressToken":7}}"#)),
            "2026-07-28",
            None,
            &caps,
            Some("info")
        )
        .expect("params")
        .get(),
        r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"roots": {}},"io.modelcontextprotocol/logLevel":"info","progressToken":7},"a":1.0}"#
    );
    let fresh = with_modern_meta(None, "2026-07-28", Some(&raw(r#"{"name":"c"}"#)), &raw("{}"), None)
        .expect("params");
    assert_eq!(
        fresh.get(),
        r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c"},"io.modelcontextprotocol/clientCapabilities":{}}}"#
    );
    let again = with_modern_meta(Some(&fresh), "2026-07-28", None, &caps, None).expect("params");
    assert_eq!(
        again.get(),
        r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"roots": {}}}}"#
    );
    assert!(with_modern_meta(Some(&raw("[]")), "v", None, &caps, None).is_none());
    assert!(with_modern_meta(Some(&raw(r#"{"_meta":1}"#)), "v", None, &caps, None).is_none());
}

#[test]
fn input_is_asked_for_and_given() {
    let params = raw(r#"{"mode":"form","message":"é\u00e9","x":1.0}"#);
    let requests =
        [("a\"".to_owned(), "elicitation/create", Some(&*params)), ("b".to_owned(), "roots/list", None)];
    let result = input_required_result(&requests, Some("st"), Some(&raw(r#"{"name":"s"}"#)));
    assert_eq!(
        result.get(),
        r#"{"resultType":"input_required","inputRequests":{"a\"":{"method":"elicitation/create","params":{"mode":"form","message":"é\u00e9","x":1.0}},"b":{"method":"roots/list"}},"requestState":"st","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}}"#
    );
    let asked = input_required(&result).expect("asks");
    assert_eq!(asked.requests.len(), 2);
    assert_eq!(
        (asked.requests[0].key.as_str(), asked.requests[0].method.as_str()),
        ("a\"", "elicitation/create")
    );
    assert_eq!(asked.requests[0].params.as_ref().map(|p| p.get()), Some(params.get()));
    assert!(asked.requests[1].params.is_none());
    assert_eq!(asked.state.as_ref().map(|s| s.get()), Some(r#""st""#));
    assert!(input_required(&raw(r#"{"resultType":"complete","inputRequests":{}}"#)).is_none());
    assert!(
        input_required(&raw(r#"{"resultType":"input_required","inputRequests":{"a":7,"b":{"method":1}}}"#))
            .expect("asks")
            .requests
            .is_empty()
    );
    assert_eq!(
        input_required_result(&[], Some("s"), None).get(),
        r#"{"resultType":"input_required","requestState":"s"}"#
    );

    let answers = [("a\"".to_owned(), raw(r#"{"action":"accept" }"#))];
    let call = raw(r#"{"name":"t","inputResponses":{"old":1},"arguments":{"n":1.0}}"#);
    let retry = with_input_responses(Some(&call), &answers, asked.state.as_deref()).expect("params");
    assert_eq!(
        retry.get(),
        r#"{"inputResponses":{"a\"":{"action":"accept" }},"requestState":"st","name":"t","arguments":{"n":1.0}}"#
    );
    let (back, state) = input_responses(Some(&retry)).expect("retry");
    assert_eq!(
        (back.len(), back[0].0.as_str(), back[0].1.get(), state.as_deref()),
        (1, "a\"", r#"{"action":"accept" }"#, Some("st"))
    );
    assert!(input_responses(Some(&raw(r#"{"name":"t"}"#))).is_none() && input_responses(None).is_none());
    assert!(input_responses(Some(&raw(r#"{"inputResponses":7}"#))).expect("retry").0.is_empty());
    let only_state = input_responses(Some(&raw(r#"{"requestState":"s"}"#))).expect("retry");
    assert_eq!((only_state.0.len(), only_state.1.as_deref()), (0, Some("s")));
    let many: Vec<String> =
        (0..ROUND_MAX + 9).map(|n| format!(r#""{n}":{{"method":"roots/list"}}"#)).collect();
    let many = many.join(",");
    let asked = raw(&format!(r#"{{"resultType":"input_required","inputRequests":{{{many}}}}}"#));
    assert_eq!(input_required(&asked).expect("asks").requests.len(), ROUND_MAX);
    let given = raw(&format!(r#"{{"inputResponses":{{{many}}}}}"#));
    assert_eq!(input_responses(Some(&given)).expect("retry").0.len(), ROUND_MAX);
    assert_eq!(with_input_responses(None, &[], None).expect("params").get(), "{}");
}

#[test]
fn a_client_is_asked_only_what_it_declared() {
    let (form, url) = (&*raw(r#"{"mode":"form"}"#), &*raw(r#"{"mode":"url"}"#));
    for (capabilities, method, params, ok) in [
        (r#"{"sampling":{}}"#, "sampling/createMessage", None, true),
        (r#"{"sampling":{}}"#, "roots/list", None, false),
        (r#"{"sampling":true}"#, "sampling/createMessage", None, false),
        (r#"{"roots":{"listChanged":true}}"#, "roots/list", None, true),
        (r#"{"elicitation":{}}"#, "elicitation/create", None, true),
        (r#"{"elicitation":{}}"#, "elicitation/create", Some(form), true),
        (r#"{"elicitation":{}}"#, "elicitation/create", Some(url), false),
        (r#"{"elicitation":{"url":{}}}"#, "elicitation/create", Some(url), true),
        (r#"{"elicitation":{"url":{}}}"#, "elicitation/create", Some(form), false),
        (r#"{"elicitation":{"url":{},"form":{}}}"#, "elicitation/create", None, true),
        ("{}", "ping", None, false),
    ] {
        let params: Option<&RawValue> = params;
        assert_eq!(can_be_asked(&raw(capabilities), method, params), ok, "{capabilities} {method}");
    }
    let wants = raw(
        r#"{"code":-32042,"message":"m","data":{"elicitations":[{"mode":"url","url":"u","elicitationId":"1"},7]}}"#,
    );
    let found = url_elicitations(&wants).expect("wanted");
    assert_eq!((found.len(), found[0].get()), (1, r#"{"mode":"url","url":"u","elicitationId":"1"}"#));
    assert!(url_elicitations(&raw(r#"{"code":-32000,"data":{"elicitations":[{}]}}"#)).is_none());
}

#[test]
fn subscriptions_filter_and_tag() {
    let params = raw(
        r#"{"_meta":{},"notifications":{"toolsListChanged":true,"promptsListChanged":false,"resourceSubscriptions":["file:///a","file:///a",7,"file:///dir/"]}}"#,
    );
    let filter = listen_filter(Some(&params)).expect("filter");
    assert_eq!(
        filter,
        ListenFilter {
            tools: true,
            uris: vec!["file:///a".into(), "file:///dir/".into()],
            ..ListenFilter::default()
        }
    );
    assert!(listen_filter(None).is_none() && listen_filter(Some(&raw(r#"{"notifications":[]}"#))).is_none());
    assert!(listen_filter(Some(&raw(r#"{"notifications":{}}"#))).expect("filter").is_empty());
    let admits = |method: &str, params: &str| filter.admits(method, Some(&raw(params)));
    assert!(filter.admits("notifications/tools/list_changed", None));
    assert!(!filter.admits("notifications/prompts/list_changed", None));
    assert!(!filter.admits("notifications/message", None));
    for (uri, ok) in [
        ("file:///a", true),
        ("file:///a/b", true),
        ("file:///ab", false),
        ("file:///dir/x", true),
        ("file:///dir", false),
    ] {
        assert_eq!(admits("notifications/resources/updated", &format!(r#"{{"uri":"{uri}"}}"#)), ok, "{uri}");
    }
    let tools = raw(r#"{"tools":{"listChanged":true},"resources":{"subscribe":false}}"#);
    assert_eq!(filter.supported(Some(&tools)), ListenFilter { tools: true, ..ListenFilter::default() });
    assert!(filter.supported(None).is_empty());
    let both = filter.union(&ListenFilter {
        prompts: true,
        uris: vec!["b".into(), "file:///a".into()],
        ..ListenFilter::default()
    });
    assert_eq!(both.uris, ["file:///a", "file:///dir/", "b"]);
    assert_eq!(listen_filter(Some(&listen_params(&both))), Some(both));
    let id = raw("1.0");
    let line = tagged("notifications/resources/updated", Some(&raw("{\"uri\":\"u\",\n\"x\":1.0}")), &id);
    assert_eq!(
        line,
        r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":1.0},"uri":"u", "x":1.0}}"#
    );
    let retagged = tagged(
        "n",
        Some(&raw(r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":"theirs","a":1}}"#)),
        &id,
    );
    assert_eq!(
        retagged,
        r#"{"jsonrpc":"2.0","method":"n","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":1.0,"a":1}}}"#
    );
    let Ok(Message::Notification { params, .. }) = read(retagged.as_bytes()) else { panic!("notification") };
    assert_eq!(subscription_of(params).map(RawValue::get), Some("1.0"));
    assert!(tagged("n", Some(&raw("[]")), &id).contains(r#""io.modelcontextprotocol/subscriptionId":1.0"#));
    assert!(read(acknowledged(&raw("\"a\nb\"".replace('\n', "\\n").as_str()), &filter).as_bytes()).is_ok());
    assert_eq!(
        closed(&id).get(),
        r#"{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":1.0}}"#
    );
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        any::<String>().prop_map(|s| Value::from(s).to_string()),
        Just(r#""\u0000\/\uD83D\uDE00""#.to_owned()),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let pair = (any::<String>(), inner.clone()).prop_map(|(k, v)| format!("{} : {v}", Value::from(k)));
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(|v| format!("[{}]", v.join(" ,"))),
            proptest::collection::vec(pair, 0..4).prop_map(|v| format!("{{{}}}", v.join(", "))),
        ]
    })
}

proptest! {
    #[test]
    fn values_pass_translations_as_written(value in json(), key in "[a-zA-Z]{1,6}!", method in "(tools/call|tools/list|resources/read|x)") {
        let object = raw(&format!(r#"{{"{key}" : {value}}}"#));
        let info = raw(r#"{"name":"s"}"#);
        let there = modern_result(&method, &object, Some(&info)).expect("object");
        let both = [
            Some(there.clone()), legacy_result(&there), discover_result(&object, 1), initialize_result(&object, "v"),
            with_modern_meta(Some(&object), "v", None, &info, None), without_modern_meta(Some(&object)),
            with_input_responses(Some(&object), &[(key.clone(), object.clone())], Some(&info)),
        ];
        for out in both {
            let out = out.expect("object");
            prop_assert_eq!(member(&out, &key).map(RawValue::get), Some(value.as_str()));
            let end = format!(r#""{key}" : {value}}}"#);
            let kept = out.get().ends_with(&end);
            prop_assert!(kept);
        }
        let stamped = with_modern_meta(Some(&object), "v", Some(&info), &info, Some("info")).expect("object");
        let back = without_modern_meta(Some(&stamped)).expect("object");
        prop_assert_eq!(back.get(), object.get());
    }
}

//! Errors as problem+json has them: title, detail, code and what helps.

use crate::api::Answered;
use serde_json::{Value, json};
use warp::http::StatusCode;

/// An error; its hint is the code's.
pub(super) fn problem(status: StatusCode, code: &str, title: &str, detail: impl Into<String>) -> Answered {
    let detail: String = detail.into();
    let mut body = json!({ "title": title, "status": status.as_u16(), "detail": detail, "code": code });
    if let (Some(hint), Some(body)) = (hint_of(code), body.as_object_mut()) {
        body.insert("hint".to_owned(), hint.into());
    }
    warp::reply::with_status(warp::reply::json(&body), status)
}

/// The body of an error with a hint of its own, and places in a file.
pub(super) fn problem_with(
    status: u16,
    code: &str,
    title: &str,
    (detail, hint): (&str, Option<String>),
    problems: Value,
) -> Value {
    let mut body = json!({ "title": title, "status": status, "detail": detail, "code": code });
    if let Some(body) = body.as_object_mut() {
        if let Some(hint) = hint {
            body.insert("hint".to_owned(), hint.into());
        }
        if problems.as_array().is_some_and(|problems| !problems.is_empty()) {
            body.insert("problems".to_owned(), problems);
        }
    }
    body
}

/// What helps.
pub(super) fn hint_of(code: &str) -> Option<&'static str> {
    Some(match code {
        "MCPO-H001" => "ask again once it has started: `systemctl status mcp-orchestrator`",
        "MCPO-H002" => "GET /api/v1/servers lists them all",
        "MCPO-H003" => "ask again with the ids that GET /api/v1/servers lists",
        "MCPO-H004" => "the server's reasons say why: GET /api/v1/servers/{id}",
        "MCPO-E001" => "read it again: GET has the ETag of now",
        "MCPO-E002" => "send the ETag of GET as If-Match, or `*` to overwrite whatever is there",
        "MCPO-E003" => {
            "the user of the daemon needs to write the file and its directory; a file that is mounted on its own cannot be replaced, mount its directory"
        }
        "MCPO-E005" => {
            "do it in the file or over the control socket (`mcp-orchestrator set-server`), or set [dashboard] full_control"
        }
        "MCPO-E011" => "change it where the service gets its environment and its flags",
        "MCPO-E009" => "ask again with allow_mass_delete=true, if that is meant",
        "MCPO-H006" => "the server's log may say more: GET /api/v1/servers/{id}/logs",
        "MCPO-H400" | "MCPO-H404" | "MCPO-H405" => "/docs describes every route",
        "MCPO-H429" => "ask again in a moment",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{StatusCode, problem};
    use warp::Reply;

    #[tokio::test]
    async fn a_problem_has_a_code_and_what_helps() {
        let answer = problem(StatusCode::NOT_FOUND, "MCPO-H002", "no such server", "none is called x");
        let answer = answer.into_response();
        assert_eq!(answer.status(), 404);
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "MCPO-H002");
        assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("/api/v1/servers")), "{body}");
    }
}

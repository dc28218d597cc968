//! Errors as problem+json has them: title, detail, code and what helps.

use crate::api::Answered;
use serde_json::json;
use warp::http::StatusCode;

/// An error; its hint is the code's.
pub(super) fn problem(status: StatusCode, code: &str, title: &str, detail: impl Into<String>) -> Answered {
    let detail: String = detail.into();
    let mut body = json!({ "title": title, "status": status.as_u16(), "detail": detail, "code": code });
    if let (Some(hint), Some(body)) = (hint(code), body.as_object_mut()) {
        body.insert("hint".to_owned(), hint.into());
    }
    warp::reply::with_status(warp::reply::json(&body), status)
}

/// What helps.
fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "MCPO-H001" => "ask again once it has started: `systemctl status mcp-orchestrator`",
        "MCPO-H002" => "GET /api/v1/servers lists them all",
        "MCPO-H003" => "ask again with the ids that GET /api/v1/servers lists",
        "MCPO-H004" => "the server's reasons say why: GET /api/v1/servers/{id}",
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

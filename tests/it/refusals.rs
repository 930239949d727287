//! Who is refused, and how the operator hears of it: one line in the log that says why.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use apixx_mcp::domain::scope::Scopes;
use apixx_mcp::domain::token::PlainToken;
use apixx_mcp::service::access::Wants;
use apixx_mcp::store::customers::Actor;
use axum::body::Body;
use bytes::Bytes;
use chrono::TimeDelta;
use futures_util::future::join_all;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::app::{TestApp, call, list};
use crate::support::browser::Browser;
use crate::support::log::Log;

/// A request as the newest revision sends it, but for what it repeats in headers.
fn with_meta() -> String {
    let key = |name: &str| format!("io.modelcontextprotocol/{name}");
    let meta = json!({ key("protocolVersion"): "2026-07-28", key("clientCapabilities"): {} });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": meta } }).to_string()
}

/// A further token of a customer, called `added`.
async fn added_token(app: &TestApp, customer: &str) -> PlainToken {
    let token = PlainToken::new(app.store.ids());
    let tenancy = app.store.customer_named(customer).await.unwrap().unwrap();
    let mut tx = app.store.begin(&tenancy).await.unwrap();
    let Actor::User { id, .. } = tx.owner().await.unwrap() else { panic!("an owner is a person") };
    tx.add_token(&id, "added", &token, Scopes::all(), None).await.unwrap();
    tx.commit().await.unwrap();
    token
}

/// A request by its method, headers and body; its status, and the cause in its line.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, String, u16, &'a str);

#[tokio::test]
async fn each_refusal_has_one_line_that_says_why() {
    let app = TestApp::demo_with(&[("auth.failed_attempts_per_minute", "3")]).await;
    let log = Log::keep();
    let live = format!("Bearer {}", app.acme().token());
    let unknown = PlainToken::new(app.store.ids());
    let bearer = format!("Bearer {}", unknown.reveal());
    let revoked = format!("Bearer {}", app.globex().token());
    let mut owner = app.owner().await;
    sqlx::query("update tokens set revoked_at = created_at where customer_id = 'cus_globex'")
        .execute(&mut owner)
        .await
        .unwrap();
    let known = added_token(&app, "globex").await;
    app.access().recognise(Some(known.reveal()), None, Wants::Service).await.unwrap();
    let meanwhile = format!("Bearer {}", known.reveal());
    sqlx::query("update tokens set revoked_at = created_at where name = 'added'")
        .execute(&mut owner)
        .await
        .unwrap();
    sqlx::query("update tokens set scopes = '{flows:read}' where customer_id = 'cus_lab'")
        .execute(&mut owner)
        .await
        .unwrap();
    let narrow = format!("Bearer {}", app.lab().token());
    let payload = "ana@acme.example";
    let invalid = call("get_run", json!({ "run": payload, payload: 1 }));
    let old = ("mcp-protocol-version", "2025-06-18");
    let modern = ("mcp-protocol-version", "2026-07-28");
    let auth = |value| ("authorization", value);
    let cases: Vec<Case<'_>> = vec![
        ("POST", vec![], list(), 401, "no_token"),
        ("POST", vec![auth("Bearer junk")], list(), 401, "malformed_token"),
        ("POST", vec![auth(&bearer)], list(), 401, "unknown_token"),
        ("POST", vec![auth(&revoked)], list(), 401, "revoked_token"),
        ("GET", vec![auth(&live)], String::new(), 405, "method"),
        ("POST", vec![auth(&live), ("host", "evil.example.com\u{7}")], list(), 400, "host"),
        ("POST", vec![auth(&live), ("host", "evil.example.com")], list(), 403, "host"),
        ("POST", vec![auth(&live), ("origin", "http://evil.example.com")], list(), 403, "origin"),
        ("POST", vec![auth(&live), ("accept", "text/html")], list(), 406, "accept"),
        ("POST", vec![auth(&live), ("content-type", "text/plain")], list(), 415, "content_type"),
        ("POST", vec![auth(&live), ("content-encoding", "gzip")], list(), 415, "content_encoding"),
        ("POST", vec![auth(&live)], format!("\"{}\"", "x".repeat(65 * 1024)), 413, "body_too_large"),
        ("POST", vec![auth(&live)], format!("{{ {payload}"), 400, "parse_error"),
        (
            "POST",
            vec![auth(&live)],
            json!({"jsonrpc": "2.0", "id": 1, "method": payload}).to_string(),
            200,
            "method_not_found",
        ),
        ("POST", vec![auth(&live), ("mcp-protocol-version", "1999")], list(), 400, "unsupported_version"),
        ("POST", vec![auth(&live)], call(payload, json!({})), 200, "unknown_tool"),
        ("POST", vec![auth(&live), old], invalid.clone(), 200, "INVALID_ARGUMENTS"),
        ("POST", vec![auth(&live)], invalid, 200, "INVALID_ARGUMENTS"),
        ("POST", vec![auth(&live)], call("get_run", json!({ "run_id": payload })), 200, "RUN_NOT_FOUND"),
        (
            "POST",
            vec![auth(&live), ("mcp-protocol-version", "2025-03-26")],
            format!("[{}, 7]", list()),
            200,
            "invalid_request",
        ),
        ("POST", vec![auth(&narrow)], call("list_runs", json!({})), 200, "INSUFFICIENT_SCOPE"),
        ("POST", vec![auth(&meanwhile)], call("list_flows", json!({})), 200, "TOKEN_REVOKED"),
        ("POST", vec![auth(&live), modern], list(), 400, "invalid_params"),
        ("POST", vec![auth(&live), modern], with_meta(), 400, "header_mismatch"),
        ("POST", vec![auth("Bearer junk")], list(), 429, "malformed_token"),
    ];
    log.lines();
    for (method, headers, body, status, cause) in cases {
        let mut all = HeaderMap::new();
        let usual = [
            ("host", "localhost"),
            ("content-type", "application/json"),
            ("accept", "*/*"),
            ("x-request-id", "req-7"),
        ];
        for (name, value) in usual.iter().chain(&headers) {
            let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(
                value.replace('\u{7}', "\t").as_bytes(),
            ));
            all.insert(HeaderName::try_from(*name).unwrap(), value.unwrap());
        }
        let mut request = Request::builder()
            .method(method.parse::<Method>().unwrap())
            .uri("/mcp")
            .body(Body::from(body))
            .unwrap();
        *request.headers_mut() = all;
        let reply = app.send(request).await;
        assert_eq!(reply.status.as_u16(), status, "{cause}: {}", reply.body);
        let lines = log.lines();
        assert_eq!(lines.len(), 1, "{cause}: {lines:#?}");
        let line = &lines[0];
        assert_eq!(line["fields"]["cause"], cause, "{line}");
        assert_eq!(line["fields"]["message"], "refused", "{line}");
        assert!(line.to_string().contains("req-7"), "{line}");
        for secret in
            [payload, &app.acme().token(), &app.globex().token(), unknown.reveal(), unknown.last_four()]
        {
            assert!(!line.to_string().contains(secret), "{line}");
        }
        match cause {
            "host" => assert_eq!(line["fields"]["detail"].as_str().unwrap().trim_end(), "evil.example.com"),
            "origin" => assert_eq!(line["fields"]["detail"], "http://evil.example.com"),
            "unknown_token" => assert_eq!(line["fields"]["detail"], unknown.beginning()),
            "revoked_token" => assert!(line["fields"]["detail"].as_str().unwrap().starts_with("mtk_")),
            "RUN_NOT_FOUND" => assert_eq!(line["fields"]["tool.name"], "get_run"),
            _ => {}
        }
    }
}

/// Refusals that take a crowd, or time.
#[tokio::test]
async fn each_refusal_under_load_has_one_line_that_says_why() {
    let app =
        TestApp::demo_with(&[("server.max_concurrent_calls", "1"), ("server.body_timeout_s", "1")]).await;
    let log = Log::keep();
    let causes = || -> Vec<String> {
        let lines = log.lines();
        let refused = lines.iter().filter(|line| line["fields"]["message"] == "refused");
        refused.map(|line| line["fields"]["cause"].as_str().unwrap().to_owned()).collect()
    };
    app.acme().text("list_flows", json!({})).await;
    let broken = Body::from_stream(stream::iter([Err::<Bytes, _>(io::Error::other("gone"))]));
    assert_eq!(app.send(app.acme().request(broken)).await.status, 400);
    assert_eq!(causes(), ["body_broken"]);

    // Nobody's token can be looked at: a call that has the only turn waits, and two strangers are in the way of the
    // third.
    let mut owner = app.owner().await;
    let mut tx = owner.begin().await.unwrap();
    sqlx::query("lock table tokens in access exclusive mode").execute(&mut *tx).await.unwrap();
    let flows = call("list_flows", json!({}));
    let stranger = || app.holder_of(PlainToken::new(app.store.ids()).reveal()).request(list());
    let first = [app.acme().request(flows), stranger(), stranger()];
    let held = join_all(first.map(|request| app.send(request)));
    let refused = async {
        let slow = Body::from_stream(stream::pending::<io::Result<Bytes>>());
        let requests = [app.acme().request(slow), stranger()];
        let replies = join_all(requests.map(|request| app.send(request))).await;
        let told = causes();
        tx.rollback().await.unwrap();
        (replies, told)
    };
    let (_, (replies, mut told)) = tokio::join!(held, refused);
    assert_eq!(replies.iter().map(|reply| reply.status.as_u16()).collect::<Vec<_>>(), [408, 503]);
    told.sort();
    assert_eq!(told, ["body_too_slow", "busy"]);
    causes();

    let globex = app.globex();
    let mut under_way = Vec::new();
    for _ in 0..256 {
        under_way.push(app.access().recognise(Some(&globex.token()), None, Wants::Service).await.unwrap());
    }
    assert_eq!(globex.post(&serde_json::from_str(&list()).unwrap()).await.status, 429);
    assert_eq!(causes(), ["too_many_at_once"]);
    drop(under_way);
    let message = serde_json::from_str(&list()).unwrap();
    let mut requests = 0;
    while globex.post(&message).await.status == 200 {
        requests += 1;
        assert!(requests < 10_000, "the plan has no end");
    }
    assert_eq!(causes(), ["rate_limit"]);
    app.store.close().await;
    assert_eq!(app.send(stranger()).await.status, 503);
    assert_eq!(causes(), ["database"]);
}

/// What was read of a body is many times as large: nobody keeps it while they wait.
#[tokio::test]
async fn wrong_arguments_are_refused_without_a_turn() {
    let app = TestApp::demo_with(&[("server.max_concurrent_calls", "1")]).await;
    app.acme().text("list_flows", json!({})).await;
    let mut owner = app.owner().await;
    let mut tx = owner.begin().await.unwrap();
    sqlx::query("lock table tokens in access exclusive mode").execute(&mut *tx).await.unwrap();
    let acme = app.acme();
    let refused = async {
        let told = acme.call("get_run", json!({ "run_id": [[0], [0]] })).await;
        tx.rollback().await.unwrap();
        told
    };
    let (held, told) = tokio::join!(acme.call("list_flows", json!({})), refused);
    assert!(!held.is_error, "{}", held.text);
    assert_eq!(told.code, "INVALID_ARGUMENTS");
}

#[tokio::test]
async fn each_page_that_is_refused_has_one_line_that_says_why() {
    let app = TestApp::demo().await;
    let log = Log::keep();
    log.lines();
    let cause = || log.lines().last().map(|line| line["fields"]["cause"].clone());
    let ana = Browser::of(&app, "ana.ruiz@acme.example").await;
    assert_eq!(ana.get("/w/globex").await.status, 404);
    assert_eq!(cause(), Some(json!("path")));
    assert_eq!(ana.post_from("/sign-out", &[], "cross-site").await.status, 403);
    assert_eq!(cause(), Some(json!("cross_site")));
    assert_eq!(ana.post("/sign-in", &[("else", "x")]).await.status, 422);
    assert_eq!(cause(), Some(json!("form")));
    let acme = app.store.customer_named("acme").await.unwrap().unwrap();
    let all: Vec<_> = (0..256).map(|_| app.access().enter(&acme).unwrap()).collect();
    assert_eq!(ana.get("/w/acme").await.status, 429);
    assert_eq!(cause(), Some(json!("pages_limit")));
    drop(all);
    sqlx::query("update users set role = 'viewer'").execute(&mut app.owner().await).await.unwrap();
    assert_eq!(ana.get("/w/acme/settings/mcp/new").await.status, 403);
    assert_eq!(cause(), Some(json!("role")));
    let form = [("email", "nobody@example.com"), ("password", "guess guess guess")];
    assert_eq!(ana.post("/sign-in", &form).await.status, 401);
    assert_eq!(cause(), Some(json!("sign_in")));
    for _ in 0..10 {
        ana.post("/sign-in", &form).await;
    }
    assert_eq!(cause(), Some(json!("sign_in_limit")));
}

#[tokio::test]
async fn a_token_that_ended_is_told_from_one_that_never_was() {
    let app = TestApp::demo().await;
    let log = Log::keep();
    let message = serde_json::from_str(&list()).unwrap();
    let told = async |sql: &str| {
        let mut owner = app.owner().await;
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut owner).await.unwrap();
        app.clock.advance(TimeDelta::seconds(1));
        assert_eq!(app.globex().post(&message).await.status, 401);
        log.lines().last().unwrap()["fields"]["cause"].clone()
    };
    let globex = "where customer_id = 'cus_globex'";
    assert_eq!(told(&format!("update tokens set expires_at = created_at {globex}")).await, "expired_token");
    let suspend = "update customers set status = 'suspended' where customer_id = 'cus_globex'";
    let mut owner = app.owner().await;
    let again = format!("update tokens set expires_at = null {globex}");
    sqlx::query(sqlx::AssertSqlSafe(again)).execute(&mut owner).await.unwrap();
    assert_eq!(told(suspend).await, "suspended_customer");
}

#[tokio::test]
async fn a_flood_fills_no_log() {
    let app = TestApp::demo().await;
    let log = Log::keep();
    for _ in 0..200 {
        let request = Request::post("/mcp").header("host", "localhost").body(Body::empty()).unwrap();
        assert_eq!(app.send(request).await.status, 401);
    }
    assert_eq!(log.lines().len(), 5);
    app.clock.advance(TimeDelta::seconds(1));
    app.serving().refusals.catch_up();
    let lines = log.lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (&lines[0]["fields"]["cause"], &lines[0]["fields"]["more"]),
        (&json!("no_token"), &json!(195))
    );
    assert_eq!(lines[0]["fields"]["who"], "127.0.0.1");
}

#[tokio::test]
async fn a_flood_of_one_customer_hides_no_other() {
    let app = TestApp::demo().await;
    let log = Log::keep();
    let told = || -> Vec<Value> {
        let refused = log.lines().into_iter().filter(|line| line["fields"]["cause"] == "RUN_NOT_FOUND");
        refused.map(|line| line["fields"]["customer.id"].clone()).collect()
    };
    for _ in 0..50 {
        app.acme().call("get_run", json!({ "run_id": "run_nothing" })).await;
    }
    assert_eq!(told(), ["cus_acme"; 5]);
    app.globex().call("get_run", json!({ "run_id": "run_nothing" })).await;
    assert_eq!(told(), ["cus_globex"]);
}

/// Every cause that HTTP, the protocol, the guards and the pages know stands in the README's table, which knows no other,
/// and in a test above, but for a few.
#[test]
fn no_cause_is_untold() {
    /// Where no request can be refused so, or why it has no line of its own here.
    const NOT_HERE: &[(&str, &str)] = &[
        ("missing_capability", "no tool of ours needs one"),
        ("unavailable", "told as `busy`, `database` or by the line of the call"),
        ("internal", "a fault of ours, with a line of its own"),
    ];
    let told = include_str!("refusals.rs").split("fn no_cause_is_untold").next().unwrap();
    let pattern = regex::Regex::new(
        r#"(?:StatusCode::[A-Z_]+,|because\(|cause:|\.refused\(|[A-Z_]+ =>|\["revoked_token",|_token",)\s*"([a-z]+(?:_[a-z]+)*)""#,
    )
    .unwrap();
    // (of three in a list the pattern finds the one in the middle)
    let mut causes = BTreeSet::from(["revoked_token", "suspended_customer"].map(str::to_owned));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in [
        "protocol/http/mod.rs",
        "protocol/http/gate.rs",
        "protocol/http/media.rs",
        "protocol/http/body.rs",
        "protocol/jsonrpc.rs",
        "middleware/bearer.rs",
        "service/access.rs",
        "store/tokens.rs",
        "tools/server.rs",
        "app/router.rs",
        "web/mod.rs",
        "web/sign_in.rs",
        "web/trouble.rs",
    ] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
        causes.extend(pattern.captures_iter(&code).map(|found| found[1].to_owned()));
    }
    assert!(causes.len() > 30, "{causes:?}");
    let readme = std::fs::read_to_string(root.with_file_name("README.md")).unwrap();
    let (_, table) = readme.split_once("| `cause` of a refusal |").unwrap();
    let table = table.split("\n\n").next().unwrap();
    let word = regex::Regex::new("`([a-z_]+)`").unwrap();
    let listed: BTreeSet<String> = word.captures_iter(table).map(|found| found[1].to_owned()).collect();
    assert_eq!(listed, causes);
    for cause in causes {
        let here = told.contains(&format!("\"{cause}\""));
        let elsewhere = NOT_HERE.iter().any(|(known, _)| *known == cause);
        assert!(here != elsewhere, "{cause}");
    }
}

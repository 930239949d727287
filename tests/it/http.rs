//! The HTTP edge of the product: who is let in, in which order things are refused, and what every answer carries.

use std::collections::HashSet;
use std::sync::Arc;

use apixx_mcp::app::lifecycle::Lifecycle;
use apixx_mcp::app::listen::{bind, serve};
use apixx_mcp::config::{Config, Sources};
use apixx_mcp::domain::ids::TokenId;
use apixx_mcp::domain::scope::Scopes;
use apixx_mcp::domain::token::PlainToken;
use apixx_mcp::middleware::Known;
use apixx_mcp::store::customers::{Actor, NewCustomer};
use axum::body::Body;
use chrono::TimeDelta;
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

use crate::support::app::{Reply, TestApp, first_run};
use crate::support::browser::Browser;
use crate::support::log::Log;

fn list() -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" })
}

/// A request without a token, with these headers over the usual ones.
fn stranger(headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut all = HeaderMap::new();
    let usual = [
        ("host", "localhost"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    for (name, value) in usual.iter().chain(headers) {
        all.insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let mut request = Request::post("/mcp").body(body.into()).unwrap();
    *request.headers_mut() = all;
    request
}

fn header<'r>(reply: &'r Reply, name: &str) -> &'r str {
    reply.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", reply.headers)).to_str().unwrap()
}

/// A request limit of its own: a customer of the smallest plan, with a token.
async fn small_customer(app: &TestApp) -> String {
    let new = NewCustomer {
        id: None,
        slug: "small".into(),
        name: "Small".into(),
        timezone: chrono_tz::UTC,
        plan: "free".into(),
        owner_email: "sam@small.example".into(),
        owner_name: "Sam".into(),
    };
    let mut tx = app.store.begin_customer(&new).await.unwrap();
    let Actor::User { id, .. } = tx.owner().await.unwrap() else { panic!("an owner is a person") };
    let token = PlainToken::new(app.store.ids());
    tx.add_token(&id, "Sam's", &token, Scopes::all(), None).await.unwrap();
    tx.commit().await.unwrap();
    token.reveal().to_owned()
}

#[tokio::test]
async fn without_a_live_token_every_post_gets_the_same_answer() {
    let app = TestApp::demo().await;
    let live = app.acme().token();
    let unknown = PlainToken::new(app.store.ids());
    let mut typo = live.clone();
    typo.replace_range(10..11, if &live[10..11] == "a" { "b" } else { "a" });
    let mut told = HashSet::new();
    let cases: &[(Option<String>, &str)] = &[
        (None, "Bearer"),
        (Some(format!("Basic {live}")), "Bearer"),
        (Some(live.clone()), "Bearer"),
        (Some("Bearer".into()), "Bearer error=\"invalid_token\""),
        (Some(format!("Bearer {typo}")), "Bearer error=\"invalid_token\""),
        (Some(format!("Bearer {}", unknown.reveal())), "Bearer error=\"invalid_token\""),
        (Some(format!("Bearer {live} {live}")), "Bearer error=\"invalid_token\""),
        (Some("Bearer apx_123".into()), "Bearer error=\"invalid_token\""),
    ];
    for (authorization, challenge) in cases {
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        // The body of a stranger is not read: not even that it is no JSON.
        for body in [list().to_string(), "{".to_owned()] {
            let reply = app.send(stranger(&headers, body)).await;
            assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{authorization:?}");
            assert_eq!(header(&reply, "www-authenticate"), *challenge, "{authorization:?}");
            assert_eq!(reply.body["error"]["code"], 401);
            let said = reply.body["error"]["message"].as_str().unwrap();
            assert!(said.contains("\"MCP tokens\"") && said.contains("/settings/mcp"), "{said}");
            assert!(reply.body.get("id").is_none());
            told.insert(reply.bytes);
        }
    }
    assert_eq!(told.len(), 1, "one body for every cause");
    let mut in_query = stranger(&[], list().to_string());
    *in_query.uri_mut() = format!("/mcp?access_token={live}&token={live}").parse().unwrap();
    assert_eq!(app.send(in_query).await.status, StatusCode::UNAUTHORIZED);
    let lower = format!("bearer {live}");
    let reply = app.send(stranger(&[("authorization", &lower)], list().to_string())).await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn the_cheapest_and_least_revealing_refusal_comes_first() {
    let app = TestApp::demo().await;
    let bearer = format!("Bearer {}", app.acme().token());
    let known = ("authorization", bearer.as_str());
    let large = "2000000";
    for method in ["GET", "DELETE", "PUT", "PATCH"] {
        let mut request = stranger(&[("host", "evil.example.com")], Body::empty());
        *request.method_mut() = method.parse().unwrap();
        let reply = app.send(request).await;
        assert_eq!((reply.status.as_u16(), header(&reply, "allow")), (405, "POST"), "{method}");
    }
    let table: &[(&[(&str, &str)], u16)] = &[
        (&[("host", "evil.example.com"), ("content-length", large)], 403),
        (&[("origin", "http://evil.example.com")], 403),
        (&[("origin", "null"), known], 403),
        (&[("content-length", large)], 413),
        (&[("content-type", "text/plain")], 401),
        (&[("accept", "text/html")], 401),
        (&[known, ("content-type", "text/plain"), ("accept", "text/html")], 415),
        (&[known, ("accept", "application/json")], 406),
        (&[known, ("accept", "*/*")], 200),
        (&[known, ("origin", "http://localhost:3000")], 200),
    ];
    for (headers, status) in table {
        let reply = app.send(stranger(headers, list().to_string())).await;
        assert_eq!(reply.status.as_u16(), *status, "{headers:?} {}", reply.body);
    }
    let much = format!("{{\"x\":\"{}\"}}", "x".repeat(2_000_000));
    assert_eq!(app.send(stranger(&[known], much)).await.status.as_u16(), 413);
    assert_eq!(app.send(stranger(&[known], "{")).await.body["error"]["code"], -32700);
}

#[tokio::test]
async fn beside_pages_only_mcp_and_a_question_after_our_health_are_served() {
    let app = TestApp::demo().await;
    for path in ["/mcp/", "/sse", "/settings", "/metrics", "/.well-known/oauth-protected-resource", "/.env"] {
        let reply = app.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!((reply.status.as_u16(), &reply.body["error"]["code"]), (404, &json!(404)), "{path}");
        assert!(!reply.headers.contains_key("connection"), "{path}");
        let reply = app.send(Request::post(path).body(Body::from("{}")).unwrap()).await;
        assert_eq!((reply.status.as_u16(), header(&reply, "connection")), (404, "close"), "{path}");
    }
    let ask = |path: &str| app.send(Request::get(path).body(Body::empty()).unwrap());
    let alive = ask("/healthz").await;
    assert_eq!((alive.status.as_u16(), alive.body), (200, json!({ "status": "alive" })));
    app.store.close().await;
    assert_eq!(ask("/healthz").await.status, 200);
    assert_eq!(ask("/readyz").await.status, 404, "that is for the operator");
}

#[tokio::test]
async fn while_the_database_is_away_callers_are_told_to_come_again() {
    let app = TestApp::demo().await;
    app.store.close().await;
    let reply = app.acme().post(&list()).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&reply, "retry-after"), "1");
    assert_eq!(reply.body["error"]["data"]["retry_after_seconds"], 1);
    assert_eq!(reply.body["error"]["data"]["request_id"], header(&reply, "x-request-id"));
    assert!(!reply.body.to_string().contains("sqlx") && !reply.body.to_string().contains("pool"));
}

#[tokio::test]
async fn every_answer_tells_a_browser_to_do_nothing_with_it() {
    let app = TestApp::demo().await;
    let https = TestApp::demo_with(&[("server.public_url", "https://mcp.example.com")]).await;
    let bearer = format!("Bearer {}", app.acme().token());
    let known = ("authorization", bearer.as_str());
    let requests = || {
        [
            stranger(&[known], list().to_string()),
            stranger(&[], list().to_string()),
            stranger(&[("host", "evil.example.com")], ""),
            Request::get("/mcp").body(Body::empty()).unwrap(),
            Request::get("/nothing").body(Body::empty()).unwrap(),
            Request::get("/healthz").body(Body::empty()).unwrap(),
        ]
    };
    let mut statuses = Vec::new();
    for request in requests() {
        let reply = app.send(request).await;
        assert_eq!(header(&reply, "x-content-type-options"), "nosniff");
        assert_eq!(header(&reply, "referrer-policy"), "no-referrer");
        assert_eq!(header(&reply, "content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
        assert_eq!(header(&reply, "x-frame-options"), "DENY");
        assert_eq!(header(&reply, "cache-control"), "no-store");
        assert!(!reply.headers.contains_key("strict-transport-security"));
        statuses.push(reply.status.as_u16());
    }
    assert_eq!(statuses, [200, 401, 403, 405, 404, 200]);
    for request in requests() {
        assert_eq!(header(&https.send(request).await, "strict-transport-security"), "max-age=63072000");
    }
}

#[tokio::test]
async fn an_answer_carries_the_name_of_its_request() {
    let app = TestApp::demo().await;
    let named = async |name: &str| {
        let reply = app.send(stranger(&[("x-request-id", name)], "")).await;
        header(&reply, "x-request-id").to_owned()
    };
    assert_eq!(named("trace-7_b").await, "trace-7_b");
    for strange in ["a b", "<script>", &"x".repeat(65), ""] {
        let name = named(strange).await;
        assert!(name.starts_with("req_") && name.len() == 24, "{strange} became {name}");
    }
    assert_ne!(named("").await, named("").await);
}

#[tokio::test]
async fn a_plan_admits_its_burst_and_then_its_rate() {
    let app = TestApp::demo().await;
    let token = small_customer(&app).await;
    let agent = app.holder_of(&token);
    let mut admitted = 0;
    let refused = loop {
        let reply = agent.post(&list()).await;
        if reply.status == StatusCode::TOO_MANY_REQUESTS {
            break reply;
        }
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(header(&reply, "ratelimit-policy"), "\"plan\";q=120;w=60");
        admitted += 1;
        assert_eq!(
            header(&reply, "ratelimit").split(";t=").next().unwrap(),
            format!("\"plan\";r={}", 60 - admitted)
        );
        assert!(admitted <= 60);
    };
    assert_eq!(admitted, 60, "the burst of the plan");
    assert!(refused.body.get("id").is_none());
    assert_eq!(refused.body["error"]["code"], 429);
    assert_eq!(refused.body["error"]["data"]["retry_after_seconds"], 1);
    assert_eq!(header(&refused, "retry-after"), "1");
    assert_eq!(header(&refused, "ratelimit-policy"), "\"plan\";q=120;w=60");
    assert_eq!(header(&refused, "ratelimit"), "\"plan\";r=0;t=1");
    // Nobody else is held up, and clients may still ask which era this server speaks.
    assert_eq!(app.acme().post(&list()).await.status, 200);
    let discover = json!({ "jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": { "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} } } });
    let mut request = agent.request(discover.to_string());
    request.headers_mut().insert("mcp-protocol-version", "2026-07-28".parse().unwrap());
    request.headers_mut().insert("mcp-method", "server/discover".parse().unwrap());
    let discovered = app.send(request).await;
    assert_eq!(discovered.status, 200, "{}", discovered.body);
    // That header opens nothing else.
    let mut smuggled = agent.request(list().to_string());
    smuggled.headers_mut().insert("mcp-method", "server/discover".parse().unwrap());
    assert_eq!(app.send(smuggled).await.status, 429);
    app.clock.advance(TimeDelta::seconds(1));
    for expected in [200, 200, 429] {
        assert_eq!(agent.post(&list()).await.status.as_u16(), expected);
    }
    // Each message of a batch is a request.
    app.clock.advance(TimeDelta::seconds(1));
    let mut batch = agent.request(json!([list(), list(), list()]).to_string());
    batch.headers_mut().insert("mcp-protocol-version", "2025-03-26".parse().unwrap());
    let answers = app.send(batch).await.body;
    assert!(answers[1]["result"]["tools"].is_array(), "{answers}");
    assert_eq!(answers[2]["error"]["data"]["retry_after_seconds"], 1, "{answers}");
    app.settle().await;
    let sam = Browser::of(&app, "sam@small.example").await;
    let usage = sam.get("/w/small/usage").await;
    assert!(usage.text.contains("4 requests were refused by the limits"), "{}", usage.text);
}

#[tokio::test]
async fn failed_attempts_are_limited_and_live_tokens_are_not() {
    let app = TestApp::demo_with(&[("auth.failed_attempts_per_minute", "3")]).await;
    let guess = || PlainToken::new(app.store.ids());
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(app.holder_of(guess().reveal()).post(&list()).await.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 429]);
    let reply = app.holder_of("mcp_junk").post(&list()).await;
    assert_eq!((reply.status.as_u16(), &reply.body["error"]["code"]), (429, &json!(429)));
    let wait: u64 = header(&reply, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(reply.body["error"]["data"]["retry_after_seconds"], wait);
    assert_eq!(app.lab().post(&list()).await.status, 200, "from the same address");
    assert_eq!(app.send(stranger(&[], "")).await.status, 401, "who sends no token guesses none");
}

#[tokio::test]
async fn a_connection_is_known_by_a_token_or_a_session_and_by_nothing_else() {
    let app = TestApp::demo().await;
    let ana = Browser::of(&app, "ana.ruiz@acme.example").await;
    let cookie = ana.cookie.borrow().clone().unwrap();
    let page = |path: &str, cookie: &str| {
        let request = Request::get(path).header("host", "localhost").header("cookie", cookie);
        request.body(Body::empty()).unwrap()
    };
    for (request, status, is_known) in [
        (app.acme().request(list().to_string()), 200, true),
        (app.holder_of("mcp_nothing").request(list().to_string()), 401, false),
        (page("/w/acme", &cookie), 200, true),
        (page("/w/acme", "apixx=nothing"), 303, false),
        (page("/sign-in", &cookie), 200, false),
        (page("/healthz", &cookie), 200, false),
    ] {
        let (mut request, known) = (request, Known::default());
        request.extensions_mut().insert(known.clone());
        let path = request.uri().to_string();
        let answered = app.router.clone().oneshot(request).await.unwrap();
        assert_eq!((answered.status().as_u16(), known.ever() && known.now()), (status, is_known), "{path}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_says_where_a_request_came_from() {
    let limit = ("auth.failed_attempts_per_minute", "1");
    let behind_proxy = TestApp::demo_with(&[limit, ("server.trusted_proxies", "127.0.0.0/8")]).await;
    let (direct, log) = (TestApp::demo_with(&[limit]).await, Log::keep());
    let from = async |app: &TestApp, address: &str| {
        let headers = [("authorization", "Bearer mcp_junk"), ("x-forwarded-for", address)];
        app.send(stranger(&headers, "")).await.status.as_u16()
    };
    for (address, expected) in
        [("203.0.113.7", 401), ("203.0.113.7", 429), ("203.0.113.8", 401), ("203.0.113.8, 203.0.113.9", 401)]
    {
        assert_eq!(from(&behind_proxy, address).await, expected, "{address}");
    }
    // Where no proxy is trusted, the header is anybody's claim.
    for (address, expected) in [("203.0.113.7", 401), ("203.0.113.8", 429)] {
        assert_eq!(from(&direct, address).await, expected, "{address}");
    }
    let told = log.lines().into_iter().filter(|line| line["level"] == "WARN").collect::<Vec<_>>();
    assert!(told.len() == 1 && told[0].to_string().contains("server.trusted_proxies"), "once: {told:?}");
}

#[tokio::test]
async fn a_revoked_token_reads_nothing_from_the_commit_on() {
    let app = TestApp::demo().await;
    let agent = app.globex();
    let flows = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "list_flows", "arguments": {} }
    });
    let before = agent.post(&flows).await;
    assert!(before.body.to_string().contains("flow_globex"), "{}", before.body);
    let globex = app.store.customer_named("globex").await.unwrap().unwrap();
    let token = app.store.read(&globex).tokens().await.unwrap().remove(0);
    let mut tx = app.store.begin(&globex).await.unwrap();
    assert!(tx.revoke_token(&TokenId::parse(&token.token_id).unwrap()).await.unwrap());
    tx.commit().await.unwrap();
    // The token is remembered for up to a second, and opens no row in it.
    let after = agent.post(&flows).await;
    let told = after.body["result"]["content"][0]["text"].as_str().unwrap();
    assert!(told.starts_with("TOKEN_REVOKED: ") && !told.contains("flow_"), "{}", after.body);
    app.clock.advance(TimeDelta::seconds(1));
    assert_eq!(agent.post(&list()).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn slow_clients_hold_nobody_up_and_are_let_go() {
    const SLOW: usize = 40;
    let app = TestApp::demo_with(&[("server.body_timeout_s", "1")]).await;
    let environment = vec![("HOME".to_owned(), "/home/ana".to_owned())];
    let config = Config::load(&Sources { environment, ..Sources::default() }).unwrap().server;
    let lifecycle = Lifecycle::new(config.shutdown);
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn({
        let (router, config, lifecycle) = (app.router.clone(), Arc::new(config), lifecycle.clone());
        async move { serve(listener, router, &config, &lifecycle).await }
    });
    let body = list().to_string();
    let head = |length: usize| {
        format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Accept: */*\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n",
            app.acme().token()
        )
    };
    let form = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: 100\r\n\r\ne"
        )
    };
    let call = format!("{}{}", head(body.len()), &body[..10]);
    let requests =
        [call, form("/sign-in"), form("/password/nothing"), form("/sign-out"), form("/w/acme/try")];
    let mut slow = Vec::new();
    for request in requests.iter().cycle().take(SLOW) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let mut quick = TcpStream::connect(address).await.unwrap();
    quick.write_all(format!("{}{body}", head(body.len())).as_bytes()).await.unwrap();
    assert!(answer(&mut quick).await.starts_with("HTTP/1.1 200 "));
    for stream in &mut slow {
        assert!(answer(stream).await.starts_with("HTTP/1.1 408 "));
    }
    lifecycle.stop();
    served.await.unwrap();
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Who waits for a run with a token that is revoked meanwhile is not told how it ended.
#[tokio::test]
async fn a_token_that_is_revoked_during_a_wait_reads_nothing_after_it() {
    let app = TestApp::demo().await;
    let started = app.acme().text("trigger_sync", json!({ "flow": "NetSuite → Snowflake invoices" })).await;
    let run = first_run(&started);
    let acme = app.store.customer_named("acme").await.unwrap().unwrap();
    let others: Vec<_> = (0..63).map(|_| app.serving().waits.begin(&acme).unwrap()).collect();
    let agent = app.acme();
    let wait = agent.call("get_run", json!({ "run_id": run, "wait_seconds": 50 }));
    let meanwhile = async {
        let mut looks = 0;
        while app.serving().waits.begin(&acme).is_some() {
            looks += 1;
            assert!(looks < 1_000, "it does not wait");
            app.column("select 'a while'").await;
        }
        app.column(
            "update tokens set revoked_at = created_at where customer_id = 'cus_acme' returning token_id",
        )
        .await;
        app.work_until_idle().await;
        drop(others);
    };
    let (told, ()) = tokio::join!(wait, meanwhile);
    assert_eq!(told.code, "TOKEN_REVOKED", "{}", told.text);
    assert!(!told.text.contains("run_"), "{}", told.text);
}

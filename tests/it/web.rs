//! The pages, as a browser meets them.

use chrono::TimeDelta;
use http::StatusCode;
use serde_json::json;

use crate::support::app::TestApp;
use crate::support::browser::{Browser, password_link, sign_in_link};

const ANA: &str = "ana.ruiz@acme.example";
const HANK: &str = "hank.scorpio@globex.example";
const PRIYA: &str = "priya.nair@acme.example";
const TOKENS: &str = "/w/acme/settings/mcp";

#[tokio::test]
async fn a_link_lets_in_once_and_by_a_click_only() {
    let app = TestApp::demo().await;
    let (browser, link) = (Browser::new(&app), sign_in_link(&app, ANA).await);
    // What looks at a link in advance does not use it up.
    assert_eq!(browser.get(&link).await.status, 200);
    assert!(browser.cookie.borrow().is_none());
    assert_eq!(browser.post(&link, &[]).await.to(), "/");
    assert_eq!(browser.get("/").await.to(), TOKENS);
    assert!(browser.get(TOKENS).await.text.contains("MCP tokens"));
    let other = Browser::new(&app);
    assert_eq!(other.post(&link, &[]).await.status, 404);
    let late = sign_in_link(&app, ANA).await;
    app.clock.advance(TimeDelta::days(2));
    assert_eq!(other.post(&late, &[]).await.status, 404);
    assert_eq!(other.post("/enter/nothing", &[]).await.status, 404);
}

#[tokio::test]
async fn a_password_is_chosen_by_link_and_ends_what_was_before() {
    let app = TestApp::demo().await;
    let before = Browser::of(&app, ANA).await;
    let (browser, link) = (Browser::new(&app), password_link(&app, ANA).await);
    assert!(browser.get(&link).await.text.contains(ANA));
    for (password, again, why) in
        [("correct horse battery", "another", "not the same"), ("short", "short", "12 to 200")]
    {
        let page = browser.post(&link, &[("password", password), ("again", again)]).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.text.contains(why), "{}", page.text);
    }
    let chosen = [("password", "correct horse battery"), ("again", "correct horse battery")];
    assert_eq!(browser.post(&link, &chosen).await.to(), "/");
    assert_eq!(browser.get(TOKENS).await.status, 200);
    assert_eq!(browser.post(&link, &chosen).await.status, 404, "it works once");
    assert_eq!(before.get(TOKENS).await.to(), "/sign-in?next=%2Fw%2Facme%2Fsettings%2Fmcp");

    let sign_in = |email: &'static str, password: &'static str| {
        let app = &app;
        async move {
            let browser = Browser::new(app);
            let form = [("email", email), ("password", password), ("next", "/w/acme/settings/connect")];
            let page = browser.post("/sign-in", &form).await;
            (page.status.as_u16(), page.to().to_owned(), page.text.replace(email, "…"))
        }
    };
    let (status, to, _) = sign_in(" Ana.Ruiz@acme.example", "correct horse battery").await;
    assert_eq!((status, to.as_str()), (303, "/w/acme/settings/connect"));
    // Who exists is not told: a wrong password, no password yet, and nobody are answered alike.
    let wrong = sign_in(ANA, "wrong horse battery").await;
    assert_eq!(wrong.0, 401);
    assert_eq!(wrong, sign_in(HANK, "wrong horse battery").await);
    assert_eq!(wrong, sign_in("nobody@example.com", "wrong horse battery").await);
    assert_eq!(wrong, sign_in("nobody", "wrong horse battery").await);
    let actions =
        app.column("select action from audit_log where action like 'user.%' order by at, audit_id").await;
    for action in ["user.signed_in", "user.password_set"] {
        assert!(actions.iter().any(|one| one == action), "{actions:?}");
    }
}

#[tokio::test]
async fn attempts_are_limited_alike_for_those_who_exist_and_those_who_do_not() {
    let app = TestApp::demo().await;
    for email in [ANA, "nobody@example.com"] {
        let mut statuses = Vec::new();
        for _ in 0..12 {
            let form = [("email", email), ("password", "guess guess guess")];
            let page = Browser::new(&app).post("/sign-in", &form).await;
            statuses.push(page.status.as_u16());
            if page.status == 429 {
                assert!(page.headers.contains_key("retry-after") && page.text.contains("Try again in"));
            }
        }
        assert_eq!(statuses, [vec![401; 10], vec![429; 2]].concat(), "{email}");
    }
}

#[tokio::test]
async fn a_session_ends_by_itself_and_everywhere() {
    let app = TestApp::demo().await;
    let (here, there) = (Browser::of(&app, ANA).await, Browser::of(&app, ANA).await);
    app.clock.advance(TimeDelta::hours(11));
    assert_eq!(here.get(TOKENS).await.status, 200, "it is used and lives on");
    app.clock.advance(TimeDelta::hours(2));
    assert_eq!(here.get(TOKENS).await.status, 200);
    assert_eq!(there.get(TOKENS).await.status, 303, "it lay idle for half a day");
    for _ in 0..20 {
        app.clock.advance(TimeDelta::hours(10));
        here.get(TOKENS).await;
    }
    assert_eq!(here.get(TOKENS).await.status, 303, "after a week it ends however it is used");

    let (here, there) = (Browser::of(&app, ANA).await, Browser::of(&app, ANA).await);
    let held = here.cookie.borrow().clone();
    assert_eq!(here.post("/sign-out", &[]).await.to(), "/sign-in");
    assert!(here.cookie.borrow().is_none());
    *here.cookie.borrow_mut() = held;
    assert_eq!(here.get(TOKENS).await.status, 303, "what the browser held opens nothing");
    assert_eq!(there.get(TOKENS).await.status, 200);
    Browser::of(&app, ANA).await.post("/sign-out", &[("everywhere", "yes")]).await;
    assert_eq!(there.get(TOKENS).await.status, 303);
}

#[tokio::test]
async fn a_session_that_somebody_else_gave_is_not_gone_on_with() {
    let app = TestApp::demo().await;
    let attacker = Browser::of(&app, HANK).await;
    let victim = Browser::new(&app);
    *victim.cookie.borrow_mut() = attacker.cookie.borrow().clone();
    let planted = victim.cookie.borrow().clone();
    victim.post(&sign_in_link(&app, ANA).await, &[]).await;
    assert_ne!(*victim.cookie.borrow(), planted);
    assert_eq!(victim.get(TOKENS).await.status, 200);
    assert_eq!(attacker.get(TOKENS).await.status, 303, "what was planted ended");
}

#[tokio::test]
async fn a_token_is_made_shown_once_used_and_revoked() {
    let app = TestApp::demo().await;
    let ana = Browser::of(&app, ANA).await;
    let form = ana.get("/w/acme/settings/mcp/new").await;
    assert!(form.text.contains("trigger_sync") && form.text.contains("90 days"));
    for (said, why) in [
        (vec![("name", " "), ("lifetime", "90"), ("reach", "all")], "1 to 200 characters"),
        (vec![("name", "x"), ("lifetime", "7"), ("reach", "all")], "when it ends"),
        (vec![("name", "x"), ("lifetime", "90"), ("reach", "chosen")], "at least one right"),
    ] {
        let page = ana.post(TOKENS, &said).await;
        assert_eq!(page.status, 422);
        assert!(page.text.contains(why), "{}", page.text);
    }
    let said = [("name", "Claude <on> Ana's laptop"), ("lifetime", "90"), ("reach", "read")];
    let made = ana.post(TOKENS, &said).await;
    assert_eq!(made.status, 200);
    let token = made.between("id=\"secret\" readonly value=\"", "\"").to_owned();
    assert_eq!(token.len(), 53);
    assert!(made.text.contains("http://localhost/mcp") && made.text.contains("claude mcp add"));
    let seen = made.between("data-seen=\"", "\"").to_owned();
    assert_eq!(ana.get(&seen).await.text, r#"{"seen":false,"client":null}"#);

    let agent = app.holder_of(&token);
    let list = agent.post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" })).await;
    let names: Vec<_> =
        list.body["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!((names.len(), names.contains(&&json!("trigger_sync"))), (10, false));
    app.settle().await;
    assert!(ana.get(&seen).await.text.starts_with(r#"{"seen":true"#));
    let page = ana.get(TOKENS).await;
    assert!(!page.text.contains(&token) && page.text.contains(&token[49..]), "only its end is shown again");
    assert!(page.text.contains("only reads") && !page.text.contains("<on>"));

    let id = seen.split('/').nth(5).unwrap();
    let revoke = format!("{TOKENS}/{id}/revoke");
    assert!(ana.get(&revoke).await.text.contains("stops working at once"));
    assert_eq!(ana.post(&revoke, &[]).await.to(), TOKENS);
    app.clock.advance(TimeDelta::seconds(2));
    let after = agent.post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" })).await;
    assert_eq!(after.status, 401);
    assert!(ana.get(TOKENS).await.text.contains("Ended tokens (1)"));
    let told = app
        .column(
            "select concat_ws(' ', actor_kind, actor_label, action) from audit_log
              where customer_id = 'cus_acme' and target_kind = 'token' order by audit_id",
        )
        .await;
    let mut ours: Vec<_> = told.iter().filter(|told| told.starts_with("user Ana Ruiz")).collect();
    ours.sort();
    assert!(ours.ends_with(&[&"user Ana Ruiz token.revoked".to_owned()]), "{told:?}");
    assert!(ours.iter().any(|told| told.ends_with("token.created")), "{told:?}");
}

#[tokio::test]
async fn nobody_reaches_beyond_their_workspaces_or_their_role() {
    let app = TestApp::demo().await;
    let (ana, priya) = (Browser::of(&app, ANA).await, Browser::of(&app, PRIYA).await);
    let absent = ana.get("/w/nowhere/settings/mcp").await;
    let foreign = ana.get("/w/globex/settings/mcp").await;
    assert_eq!((absent.status.as_u16(), absent.text), (404, foreign.text));
    assert_eq!(foreign.status, 404);
    let globex = app.column("select token_id from tokens where customer_id = 'cus_globex'").await;
    for id in [globex[0].as_str(), "mtk_nothing", "x"] {
        for page in [
            ana.get(&format!("{TOKENS}/{id}/revoke")).await,
            ana.get(&format!("{TOKENS}/{id}/seen")).await,
            ana.post(&format!("{TOKENS}/{id}/revoke"), &[]).await,
            ana.post(&format!("/w/globex/settings/mcp/{id}/revoke"), &[]).await,
        ] {
            assert_eq!(page.status, 404, "{id}");
        }
    }
    assert_eq!(app.globex().post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await.status, 200);
    // An operator of the workspace looks at tokens and makes none.
    let page = priya.get(TOKENS).await;
    assert!(page.status == 200 && !page.text.contains("New token") && !page.text.contains("/revoke"));
    let acme = app.column("select token_id from tokens where customer_id = 'cus_acme'").await;
    assert_eq!(priya.get("/w/acme/settings/mcp/new").await.status, 403);
    let said = [("name", "x"), ("lifetime", "90"), ("reach", "all")];
    assert_eq!(priya.post(TOKENS, &said).await.status, 403);
    assert_eq!(priya.post(&format!("{TOKENS}/{}/revoke", acme[0]), &[]).await.status, 403);
    // Ana only looks in Lab, and is led there from Acme.
    assert!(ana.get(TOKENS).await.text.contains("href=\"/w/lab\""));
    assert_eq!(ana.post("/w/lab/settings/mcp", &said).await.status, 403);
}

#[tokio::test]
async fn forms_of_strangers_are_refused() {
    let app = TestApp::demo().await;
    let ana = Browser::of(&app, ANA).await;
    let said = [("name", "x"), ("lifetime", "90"), ("reach", "all")];
    for site in ["cross-site", "same-site"] {
        assert_eq!(ana.post_from(TOKENS, &said, site).await.status, 403, "{site}");
        assert_eq!(ana.post_from("/sign-out", &[], site).await.status, 403, "{site}");
    }
    assert_eq!(app.column("select token_id from tokens where customer_id = 'cus_acme'").await.len(), 1);
    assert_eq!(ana.get(TOKENS).await.status, 200);
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere_and_may_be_framed_by_nobody() {
    let app = TestApp::demo().await;
    let https = TestApp::demo_with(&[("server.public_url", "https://mcp.example.com")]).await;
    let ana = Browser::of(&app, ANA).await;
    for path in ["/sign-in", TOKENS, "/w/acme/settings/mcp/new", "/w/acme/settings/connect"] {
        let page = ana.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(page.headers["cache-control"], "no-store");
        assert_eq!(page.headers["x-frame-options"], "DENY");
        assert!(page.text.len() < 60_000, "{path}: {}", page.text.len());
        for word in ["style=", "onclick", "<script>", "src=\"http", "<style"] {
            assert!(!page.text.contains(word), "{path}: {word}");
        }
        for asset in ["style.css", "script.js"] {
            let at = format!("/assets/{}/{asset}", page.between("/assets/", "/"));
            let kept = ana.get(&at).await;
            assert_eq!(kept.headers["cache-control"], "public, max-age=31536000, immutable", "{at}");
        }
    }
    let entered = Browser::of(&https, ANA).await;
    assert!(entered.cookie.borrow().as_ref().unwrap().starts_with("__Host-apixx="));
    let page = Browser::new(&https).post(&sign_in_link(&https, ANA).await, &[]).await;
    let set = page.headers["set-cookie"].to_str().unwrap();
    for word in ["HttpOnly", "SameSite=Lax", "Secure", "Path=/"] {
        assert!(set.contains(word), "{set}");
    }
    assert!(entered.get("/w/acme/settings/connect").await.text.contains("https://mcp.example.com/mcp"));
}

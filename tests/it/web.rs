//! The pages, as a browser meets them.

use std::pin::pin;

use apixx_mcp::domain::person::{Email, Role};
use apixx_mcp::domain::token::Secret;
use apixx_mcp::store::retention::Retention;
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
    assert_eq!(browser.get("/").await.to(), "/w/acme");
    assert!(browser.get(TOKENS).await.text.contains("MCP tokens"));
    let other = Browser::new(&app);
    assert_eq!(other.post(&link, &[]).await.status, 404);
    let late = sign_in_link(&app, ANA).await;
    app.clock.advance(TimeDelta::days(2));
    assert_eq!(other.post(&late, &[]).await.status, 404);
    assert_eq!(other.post("/enter/nothing", &[]).await.status, 404);
    // A link that is none leads no form of ours elsewhere.
    for link in ["/enter/nothing", "/enter/x%2F..%2F..%2Fsign-out", "/enter/%00", "/password/x%2F.."] {
        let page = browser.get(link).await;
        assert!(page.status == 404 && !page.text.contains("<form"), "{link}: {}", page.text);
    }
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
async fn what_a_stranger_says_is_not_said_again_at_length() {
    let app = TestApp::demo().await;
    let (stranger, long) = (Browser::new(&app), "'".repeat(5_000));
    let short = stranger.get("/sign-in?next=%2Fw%2Facme%3Fq%3D'").await;
    assert!(short.text.contains("/w/acme?q="), "{}", short.text);
    for path in ["/sign-in?next=", "/sign-in?next=/w/", "/w/acme/runs?cursor=", "/w/", "/"] {
        let page = stranger.get(&format!("{path}{long}")).await;
        let said: usize = page.headers.iter().map(|(_, value)| value.len()).sum();
        assert!(page.text.len() < 2 * short.text.len() && said < 2_000, "{path}: {} {said}", page.text.len());
    }
    for (email, next) in [(&*long, ""), ("", &*long)] {
        let form = [("email", email), ("password", "x"), ("next", next)];
        let page = stranger.post("/sign-in", &form).await;
        assert!(page.status == 401 && page.text.len() < 2 * short.text.len(), "{}", page.text.len());
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

    Browser::of(&app, ANA).await;
    sign_in_link(&app, ANA).await;
    app.clock.advance(TimeDelta::days(8));
    let keep = Retention { audit_days: 400, usage_days: 400, stats_days: 400 };
    app.store.purge(&keep, 1_000).await.unwrap();
    assert_eq!(app.column("select email from sessions union all select email from links").await.len(), 0);
}

#[tokio::test]
async fn a_reset_leaves_nothing_open_but_its_link() {
    let app = TestApp::demo().await;
    let ana = Email::parse(ANA).unwrap();
    let (there, chosen) =
        (Browser::new(&app), [("password", "correct horse battery"), ("again", "correct horse battery")]);
    assert_eq!(there.post(&password_link(&app, ANA).await, &chosen).await.to(), "/");
    let (before, other) = (sign_in_link(&app, ANA).await, Browser::of(&app, HANK).await);
    let (link, until) = (Secret::new(app.store.ids()), app.clock.now() + TimeDelta::days(1));
    assert!(app.store.reset_person(&link, &ana, until).await.unwrap());
    assert!(there.get(TOKENS).await.to().starts_with("/sign-in"), "the session of before");
    let browser = Browser::new(&app);
    let old = [("email", ANA), ("password", "correct horse battery")];
    assert_eq!(browser.post("/sign-in", &old).await.status, 401, "the password of before");
    assert_eq!(browser.post(&before, &[]).await.status, 404, "the links of before");
    assert_eq!(browser.post(&format!("/password/{}", link.reveal()), &chosen).await.to(), "/");
    assert_eq!(browser.get(TOKENS).await.status, 200);
    assert_eq!(other.get("/w/globex").await.status, 200, "nobody else");
    let nobody = Email::parse("nobody@example.com").unwrap();
    assert!(!app.store.reset_person(&Secret::new(app.store.ids()), &nobody, until).await.unwrap());
}

#[tokio::test]
async fn a_reset_ends_what_a_link_that_is_being_used_opens() {
    let app = TestApp::demo().await;
    let (ana, mut owner) = (Email::parse(ANA).unwrap(), app.owner().await);
    let held = "create function held() returns trigger language plpgsql as
            $$ begin perform pg_advisory_xact_lock(42); return new; end $$;
        create trigger held before insert on sessions for each row execute function held()";
    sqlx::raw_sql(held).execute(&mut owner).await.unwrap();
    let waiting = async |most: usize| {
        let waits = "select pid::text from pg_locks join pg_stat_activity a using (pid)
            where not granted and a.datname = current_database()";
        let mut looks = 0;
        while app.column(waits).await.len() < most {
            looks += 1;
            assert!(looks < 1_000, "nobody waits");
        }
    };
    let chosen = [("password", "correct horse battery"), ("again", "correct horse battery")];
    for form in [&[][..], &chosen] {
        let path =
            if form.is_empty() { sign_in_link(&app, ANA).await } else { password_link(&app, ANA).await };
        sqlx::query("select pg_advisory_lock(42)").execute(&mut owner).await.unwrap();
        let (browser, new) = (Browser::new(&app), Secret::new(app.store.ids()));
        let reset = async {
            waiting(1).await;
            let mut reset = pin!(app.store.reset_person(&new, &ana, app.clock.now() + TimeDelta::days(1)));
            let done = tokio::select! { done = &mut reset => Some(done), () = waiting(2) => None };
            sqlx::query("select pg_advisory_unlock(42)").execute(&mut owner).await.unwrap();
            let done = match done {
                Some(done) => done,
                None => reset.await,
            };
            assert!(done.unwrap());
        };
        tokio::join!(browser.post(&path, form), reset);
        assert!(browser.get(TOKENS).await.to().starts_with("/sign-in"), "{path}");
    }
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
    assert!(!ana.get(TOKENS).await.text.contains("Ending soon"));
    let said = [("name", "Claude <on> Ana's laptop"), ("lifetime", "30"), ("reach", "read")];
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

    app.clock.advance(TimeDelta::days(20));
    let ana = Browser::of(&app, ANA).await;
    assert!(ana.get(TOKENS).await.text.contains("Ending soon"));
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
async fn live_tokens_are_all_listed_and_of_the_ended_ones_the_last() {
    let app = TestApp::demo().await;
    let ana = Browser::of(&app, ANA).await;
    let live = ana.get(TOKENS).await.text.matches("class=\"card\"").count();
    let many = "with made as (
        insert into tokens (customer_id, token_id, user_id, name, digest, last_four, scopes, created_at, expires_at, revoked_at)
        select t.customer_id, 'mtk_' || n, t.user_id, 'number ' || n || ' of many', sha256(n::text::bytea), 'abcd', t.scopes,
               $1, case when n > 10 and n % 2 = 0 then $1 - make_interval(hours => n) end,
               case when n > 10 and n % 2 = 1 then $1 - make_interval(hours => n) end
          from (select * from tokens where customer_id = 'cus_acme' limit 1) t, generate_series(1, 70) n
        returning 1)
        select count(*)::text from made";
    assert_eq!(app.column(many).await, ["70"]);
    let page = ana.get(TOKENS).await.text;
    assert_eq!(page.matches("class=\"card\"").count(), live + 10);
    let shown = |n: i32| page.contains(&format!("number {n} of many"));
    assert!((1..=60).all(shown) && !(61..=70).any(shown), "{page}");
    assert!(page.contains("Ended tokens (the last 50)"), "{page}");
    let choices = ana.get("/w/acme/try").await.text;
    assert!(choices.contains("number 10 of many") && !choices.contains("number 11 of many"), "{choices}");
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
async fn who_is_taken_out_of_a_workspace_is_out_at_once() {
    let app = TestApp::demo().await;
    let (ana, priya) = (Browser::of(&app, ANA).await, Browser::of(&app, PRIYA).await);
    let acme = app.store.customer_named("acme").await.unwrap().unwrap();
    for (email, goes) in [(PRIYA, true), (PRIYA, false), (ANA, false), ("nobody@example.com", false)] {
        let mut tx = app.store.begin(&acme).await.unwrap();
        let gone = tx.remove_user(&Email::parse(email).unwrap()).await.unwrap();
        assert_eq!(gone.is_some(), goes, "{email}: a workspace keeps an owner");
        tx.commit().await.unwrap();
    }
    assert_eq!(priya.get("/w/acme").await.status, 404);
    assert_eq!(priya.get("/").await.status, 404, "signed in, and nowhere at home");
    assert_eq!(ana.get("/w/acme").await.status, 200);
    let mut tx = app.store.begin(&acme).await.unwrap();
    tx.put_user(PRIYA, None, Role::Viewer).await.unwrap();
    tx.commit().await.unwrap();
    let page = priya.get("/w/acme").await;
    assert!(page.text.contains("Priya Nair") && page.text.contains("viewer"), "her name stays");
}

#[tokio::test]
async fn words_of_customers_show_no_marks_for_models() {
    let app = TestApp::demo().await;
    let name = "Orders – EU; \"all\" of them, and then <b>some</b>";
    let rename = "update flows set name = $1 where flow_id = 'flow_order_lines'";
    sqlx::query(rename).bind(name).execute(&mut app.owner().await).await.unwrap();
    let ana = Browser::of(&app, ANA).await;
    for path in ["/w/acme/flows", "/w/acme/flows/flow_order_lines"] {
        let page = ana.get(path).await;
        assert!(page.text.contains("Orders – EU; "), "{}", page.text);
        assert!(!page.text.contains("&#60;&#60;data") && !page.text.contains("<b>some"), "{}", page.text);
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_and_no_fault_of_ours() {
    let app = TestApp::demo().await;
    let ana = Browser::of(&app, ANA).await;
    for path in [
        "/w/%00",
        "/w/acme/audit?id=%00&at=x",
        "/w/acme/audit?at=-9999-01-01T00:00:00Z",
        "/w/acme/audit?at=%2B262142-12-31T23:59:59Z",
        "/w/acme/flows?query=%00",
        "/w/acme/connectors?query=zzz",
    ] {
        let page = ana.get(path).await;
        assert!(page.status.as_u16() < 500, "{path}: {}", page.status);
    }
    let said = [("name", "a\0b"), ("lifetime", "90"), ("reach", "all")];
    assert_eq!(ana.post(TOKENS, &said).await.status, 422);
    let paused = [("state", "paused"), ("reason", "a\0b")];
    assert_eq!(ana.post("/w/acme/flows/flow_order_lines", &paused).await.status, 303);
    let form = [("email", "a\0b@example.com"), ("password", "a\0b")];
    assert_eq!(Browser::new(&app).post("/sign-in", &form).await.status, 401);
}

#[tokio::test]
async fn one_workspace_takes_no_more_than_its_share_by_pages() {
    let app = TestApp::demo().await;
    let ana = Browser::of(&app, ANA).await;
    let acme = app.store.customer_named("acme").await.unwrap().unwrap();
    let under_way: Vec<_> = (0..256).map(|_| app.access().enter(&acme).unwrap()).collect();
    let refused = ana.get("/w/acme").await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after") && refused.text.contains("Too much at once"));
    assert_eq!(Browser::of(&app, HANK).await.get("/w/globex").await.status, 200);
    drop(under_way);
    // A run that waits, and 64 who watch it.
    let call = [("tool", "trigger_sync"), ("arguments", r#"{"flow":"NetSuite → Snowflake invoices"}"#)];
    let tried = ana.post("/w/acme/try", &call).await;
    let events = format!("/w/acme/runs/run_{}/events", tried.between("Started run_", " "));
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(ana.open(&events).await);
    }
    assert!(streams.iter().all(|stream| stream.status() == 200));
    assert_eq!(ana.get(&events).await.status, 429);
    drop(streams);
    assert_eq!(ana.open(&events).await.status(), 200);
}

#[tokio::test]
async fn tools_that_are_tried_draw_on_the_plan() {
    let app = TestApp::demo().await;
    let ana = Browser::of(&app, ANA).await;
    let small = "update plans set burst = 2, requests_per_minute = 1, daily_requests = null";
    sqlx::query(small).execute(&mut app.owner().await).await.unwrap();
    sqlx::query("delete from allowances").execute(&mut app.owner().await).await.unwrap();
    for expected in [200, 200, 429] {
        assert_eq!(ana.post("/w/acme/try", &[("tool", "list_flows")]).await.status.as_u16(), expected);
    }
    assert_eq!(ana.get("/w/acme").await.status, 200, "pages draw nothing");
}

#[tokio::test]
async fn forms_of_strangers_are_refused() {
    let app = TestApp::demo().await;
    let ana = Browser::of(&app, ANA).await;
    let said = [("name", "x"), ("lifetime", "90"), ("reach", "all")];
    for site in ["cross-site", "same-site"] {
        let refused = ana.post_from(TOKENS, &said, site).await;
        assert!(
            refused.status == 403 && refused.text.contains("Nothing was done"),
            "{site}: {}",
            refused.text
        );
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

#[tokio::test]
async fn the_workspace_at_a_glance_says_what_the_tools_say() {
    let app = TestApp::demo().await;
    let ana = Browser::of(&app, ANA).await;
    let health = app.acme().call("get_system_health", json!({})).await;
    let overview = ana.get("/w/acme").await;
    assert_eq!(overview.status, 200);
    let headline = health.structured["headline"].as_str().unwrap();
    let headline = headline.replace("<<data ", "").replace(" data>>", "");
    assert!(overview.text.contains(&headline), "{headline}\n{}", overview.text);
    let causes = health.structured["attention"].as_array().unwrap();
    for cause in causes.iter().filter(|cause| cause["kind"] != "platform") {
        assert!(overview.text.contains(cause["id"].as_str().unwrap()), "{cause}");
    }
    let flows = ana.get("/w/acme/flows").await;
    assert!(flows.text.contains("12 flows") && flows.text.contains("Postgres → Snowflake order lines"));
    let found = ana.get("/w/acme/flows?query=loyalty").await;
    assert!(found.text.contains("MongoDB loyalty") && !found.text.contains("order lines"));
    let flow = ana.get("/w/acme/flows/flow_shopify_orders").await;
    assert!(flow.text.contains("rejected 23 of 1140 records") && flow.text.contains("Pause this flow"));
    let run = flow.between("href=\"/w/acme/runs/", "\"").to_owned();
    let page = ana.get(&format!("/w/acme/runs/{run}")).await;
    assert!(page.text.contains("23 failed") && page.text.contains("REFERENCE: 16"), "{}", page.text);
    assert!(!page.text.contains("&#60;&#60;data"), "fences are for models");
    let connectors = ana.get("/w/acme/connectors").await;
    assert!(connectors.text.contains("graphql_cost") && connectors.text.contains("92 % used"));
    app.settle().await;
    let usage = ana.get("/w/acme/usage").await;
    assert!(usage.text.contains("get_system_health") && usage.text.contains("0 requests were refused"));
    assert!(flows.text.contains("oldest first: "), "how the last runs of each flow ended");
    assert!(ana.get("/w/acme/audit").await.text.contains("user.signed_in"));
    for path in
        ["/w/acme", "/w/acme/flows", "/w/acme/connectors", "/w/acme/usage", "/w/acme/audit", "/w/acme/try"]
    {
        let page = ana.get(path).await;
        assert!(page.text.len() < 60_000, "{path}: {}", page.text.len());
        let elsewhere = path.replace("acme", "globex");
        assert_eq!(ana.get(&elsewhere).await.status, 404, "{elsewhere}");
    }
    for path in ["flows/flow_nothing", "flows/x", "runs/run_nothinglikethat", "runs/x"] {
        let absent = ana.get(&format!("/w/acme/{path}")).await;
        assert_eq!(absent.status, 404, "{path}");
    }
    let globex = app.column("select run_id from runs where customer_id = 'cus_globex' limit 1").await;
    assert_eq!(ana.get(&format!("/w/acme/runs/{}", globex[0])).await.status, 404);
    assert_eq!(ana.get(&format!("/w/acme/runs/{}/events", globex[0])).await.status, 404);
}

/// Hours are those of UTC, which begin at half past in some zones.
#[tokio::test]
async fn the_last_day_is_drawn_hour_by_hour_in_any_zone() {
    let app = TestApp::demo().await;
    for zone in ["Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns"] {
        let live = "update customers set timezone = $1 where customer_id = 'cus_acme'";
        sqlx::query(live).bind(zone).execute(&mut app.owner().await).await.unwrap();
        let page = Browser::of(&app, ANA).await.get("/w/acme").await;
        let by_hour = json!({ "group_by": "hour", "limit": 0, "timezone": zone });
        let told = app.acme().call("list_runs", by_hour).await;
        let groups = told.structured["groups"].as_array().unwrap();
        assert!(groups.len() > 20, "{zone}: {}", told.text);
        for group in groups {
            let row = format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
                group["label"].as_str().unwrap(),
                group["succeeded"],
                group["partial"],
                group["failed"]
            );
            assert!(page.text.contains(&row), "{zone}: {row}\n{}", page.text);
        }
    }
}

#[tokio::test]
async fn flows_are_paused_and_runs_cancelled_by_those_who_operate() {
    let app = TestApp::demo().await;
    let (ana, priya) = (Browser::of(&app, ANA).await, Browser::of(&app, PRIYA).await);
    let at = "/w/acme/flows/flow_order_lines";
    let paused = priya.post(at, &[("state", "paused"), ("reason", "<b>month end</b>")]).await;
    assert_eq!(paused.to(), at);
    let page = ana.get(at).await;
    assert!(page.text.contains("paused by Priya Nair") && !page.text.contains("<b>month"), "{}", page.text);
    let waiting = "select reason_message from runs where flow_id = 'flow_order_lines' and status = 'cancelled' and cancel_requested_by is not null";
    assert_eq!(app.column(waiting).await, ["cancelled by Priya Nair"]);
    assert_eq!(priya.post(at, &[("state", "paused")]).await.status, 303, "as it is already");
    assert_eq!(priya.post(at, &[("state", "archived")]).await.status, 404);
    priya.post(at, &[("state", "active")]).await;
    assert!(ana.get(at).await.text.contains("Pause this flow"));

    let call = [("tool", "trigger_sync"), ("arguments", r#"{"flow":"NetSuite → Snowflake invoices"}"#)];
    let tried = priya.post("/w/acme/try", &call).await;
    let run = format!("run_{}", tried.between("Started run_", " "));
    assert!(
        app.column(&format!("select trigger || ' ' || triggered_by from runs where run_id = '{run}'")).await
            [0]
        .starts_with("manual Priya Nair")
    );
    let page = priya.get(&format!("/w/acme/runs/{run}")).await;
    assert!(page.text.contains("Cancel this run") && page.text.contains("data-live"));
    for _ in 0..2 {
        priya.post(&format!("/w/acme/runs/{run}/cancel"), &[]).await;
    }
    let told = format!(
        "select actor_label from audit_log where action = 'run.cancel_requested' and target_id = '{run}'"
    );
    assert_eq!(app.column(&told).await, ["Priya Nair"], "once, though it waited and was asked twice");
    let page = priya.get(&format!("/w/acme/runs/{run}")).await;
    assert!(page.text.contains("cancelled") && !page.text.contains("Cancel this run"));
    let events = priya.get(&format!("/w/acme/runs/{run}/events")).await;
    assert!(events.text.starts_with("event: done"), "{}", events.text);
    assert_eq!(priya.post("/w/acme/runs/run_nothinglikethat/cancel", &[]).await.status, 404);

    // Who only looks changes nothing: Ana in Lab.
    for (path, form) in [
        ("/w/lab/flows/flow_anything", vec![("state", "paused")]),
        ("/w/lab/runs/run_nothinglikethat/cancel", vec![]),
    ] {
        assert_eq!(ana.post(path, &form).await.status, 403, "{path}");
    }
    let lab = app.column("select name from flows where customer_id = 'cus_lab' order by 1").await;
    let call = [("tool", "trigger_sync"), ("arguments", &*format!(r#"{{"flow":"{}"}}"#, lab[0]))];
    assert!(ana.post("/w/lab/try", &call).await.text.contains("INSUFFICIENT_SCOPE"));
}

#[tokio::test]
async fn a_tool_is_tried_with_no_more_than_the_token_may() {
    let app = TestApp::demo().await;
    let ana = Browser::of(&app, ANA).await;
    let made = ana.post(TOKENS, &[("name", "reader"), ("lifetime", "30"), ("reach", "read")]).await;
    let id = made.between("data-seen=\"", "/seen").rsplit('/').next().unwrap().to_owned();
    let call = |token: String, tool: &'static str, arguments: &'static str| {
        let ana = &ana;
        async move {
            ana.post("/w/acme/try", &[("token", &token), ("tool", tool), ("arguments", arguments)]).await
        }
    };
    let shown = call(id.clone(), "list_flows", r#"{"query":"loyalty"}"#).await;
    assert!(shown.text.contains("MongoDB loyalty") && shown.text.contains("structured answer"));
    assert!(shown.text.contains("tools/call") && shown.text.contains("tokens."));
    let refused = call(id.clone(), "trigger_sync", r#"{"flow":"x"}"#).await;
    assert!(refused.text.contains("INSUFFICIENT_SCOPE"));
    assert!(call(id, "list_flows", "[]").await.text.contains("one JSON object"));
    assert!(call(String::new(), "list_flows", r#"{"zzz":1}"#).await.text.contains("there is no argument"));
    assert_eq!(call("mtk_nothing".to_owned(), "list_flows", "").await.status, 404);
    assert_eq!(call(String::new(), "drop_table", "").await.status, 404);
}

#[tokio::test]
async fn what_no_page_of_ours_sends_is_refused_in_our_words() {
    let app = TestApp::demo().await;
    let browser = Browser::new(&app);
    let half = browser.post("/sign-in", &[("email", "ana@example.com")]).await;
    let wrong_way = browser.get("/sign-out").await;
    for (page, status) in [(&half, 422), (&wrong_way, 405)] {
        assert_eq!(page.status, status);
        assert!(
            page.text.contains("That could not be read") && !page.text.contains("missing field"),
            "{}",
            page.text
        );
    }
    assert_eq!(wrong_way.headers["allow"], "POST");
}

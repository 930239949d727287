//! Between customers: a stranger cannot tell another customer's thing from one that never was, and each of the
//! two locks, types and row-level security, holds alone.

use apixx_mcp::protocol::{CallError, CallTool, Exchange, Revision, Server};
use apixx_mcp::service::Serving;
use apixx_mcp::service::access::{Access, Wants};
use apixx_mcp::store::{Store, all_statements};
use apixx_mcp::tools::{ToolServer, catalog};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions};

use crate::support::app::TestApp;

/// Acme's things, and things nobody ever had, of the same length.
struct Names {
    flow: &'static str,
    run: &'static str,
    connector: &'static str,
}

const THEIRS: Names = Names { flow: "flow_hubspot_deals", run: "run_abc123", connector: "con_hubspot" };
const NOBODYS: Names = Names { flow: "flow_nothing_there", run: "run_xyz789", connector: "con_nothing" };

/// Calls that name something, for each tool that can name anything.
fn naming_cases(tool: &str, names: &Names) -> Vec<Value> {
    let Names { flow, run, connector } = names;
    match tool {
        "list_flows" => vec![json!({ "connector": connector })],
        "get_flow" | "get_flow_mappings" | "list_flow_runs" | "get_flow_error_summary" => {
            vec![json!({ "flow": flow })]
        }
        "list_runs" => vec![json!({ "flow": flow }), json!({ "connector": connector })],
        "get_run" => vec![json!({ "run_id": run }), json!({ "run_id": run, "wait_seconds": 1 })],
        "get_run_errors" => vec![json!({ "run_id": run })],
        "list_connectors" => vec![json!({ "query": connector })],
        "trigger_sync" => vec![
            json!({ "flow": flow }),
            json!({ "flow": "Salesforce → Snowflake accounts", "retry_of": run }),
        ],
        "get_system_health" => vec![],
        other => panic!("{other} has no isolation case: add one here"),
    }
}

/// An answer with what was asked for blotted out.
fn blotted(text: &str, names: &Names) -> String {
    [names.flow, names.run, names.connector]
        .iter()
        .fold(text.to_owned(), |text, name| text.replace(name, "█"))
}

#[tokio::test]
async fn a_stranger_cannot_tell_absent_from_forbidden() {
    let app = TestApp::demo().await;
    let mut compared = 0;
    for entry in catalog().entries() {
        let cases = naming_cases(entry.name, &THEIRS).into_iter().zip(naming_cases(entry.name, &NOBODYS));
        for (theirs, nobodys) in cases {
            let message = |arguments: &Value| json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": entry.name, "arguments": arguments } });
            let theirs = app.globex().post(&message(&theirs)).await;
            let nobodys = app.globex().post(&message(&nobodys)).await;
            assert_eq!(
                blotted(&String::from_utf8(theirs.bytes).unwrap(), &THEIRS),
                blotted(&String::from_utf8(nobodys.bytes).unwrap(), &NOBODYS),
                "{} tells a stranger something",
                entry.name
            );
            assert_eq!(theirs.status, nobodys.status);
            compared += 1;
        }
    }
    assert!(compared >= 12, "{compared}");
    // The same calls do mean something to their owner.
    assert!(!app.acme().call("get_run", json!({ "run_id": THEIRS.run })).await.is_error);
    assert!(!app.acme().call("get_flow", json!({ "flow": THEIRS.flow })).await.is_error);
}

#[tokio::test]
async fn a_strangers_lists_hold_nothing_of_ours() {
    let app = TestApp::demo().await;
    let ours = app.column("select flow_id from flows where customer_id = 'cus_acme' union select connector_id from connectors where customer_id = 'cus_acme'").await;
    let runs = app.column("select run_id from runs where customer_id = 'cus_acme'").await;
    for (tool, arguments) in [
        ("list_flows", json!({ "limit": 200 })),
        ("list_connectors", json!({ "limit": 200 })),
        ("list_runs", json!({ "limit": 100, "window": "30d", "group_by": "flow" })),
        ("get_system_health", json!({ "window": "30d" })),
    ] {
        let told = app.globex().call(tool, arguments).await;
        let all = format!("{} {}", told.text, told.structured);
        for id in ours.iter().chain(&runs) {
            assert!(!all.contains(id.as_str()), "{tool} shows {id}");
        }
    }
}

#[tokio::test]
async fn a_cursor_continues_only_its_own_query_of_its_own_customer() {
    let app = TestApp::demo().await;
    let first = app.acme().call("list_runs", json!({ "window": "30d", "limit": 2 })).await;
    let cursor = first.structured["next_cursor"].as_str().unwrap().to_owned();
    let next = app.acme().call("list_runs", json!({ "window": "30d", "limit": 2, "cursor": cursor })).await;
    assert_ne!(next.structured["runs"][0]["run_id"], first.structured["runs"][0]["run_id"]);
    for (agent, arguments) in [
        (app.globex(), json!({ "window": "30d", "limit": 2, "cursor": cursor })),
        (app.acme(), json!({ "window": "7d", "limit": 2, "cursor": cursor })),
        (app.acme(), json!({ "window": "30d", "status": ["failed"], "cursor": cursor })),
        (app.acme(), json!({ "window": "30d", "cursor": format!("{cursor}A") })),
    ] {
        let told = agent.call("list_runs", arguments).await;
        assert!(
            told.is_error && told.text.contains("the cursor does not belong to this query"),
            "{}",
            told.text
        );
        assert_eq!(told.code, "INVALID_ARGUMENTS");
    }
}

/// Row-level security alone: the statement asks for Acme's rows by name while the setting names Globex.
#[tokio::test]
async fn row_level_security_holds_without_the_types() {
    let app = TestApp::demo().await;
    let tables = app
        .column(
            "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'customer_id'
              where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace order by 1",
        )
        .await;
    assert!(tables.len() >= 18, "{tables:?}");
    let mut server = app.database.server.connect().await.unwrap();
    let mut filled = 0;
    for table in tables {
        for (setting, sees) in [("cus_globex", false), ("", false), ("cus_acme", true)] {
            let sql = format!(
                "with s as materialized (select set_config('app.customer_id', $1, true) as id)
                 select q.n from s cross join lateral (select count(*) as n from {table} where customer_id = 'cus_acme' and s.id is not null offset 0) q"
            );
            let count: i64 =
                sqlx::query_scalar(AssertSqlSafe(sql)).bind(setting).fetch_one(&mut server).await.unwrap();
            assert!(sees || count == 0, "{table} shows {count} rows to `{setting}`");
            filled += i64::from(sees && count > 0);
        }
    }
    assert!(filled >= 14, "the demo fills the tables, or this proves nothing: {filled}");
    // Nor may a row be made for somebody else.
    sqlx::query("select set_config('app.customer_id', 'cus_globex', false)")
        .execute(&mut server)
        .await
        .unwrap();
    let refused = sqlx::query("insert into users (customer_id, user_id, email, name, role, created_at) values ('cus_acme', 'usr_intruder', 'x@y.example', 'X', 'owner', '2026-01-01')").execute(&mut server).await;
    assert!(refused.unwrap_err().to_string().contains("row-level security"));
}

/// Types alone: the owner of the tables is not held by row-level security, and still each caller sees their own.
#[tokio::test]
async fn the_types_hold_without_row_level_security() {
    let app = TestApp::demo().await;
    let wait = std::time::Duration::from_secs(10);
    let ids = app.store.ids().clone();
    let store = Store::connect(&app.database.owner, 1, wait, app.clock.clone(), ids).await.unwrap();
    assert!(store.role().await.unwrap().may_bypass(), "the server itself refuses to serve like this");
    let access = Access::new(store.clone(), std::num::NonZeroU32::new(10).unwrap());
    let cursors = store.cursor_key().await.unwrap();
    let serving = Serving { store, cursors, ..app.serving().clone() };
    let server = ToolServer::new(serving, access.clone(), 4);
    let stranger = access.recognise(Some(&app.globex().token()), None, Wants::Service).await.unwrap();
    let exchange = Exchange::unheard("request", Revision::V2025_11_25);
    for entry in catalog().entries() {
        for arguments in naming_cases(entry.name, &THEIRS) {
            let Value::Object(arguments) = arguments else { panic!() };
            let call = CallTool { name: entry.name.to_owned(), arguments };
            let answer = match server.call_tool(&stranger, call, &exchange).await {
                Ok(answer) => answer,
                Err(CallError::InvalidArguments { answer, .. }) => answer,
                Err(error) => panic!("{}: {error:?}", entry.name),
            };
            let empty = answer.structured.as_ref().is_some_and(|all| all.get().contains("\"total\":0"));
            assert!(answer.is_error || empty, "{} answered a stranger", entry.name);
        }
    }
}

/// What was recognised a moment ago reads nothing once it is revoked, and is told so.
#[tokio::test]
async fn a_token_revoked_meanwhile_is_told_so() {
    let app = TestApp::demo().await;
    assert!(!app.globex().call("list_flows", json!({})).await.is_error);
    let revoke = "update tokens set revoked_at = $1 where customer_id = 'cus_globex'";
    sqlx::query(revoke).bind(app.clock.now()).execute(&mut app.owner().await).await.unwrap();
    for tool in ["list_flows", "list_runs", "get_system_health"] {
        let told = app.globex().call(tool, json!({})).await;
        assert!(told.is_error && told.text.starts_with("TOKEN_REVOKED: "), "{tool}: {}", told.text);
    }
    let told = app.globex().call("trigger_sync", json!({ "flow": "Salesforce → Snowflake accounts" })).await;
    assert!(told.is_error, "{}", told.text);
    let runs: (i64,) =
        app.row("select count(*) from runs where customer_id = 'cus_globex' and queued_at = $1").await;
    assert_eq!(runs.0, 0);
}

/// The doors across customers take operators and types from nowhere else, whatever the caller's search path says: all set
/// their own, and that of tokens, which is a view, was read with its own.
#[tokio::test]
async fn no_search_path_opens_a_door() {
    let app = TestApp::demo().await;
    let without =
        "select proname::text from pg_proc where prosecdef and pronamespace = 'public'::regnamespace
                      and not coalesce('search_path=pg_catalog, pg_temp' = any (proconfig), false)";
    assert!(app.column(without).await.is_empty());
    let trap = "create schema trap;
        create function trap.yes(bytea, bytea) returns boolean language sql as 'select true';
        create operator trap.= (leftarg = bytea, rightarg = bytea, function = trap.yes);
        create domain trap.text as integer;
        grant usage on schema trap to public";
    sqlx::raw_sql(trap).execute(&mut app.owner().await).await.unwrap();
    let mut server = app.database.server.connect().await.unwrap();
    sqlx::raw_sql("set search_path = trap, pg_catalog, public").execute(&mut server).await.unwrap();
    let fooled: bool =
        sqlx::query_scalar("select 'a'::bytea = 'b'::bytea").fetch_one(&mut server).await.unwrap();
    assert!(fooled, "the trap is set, or this proves nothing");
    let enter = *all_statements().iter().find(|text| text.ends_with("select id from caller")).unwrap();
    let live: (Vec<u8>,) = app.row("select digest from tokens where customer_id = 'cus_acme' and revoked_at is null and expires_at is null limit 1").await;
    for (digest, enters) in [(&b"made up"[..], false), (&live.0[..], true)] {
        let entered: Result<String, _> = sqlx::query_scalar(enter)
            .bind("cus_acme")
            .bind(digest)
            .bind(app.clock.now())
            .fetch_one(&mut server)
            .await;
        match entered {
            Ok(customer) => assert!(enters && customer == "cus_acme", "{customer}"),
            Err(error) => assert!(!enters && error.to_string().contains("not live"), "{error}"),
        }
    }
}

/// Who presents a token opens the door of its customer; nobody looks through it at the others.
#[tokio::test]
async fn a_token_shows_its_own_customer_only() {
    let app = TestApp::demo().await;
    let mut server = app.database.server.connect().await.unwrap();
    let live: Vec<(String, String)> =
        sqlx::query_as("select customer_id, encode(digest, 'hex') from tokens where revoked_at is null")
            .fetch_all(&mut app.owner().await)
            .await
            .unwrap();
    assert!(live.len() >= 3);
    let nothing: Vec<String> =
        sqlx::query_scalar("select customer_id from live_token").fetch_all(&mut server).await.unwrap();
    assert!(nothing.is_empty());
    for (customer, digest) in live {
        sqlx::query("select set_config('app.token', $1, false)")
            .bind(digest)
            .execute(&mut server)
            .await
            .unwrap();
        let shown: Vec<String> =
            sqlx::query_scalar("select customer_id from live_token").fetch_all(&mut server).await.unwrap();
        assert_eq!(shown, [customer]);
    }
    for write in ["delete from live_token", "insert into live_token values ('cus_acme', null)"] {
        assert!(sqlx::query(write).execute(&mut server).await.is_err(), "{write}");
    }
}

/// No key of a customer's rows could name another customer's: each begins with the customer, but for these.
#[tokio::test]
async fn every_key_begins_with_the_customer() {
    let app = TestApp::demo().await;
    let unique = app
        .column(
            "select i.relname::text
               from pg_index x
               join pg_class i on i.oid = x.indexrelid
               join pg_class t on t.oid = x.indrelid
               join pg_attribute a on a.attrelid = t.oid and a.attname = 'customer_id'
              where t.relnamespace = 'public'::regnamespace and x.indisunique and x.indkey[0] <> a.attnum
              order by 1",
        )
        .await;
    // Both are looked up before the customer is known.
    assert_eq!(unique, ["customers_slug_key", "tokens_digest_key"]);
    let foreign = app
        .column(
            "select c.conname::text
               from pg_constraint c
               left join pg_attribute a on a.attrelid = c.conrelid and a.attname = 'customer_id'
               left join pg_attribute b on b.attrelid = c.confrelid and b.attname = 'customer_id'
              where c.connamespace = 'public'::regnamespace and c.contype = 'f' and coalesce(a.attnum, b.attnum) is not null
                and (c.conkey[1], c.confkey[1]) is distinct from (a.attnum, b.attnum)
              order by 1",
        )
        .await;
    // Plans and people belong to no customer.
    assert_eq!(foreign, ["customers_plan_code_fkey", "users_email_fkey"]);
    let keyless = app
        .column(
            "select t.relname::text
               from pg_class t
               join pg_attribute a on a.attrelid = t.oid and a.attname = 'customer_id'
              where t.relnamespace = 'public'::regnamespace and t.relkind in ('r', 'p')
                and not exists (select from pg_index x where x.indrelid = t.oid and x.indisprimary)",
        )
        .await;
    assert!(keyless.is_empty(), "{keyless:?}");
}

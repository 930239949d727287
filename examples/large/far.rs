//! Places far on in lists.

use apixx_mcp::domain::ids::CustomerId;
use apixx_mcp::domain::page::CursorKey;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::gates::Further;
use super::probe::Probe;
use super::seed::{self, DEEP, WIDE};

/// Hundreds of pages, with every kind of filter. `run` is a run of the deep workspace with errors.
pub async fn on(probe: &Probe, conn: &mut PgConnection, run: &str) -> Vec<Further> {
    let mut further = sealed(conn).await;
    let hot = seed::flow_name(0);
    for (at, arguments, pages) in [
        ((DEEP, "list_flow_runs", "far on"), json!({ "flow": hot, "limit": 50 }), 200),
        (
            (DEEP, "list_flow_runs", "90d, retries, far on"),
            json!({ "flow": hot, "window": "90d", "trigger": ["retry"], "limit": 1 }),
            200,
        ),
        (
            (DEEP, "list_flow_runs", "90d, partial, far on"),
            json!({ "flow": hot, "window": "90d", "status": ["partial"], "limit": 20 }),
            200,
        ),
        (
            (DEEP, "list_runs", "90d, one flow, far on"),
            json!({ "window": "90d", "flow": hot, "limit": 20 }),
            200,
        ),
        (
            (DEEP, "list_runs", "90d, one connector, far on"),
            json!({ "window": "90d", "connector": "HubSpot 0", "limit": 20 }),
            200,
        ),
        (
            (DEEP, "list_runs", "90d, partial, far on"),
            json!({ "window": "90d", "status": ["partial"], "limit": 20 }),
            200,
        ),
        (
            (DEEP, "list_runs", "90d, retries, far on"),
            json!({ "window": "90d", "trigger": ["retry"], "limit": 5 }),
            200,
        ),
        (
            (WIDE, "list_runs", "90d, failed, far on"),
            json!({ "window": "90d", "status": ["failed"], "limit": 20 }),
            200,
        ),
        ((WIDE, "list_flows", "far on"), json!({ "limit": 200 }), 20),
        ((DEEP, "get_run_errors", "far on"), json!({ "run_id": run, "limit": 100, "group_by": "none" }), 5),
    ] {
        further.push(turned(probe, at, arguments, pages).await);
    }
    further
}

/// Places after the first, the thousandth and the last but thousandth run of the deep workspace, sealed as the
/// product seals them.
async fn sealed(conn: &mut PgConnection) -> Vec<Further> {
    let key: Vec<u8> =
        sqlx::query_scalar("select cursor_key from installation").fetch_one(&mut *conn).await.unwrap();
    let key = CursorKey::new(&key.try_into().unwrap());
    let customer = CustomerId::parse(&seed::customer_id(seed::DEEP)).unwrap();
    let count: i64 =
        sqlx::query_scalar("select count(*) from runs where customer_id = $1 and finished_at is not null")
            .bind(customer.as_str())
            .fetch_one(&mut *conn)
            .await
            .unwrap();
    let mut cursors = Vec::new();
    let depths =
        [(1, "after one"), (1_000, "after a thousand"), (count - 1_000, "a thousand before the end")];
    for (depth, name) in depths {
        let (at, run): (chrono::DateTime<chrono::Utc>, String) = sqlx::query_as(
            "select window_at, run_id from runs where customer_id = $1 and finished_at is not null
              order by window_at desc, run_id desc limit 1 offset $2",
        )
        .bind(customer.as_str())
        .bind(depth)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        let filters = r#"{"status":null,"flow":null,"connector":null,"trigger":null,"window":"90d","since":null,"until":null,"timezone":null,"group_by":"none"}"#;
        let position = json!([at.to_rfc3339(), run]).to_string();
        let cursor = key.seal(&customer, &format!("list_runs{filters}"), &position);
        let arguments = json!({ "window": "90d", "cursor": cursor });
        cursors.push(Further {
            place: seed::DEEP,
            tool: "list_runs",
            name: format!("90d, {name}"),
            arguments,
        });
    }
    cursors
}

/// A list after so many pages, or on its last one if that comes before.
async fn turned(
    probe: &Probe,
    (place, tool, name): (usize, &'static str, &str),
    mut arguments: Value,
    pages: usize,
) -> Further {
    let mut turned = 0;
    while turned < pages {
        let (text, typed, failed) = probe.call(place, tool, &arguments).await;
        assert!(!failed, "{tool} {arguments}: {text}");
        let Some(cursor) = typed["next_cursor"].as_str() else { break };
        arguments["cursor"] = cursor.into();
        turned += 1;
    }
    assert!(turned > 0, "{tool} {arguments} has one page");
    eprintln!("{tool} {name}: {turned} pages");
    // As many at a time as usual.
    arguments.as_object_mut().unwrap().remove("limit");
    Further { place, tool, name: name.to_owned(), arguments }
}

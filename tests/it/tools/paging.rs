//! Pages that follow one another while things move.

use serde_json::{Value, json};

use crate::support::app::TestApp;

/// A page goes on after the place that the last one had when it was shown, wherever it is by then.
#[tokio::test]
async fn a_connector_whose_status_moves_between_two_pages_takes_no_other_with_it() {
    let filters = json!({ "status": ["down", "degraded", "healthy"], "limit": 2 });
    for moved_to in ["healthy", "disabled", "down"] {
        let app = TestApp::demo().await;
        let first = app.acme().call("list_connectors", filters.clone()).await;
        let last = ids(&first.structured).pop().unwrap();
        app.rows::<(String,)>(&format!(
            "update connectors set status = '{moved_to}'
              where customer_id = 'cus_acme' and connector_id = '{last}' and $1::timestamptz is not null
              returning connector_id"
        ))
        .await;
        let mut rest = Vec::new();
        let mut cursor = first.structured["next_cursor"].clone();
        while cursor.is_string() {
            let mut arguments = filters.clone();
            arguments["cursor"] = cursor;
            let page = app.acme().call("list_connectors", arguments).await;
            rest.extend(ids(&page.structured));
            cursor = page.structured["next_cursor"].clone();
        }
        rest.retain(|id| *id != last);
        let healthy: Vec<String> = app
            .column(&format!(
                "select connector_id from connectors
                  where customer_id = 'cus_acme' and status = 'healthy' and connector_id <> '{last}'
                  order by lower(name) collate \"C\""
            ))
            .await;
        assert_eq!(rest, healthy, "moved to {moved_to}");
    }
}

fn ids(structured: &Value) -> Vec<String> {
    let listed = structured["connectors"].as_array().unwrap();
    listed.iter().map(|connector| connector["id"].as_str().unwrap().to_owned()).collect()
}

/// A further page has records whatever was asked for beside its cursor, and the last one says that the others are not kept.
#[tokio::test]
async fn the_records_of_a_run_are_told_to_the_last_that_is_kept() {
    let app = TestApp::demo().await;
    let asked = json!({ "run_id": "run_abc123", "limit": 5 });
    let mut told = app.acme().call("get_run_errors", asked).await;
    let mut seen = Vec::new();
    loop {
        let errors = told.structured["errors"].as_array().unwrap_or_else(|| panic!("{}", told.text));
        seen.extend(errors.iter().map(|error| error["error_id"].as_str().unwrap().to_owned()));
        let cursor = told.structured["next_cursor"].clone();
        assert_eq!(told.text.contains("no more records"), cursor.is_null(), "{}", told.text);
        if cursor.is_null() {
            break;
        }
        told = app.acme().call("get_run_errors", json!({ "run_id": "run_abc123", "cursor": cursor })).await;
    }
    let kept = app
        .column("select error_id from run_errors where run_id = 'run_abc123' order by occurred_at, error_id")
        .await;
    assert!(kept.len() > 10, "{kept:?}");
    assert_eq!(seen, kept);
    let note = format!("\nNote: no more records: {} of 1,203 are kept as samples.\n", kept.len());
    assert!(told.text.contains(&note), "{}", told.text);
}

/// Groups that the text has no room for are in the JSON; what the fifty leave is told in both.
#[tokio::test]
async fn groups_that_the_text_leaves_out_are_counted_in_it_alone() {
    let app = TestApp::demo().await;
    // Larger figures are longer rows.
    let more = "update run_stats set records_read = records_read * 1000000, records_written = records_written * 1000000,
                       records_skipped = records_skipped * 1000000";
    sqlx::query(more).execute(&mut app.owner().await).await.unwrap();
    let asked = json!({ "window": "30d", "group_by": "hour", "limit": 0 });
    let told = app.acme().call("list_runs", asked).await;
    let groups = told.structured["groups"].as_array().unwrap();
    assert_eq!((groups.len(), &groups[50]["key"]), (51, &json!("other")));
    let shown =
        groups[..50].iter().filter(|group| told.text.contains(group["label"].as_str().unwrap())).count();
    assert!(shown < 50, "{}", told.text);
    let end = format!("\n… {} further groups; narrow the window or filter\nother ", 50 - shown);
    assert!(told.text.contains(&end), "{end}\n{}", told.text);
    assert!(told.structured["notices"].is_null(), "{}", told.text);
}

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

//! Totals, groups and what runs share, recounted run by run.

use serde_json::{Value, json};

use crate::support::app::TestApp;

/// How runs are grouped, and by what of a run `r` with a connector `k`.
const GROUPINGS: [(&str, &str); 6] = [
    ("flow", "r.flow_id"),
    ("source", "r.source_connector_id"),
    ("destination", "r.destination_connector_id"),
    ("connector", "k.id"),
    ("status", "r.status"),
    ("trigger", "r.trigger"),
];

/// A key, and of its runs: how many, how many failed, records written.
type Group = (String, i64, i64, i64);

fn group(told: &Value) -> Group {
    let count = |of: &Value| of.as_i64().unwrap();
    let key = told["key"].as_str().unwrap().to_owned();
    (key, count(&told["runs"]), count(&told["failed"]), count(&told["records"]["written"]))
}

/// Whatever picks them, however many of them are shown, and whatever they are grouped by.
#[tokio::test]
async fn totals_groups_and_what_runs_share_are_those_of_the_runs() {
    let app = TestApp::demo().await;
    let mut shared = 0;
    for window in ["1h", "24h", "30d"] {
        for statuses in
            [&[][..], &["failed"], &["succeeded"], &["partial", "failed"], &["cancelled", "succeeded"]]
        {
            for trigger in ["", "schedule", "retry"] {
                let mut asked = json!({ "window": window, "status": statuses });
                let mut among = format!("r.window_at >= $1 - interval '{window}'");
                if !statuses.is_empty() {
                    among += &format!(" and r.status in ('{}')", statuses.join("', '"));
                }
                if !trigger.is_empty() {
                    asked["trigger"] = json!([trigger]);
                    among += &format!(" and r.trigger = '{trigger}'");
                }
                shared += compare(&app, &asked, &among).await;
            }
        }
    }
    assert!(shared > 0, "no connector was shared");
}

/// How many connectors the runs share.
async fn compare(app: &TestApp, asked: &Value, among: &str) -> usize {
    let runs = format!("runs r where r.customer_id = 'cus_acme' and {among}");
    let sides = "cross join lateral (select distinct unnest(array[r.source_connector_id, r.destination_connector_id])) k (id)";
    let (total,): (i64,) = app.row(&format!("select count(*) from {runs}")).await;
    for (grouping, key) in GROUPINGS {
        let mut arguments = asked.clone();
        arguments["group_by"] = json!(grouping);
        arguments["limit"] = json!(0);
        let told = app.acme().call("list_runs", arguments.clone()).await.structured;
        assert_eq!(told["total"], total, "{arguments}");
        let mut told: Vec<_> = told["groups"].as_array().into_iter().flatten().map(group).collect();
        told.sort_unstable();
        let sides = if grouping == "connector" { sides } else { "" };
        let counted: Vec<Group> = app
            .rows(&format!(
                "select {key}, count(*), count(*) filter (where r.status = 'failed'), sum(r.records_written)::bigint
                   from (select * from {runs}) r {sides} group by 1 order by 1"
            ))
            .await;
        assert_eq!(told, counted, "{arguments}");
    }
    let counted = app
        .column(&format!(
            "select k.id from (select *, count(*) over () as total from {runs}) r {sides}
              group by k.id having count(*) = max(r.total) and count(*) >= 2 order by 1"
        ))
        .await;
    let picked = asked["status"] != json!([]);
    for limit in [0, 1, 100] {
        let mut arguments = asked.clone();
        arguments["limit"] = json!(limit);
        let told = app.acme().call("list_runs", arguments.clone()).await.structured;
        let mut told: Vec<_> = told["shared_connectors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|shared| shared["connector_id"].as_str().unwrap().to_owned())
            .collect();
        told.sort_unstable();
        assert_eq!(told, if picked { counted.clone() } else { vec![] }, "{arguments}");
    }
    if picked { counted.len() } else { 0 }
}

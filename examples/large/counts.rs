//! What the installation holds, counted one by one.

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::probe::Probe;
use super::seed;

/// It is as large as it is said to be.
pub async fn sizes(conn: &mut PgConnection, large: &seed::Large) -> Vec<String> {
    let (wide, deep) = (seed::customer_id(seed::WIDE), seed::customer_id(seed::DEEP));
    let sizes: [(&str, u64, &str, &str); 5] = [
        ("runs", large.runs, "select count(*) from runs where finished_at is not null and $1 <> ''", &wide),
        (
            "errors on one flow",
            large.errors,
            "select coalesce(max(n), 0)::bigint
               from (select sum(count) as n from run_error_counts where customer_id = $1 group by flow_id) f",
            &deep,
        ),
        ("customers", large.customers as u64, "select count(*) from customers where $1 <> ''", &wide),
        (
            "flows of one customer",
            large.flows as u64,
            "select count(*) from flows where customer_id = $1",
            &wide,
        ),
        (
            "connectors of one customer",
            large.connectors as u64,
            "select count(*) from connectors where customer_id = $1",
            &wide,
        ),
    ];
    let mut faults = Vec::new();
    for (what, wanted, text, customer) in sizes {
        let found: i64 = sqlx::query_scalar(text).bind(customer).fetch_one(&mut *conn).await.unwrap();
        println!("{found} {what}");
        if (found as u64) < wanted {
            faults.push(format!("{found} {what}, fewer than {wanted}"));
        }
    }
    faults
}

/// Totals that a tool tells are those of a count, of runs in any state and in each, and of errors.
pub async fn totals(probe: &Probe, conn: &mut PgConnection) -> Vec<String> {
    let mut faults = Vec::new();
    let states = ["succeeded", "partial", "failed", "cancelled", "skipped"];
    for (place, days) in [(seed::WIDE, 30), (seed::DEEP, 7)] {
        let window = format!("{days}d");
        let since = seed::now() - chrono::TimeDelta::days(days);
        for status in [&states[..], &states[..1], &states[1..2]] {
            let all = json!({ "window": window, "limit": 0 });
            let some = json!({ "window": window, "limit": 0, "status": status });
            let asked = if status.len() == states.len() { all } else { some };
            let (_, told, _) = probe.call(place, "list_runs", &asked).await;
            let counted: Value = sqlx::query_scalar(
                "select jsonb_build_array(count(*), count(*) filter (where status = 'succeeded'),
                        count(*) filter (where status = 'partial'), count(*) filter (where status = 'failed'),
                        count(*) filter (where status = 'cancelled'), count(*) filter (where status = 'skipped'),
                        sum(records_read))
                   from runs where customer_id = $1 and window_at >= $2 and ($3 or status = any ($4))",
            )
            .bind(seed::customer_id(place))
            .bind(since)
            .bind(status.len() == states.len())
            .bind(status)
            .fetch_one(&mut *conn)
            .await
            .unwrap();
            let totals = &told["totals"];
            let of_states = states.iter().map(|state| totals[state].clone());
            let told: Vec<Value> = std::iter::once(totals["runs"].clone())
                .chain(of_states)
                .chain([totals["records"]["read"].clone()])
                .collect();
            if Value::from(told.clone()) != counted {
                faults.push(format!("list_runs {days}d {status:?} tells {told:?}, there are {counted}"));
            }
        }
        let flow = seed::flow_id(place, 0);
        let (_, told, _) =
            probe.call(place, "get_flow_error_summary", &json!({ "flow": flow, "window": window })).await;
        let counted: (i64, i64) = sqlx::query_as(
            "select coalesce(sum(c.count), 0)::bigint, count(distinct r.run_id) from runs r join run_error_counts c using (customer_id, run_id)
              where r.customer_id = $1 and r.flow_id = $2 and r.window_at >= $3",
        )
        .bind(seed::customer_id(place))
        .bind(flow)
        .bind(since)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        let told = (told["total_errors"].as_i64(), told["runs_with_errors"].as_i64());
        if told != (Some(counted.0), Some(counted.1)) {
            faults.push(format!("get_flow_error_summary {days}d tells {told:?}, there are {counted:?}"));
        }
    }
    faults
}

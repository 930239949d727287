//! The customers themselves: tokens, connectors, flows and their names.

use apixx_mcp::domain::definition::FlowDefinition;
use apixx_mcp::domain::names::exact_key;
use apixx_mcp::domain::scope::Scopes;
use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};

use super::runs::Past;
use super::{DAYS, DEEP, Large, WIDE, connector_id, customer_id, flow_id, id, now, token};

const SOURCES: [&str; 20] = [
    "HubSpot",
    "Salesforce",
    "NetSuite",
    "Shopify",
    "Stripe",
    "Zendesk",
    "Marketo",
    "Jira",
    "Workday",
    "Intercom",
    "Magento",
    "Xero",
    "Pipedrive",
    "Asana",
    "Klaviyo",
    "Segment",
    "Braze",
    "Airtable",
    "Coupa",
    "Gong",
];
const DESTINATIONS: [&str; 10] = [
    "Snowflake",
    "BigQuery",
    "Redshift",
    "Postgres",
    "Databricks",
    "Synapse",
    "Oracle",
    "MySQL",
    "Kafka",
    "ClickHouse",
];
const OBJECTS: [&str; 10] = [
    "contacts",
    "orders",
    "invoices",
    "tickets",
    "products",
    "leads",
    "payments",
    "events",
    "users",
    "shipments",
];

fn words(flow: usize) -> (&'static str, &'static str, &'static str) {
    (SOURCES[flow / 100 % 20], DESTINATIONS[flow / 10 % 10], OBJECTS[flow % 10])
}

/// The name of a flow: each of the first two thousand has another one.
pub fn flow_name(flow: usize) -> String {
    let (source, destination, object) = words(flow);
    let round = flow / 2_000;
    let again = if round == 0 { String::new() } else { format!(" {}", round + 1) };
    format!("{source} → {destination} {object}{again}")
}

/// Puts every customer in place, its flows pointing at the last runs of `past`.
pub(super) async fn put(conn: &mut PgConnection, large: &Large, past: &Past) {
    let born = now() - TimeDelta::days(DAYS + 10);
    let scopes: Vec<&str> = Scopes::all().iter().map(|scope| scope.as_str()).collect();
    let mut customers = Rows::new(
        "customers",
        json!({ "timezone": "Europe/Berlin", "plan_code": "business",
        "status": "active", "created_at": born }),
    );
    let mut allowances = Rows::new(
        "allowances",
        json!({ "permits": 3_000, "filled_at": now(), "day": now().date_naive(), "requests": 100, "held": {} }),
    );
    let mut users = Rows::new("users", json!({ "role": "owner", "created_at": born }));
    let mut tokens = Rows::new("tokens", json!({ "name": "load", "scopes": scopes, "created_at": born }));
    let mut connectors = Rows::new(
        "connectors",
        json!({ "type": "SQL_DB", "kind": "sim", "config": {}, "auth_type": "API_KEY", "auth_status": "valid",
            "auth_checked_at": now(), "enabled": true, "status": "healthy", "status_reasons": [],
            "status_since": born, "check_interval_s": 300, "next_check_at": now() + TimeDelta::seconds(120),
            "last_check_at": now() - TimeDelta::seconds(180), "last_check_ok": true, "last_check_ms": 80,
            "consecutive_failures": 0, "last_activity_at": now(), "created_at": born }),
    );
    let mut flows = Rows::new(
        "flows",
        json!({ "state": "active", "state_changed_at": born, "tags": ["load"], "schedule_kind": "interval",
            "schedule_interval_s": 86_400, "schedule_timezone": "UTC", "next_run_at": now() + TimeDelta::hours(1),
            "current_version": 1, "max_attempts": 3, "timeout_s": 21_600, "max_error_rate": 0.1,
            "degraded_error_rate": 0.01, "health_since": born,
            "health_checked_at": now(), "created_at": born }),
    );
    let mut quotas = Rows::new(
        "connector_quotas",
        json!({ "name": "requests per day", "unit": "requests", "used": 4_000, "quota_limit": 100_000,
            "throttled_1h": 0, "observed_at": now() }),
    );
    let mut audit = Rows::new("audit_log", json!({ "actor_kind": "user", "actor_label": "Owner" }));
    let mut names = Rows::new("flow_names", json!({}));
    let mut versions = Rows::new("flow_versions", json!({ "version": 1, "created_at": born }));
    for place in 0..large.customers {
        let customer = customer_id(place);
        let name = match place {
            WIDE => "Wide".to_owned(),
            DEEP => "Deep".to_owned(),
            other => format!("Customer {other}"),
        };
        let token = token(place);
        let user = id("usr", place);
        customers.add(json!({ "customer_id": customer, "slug": format!("large-{place}"), "name": name }));
        allowances.add(json!({ "customer_id": customer }));
        users.add(
            json!({ "customer_id": customer, "user_id": user, "email": format!("owner@{place}.example"),
            "name": format!("Owner {place}") }),
        );
        tokens.add(json!({ "customer_id": customer, "token_id": id("mtk", place), "user_id": user,
            "digest": hex(token.digest().as_bytes()), "last_four": token.last_four() }));
        for connector in 0..large.connectors_of(place) {
            let service = if connector % 2 == 0 {
                SOURCES[connector / 2 % 20]
            } else {
                DESTINATIONS[connector / 2 % 10]
            };
            let name = format!("{service} {connector}");
            connectors.add(json!({ "customer_id": customer, "connector_id": connector_id(place, connector),
                "name": name, "name_key": exact_key(&name), "service": service.to_lowercase() }));
            quotas.add(json!({ "customer_id": customer, "connector_id": connector_id(place, connector) }));
        }
        for flow in 0..large.flows_of(place) {
            let (flow_id, name, (_, _, object)) = (flow_id(place, flow), flow_name(flow), words(flow));
            let (source, destination) = large.sides(place, flow);
            let last = &past.last[&(place, flow)];
            let table = format!("analytics.public.{object}");
            let (health, reasons) = health(flow);
            flows.add(json!({ "customer_id": customer, "flow_id": flow_id, "name": name, "sort_key": name.to_lowercase(),
                "owner_user_id": user, "source_connector_id": source, "destination_connector_id": destination,
                "source_objects": [object], "destination_objects": [table], "object_keys_read": [object],
                "object_keys_written": [table, object], "last_run_id": last.run, "last_success_run_id": last.success,
                "health": health, "health_reasons": reasons }));
            names.add(json!({ "customer_id": customer, "name_key": exact_key(&name), "flow_id": flow_id,
                "label": name, "kind": "name" }));
            if flow % 10 == 0 {
                let alias = format!("pipeline {flow}");
                names
                    .add(json!({ "customer_id": customer, "name_key": exact_key(&alias), "flow_id": flow_id,
                    "label": alias, "kind": "alias" }));
            }
            for (number, action) in
                ["flow.paused", "flow.resumed", "run.triggered", "run.triggered"].iter().enumerate()
            {
                let at = now() - TimeDelta::minutes((flow % 1_000 * 40 + number * 13) as i64);
                audit.add(json!({ "customer_id": customer, "audit_id": id("aud", (place * 10_000 + flow) * 10 + number),
                    "at": at, "action": action, "target_kind": "flow", "target_id": flow_id }));
            }
            versions.add(json!({ "customer_id": customer, "flow_id": flow_id,
                "definition": definition(object, &table) }));
        }
    }
    for rows in [customers, allowances, users, tokens, connectors, quotas, flows, names, versions, audit] {
        rows.put(conn).await;
    }
}

/// Three flows in a hundred fail, five are degraded.
fn health(flow: usize) -> (&'static str, Value) {
    let reason = |code: &str, message: &str| json!([{ "code": code, "message": message, "since": now() }]);
    match flow % 100 {
        7 | 47 | 87 => ("failing", reason("RUNS_FAILED", "the last 3 runs failed")),
        3 | 23 | 43 | 63 | 83 => {
            ("degraded", reason("ERROR_RATE", "1.4% of records were rejected in 24 hours"))
        }
        _ => ("healthy", json!([])),
    }
}

fn definition(object: &str, table: &str) -> FlowDefinition {
    let field = |name: &str| json!({ "destination_field": name, "source_path": format!("$.{name}"), "destination_type": "string" });
    let mut mappings: Vec<Value> =
        ["email", "first_name", "last_name", "phone", "company", "city", "country"].map(field).to_vec();
    mappings.push(json!({ "destination_field": "id", "source_path": "$.id", "is_key": true }));
    serde_json::from_value(json!({ "streams": [{ "source_object": object, "destination_object": table,
        "sync_mode": "incremental", "write_mode": "upsert", "cursor_field": "updated_at", "mappings": mappings }] }))
    .unwrap()
}

/// Rows of one table, each column that they leave out as in `base`.
struct Rows {
    table: &'static str,
    base: Value,
    rows: Vec<Value>,
}

impl Rows {
    fn new(table: &'static str, base: Value) -> Self {
        Self { table, base, rows: Vec::new() }
    }

    fn add(&mut self, row: Value) {
        self.rows.push(row);
    }

    async fn put(self, conn: &mut PgConnection) {
        let table = self.table;
        let columns: Vec<&str> = [self.rows.first(), Some(&self.base)]
            .into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .flat_map(|row| row.keys().map(String::as_str))
            .collect();
        let (columns, values) = (
            columns.join(", "),
            columns.iter().map(|column| format!("p.{column}")).collect::<Vec<_>>().join(", "),
        );
        let text = format!(
            "insert into {table} ({columns}) select {values} from jsonb_populate_recordset(jsonb_populate_record(null::{table}, $1), $2) p"
        );
        for rows in self.rows.chunks(1_000) {
            sqlx::query(AssertSqlSafe(text.clone()))
                .bind(Json(&self.base))
                .bind(Json(rows))
                .execute(&mut *conn)
                .await
                .unwrap();
        }
    }
}

/// Bytes as PostgreSQL reads them.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

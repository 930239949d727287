//! `apply`: one file brings a workspace to what it says, or says everything that is wrong with it.

use std::time::Duration;

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::domain::person::Role;
use apixx_mcp::service::apply::{ApplyError, Outcome, Report, Rules, apply};
use apixx_mcp::store::customers::{Actor, NewCustomer};
use apixx_mcp::store::{Store, StoreError, Tenancy};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{ConnectOptions, PgConnection};

use crate::support::add_customer;
use crate::support::database::TestDatabase;

const TEN_LINES: &str = r#"
connector = [{ name = "My files", kind = "files", root = "mine" }, { name = "Warehouse", kind = "postgres", dsn = "lab", create_tables = true }]
[[flow]]
name = "People to warehouse"
source = "My files"
destination = "Warehouse"
[[flow.stream]]
from = "people.csv"
to = "public.people"
key = "email"
"#;

const WHOLE: &str = r#"
[[connector]]
name = "My files"
kind = "files"
root = "mine"

[[connector]]
name = "Warehouse"
kind = "postgres"
dsn = "lab"
create_tables = true

[[flow]]
name = "People to warehouse"
aliases = ["staff", "people"]
owner = "Ana@example.com"
source = "My files"
destination = "Warehouse"
schedule = "every 15m"

[[flow.stream]]
from = "people.csv"
to = "public.people"
key = ["email"]
filter = "record.status != 'archived'"

[[flow.stream.field]]
to = "email"
from = "E-mail"
transform = "value.trim().lowerAscii()"
type = "string"
required = true
validate = { format = "email", maxLength = 80 }
on_fail = "reject"

[[flow.stream.field]]
to = "country"
from = "$.address.country"
default = "DE"
validate = { pattern = "^[A-Z]+$", maxLength = 20 }
"#;

struct Workspace {
    _database: TestDatabase,
    owner: PgConnection,
    clock: Clock,
    store: Store,
    tenancy: Tenancy,
}

impl Workspace {
    async fn new() -> Self {
        let database = TestDatabase::create().await;
        let clock = Clock::fixed("2026-11-21T08:07:00Z".parse().unwrap());
        let ids = IdSource::seeded(clock.clone(), 1);
        let store =
            Store::connect(&database.server, 2, Duration::from_secs(5), clock.clone(), ids).await.unwrap();
        let tenancy = add_customer(&store, &customer("acme")).await.unwrap();
        Self { owner: database.owner.connect().await.unwrap(), _database: database, clock, store, tenancy }
    }

    async fn try_apply(&self, text: impl AsRef<[u8]>, commit: bool) -> Result<Report, ApplyError> {
        let (roots, dsns) = (["mine".to_owned()], ["lab".to_owned()]);
        let rules = Rules { files_roots: &roots, postgres_dsns: &dsns };
        let mut tx = self.store.begin(&self.tenancy).await.unwrap();
        let report =
            apply(&mut tx, "flows.toml", text.as_ref(), &rules, &Actor::Operator("ana".to_owned())).await?;
        if commit {
            tx.commit().await.unwrap();
        }
        Ok(report)
    }

    async fn apply(&self, text: &str) -> Report {
        self.try_apply(text, true).await.unwrap()
    }

    /// What is wrong with `text`, one line each.
    async fn problems(&self, text: impl AsRef<[u8]>) -> Vec<String> {
        match self.try_apply(text, true).await {
            Err(error @ ApplyError::Invalid { .. }) => error.to_string().lines().map(str::to_owned).collect(),
            other => panic!("{other:?}"),
        }
    }

    async fn one<T>(&mut self, query: &'static str) -> T
    where
        T: Send + Unpin,
        (T,): for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    {
        let (value,): (T,) = sqlx::query_as(query).fetch_one(&mut self.owner).await.unwrap();
        value
    }
}

fn customer(slug: &str) -> NewCustomer {
    NewCustomer {
        id: None,
        slug: slug.to_owned(),
        name: "Acme Retail".to_owned(),
        timezone: chrono_tz::Europe::Berlin,
        plan: "team".to_owned(),
        owner_email: "Ana@Example.com".to_owned(),
        owner_name: "Ana Ruiz".to_owned(),
    }
}

fn outcomes(report: &Report) -> Vec<(&str, Outcome)> {
    report.applied.iter().map(|applied| (applied.name.as_str(), applied.outcome.clone())).collect()
}

#[tokio::test]
async fn a_customer_is_made_once() {
    let mut workspace = Workspace::new().await;
    let again = add_customer(&workspace.store, &customer("acme")).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
    for (slug, plan) in [("Not A Slug", "team"), ("globex", "platinum")] {
        let new = NewCustomer { plan: plan.to_owned(), ..customer(slug) };
        let refused = add_customer(&workspace.store, &new).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    }
    assert_eq!(workspace.one::<i64>("select count(*) from customers").await, 1);
    assert_eq!(workspace.one::<String>("select email from users").await, "ana@example.com");
    let seen = workspace.store.read(&workspace.tenancy).workspace().await.unwrap();
    assert_eq!(
        (seen.name.as_str(), seen.slug.as_str(), seen.zone),
        ("Acme Retail", "acme", chrono_tz::Europe::Berlin)
    );
}

#[tokio::test]
async fn ten_lines_make_a_flow() {
    let mut workspace = Workspace::new().await;
    let report = workspace.apply(TEN_LINES).await;
    let all = ["My files", "Warehouse", "People to warehouse"];
    assert_eq!(outcomes(&report), all.map(|name| (name, Outcome::Created)));
    let columns: (String, Vec<String>, Option<DateTime<Utc>>, i32) =
        sqlx::query_as("select schedule_kind, object_keys_written, next_run_at, current_version from flows")
            .fetch_one(&mut workspace.owner)
            .await
            .unwrap();
    assert_eq!(columns, ("manual".into(), vec!["people".into(), "public.people".into()], None, 1));
    let config: serde_json::Value =
        workspace.one("select config from connectors where kind = 'postgres'").await;
    assert_eq!(config, serde_json::json!({ "dsn": "lab", "create_tables": true }));
}

#[tokio::test]
async fn the_same_file_twice_changes_nothing() {
    let mut workspace = Workspace::new().await;
    assert!(!workspace.apply(WHOLE).await.is_unchanged());
    let rows = "select jsonb_build_array((select jsonb_agg(f order by f.flow_id) from flows f),
        (select jsonb_agg(c order by c.connector_id) from connectors c), (select count(*) from flow_versions),
        (select count(*) from audit_log), (select jsonb_agg(n order by n.name_key) from flow_names n))";
    let before: serde_json::Value = workspace.one(rows).await;
    workspace.clock.advance(TimeDelta::minutes(40));
    let report = workspace.apply(WHOLE).await;
    assert!(report.is_unchanged(), "{report}");
    assert_eq!(workspace.one::<serde_json::Value>(rows).await, before);
    assert_eq!(before[0][0]["next_run_at"], "2026-11-21T08:15:00+00:00");
    assert_eq!(before[4].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_difference_is_named_field_by_field_and_makes_a_version() {
    let mut workspace = Workspace::new().await;
    workspace.apply(WHOLE).await;
    let changed = WHOLE
        .replace("default = \"DE\"", "default = \"AT\"")
        .replace("maxLength = 80", "maxLength = 100")
        .replace("every 15m", "*/30 * * * *");
    let changed = format!("{changed}\n[[flow.stream.field]]\nto = \"name\"\n");
    let dry = workspace.try_apply(&changed, false).await.unwrap();
    let report = workspace.apply(&changed).await;
    assert_eq!(dry, report);
    assert_eq!(
        report.to_string(),
        "connector My files: unchanged\n\
         connector Warehouse: unchanged\n\
         flow People to warehouse: changed (version 2)\n  \
           schedule: \"every 15 min\" -> \"every 30 min\"\n  \
           field email: validate: {\"format\":\"email\",\"maxLength\":80} -> {\"format\":\"email\",\"maxLength\":100}\n  \
           field country: default: \"DE\" -> \"AT\"\n  \
           field name added: $.name\n"
    );
    let summary: String = workspace.one("select summary from flow_versions where version = 2").await;
    assert!(summary.contains("field name added: $.name") && !summary.contains("schedule"), "{summary}");
    let next: DateTime<Utc> = workspace.one("select next_run_at from flows").await;
    assert_eq!(next.to_rfc3339(), "2026-11-21T08:30:00+00:00");
    // A setting alone is no new version.
    let report = workspace.apply(&changed.replace("[\"staff\", \"people\"]", "[\"people\"]")).await;
    assert_eq!(report.applied[2].version, Some(2));
    assert_eq!(workspace.one::<i64>("select count(*) from flow_names").await, 2);
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let mut workspace = Workspace::new().await;
    let report = workspace.try_apply(WHOLE, false).await.unwrap();
    assert_eq!(report.applied.len(), 3);
    assert_eq!(
        workspace.one::<i64>("select (select count(*) from flows) + (select count(*) from connectors)").await,
        0
    );
}

/// A version tells what changed of the definition; the rest stands beside it, whether there is a new version or not.
#[tokio::test]
async fn what_changes_of_settings_is_kept_apart() {
    let mut workspace = Workspace::new().await;
    workspace.apply(WHOLE).await;
    let told = "select coalesce(string_agg(action || ': ' || message, ' | ' order by action), '')
        from audit_log where target_kind = 'flow' and message is not null";
    let slower = WHOLE.replace("every 15m", "every 30m");
    workspace.apply(&slower).await;
    let settings = r#"flow.settings_changed: schedule: "every 15 min" -> "every 30 min""#;
    assert_eq!(workspace.one::<String>(told).await, settings);
    sqlx::query("delete from audit_log").execute(&mut workspace.owner).await.unwrap();
    workspace.apply(&WHOLE.replace("default = \"DE\"", "default = \"FR\"")).await;
    let back = r#"flow.settings_changed: schedule: "every 30 min" -> "every 15 min""#;
    let all = workspace.one::<String>(told).await;
    let (definition, settings) = all.split_once(" | ").unwrap();
    assert!(definition.starts_with("flow.changed: ") && definition.contains(r#""DE" -> "FR""#), "{all}");
    assert!(!definition.contains("schedule"), "{all}");
    assert_eq!(settings, back);
}

#[tokio::test]
async fn what_a_person_paused_stays_paused() {
    let mut workspace = Workspace::new().await;
    workspace.apply(WHOLE).await;
    let flow: String = workspace.one("select flow_id from flows").await;
    let flow = apixx_mcp::domain::ids::FlowId::parse(&flow).unwrap();
    let ana = Actor::Operator("Ana Ruiz".to_owned());
    let mut tx = workspace.store.begin(&workspace.tenancy).await.unwrap();
    assert_eq!(tx.pause_flow(&flow, &ana, Some("migration")).await.unwrap(), Some(0));
    assert_eq!(tx.pause_flow(&flow, &ana, None).await.unwrap(), None);
    tx.commit().await.unwrap();
    let state = "select state || ' ' || coalesce(state_by, '') || ' ' || coalesce(state_reason, '')
        || ' ' || (next_run_at is null)::text from flows";
    assert_eq!(workspace.one::<String>(state).await, "paused Ana Ruiz migration true");
    assert!(workspace.apply(WHOLE).await.is_unchanged());
    workspace.apply(&WHOLE.replace("every 15m", "every 10m")).await;
    assert_eq!(workspace.one::<String>(state).await, "paused Ana Ruiz migration true");
    let mut tx = workspace.store.begin(&workspace.tenancy).await.unwrap();
    assert!(tx.resume_flow(&flow, &ana, None).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(workspace.one::<String>(state).await, "active Ana Ruiz  false");
    let actions =
        "select string_agg(action, ' ' order by at, audit_id) from audit_log where target_kind = 'flow'";
    let actions: String = workspace.one(actions).await;
    assert_eq!(actions.split(' ').filter(|action| *action != "flow.created").collect::<Vec<_>>().len(), 3);
    assert!(actions.contains("flow.paused") && actions.contains("flow.resumed"), "{actions}");
}

#[tokio::test]
async fn what_a_person_pauses_meanwhile_stays_paused() {
    let mut workspace = Workspace::new().await;
    workspace.apply(WHOLE).await;
    let flow: String = workspace.one("select flow_id from flows").await;
    let flow = apixx_mcp::domain::ids::FlowId::parse(&flow).unwrap();
    let mut pause = workspace.store.begin(&workspace.tenancy).await.unwrap();
    let paused = pause.pause_flow(&flow, &Actor::Operator("Ana Ruiz".to_owned()), None).await;
    assert_eq!(paused.unwrap(), Some(0));
    let mut owner = workspace._database.owner.connect().await.unwrap();
    let commit = async {
        let waiting = "select exists (select 1 from pg_locks join pg_stat_activity a using (pid)
            where locktype = 'transactionid' and not granted and a.datname = current_database())";
        let mut looks = 0;
        while !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut owner).await.unwrap() {
            looks += 1;
            assert!(looks < 10_000, "nothing waits for the flow");
        }
        pause.commit().await.unwrap();
    };
    let changed = WHOLE.replace("every 15m", "every 10m");
    let (report, ()) = tokio::join!(workspace.apply(&changed), commit);
    assert!(!report.is_unchanged());
    let state = "select concat_ws(' ', state, state_by, schedule_interval_s, next_run_at) from flows";
    assert_eq!(workspace.one::<String>(state).await, "paused Ana Ruiz 600");
}

#[tokio::test]
async fn an_alias_goes_from_one_flow_to_another() {
    let mut workspace = Workspace::new().await;
    let two = |first: &str, second: &str| {
        let flow = |name: &str, aliases: &str| {
            let flow = TEN_LINES.split_once("[[flow]]").unwrap().1;
            let named = format!("name = \"{name}\"\naliases = [{aliases}]");
            format!("[[flow]]{}", flow.replace("name = \"People to warehouse\"", &named))
        };
        let connectors = TEN_LINES.split_once("[[flow]]").unwrap().0;
        format!("{connectors}{}{}", flow("First", first), flow("Second", second))
    };
    let names = "select string_agg(name || ':' || label, ' ' order by label) from flow_names n join flows using (customer_id, flow_id) where n.kind = 'alias'";
    for (first, second, found) in [
        ("\"a\"", "\"b\"", "First:a Second:b"),
        ("\"b\"", "\"a\"", "Second:a First:b"),
        ("", "\"a\", \"b\"", "Second:a Second:b"),
        ("\"a\", \"b\"", "", "First:a First:b"),
    ] {
        workspace.apply(&two(first, second)).await;
        assert_eq!(workspace.one::<String>(names).await, found);
    }
}

#[tokio::test]
async fn a_flow_that_a_file_puts_away_starts_no_run_that_waited() {
    let mut workspace = Workspace::new().await;
    workspace.apply(WHOLE).await;
    let flow: String = workspace.one("select flow_id from flows").await;
    let flow = apixx_mcp::domain::ids::FlowId::parse(&flow).unwrap();
    for state in ["paused", "archived"] {
        workspace.apply(&WHOLE.replace("every 15m\"", "every 15m\"\nstate = \"active\"")).await;
        crate::engine::queue(&workspace.store, &workspace.tenancy, &flow).await.unwrap();
        let away = WHOLE.replace("every 15m\"", &format!("every 15m\"\nstate = \"{state}\""));
        let report = workspace.apply(&away).await;
        assert!(report.to_string().ends_with("\n  runs that waited, cancelled: 1\n"), "{report}");
    }
    let ended: String = workspace
        .one("select string_agg(concat_ws(' ', status, reason_code, reason_message), ', ') from runs")
        .await;
    let cancelled = "cancelled CANCELLED_BY_USER cancelled by ana";
    assert_eq!(ended, format!("{cancelled}, {cancelled}"));
}

/// A trigger holds its flow, for which the file waits, while it writes rows that refer to the customer.
#[tokio::test]
async fn a_run_is_queued_while_a_file_is_applied() {
    let mut workspace = Workspace::new().await;
    workspace.apply(WHOLE).await;
    let flow: String = workspace.one("select flow_id from flows").await;
    let flow = apixx_mcp::domain::ids::FlowId::parse(&flow).unwrap();
    let mut file = workspace.store.begin(&workspace.tenancy).await.unwrap();
    file.lock_customer().await.unwrap();
    let queued = crate::engine::queue(&workspace.store, &workspace.tenancy, &flow);
    let queued = tokio::time::timeout(Duration::from_secs(10), queued).await;
    assert!(queued.expect("it waits for the file").is_some());
}

#[tokio::test]
async fn a_new_schedule_is_due_from_when_it_is_given() {
    let mut workspace = Workspace::new().await;
    workspace.apply(&WHOLE.replace("every 15m", "manual")).await;
    let flow: String = workspace.one("select flow_id from flows").await;
    let flow = apixx_mcp::domain::ids::FlowId::parse(&flow).unwrap();
    workspace
        .one::<i32>("with ran as (update flows set last_decided_at = created_at returning 1) select 1")
        .await;
    workspace.clock.advance(TimeDelta::days(60));
    workspace.apply(WHOLE).await;
    let mut healths = Vec::new();
    for minutes in [10, 20] {
        workspace.clock.advance(TimeDelta::minutes(minutes));
        let mut tx = workspace.store.begin(&workspace.tenancy).await.unwrap();
        tx.refresh_flow_health(&flow).await.unwrap();
        tx.commit().await.unwrap();
        healths.push(workspace.one::<String>("select health from flows").await);
    }
    assert_eq!(healths, ["pending", "degraded"], "the first run is due after a quarter of an hour");
}

#[tokio::test]
async fn an_id_is_chosen_once() {
    let workspace = Workspace::new().await;
    let twice = |kind: &str, rest: &str| {
        ["A", "B"]
            .map(|name| format!("[[{kind}]]\nid = \"{kind}_chosen\"\nname = \"{name}\"\n{rest}\n"))
            .concat()
    };
    let connectors =
        twice("connector", "kind = \"files\"\nroot = \"mine\"").replace("connector_chosen", "con_chosen");
    let flows = twice(
        "flow",
        "source = \"A\"\ndestination = \"B\"\nstream = [{ from = \"a.csv\", to = \"b.jsonl\", key = \"id\" }]",
    );
    assert_eq!(
        workspace.problems(connectors + &flows).await,
        [
            "flows.toml: connector[1].id: con_chosen is the id of connector[0] already",
            "flows.toml: flow[1].id: flow_chosen is the id of flow[0] already"
        ]
    );
}

#[tokio::test]
async fn every_problem_is_named_with_its_place() {
    let mut workspace = Workspace::new().await;
    let problems = workspace
        .problems(
            r#"
[[connector]]
name = "Files"
kind = "files"
root = "elsewhere"
creat_tables = true

[[connector]]
name = "files"
kind = "postgres"
dsn = "prod"

[[flow]]
name = "A"
aliases = ["b"]
source = "Filez"
destination = "Files"
schedule = "every fortnight"
max_error_rate = 3
owner = "nobody@example.com"
[[flow.stream]]
from = "a.csv"
to = "t"
sync = "incremental"
filter = "bad("
[[flow.stream.field]]
to = "x"
from = "$..y"
tranform = "value"
[[flow.stream.field]]
to = "y"
transform = "bad("
on_fail = "default"
validate = { minLength = 1 }
type = "strng"
[[flow.stream]]
query = "select 1"
to = "u"
key = ["id"]

[[flow]]
name = "B"
source = "Files"
destination = "Files"
"#,
        )
        .await;
    let expected = [
        "flows.toml: connector[0].creat_tables: is not known here",
        "flows.toml: flow[0].schedule: `every fortnight` is no schedule",
        "flows.toml: flow[0].max_error_rate: must lie between 0 and 1, not 3",
        "flows.toml: flow[0].stream[0].cursor: is missing",
        "flows.toml: flow[0].stream[0].field[0].tranform: is not known here; did you mean `transform`?",
        "flows.toml: flow[0].stream[0].field[1].type: `strng` is not one of string, integer, number, boolean, date, \
         datetime, object, array; did you mean `string`?",
        "flows.toml: flow[1].stream: is missing",
        "flows.toml: connector[0].root: the operator of this server named no directory `elsewhere` (there is: mine)",
        "flows.toml: connector[1].name: `files` is the name of connector[0] already",
        "flows.toml: connector[1].dsn: the operator of this server named no database `prod` (there is: lab)",
        "flows.toml: flow[0].source: there is no connector called `Filez`; did you mean `Files`?",
        "flows.toml: flow[0].owner: nobody in this workspace has the address nobody@example.com",
        "flows.toml: flow[0].stream[0].key: is missing: name the fields",
        "flows.toml: flow[0].stream[0].filter: ",
        "flows.toml: flow[0].stream[0].field[0].from: ",
        "flows.toml: flow[0].stream[0].field[1].transform: ",
        "flows.toml: flow[0].stream[0].field[1].on_fail: there is no default to write",
    ];
    for line in expected {
        assert!(problems.iter().any(|problem| problem.starts_with(line)), "{line}\n{problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    assert_eq!(
        workspace.one::<i64>("select (select count(*) from flows) + (select count(*) from connectors)").await,
        0
    );
}

#[tokio::test]
async fn flows_are_judged_against_the_workspace_and_the_engine() {
    let workspace = Workspace::new().await;
    workspace.apply(WHOLE).await;
    let problems = workspace
        .problems(
            r#"
[[flow]]
name = "Staff"
source = "My file"
destination = "Warehouse"
owner = "nobody@example.com"
[[flow.stream]]
from = "a.csv"
to = "t"
filter = "bad("
query = "select 1"
[[flow.stream.field]]
to = "x"
from = "$..y"
[[flow.stream.field]]
to = "x"
transform = "bad("
[[flow.stream]]
from = "b.csv"
to = "u"
key = ["idd"]
format = "csv"
[[flow.stream.field]]
to = "id"
[[flow.stream]]
from = "b.csv"
to = "u"
write = "append"
"#,
        )
        .await;
    let expected = [
        "flows.toml: flow[0].name: `Staff` already stands for the flow `People to warehouse`",
        "flows.toml: flow[0].source: there is no connector called `My file`; did you mean `My files`?",
        "flows.toml: flow[0].owner: nobody in this workspace has the address nobody@example.com",
        "flows.toml: flow[0].stream[0].key: is missing: name the fields that identify a record, or say write = \"append\"",
        "flows.toml: flow[0].stream[0].filter: ",
        "flows.toml: flow[0].stream[0].field[0].from: `$..y` is no path to one value",
        "flows.toml: flow[0].stream[0].field[1].to: `x` is mapped twice",
        "flows.toml: flow[0].stream[0].field[1].transform: ",
        "flows.toml: flow[0].stream[1].key: `idd` is no field of this stream",
        "flows.toml: flow[0].stream[2]: b.csv → u stands here twice",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}");
    }
    let wrong_kind = WHOLE.replace("from = \"people.csv\"", "query = \"select 1\"");
    let problems = workspace.problems(&wrong_kind).await;
    assert_eq!(
        problems,
        ["flows.toml: flow[0].stream[0].query: only a postgres source can be asked a query"]
    );
}

/// Nothing that is there would change it, so no run needs to find out.
#[tokio::test]
async fn what_can_never_work_is_no_flow() {
    let workspace = Workspace::new().await;
    let streams = |source: &str, destination: &str, streams: &[(&str, &str, &str)]| {
        let stream = |(kind, from, to): &(&str, &str, &str)| {
            format!("{{ {kind} = \"{from}\", to = \"{to}\", key = \"id\" }}")
        };
        let all: Vec<String> = streams.iter().map(stream).collect();
        let flow = "name = \"Never\"\nschedule = \"0 0 30 2 *\"";
        let ends = format!("source = \"{source}\"\ndestination = \"{destination}\"");
        format!(
            "{}[[flow]]\n{flow}\n{ends}\nstream = [{}]",
            TEN_LINES.split_once("[[flow]]").unwrap().0,
            all.join(", ")
        )
    };
    let never =
        "flows.toml: flow[0].schedule: `0 0 30 2 *` names no day that ever comes; say `manual` for never";
    let files = [
        ("from", "../x.csv", "leave.csv"),
        ("from", "x.txt", "../leave.jsonl"),
        ("from", "x.json", "leave.ndjson"),
    ];
    assert_eq!(
        workspace.problems(streams("My files", "My files", &files)).await,
        [
            never,
            "flows.toml: flow[0].stream[0].from: '../x.csv' leads out of the directory",
            "flows.toml: flow[0].stream[0].to: files are written as JSON lines: 'leave.csv' must end in .jsonl",
            "flows.toml: flow[0].stream[1].from: the form of 'x.txt' is not known; say csv, jsonl or json as its `format`",
            "flows.toml: flow[0].stream[1].to: '../leave.jsonl' leads out of the directory",
        ]
    );
    let tables = [
        ("from", "a.b.c", "public.a"),
        ("query", "/* all */ -- of them\\nselect 1 as id", "x.y.z"),
        ("query", "select 1 as id", "fine"),
    ];
    assert_eq!(
        workspace.problems(streams("Warehouse", "Warehouse", &tables)).await,
        [
            never,
            "flows.toml: flow[0].stream[0].from: 'a.b.c' names no table; write `schema.table`",
            "flows.toml: flow[0].stream[1].query: a query of a source begins with `select`",
            "flows.toml: flow[0].stream[1].to: 'x.y.z' names no table; write `schema.table`",
        ]
    );
    // A flow that nobody runs may say what it likes, also one that was paused elsewhere.
    let draft = streams("Warehouse", "Warehouse", &tables)
        .replace("name = \"Never\"", "name = \"Never\"\nstate = \"draft\"");
    assert_eq!(workspace.apply(&draft).await.applied.len(), 3);
    assert_eq!(workspace.apply(&draft.replace("state = \"draft\"", "")).await.applied.len(), 3);
    assert_eq!(workspace.problems(draft.replace("\"draft\"", "\"active\"")).await.len(), 4);
    let leap =
        TEN_LINES.replace("name = \"People to warehouse\"", "name = \"Leap\"\nschedule = \"0 0 29 2 *\"");
    assert_eq!(workspace.apply(&leap).await.applied.len(), 3);
}

#[tokio::test]
async fn what_is_no_file_for_us_says_so() {
    let workspace = Workspace::new().await;
    let deep = format!("a = {}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let keys = format!("{}a = 1", "a.".repeat(50_000));
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(WHOLE.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let cases: [(Vec<u8>, &str); 8] = [
        (utf16, "flows.toml: is UTF-16; save it as UTF-8"),
        (b"a = 1\n# \xfc\n".to_vec(), "flows.toml: line 2: is not UTF-8; save the file as UTF-8"),
        (vec![b'#'; 1024 * 1024 + 1], "flows.toml: is larger than 1024 KiB; split it"),
        (deep.into_bytes(), "flows.toml: line 1: is not TOML: "),
        (keys.into_bytes(), "flows.toml: line 1: is not TOML: "),
        (b"\n\n[[flow]\n".to_vec(), "flows.toml: line 3: is not TOML: "),
        (b"flow = 7\n".to_vec(), "flows.toml: flow: is one table of several: begin each with [[flow]]"),
        (
            b"[flow]\nname = 'x'\n".to_vec(),
            "flows.toml: flow: is one table of several: begin each with [[flow]]",
        ),
    ];
    for (bytes, expected) in cases {
        let problems = workspace.problems(&bytes).await;
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{expected}: {problems:#?}");
    }
    // A byte-order mark of UTF-8 is what some editors write.
    let marked = format!("\u{feff}{TEN_LINES}");
    assert!(workspace.try_apply(&marked, false).await.is_ok());
    assert!(workspace.try_apply("", true).await.unwrap().applied.is_empty());
}

#[tokio::test]
async fn the_example_of_a_file_is_one() {
    let workspace = Workspace::new().await;
    let mut tx = workspace.store.begin(&workspace.tenancy).await.unwrap();
    tx.put_user("rosalind@lab.example", Some("Rosalind Franklin"), Role::Operator).await.unwrap();
    tx.commit().await.unwrap();
    let report = workspace.apply(include_str!("../../config/flows.example.toml")).await;
    assert!(report.applied.len() == 7 && report.applied.iter().all(|one| one.outcome == Outcome::Created));
}

/// What lists of connectors could not read is not taken, and no name has more than a line.
#[tokio::test]
async fn what_no_answer_could_tell_is_refused() {
    let workspace = Workspace::new().await;
    let connector =
        |tools: &str| format!("[[connector]]\nname = \"Remote\"\nkind = \"sim\"\ntools = {tools}\n");
    for tools in
        ["[\"get_customer\"]", "\"x\"", "[{ name = \"get_customer\" }]", "[{ name = 7, enabled = true }]"]
    {
        let problems = workspace.problems(connector(tools)).await.join("\n");
        assert!(problems.contains("connector[0].tools: must be a list such as [{ name ="), "{problems}");
    }
    workspace.apply(&connector("[{ name = \"get_customer\", enabled = true }]")).await;
    let problems = workspace.problems(TEN_LINES.replace("People to", "People\\nto")).await.join("\n");
    assert!(problems.contains("flow[0].name: holds a line break"), "{problems}");
}

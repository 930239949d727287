//! PostgreSQL connectors, against a database of their own.

use std::collections::BTreeMap;

use apixx_mcp::domain::connector::ConnectorKind;
use apixx_mcp::domain::ids::RunId;
use apixx_mcp::store::definitions::ConnectorRecord;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection};

use super::{Lab, Policy, streams};
use crate::support::database::{FLOWS, TestDatabase, flows_database};

struct Bench {
    lab: Lab,
    target: PgConnectOptions,
}

impl Bench {
    async fn start() -> Self {
        let target = flows_database().await;
        let lab = Lab::start_with(BTreeMap::from([("lab".to_owned(), target.clone())])).await;
        Self { lab, target }
    }

    async fn conn(&self) -> PgConnection {
        self.target.connect().await.unwrap()
    }

    async fn run_sql(&self, text: &str) {
        self.conn().await.execute(AssertSqlSafe(text.to_owned())).await.unwrap();
    }

    async fn ask<T>(&self, text: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(AssertSqlSafe(text.to_owned())).fetch_one(&mut self.conn().await).await.unwrap()
    }

    /// Runs one stream and returns its outcome and its errors by code.
    async fn sync(&self, from: ConnectorKind, to: ConnectorKind, streams: Value) -> (String, Vec<String>) {
        let config = |kind| match kind {
            ConnectorKind::Postgres => json!({"dsn": "lab", "create_tables": true}),
            ConnectorKind::Files => json!({"root": "mine"}),
            ConnectorKind::Sim => json!({"sim": {}}),
        };
        let source = self.lab.connector(from, config(from)).await;
        let destination = self.lab.connector(to, config(to)).await;
        let policy = Policy { max_error_rate: 1.0, ..Policy::default() };
        let flow = self.lab.flow(&source, &destination, streams, policy).await;
        self.again(&flow).await
    }

    async fn again(&self, flow: &apixx_mcp::domain::ids::FlowId) -> (String, Vec<String>) {
        let run = self.lab.queue(flow).await;
        self.lab.work().await;
        let codes = self
            .lab
            .ask(&format!(
                "select coalesce(array_agg(concat_ws(':', e.error_class, e.code, e.field, c.count) order by e.code), '{{}}')
                   from run_error_counts c join error_groups e using (customer_id, group_id) where c.run_id = '{run}'"
            ))
            .await;
        (self.lab.outcome(&run).await, codes)
    }
}

use ConnectorKind::{Files, Postgres};

#[tokio::test]
async fn a_file_becomes_a_table_and_a_second_run_changes_nothing() {
    let bench = Bench::start().await;
    bench
        .lab
        .write("people.csv", "id,email,age\n1,ana@example.com,40\n2,ben@example.com,\n3,nonsense,7\n4,,x\n");
    let stream = streams(
        "people.csv",
        "public.people",
        json!({"mappings": [
            {"destination_field": "id", "source_path": "id", "destination_type": "integer", "is_key": true},
            {"destination_field": "email", "source_path": "$.email", "validate": {"format": "email"}},
            {"destination_field": "age", "source_path": "$.age", "destination_type": "integer"}
        ]}),
    );
    let (outcome, codes) = bench.sync(Files, Postgres, stream.clone()).await;
    assert_eq!(outcome, "partial: 4 2 2 0");
    assert_eq!(codes, ["VALIDATION:INVALID_EMAIL:email:1", "TYPE:INVALID_INTEGER:age:1"]);
    let rows: String = bench.ask("select string_agg(concat_ws(' ', id, email, coalesce(age::text, '-')), ', ' order by id) from people").await;
    assert_eq!(rows, "1 ana@example.com 40, 2 ben@example.com -");
    let types: String = bench.ask("select string_agg(data_type, ' ' order by ordinal_position) from information_schema.columns where table_name = 'people'").await;
    assert_eq!(types, "bigint text bigint");
    assert_eq!(bench.sync(Files, Postgres, stream).await.0, "partial: 4 0 2 2");
}

#[tokio::test]
async fn a_copied_file_needs_no_mapping_at_all() {
    let bench = Bench::start().await;
    bench.lab.write(
        "things.jsonl",
        "{\"id\":1,\"name\":\"a\",\"price\":2.50,\"tags\":[1],\"ok\":true}\n{\"id\":2,\"name\":null}\n",
    );
    let stream = streams("things.jsonl", "things", json!({}));
    assert_eq!(bench.sync(Files, Postgres, stream.clone()).await.0, "succeeded: 2 2 0 0");
    let row: Value = bench.ask("select to_jsonb(t) from things t where id = 1").await;
    assert_eq!(row, json!({"id": 1, "name": "a", "price": 2.5, "tags": [1], "ok": true}));
    assert_eq!(bench.sync(Files, Postgres, stream.clone()).await.0, "succeeded: 2 0 0 2");
    bench.lab.write("things.jsonl", "{\"id\":1,\"name\":\"b\"}\n{\"id\":3,\"more\":1}\n");
    let (outcome, codes) = bench.sync(Files, Postgres, stream).await;
    assert_eq!(
        (outcome.as_str(), codes),
        ("partial: 2 1 1 0", vec!["SCHEMA:UNDEFINED_COLUMN:more:1".to_owned()])
    );
    assert_eq!(
        bench.ask::<String>("select name || price from things where id = 1").await,
        "b2.5",
        "what is left out stays"
    );
}

#[tokio::test]
async fn each_record_that_the_database_refuses_is_named() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table kinds (kind text primary key);
             insert into kinds values ('x');
             create table items (id integer primary key, name text not null, kind text references kinds,
                                 code text unique, amount numeric check (amount >= 0), day date, short varchar(3), doc json)",
        )
        .await;
    let mut records: Vec<Value> =
        (0..150).map(|n| json!({"id": n, "name": "ok", "kind": "x", "doc": {"n": n}})).collect();
    records[3]["name"] = Value::Null;
    records[20]["kind"] = json!("y");
    records[77] = json!({"id": 77, "name": "a", "code": "same"});
    records[78] = json!({"id": 78, "name": "b", "code": "same"});
    records[99]["amount"] = json!(-1);
    records[120]["day"] = json!("2026-02-30");
    records[121]["short"] = json!("abcd");
    records[122]["name"] = json!("nul \u{0}");
    records[149]["id"] = json!("no number");
    let text: Vec<String> = records.iter().map(Value::to_string).collect();
    bench.lab.write("items.jsonl", text.join("\n"));
    let (outcome, mut codes) =
        bench.sync(Files, Postgres, streams("items.jsonl", "public.items", json!({}))).await;
    codes.sort();
    assert_eq!(
        codes,
        [
            "DUPLICATE:UNIQUE_VIOLATION:items_code_key:1",
            "REFERENCE:FOREIGN_KEY_VIOLATION:items_kind_fkey:1",
            "REQUIRED_FIELD:NOT_NULL_VIOLATION:name:1",
            "SIZE:STRING_TOO_LONG:1",
            "TYPE:INVALID_CHARACTER:name:1",
            "TYPE:INVALID_DATE:1",
            "TYPE:INVALID_VALUE:1",
            "VALIDATION:CHECK_VIOLATION:items_amount_check:1"
        ]
    );
    assert_eq!(outcome, "partial: 150 142 8 0");
    assert_eq!(bench.ask::<i64>("select count(*) from items").await, 142);
    assert_eq!(
        bench.sync(Files, Postgres, streams("items.jsonl", "public.items", json!({}))).await.0,
        "partial: 150 0 8 142"
    );
}

#[tokio::test]
async fn what_is_day_and_what_is_month_is_not_guessed() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create domain a_day as date;
             create table days (id integer primary key, day a_day, at timestamp, moment timestamptz)",
        )
        .await;
    bench.lab.write(
        "days.csv",
        "id,day,at,moment\n\
         1,2026-11-05,2026-11-05 06:07:08,2026-11-05T06:07:08+01:00\n\
         2,20261105,infinity,2026-11-05\n\
         3,05.11.2026,,\n4,12/11/2026,,\n5,05.11.26,,\n6,5-11-2026,,\n\
         7,,05.11.2026 06:07,\n8,,,05/11/26\n9,2026-13-01,,\n10,05-Nov-2026,,\n",
    );
    let (outcome, mut codes) = bench.sync(Files, Postgres, streams("days.csv", "days", json!({}))).await;
    codes.sort();
    assert_eq!(outcome, "partial: 10 3 7 0");
    assert_eq!(
        codes,
        [
            "TYPE:INVALID_DATE:1",
            "TYPE:INVALID_DATE:at:1",
            "TYPE:INVALID_DATE:day:4",
            "TYPE:INVALID_DATE:moment:1"
        ]
    );
    let said: Vec<String> = bench
        .lab
        .ask(
            "select array_agg(distinct message order by message) from run_errors where message like '%year%'",
        )
        .await;
    assert_eq!(
        said,
        [
            "a date begins with its year, as in 2026-11-05; `to_date` reads other forms",
            "a moment begins with its year, as in 2026-11-05 10:00:00"
        ]
    );
    let read = "select string_agg(concat_ws(' ', id, day, at, moment at time zone 'utc'), ', ' order by id) from days";
    assert_eq!(
        bench.ask::<String>(read).await,
        "1 2026-11-05 2026-11-05 06:07:08 2026-11-05 05:07:08, 2 2026-11-05 infinity 2026-11-05 00:00:00, \
         10 2026-11-05"
    );
    // And what is read is what can be written.
    bench
        .run_sql(
            "create table copies (like days including all);
             insert into days values (11, '0044-03-15 BC', '-infinity', '12026-01-01 00:00:00.5+00'), (12, '0099-01-02', null, null)",
        )
        .await;
    assert_eq!(
        bench.sync(Postgres, Postgres, streams("days", "copies", json!({}))).await.0,
        "succeeded: 5 5 0 0"
    );
    assert_eq!(
        bench.ask::<i64>("select count(*) from (select * from days except select * from copies) s").await,
        0
    );
}

#[tokio::test]
async fn a_table_is_copied_to_the_counts_that_sql_finds() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table orders (id integer primary key, customer text, total numeric, placed timestamptz);
             insert into orders select n, 'c' || n % 7, n * 1.25, '2026-11-01T00:00:00Z'::timestamptz + n * interval '1 minute'
               from generate_series(1, 1234) n;
             create table totals (customer text primary key, total numeric, orders bigint)",
        )
        .await;
    let all = streams("public.orders", "public.copies", json!({}));
    assert_eq!(bench.sync(Postgres, Postgres, all.clone()).await.0, "succeeded: 1234 1234 0 0");
    assert_eq!(bench.ask::<i64>("select count(*) from orders o join copies c using (id) where o.total = c.total and o.placed = c.placed::timestamptz").await, 1234);
    assert_eq!(bench.sync(Postgres, Postgres, all).await.0, "succeeded: 1234 0 0 1234");
    let totals = json!([{
        "source_object": "orders", "destination_object": "public.totals", "sync_mode": "full_refresh", "write_mode": "upsert",
        "source_query": "select customer, sum(total) as total, count(*) as orders from orders group by customer; -- by customer",
        "key": ["customer"]
    }]);
    // A comment at the end swallows nothing; a semicolon inside does not make two statements.
    let (outcome, codes) = bench.sync(Postgres, Postgres, totals.clone()).await;
    assert_eq!((outcome.as_str(), codes.len()), ("failed CONFIG_INVALID: 0 0 0 0", 1));
    let mut totals = totals;
    totals[0]["source_query"] = json!(
        "select customer, sum(total) as total, count(*) as orders from orders group by customer -- by customer"
    );
    assert_eq!(bench.sync(Postgres, Postgres, totals).await.0, "succeeded: 7 7 0 0");
    assert_eq!(bench.ask::<i64>("select count(*) from totals t where total = (select sum(o.total) from orders o where o.customer = t.customer)").await, 7);
}

#[tokio::test]
async fn no_digit_of_a_number_is_lost() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table exact (id integer primary key, amount numeric, ratio float8, large numeric);
             insert into exact values (1, 2.50, 0.1::float8 + 0.2, 7), (2, 12345678901234567.89, 31.245270191439438, 1e40),
                                      (3, -0.12345678901234567891, 1e300, 18446744073709551616);
             create table there (id integer primary key, amount numeric, ratio float8, large numeric)",
        )
        .await;
    for table in ["there", "made"] {
        let stream = streams("exact", table, json!({}));
        assert_eq!(bench.sync(Postgres, Postgres, stream.clone()).await.0, "succeeded: 3 3 0 0", "{table}");
        assert_eq!(bench.sync(Postgres, Postgres, stream).await.0, "succeeded: 3 0 0 3", "{table}");
        let same = format!(
            "select count(*) from exact e join {table} t using (id)
              where (e.amount, e.ratio, e.large) = (t.amount, t.ratio::float8, t.large)"
        );
        assert_eq!(bench.ask::<i64>(&same).await, 3, "{table}");
    }
    bench.lab.write("a.csv", "id,amount\n1,1234567890123456.78\n2,2.50\n");
    let mapped = |kind| {
        json!({"mappings": [
            {"destination_field": "id", "source_path": "$.id", "destination_type": "integer", "is_key": true},
            {"destination_field": "amount", "source_path": "$.amount", "destination_type": kind}
        ]})
    };
    let (outcome, codes) = bench.sync(Files, Postgres, streams("a.csv", "there", mapped("number"))).await;
    assert_eq!(
        (outcome.as_str(), codes),
        ("partial: 2 1 1 0", vec!["TYPE:INVALID_NUMBER:amount:1".to_owned()])
    );
    assert_eq!(
        bench.sync(Files, Postgres, streams("a.csv", "there", mapped("string"))).await.0,
        "succeeded: 2 1 0 1"
    );
    bench.lab.write("a.jsonl", "{\"id\":0,\"amount\":-12345678901234567.89}\n");
    assert_eq!(
        bench.sync(Files, Postgres, streams("a.jsonl", "there", json!({}))).await.0,
        "succeeded: 1 1 0 0"
    );
    let amounts = "select string_agg(amount::text, ' ' order by id) from there where id < 3";
    assert_eq!(bench.ask::<String>(amounts).await, "-12345678901234567.89 1234567890123456.78 2.5");
}

#[tokio::test]
async fn an_incremental_table_is_read_on_from_its_cursor() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table events (id integer primary key, at timestamptz);
             insert into events select n, '2026-11-01T00:00:00Z'::timestamptz + (n / 60) * interval '1 minute' from generate_series(1, 250) n",
        )
        .await;
    let lab = &bench.lab;
    let postgres = lab.connector(Postgres, json!({"dsn": "lab", "create_tables": true})).await;
    let stream = streams("events", "seen", json!({"sync_mode": "incremental", "cursor_field": "at"}));
    let flow = lab.flow(&postgres, &postgres, stream, Policy::default()).await;
    assert_eq!(bench.again(&flow).await.0, "succeeded: 250 250 0 0");
    // Eleven rows have the last cursor; rows of that very moment may still come.
    assert_eq!(bench.again(&flow).await.0, "succeeded: 11 0 0 11");
    bench
        .run_sql("insert into events values (900, '2026-11-01T00:04:00Z'), (901, '2026-11-01T00:09:00Z'); update events set at = '2026-11-01T00:08:00Z' where id = 3")
        .await;
    assert_eq!(bench.again(&flow).await.0, "succeeded: 14 3 0 11");
    assert_eq!(bench.ask::<i64>("select count(*) from seen").await, 252);
    // What says no moment may have come at any.
    bench.run_sql("insert into events values (902, null)").await;
    assert_eq!(bench.again(&flow).await.0, "succeeded: 2 1 0 1");
    bench.run_sql("insert into events values (903, null)").await;
    assert_eq!(bench.again(&flow).await.0, "succeeded: 3 1 0 2");
    assert_eq!(bench.ask::<i64>("select count(*) from seen").await, 254);
}

/// They would be appended again by each run.
#[tokio::test]
async fn rows_without_a_cursor_are_not_appended_as_long_as_none_has_one() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table fresh (id integer primary key, at timestamptz);
             create table empty (id integer primary key, at timestamptz);
             insert into fresh select generate_series(1, 3)",
        )
        .await;
    let lab = &bench.lab;
    let postgres = lab.connector(Postgres, json!({"dsn": "lab", "create_tables": true})).await;
    let feed = |from: &str, to: &str, mode: &str| {
        streams(from, to, json!({"sync_mode": "incremental", "cursor_field": "at", "write_mode": mode}))
    };
    let flow = lab.flow(&postgres, &postgres, feed("fresh", "kept", "append"), Policy::default()).await;
    for _ in 0..2 {
        assert_eq!(bench.again(&flow).await.0, "failed CONFIG_INVALID: 0 0 0 0");
    }
    assert_eq!(
        lab.ask::<String>("select string_agg(distinct reason_message, ' ') from runs").await,
        "no record of 'fresh' has a value for the cursor field 'at'"
    );
    bench.run_sql("update fresh set at = '2026-11-01T00:00:00Z' where id = 3").await;
    for outcome in ["succeeded: 3 3 0 0", "succeeded: 0 0 0 0"] {
        assert_eq!(bench.again(&flow).await.0, outcome);
    }
    for (from, mode, outcome) in
        [("empty", "append", "succeeded: 0 0 0 0"), ("fresh", "upsert", "succeeded: 3 3 0 0")]
    {
        let to = format!("{from}_{mode}");
        let flow = lab.flow(&postgres, &postgres, feed(from, &to, mode), Policy::default()).await;
        assert_eq!(bench.again(&flow).await.0, outcome, "{to}");
    }
}

#[tokio::test]
async fn an_interrupted_read_of_what_has_no_cursor_goes_on_without_a_gap() {
    let bench = Bench::start().await;
    bench
        .run_sql("create table feed (id integer primary key, at integer); insert into feed select n, n from generate_series(1, 300) n")
        .await;
    let lab = &bench.lab;
    let source = lab.connector(Postgres, json!({"dsn": "lab"})).await;
    let fails = json!({"sim": {"fail_write": {"after": 420, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "later"}}});
    let sink = lab.connector(ConnectorKind::Sim, fails).await;
    let more = json!({"sync_mode": "incremental", "cursor_field": "at"});
    let flow = lab.flow(&source, &sink, streams("feed", "all", more), Policy::default()).await;
    assert_eq!(bench.again(&flow).await.0, "succeeded: 300 300 0 0");
    bench.run_sql("insert into feed select n, null from generate_series(301, 800) n").await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "retrying: 400 400 0 0");
    lab.clock.advance(chrono::TimeDelta::seconds(36));
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "succeeded: 501 501 0 0");
}

/// Rows that are appended are not read again, so a value counts as read only once all rows of it were.
#[tokio::test]
async fn a_run_that_fails_among_equal_cursors_passes_none_over() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table days (id integer primary key, day integer, n integer);
             insert into days select n, 7, case when n % 5 > 0 then n end from generate_series(1, 3000) n",
        )
        .await;
    let lab = &bench.lab;
    let postgres = lab.connector(Postgres, json!({"dsn": "lab", "create_tables": true})).await;
    let fields = json!([
        {"destination_field": "id", "source_path": "$.id"},
        {"destination_field": "n", "source_path": "$.n", "required": true}
    ]);
    let append = json!({"sync_mode": "incremental", "cursor_field": "day", "write_mode": "append", "key": [], "mappings": fields});
    let flow = lab.flow(&postgres, &postgres, streams("days", "kept", append), Policy::default()).await;
    let failed = bench.again(&flow).await.0;
    assert!(failed.starts_with("failed ERROR_THRESHOLD") && !failed.contains(" 3000 "), "{failed}");
    bench.run_sql("update days set n = id; delete from kept").await;
    assert_eq!(bench.again(&flow).await.0, "succeeded: 3000 3000 0 0");
    assert_eq!(bench.again(&flow).await.0, "succeeded: 0 0 0 0");
    bench.run_sql("insert into days values (3001, 8, 1)").await;
    assert_eq!(bench.again(&flow).await.0, "succeeded: 1 1 0 0");
}

/// Whoever corrects a mapping and runs it again gets the records that the run before rejected. Appended, others would come
/// twice with them: what was read of these is over.
#[tokio::test]
async fn what_a_run_rejected_too_much_of_comes_again() {
    let bench = Bench::start().await;
    bench
        .run_sql("create table orders (id integer primary key, at integer); insert into orders select n, n from generate_series(1, 300) n")
        .await;
    let lab = &bench.lab;
    lab.write("orders.csv", (1..=90).fold("id,at\n".to_owned(), |csv, n| csv + &format!("{n},{n}\n")));
    let postgres = lab.connector(Postgres, json!({"dsn": "lab"})).await;
    let files = lab.connector(Files, json!({"root": "mine"})).await;
    let mapped = |expression: &str| {
        json!([
            {"destination_field": "id", "source_path": "$.id", "is_key": true},
            {"destination_field": "n", "source_path": "$.at", "transform": expression, "required": true}
        ])
    };
    for (source, object, mode, failed, again) in [
        (&postgres, "orders", "upsert", "100 40 60 0", ["300 260 0 40", "1 0 0 1"]),
        (&postgres, "orders", "append", "100 40 60 0", ["201 201 0 0", "0 0 0 0"]),
        (&files, "orders.csv", "upsert", "90 30 60 0", ["90 60 0 30", "1 0 0 1"]),
        (&files, "orders.csv", "append", "90 30 60 0", ["0 0 0 0", "0 0 0 0"]),
    ] {
        let wrong = mapped("int(value) > 20 && int(value) < 81 ? null : value");
        let more =
            json!({"sync_mode": "incremental", "cursor_field": "at", "write_mode": mode, "mappings": wrong});
        let to = format!("{object}.{mode}.jsonl");
        let flow = lab.flow(source, &files, streams(object, &to, more), Policy::default()).await;
        assert_eq!(bench.again(&flow).await.0, format!("failed ERROR_THRESHOLD: {failed}"), "{to}");
        let corrected = format!(
            "update flow_versions set definition = jsonb_set(definition, '{{streams,0,mappings}}', '{}') where flow_id = '{flow}'",
            mapped("value")
        );
        lab.owner().await.execute(AssertSqlSafe(corrected)).await.unwrap();
        for outcome in again {
            assert_eq!(bench.again(&flow).await.0, format!("succeeded: {outcome}"), "{to}");
        }
    }
}

/// However often the other side fails, what was written is not read again.
#[tokio::test]
async fn a_run_that_fails_otherwise_keeps_what_it_reached() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table feed (id integer primary key); insert into feed select generate_series(1, 1000)",
        )
        .await;
    let lab = &bench.lab;
    let source = lab.connector(Postgres, json!({"dsn": "lab"})).await;
    let fails =
        json!({"sim": {"fail_write": {"after": 420, "class": "PERMISSION", "code": "403", "message": "no"}}});
    let sink = lab.connector(ConnectorKind::Sim, fails).await;
    let more = json!({"sync_mode": "incremental", "cursor_field": "id"});
    let flow = lab.flow(&source, &sink, streams("feed", "all", more), Policy::default()).await;
    for outcome in [
        "failed DESTINATION_ERROR: 400 400 0 0",
        "failed DESTINATION_ERROR: 400 400 0 0",
        "succeeded: 202 202 0 0",
    ] {
        assert_eq!(bench.again(&flow).await.0, outcome);
    }
}

#[tokio::test]
async fn an_interrupted_read_goes_on_without_a_gap() {
    let bench = Bench::start().await;
    bench.run_sql("create table many (id integer primary key, at integer); insert into many select n, n / 40 from generate_series(1, 1000) n").await;
    for (mode, more) in
        [("full", json!({})), ("incremental", json!({"sync_mode": "incremental", "cursor_field": "at"}))]
    {
        let lab = &bench.lab;
        let source = lab.connector(Postgres, json!({"dsn": "lab"})).await;
        let fails = json!({"sim": {"fail_write": {"after": 420, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "later"}}});
        let sink = lab.connector(ConnectorKind::Sim, fails).await;
        let flow = lab.flow(&source, &sink, streams("many", mode, more), Policy::default()).await;
        let run = lab.queue(&flow).await;
        lab.work().await;
        let stopped = lab.outcome(&run).await;
        assert!(stopped.starts_with("retrying: 400 "), "{stopped}");
        lab.clock.advance(chrono::TimeDelta::seconds(36));
        lab.work().await;
        assert_eq!(lab.outcome(&run).await, "succeeded: 1000 1000 0 0", "{mode}");
    }
}

/// Whoever leads a connector elsewhere while a run waits for its next attempt finds all of it there.
#[tokio::test]
async fn an_interrupted_read_begins_anew_in_another_place() {
    let (one, other) = (flows_database().await, flows_database().await);
    let lab =
        Lab::start_with(BTreeMap::from([("one".to_owned(), one), ("other".to_owned(), other.clone())])).await;
    let lead = async |(id, record): &(_, ConnectorRecord), config: Value| {
        let record = ConnectorRecord { config, ..record.clone() };
        let mut tx = lab.store.begin(&lab.tenancy).await.unwrap();
        tx.put_connector(id, &record).await.unwrap();
        tx.commit().await.unwrap();
    };
    let next_attempt = async |run: &RunId| {
        lab.clock.advance(chrono::TimeDelta::seconds(36));
        lab.work().await;
        lab.outcome(run).await
    };
    let fails = json!({"records": 1000, "fail_read": {"after": 450, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "later"}});
    let source = lab.connector(ConnectorKind::Sim, json!({ "sim": fails })).await;
    let sink = lab.connector(Postgres, json!({"dsn": "one", "create_tables": true})).await;
    for mode in ["upsert", "append"] {
        let flow = lab
            .flow(&source, &sink, streams("all", mode, json!({"write_mode": mode})), Policy::default())
            .await;
        let run = lab.queue(&flow).await;
        lab.work().await;
        assert_eq!(lab.outcome(&run).await, "retrying: 450 450 0 0");
        lead(&sink, json!({"dsn": "other", "create_tables": true})).await;
        assert_eq!(next_attempt(&run).await, "succeeded: 1450 1450 0 0", "{mode}");
        assert_eq!(lab.timeline(&run).await, ["queued", "retry", "checkpoint", "finished"]);
        let there = format!("select count(*) from {mode}");
        let there: i64 = sqlx::query_scalar(AssertSqlSafe(there))
            .fetch_one(&mut other.connect().await.unwrap())
            .await
            .unwrap();
        assert_eq!(there, 1000, "{mode}");
        lead(&sink, json!({"dsn": "one", "create_tables": true})).await;
    }
    for dsn in ["one", "other"] {
        let mut conn = lab.dsns[dsn].connect().await.unwrap();
        let table =
            "create table many (id integer primary key); insert into many select generate_series(1, 1000)";
        conn.execute(table).await.unwrap();
    }
    let fails = json!({"sim": {"fail_write": {"after": 420, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "later"}}});
    let source = lab.connector(Postgres, json!({"dsn": "one"})).await;
    let sink = lab.connector(ConnectorKind::Sim, fails).await;
    for (mode, outcome) in
        [("upsert", "succeeded: 1400 1400 0 0"), ("append", "failed SOURCE_ERROR: 400 400 0 0")]
    {
        let flow = lab
            .flow(&source, &sink, streams("many", mode, json!({"write_mode": mode})), Policy::default())
            .await;
        let run = lab.queue(&flow).await;
        lab.work().await;
        assert_eq!(lab.outcome(&run).await, "retrying: 400 400 0 0");
        lead(&source, json!({"dsn": "other"})).await;
        assert_eq!(next_attempt(&run).await, outcome, "{mode}");
        lead(&source, json!({"dsn": "one"})).await;
    }
}

/// Counting what is there may take longer than a statement may, and reading it page by page does not.
#[tokio::test]
async fn a_run_goes_on_without_an_estimate() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table few (id integer primary key); insert into few values (1), (2);
             create function slow() returns text language plpgsql as $$ begin
                 if current_query() like '%count(*)%' then
                     raise query_canceled using message = current_setting('statement_timeout');
                 end if;
                 return current_setting('statement_timeout');
             end $$;
             create view slowly as select id, slow() as allowed from few",
        )
        .await;
    let (outcome, codes) = bench.sync(Postgres, Files, streams("slowly", "out.jsonl", json!({}))).await;
    assert_eq!((outcome.as_str(), codes), ("succeeded: 2 2 0 0", vec![]));
    assert_eq!(bench.lab.ask::<Option<i64>>("select records_estimated from runs").await, None);
    let text = std::fs::read_to_string(bench.lab.files.path().join("out.jsonl")).unwrap();
    assert_eq!(text.lines().next(), Some("{\"id\":1,\"allowed\":\"2min\"}"));
}

#[tokio::test]
async fn a_page_holds_few_rows_where_they_are_large() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table wide (id integer primary key, text text);
             insert into wide select n, case when n > 8 then repeat('x', 1000000) end from generate_series(1, 38) n",
        )
        .await;
    let (outcome, _) = bench.sync(Postgres, ConnectorKind::Sim, streams("wide", "wide", json!({}))).await;
    assert_eq!(outcome, "succeeded: 38 38 0 0");
    let batches: i64 = bench.lab.ask("select (checkpoint ->> 'batch')::bigint from runs").await;
    assert_eq!(batches, 4, "three pages, and the end of the stream");
}

/// A table with a primary key is read on after the last key, so rows that come and go shift no others.
#[tokio::test]
async fn an_interrupted_read_minds_no_rows_that_went_meanwhile() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table pairs (a text, b integer, n integer, primary key (b, a));
             insert into pairs select 'it''s ' || n % 3, n / 3, n from generate_series(1, 1000) n",
        )
        .await;
    let lab = &bench.lab;
    let source = lab.connector(Postgres, json!({"dsn": "lab"})).await;
    let fails = json!({"sim": {"fail_write": {"after": 420, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "later"}}});
    let sink = lab.connector(ConnectorKind::Sim, fails).await;
    let flow = lab
        .flow(&source, &sink, streams("pairs", "all", json!({"key": ["a", "b"]})), Policy::default())
        .await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    let stopped = lab.outcome(&run).await;
    assert!(stopped.starts_with("retrying: 400 "), "{stopped}");
    bench.run_sql("delete from pairs where n <= 100; update pairs set n = n + 5000 where n = 950").await;
    lab.clock.advance(chrono::TimeDelta::seconds(36));
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "succeeded: 1000 1000 0 0");
}

/// What an incremental read had when it was interrupted may be changed or gone when it goes on.
#[tokio::test]
async fn an_interrupted_incremental_read_minds_no_rows_that_changed_meanwhile() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table feed (id integer primary key, at integer not null);
             insert into feed select n, n from generate_series(1, 1000) n",
        )
        .await;
    let lab = &bench.lab;
    let source = lab.connector(Postgres, json!({"dsn": "lab"})).await;
    let fails = json!({"sim": {"fail_write": {"after": 420, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "later"}}});
    let sink = lab.connector(ConnectorKind::Sim, fails).await;
    let more = json!({"sync_mode": "incremental", "cursor_field": "at"});
    let flow = lab.flow(&source, &sink, streams("feed", "all", more), Policy::default()).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "retrying: 400 400 0 0");
    bench.run_sql("update feed set at = 5000 where id = 400; delete from feed where id = 7").await;
    lab.clock.advance(chrono::TimeDelta::seconds(36));
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "succeeded: 1001 1001 0 0", "600 that were left, and one again");
}

#[tokio::test]
async fn a_table_is_read_whatever_its_columns_are_called_and_keyed_by() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table triples (id integer, s text, r text, note text, primary key (id) include (note));
             insert into triples values (1, 'x', 'y', null), (2, null, 'z', 'w')",
        )
        .await;
    assert_eq!(
        bench.sync(Postgres, Files, streams("triples", "out.jsonl", json!({}))).await,
        ("succeeded: 2 2 0 0".to_owned(), vec![])
    );
    let feed = json!({"sync_mode": "incremental", "cursor_field": "r"});
    assert_eq!(
        bench.sync(Postgres, Files, streams("triples", "feed.jsonl", feed)).await,
        ("succeeded: 2 2 0 0".to_owned(), vec![])
    );
}

#[tokio::test]
async fn what_is_written_differently_is_another_value() {
    let bench = Bench::start().await;
    bench.run_sql("create table spans (id integer primary key, span interval, shape point[])").await;
    let rows =
        |span: &str| format!("{{\"id\": 1, \"span\": \"{span}\", \"shape\": \"{{\\\"(1,2)\\\"}}\"}}\n");
    for (span, expected) in
        [("30 days", "succeeded: 1 1 0 0"), ("1 mon", "succeeded: 1 1 0 0"), ("1 mon", "succeeded: 1 0 0 1")]
    {
        bench.lab.write("spans.jsonl", rows(span));
        let stream = streams("spans.jsonl", "spans", json!({"key": ["id"]}));
        assert_eq!(bench.sync(Files, Postgres, stream).await, (expected.to_owned(), vec![]), "{span}");
    }
}

#[tokio::test]
async fn one_bad_row_is_rejected_and_no_other() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table parents (id integer primary key); insert into parents values (1), (2), (4);
             create table children (id integer primary key, parent integer references parents deferrable initially deferred);
             create function strict() returns trigger language plpgsql as
                 $$ begin if new.id = 2 then raise exception 'credit limit'; end if; return new; end $$;
             create trigger strict before insert on children for each row execute function strict()",
        )
        .await;
    let rows = [1, 2, 3, 4].map(|id| format!("{{\"id\": {id}, \"parent\": {id}}}\n")).concat();
    bench.lab.write("children.jsonl", rows + "{}\n");
    let append = json!({"write_mode": "append"});
    let (outcome, mut codes) =
        bench.sync(Files, Postgres, streams("children.jsonl", "children", append)).await;
    codes.sort();
    assert_eq!(outcome, "partial: 5 2 3 0");
    assert_eq!(
        codes,
        [
            "REFERENCE:FOREIGN_KEY_VIOLATION:children_parent_fkey:1",
            "VALIDATION:EMPTY_RECORD:1",
            "VALIDATION:RAISE_EXCEPTION:1"
        ]
    );
}

#[tokio::test]
async fn a_source_only_reads() {
    let bench = Bench::start().await;
    bench.run_sql("create table a (id integer primary key); insert into a values (1); create function f() returns integer language sql as 'delete from a returning 1'").await;
    for query in [
        "delete from a returning id",
        "select f() as id",
        "with d as (delete from a returning id) select * from d",
        "select 1 as id) s; drop table a; --",
        "select pg_sleep(0) as id, nope",
    ] {
        let mut stream = streams("a", "b", json!({}));
        stream[0]["source_query"] = json!(query);
        let (outcome, codes) = bench.sync(Postgres, Postgres, stream).await;
        assert!(outcome.starts_with("failed CONFIG_INVALID"), "{query}: {outcome}");
        assert_eq!(codes.len(), 1, "{query}");
    }
    assert_eq!(bench.ask::<i64>("select count(*) from a").await, 1);
}

/// What it says is in the order that its database has.
#[tokio::test]
async fn a_query_means_what_it_means_elsewhere() {
    let bench = Bench::start().await;
    let query = "select 1 as id, '01/07/2026'::date as day, '{[1,3)}'::int4multirange as spans";
    let stream = streams("query", "out.jsonl", json!({ "source_query": query }));
    assert_eq!(bench.sync(Postgres, Files, stream).await.0, "succeeded: 1 1 0 0");
    let text = std::fs::read_to_string(bench.lab.files.path().join("out.jsonl")).unwrap();
    assert_eq!(text, "{\"id\":1,\"day\":\"2026-01-07\",\"spans\":\"{[1,3)}\"}\n");
}

#[tokio::test]
async fn a_query_gives_each_name_once() {
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table customers (id integer primary key, name text); insert into customers values (7, 'Ana');
             create table orders (id integer primary key, customer integer); insert into orders values (1, 7), (2, 7)",
        )
        .await;
    let joined = |columns: &str| {
        let query = format!("select {columns} from orders o join customers c on c.id = o.customer");
        streams("query", "out.jsonl", json!({ "source_query": query }))
    };
    let (outcome, _) = bench.sync(Postgres, Files, joined("o.id, c.id, c.name")).await;
    assert_eq!(outcome, "failed CONFIG_INVALID: 0 0 0 0");
    assert_eq!(
        bench.lab.ask::<String>("select reason_message from runs").await,
        "the query gives 'id' twice; name one of them with `as`"
    );
    let (outcome, _) = bench.sync(Postgres, Files, joined("o.id, c.id as customer, c.name")).await;
    assert_eq!(outcome, "succeeded: 2 2 0 0");
    let text = std::fs::read_to_string(bench.lab.files.path().join("out.jsonl")).unwrap();
    assert_eq!(text.lines().next(), Some("{\"id\":1,\"name\":\"Ana\",\"customer\":7}"));
}

#[tokio::test]
async fn what_does_not_exist_is_said_plainly() {
    let bench = Bench::start().await;
    bench.run_sql("create table b (id integer, name text)").await;
    bench.lab.write("a.csv", "id\n1\n");
    let files = bench.lab.connector(Files, json!({"root": "mine"})).await;
    let plain = bench.lab.connector(Postgres, json!({"dsn": "lab"})).await;
    let mapped = json!({"key": [], "mappings": [{"destination_field": "lost", "source_path": "$.id", "is_key": true}]});
    for (to, more, expected) in [
        ("missing", json!({}), "the table 'missing' does not exist"),
        ("nowhere.b", json!({}), "the table 'nowhere.b' does not exist"),
        ("a.b.c", json!({}), "names no table"),
        ("b", mapped, "the table 'b' has no column 'lost'"),
        ("b", json!({}), "there is no unique or exclusion constraint"),
        ("b", json!({"key": []}), "an upsert needs a key"),
    ] {
        let flow = bench.lab.flow(&files, &plain, streams("a.csv", to, more), Policy::default()).await;
        let (outcome, _) = bench.again(&flow).await;
        assert_eq!(outcome, "failed CONFIG_INVALID: 0 0 0 0", "{to}");
        let said: String =
            bench.lab.ask(&format!("select reason_message from runs where flow_id = '{flow}'")).await;
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn our_own_database_is_out_of_reach() {
    let database = TestDatabase::create().await;
    let target = flows_database().await;
    let dsns = BTreeMap::from([
        ("owner".to_owned(), database.owner.clone()),
        ("server".to_owned(), database.server.clone()),
        ("owner elsewhere".to_owned(), database.owner.clone().database("postgres")),
        ("nobody".to_owned(), target.clone().username("nobody_there")),
        ("stranger".to_owned(), target.clone().username("postgres")),
        ("no database".to_owned(), target.clone().database("test_none_such")),
        // It says that it is somebody else, but a query could take that back.
        ("owner in disguise".to_owned(), {
            let name = target.get_database().unwrap().to_owned();
            database.owner.clone().database(&name).options([("role", FLOWS)])
        }),
        ("lab".to_owned(), target),
    ]);
    let lab = Lab::start_with(dsns.clone()).await;
    lab.write("a.csv", "id\n1\n");
    let files = lab.connector(Files, json!({"root": "mine"})).await;
    for name in dsns.keys().map(String::as_str).chain(["unknown"]).filter(|name| *name != "lab") {
        let postgres = lab.connector(Postgres, json!({ "dsn": name })).await;
        for (source, destination) in [(&postgres, &files), (&files, &postgres)] {
            let (from, to) =
                if source.0 == files.0 { ("a.csv", "public.tokens") } else { ("public.tokens", "o.jsonl") };
            let flow = lab.flow(source, destination, streams(from, to, json!({})), Policy::default()).await;
            let run = lab.queue(&flow).await;
            lab.work().await;
            let outcome = lab.outcome(&run).await;
            assert!(
                outcome.starts_with("failed CONFIG_INVALID") || outcome.starts_with("failed AUTH_EXPIRED"),
                "{name}: {outcome}"
            );
        }
    }
    let lab_database = lab.connector(Postgres, json!({"dsn": "lab", "create_tables": true})).await;
    let flow = lab.flow(&files, &lab_database, streams("a.csv", "fine", json!({})), Policy::default()).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(
        lab.outcome(&run).await,
        "succeeded: 1 1 0 0",
        "a database of its own on the same cluster is fine"
    );
    lab.engine.check_tick().await.unwrap();
    let seen: String = lab.ask("select string_agg(status || ' ' || auth_status, ',') from connectors where config ->> 'dsn' = 'lab'").await;
    assert_eq!(seen, "healthy valid");
}

/// Whatever a database says of a record, quoted or not, of one record or at the end of a run: nothing of a sensitive
/// field is kept.
#[tokio::test]
async fn what_a_database_says_of_a_sensitive_value_is_not_kept() {
    const SECRET: &str = "DE77CANARY77";
    let bench = Bench::start().await;
    bench
        .run_sql(
            "create table kept (id integer primary key, tax text);
             create table taken (id integer primary key, tax integer);
             create table source (id integer primary key, tax text);
             insert into source values (1, 'DE77CANARY77');
             create function refuse() returns trigger language plpgsql as $$ begin
               if new.id = 1 then
                 raise exception 'bad tax number % of it''s owner', new.tax using errcode = '23514', column = new.tax;
               end if;
               raise exception 'no more of %', new.tax using errcode = '42501', constraint = new.tax;
             end $$;
             create trigger refuse before insert on kept for each row execute function refuse();",
        )
        .await;
    let mapped = |query: Value| {
        json!({"source_query": query, "mappings": [
            {"destination_field": "id", "source_path": "$.id", "destination_type": "integer", "is_key": true},
            {"destination_field": "tax", "source_path": "$.tax", "sensitive": true}
        ]})
    };
    let mut outcomes = Vec::new();
    for (content, table) in [
        ("id,tax\n1,DE77CANARY77\n", "kept"),
        ("id,tax\n2,DE77CANARY77\n", "kept"),
        ("id,tax\n3,DE77CANARY77\n", "taken"),
    ] {
        bench.lab.write("a.csv", content);
        outcomes.push(bench.sync(Files, Postgres, streams("a.csv", table, mapped(Value::Null))).await.0);
    }
    let query = json!("select id, tax::integer as tax from source");
    outcomes.push(bench.sync(Postgres, Files, streams("source", "o.jsonl", mapped(query))).await.0);
    assert!(outcomes[1].starts_with("failed") && outcomes[3].starts_with("failed"), "{outcomes:?}");
    assert!(outcomes[0].contains("1 0 1 0") && outcomes[2].contains("1 0 1 0"), "{outcomes:?}");
    let mut owner = bench.lab.owner().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert!(tables.iter().any(|table| table == "run_errors"));
    for table in tables {
        let rows = format!("select coalesce(string_agg(t::text, ' '), '') from {table} t");
        let rows: String = bench.lab.ask(&rows).await;
        assert!(!rows.contains(SECRET) && !rows.contains("77CANARY"), "{table}: {rows}");
    }
    let said: String = bench.lab.ask("select string_agg(message, ' ') from run_errors").await;
    assert!(said.contains("may repeat a sensitive field"), "{said}");
}

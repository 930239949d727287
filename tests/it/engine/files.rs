//! Files, well-formed and hostile.

use std::os::unix::fs::symlink;

use apixx_mcp::domain::connector::ConnectorKind;
use apixx_mcp::domain::error_class::ErrorGrouping;
use apixx_mcp::domain::ids::{FlowId, RunId};
use apixx_mcp::domain::window::Window;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{Lab, Policy, streams};

/// Runs one stream from a file to a file, and says how it went.
async fn copy(lab: &Lab, from: &str, to: &str, more: Value) -> RunId {
    let files = lab.connector(ConnectorKind::Files, json!({"root": "mine"})).await;
    let flow = lab
        .flow(&files, &files, streams(from, to, more), Policy { max_error_rate: 1.0, ..Policy::default() })
        .await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    run
}

/// The errors that a flow's summary counts in a window.
async fn errors_between(lab: &Lab, since: DateTime<Utc>, until: DateTime<Utc>) -> i64 {
    let flow = FlowId::parse(&lab.ask::<String>("select flow_id from flows").await).unwrap();
    let window = Window { since, until, label: None, reaches_now: false };
    let read = lab.store.read(&lab.tenancy);
    read.flow_errors(&flow, &window, ErrorGrouping::Code, 10).await.unwrap().total
}

fn lines(lab: &Lab, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(lab.files.path().join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn codes(lab: &Lab, run: &RunId) -> Vec<String> {
    lab.ask(&format!(
        "select coalesce(array_agg(e.code || ':' || c.count order by e.code), '{{}}') from run_error_counts c
           join error_groups e using (customer_id, group_id) where c.run_id = '{run}'"
    ))
    .await
}

#[tokio::test]
async fn a_warning_is_counted_wherever_the_hour_is_cut_and_is_no_first_error() {
    let lab = Lab::start().await;
    lab.write("w.csv", "id,email\n1,nonsense\n2,b@example.com\n");
    let warned = json!({"mappings": [
        {"destination_field": "id", "source_path": "$.id"},
        {"destination_field": "email", "source_path": "$.email", "validate": {"format": "email"}, "on_fail": "warn"}]});
    let run = copy(&lab, "w.csv", "w.jsonl", warned).await;
    assert_eq!(lab.outcome(&run).await, "succeeded: 2 2 0 0");
    assert_eq!(lab.timeline(&run).await, ["queued", "finished"]);
    assert_eq!(codes(&lab, &run).await, ["INVALID_EMAIL:1"]);
    let ended: DateTime<Utc> = lab.ask("select finished_at from runs").await;
    let hour = ended.duration_trunc(TimeDelta::hours(1)).unwrap();
    assert_eq!(errors_between(&lab, hour, hour + TimeDelta::hours(1)).await, 1, "from the roll-up");
    let second = TimeDelta::seconds(1);
    assert_eq!(errors_between(&lab, ended - second, ended + second).await, 1, "from the run");
}

#[tokio::test]
async fn every_form_is_read_and_a_second_run_changes_nothing() {
    let lab = Lab::start().await;
    lab.write("a.csv", "\u{feff}id,name,note\r\n1,Ana,\"two\nlines\"\r\n2,\"say \"\"hi\"\"\",\r\n");
    lab.write("a.jsonl", "{\"id\":1,\"name\":\"Ana\",\"note\":\"two\\nlines\"}\n\n{\"id\":2,\"name\":\"say \\\"hi\\\"\",\"note\":null}");
    lab.write("a.json", " [ {\"id\":1,\"name\":\"Ana\",\"note\":\"two\\nlines\"} ,\n{\"id\":2,\"name\":\"say \\\"hi\\\"\",\"note\":null}]");
    for (from, one) in [("a.csv", json!("1")), ("a.jsonl", json!(1)), ("a.json", json!(1))] {
        let to = format!("{from}.out.jsonl");
        let first = copy(&lab, from, &to, json!({})).await;
        assert_eq!(lab.outcome(&first).await, "succeeded: 2 2 0 0", "{from}");
        let written = lines(&lab, &to);
        assert_eq!(written[0], json!({"id": one, "name": "Ana", "note": "two\nlines"}), "{from}");
        assert_eq!(
            (&written[1]["name"], &written[1]["note"]),
            (&json!("say \"hi\""), &Value::Null),
            "{from}"
        );
        let second = copy(&lab, from, &to, json!({})).await;
        assert_eq!(lab.outcome(&second).await, "succeeded: 2 0 0 2", "{from}");
        let said: String = lab
            .ask(&format!(
                "select message from run_events where run_id = '{second}' order by seq desc limit 1"
            ))
            .await;
        assert!(said.contains("nothing changed"), "{said}");
    }
}

#[tokio::test]
async fn broken_lines_are_errors_and_not_the_end() {
    let lab = Lab::start().await;
    let mut hostile = b"id,name\n1,a\n2\n3,c,d\n4,\xff\xfe\n5,nul\0\n6,\"never closed\n7,g\n10,".to_vec();
    hostile.extend(std::iter::repeat_n(b'x', 2 << 20));
    hostile.extend_from_slice(b"\n11,k\n12,\"open\n13,m\n");
    lab.write("bad.csv", hostile);
    let run = copy(&lab, "bad.csv", "out.jsonl", json!({})).await;
    let ids: Vec<Value> = lines(&lab, "out.jsonl").into_iter().map(|line| line["id"].clone()).collect();
    assert_eq!(ids, ["1", "7", "11", "13"]);
    assert_eq!(
        codes(&lab, &run).await,
        [
            "INVALID_CHARACTER:1",
            "INVALID_UTF8:1",
            "QUOTE_NOT_CLOSED:1",
            "RECORD_TOO_LARGE:2",
            "WRONG_FIELD_COUNT:2"
        ]
    );
    let (read, sum): (i64, i64) = (
        lab.ask("select records_read from runs").await,
        lab.ask("select records_written + records_failed + records_skipped from runs").await,
    );
    assert_eq!(read, sum);
}

#[tokio::test]
async fn lines_without_the_key_stay_as_they_stand() {
    let lab = Lab::start().await;
    let before = ["{\"order_id\":1}", "{\"order_id\": 2 }", "{\"id\":null,\"n\":3}", "{\"id\":1,\"n\":4}"];
    lab.write("shared.jsonl", before.join("\n"));
    lab.write("a.jsonl", "{\"id\":1,\"n\":9}\n{\"id\":null}\n{\"n\":5}\n{\"id\":2}\n");
    for outcome in ["partial: 4 2 2 0", "partial: 4 0 2 2"] {
        let run = copy(&lab, "a.jsonl", "shared.jsonl", json!({})).await;
        assert_eq!(lab.outcome(&run).await, outcome);
        assert_eq!(codes(&lab, &run).await, ["REQUIRED_FIELD_MISSING:2"]);
        let after = std::fs::read_to_string(lab.files.path().join("shared.jsonl")).unwrap();
        let lines: Vec<&str> = after.lines().collect();
        assert_eq!(lines[..3], before[..3]);
        assert_eq!(lines[3..], ["{\"id\":1,\"n\":9}", "{\"id\":2}"]);
    }
}

#[tokio::test]
async fn a_number_of_a_document_stays_a_number() {
    let lab = Lab::start().await;
    let line = |lat: &str| format!("{{\"id\":1,\"geo\":{{\"lat\":{lat}}}}}\n");
    for (from, to) in [
        ("52.520006600000002", "52.5200066"),
        ("12345678901234.567", "\"12345678901234.567\""),
        ("52.5", "52.5"),
        ("12345678901234567.89", "\"12345678901234567.89\""),
        ("18446744073709551617", "\"18446744073709551617\""),
    ] {
        lab.write("a.jsonl", line(from));
        let run = copy(&lab, "a.jsonl", "out.jsonl", json!({})).await;
        assert_eq!(lab.outcome(&run).await, "succeeded: 1 1 0 0", "{from}");
        assert_eq!(std::fs::read_to_string(lab.files.path().join("out.jsonl")).unwrap(), line(to));
    }
}

#[tokio::test]
async fn a_field_that_is_left_out_stays_as_it_is() {
    let lab = Lab::start().await;
    let written = json!({"mappings": [
        {"destination_field": "id", "source_path": "$.id", "is_key": true},
        {"destination_field": "note", "source_path": "$.note", "filter": "value != null"},
        {"destination_field": "n", "source_path": "$.n"}
    ]});
    for (row, outcome, line) in [
        ("1,x,1", "succeeded: 1 1 0 0", json!({"id": "1", "note": "x", "n": "1"})),
        ("1,,2", "succeeded: 1 1 0 0", json!({"id": "1", "note": "x", "n": "2"})),
        ("1,,2", "succeeded: 1 0 0 1", json!({"id": "1", "note": "x", "n": "2"})),
        ("1,y,", "succeeded: 1 1 0 0", json!({"id": "1", "note": "y", "n": null})),
    ] {
        lab.write("a.csv", format!("id,note,n\n{row}\n"));
        let run = copy(&lab, "a.csv", "a.jsonl", written.clone()).await;
        assert_eq!(lab.outcome(&run).await, outcome, "{row}");
        assert_eq!(lines(&lab, "a.jsonl"), [line], "{row}");
    }
    // Where every field is copied, what the source no longer has is no field any more.
    lab.write("a.csv", "id,n\n1,3\n");
    let run = copy(&lab, "a.csv", "a.jsonl", json!({})).await;
    assert_eq!(lab.outcome(&run).await, "succeeded: 1 1 0 0");
    assert_eq!(lines(&lab, "a.jsonl"), [json!({"id": "1", "n": "3"})]);
}

#[tokio::test]
async fn an_open_quote_swallows_one_line_only() {
    let lab = Lab::start().await;
    lab.write("open.csv", "id,name\n1,a\n2,\"b\n3,c\n4,d\n");
    let run = copy(&lab, "open.csv", "out.jsonl", json!({})).await;
    assert_eq!(lab.outcome(&run).await, "partial: 4 3 1 0");
    assert_eq!(codes(&lab, &run).await, ["QUOTE_NOT_CLOSED:1"]);
}

#[tokio::test]
async fn broken_json_is_an_error_of_its_record() {
    let lab = Lab::start().await;
    let long = format!("{{\"id\":9,\"x\":\"{}\"}}", "y".repeat(2 << 20));
    let deep = format!("{{\"id\":8,\"x\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let broken = ["{\"id\":1}", "{\"id\":2,}", "[1]", "null", &long, &deep, "{\"id\":3,\"s\":\"\\u0000\"}"];
    lab.write("bad.jsonl", broken.join("\n"));
    lab.write("bad.json", format!("[{}]", broken.join(",")));
    for from in ["bad.jsonl", "bad.json"] {
        let run = copy(&lab, from, &format!("{from}.out.jsonl"), json!({})).await;
        assert_eq!(
            codes(&lab, &run).await,
            ["INVALID_CHARACTER:1", "INVALID_JSON:2", "NOT_AN_OBJECT:2", "RECORD_TOO_LARGE:1"],
            "{from}"
        );
        assert_eq!(lab.outcome(&run).await, "partial: 7 1 6 0", "{from}");
    }
    lab.write("open.json", "[{\"id\":1},{\"id\":2}");
    let open = copy(&lab, "open.json", "open.out.jsonl", json!({})).await;
    assert_eq!(codes(&lab, &open).await, ["ARRAY_NOT_CLOSED:1"]);
    lab.write("object.json", "{\"id\":1}");
    let object = copy(&lab, "object.json", "object.out.jsonl", json!({})).await;
    assert_eq!(codes(&lab, &object).await, ["NOT_AN_ARRAY:1"]);
}

#[tokio::test]
async fn what_follows_the_array_of_a_json_file_is_told() {
    let lab = Lab::start().await;
    for (rest, outcome) in [
        (" \n\r\n\t", "succeeded: 2 2 0 0"),
        ("\n[{\"id\":3},{\"id\":4}]", "failed CONFIG_INVALID: 2 2 0 0"),
        ("]", "failed CONFIG_INVALID: 2 2 0 0"),
    ] {
        lab.write("two.json", format!("[{{\"id\":1}},{{\"id\":2}}]{rest}"));
        let _ = std::fs::remove_file(lab.files.path().join("two.jsonl"));
        let run = copy(&lab, "two.json", "two.jsonl", json!({})).await;
        assert_eq!(lab.outcome(&run).await, outcome, "{rest:?}");
        if outcome.starts_with("failed") {
            assert_eq!(codes(&lab, &run).await, ["MORE_AFTER_ARRAY:1"], "{rest:?}");
        }
    }
}

#[tokio::test]
async fn of_a_broken_record_no_secret_is_kept() {
    let lab = Lab::start().await;
    let one = "{\"id\":1,\"password\":\"hunter2\",\"api_key\":\"k-1\",\"note\":\"a\\u0000b\"}";
    let two = "{\"id\":2,\"password\":\"hunter2\",\"note\":}";
    lab.write("a.jsonl", format!("{one}\n{two}\n"));
    lab.write("a.json", format!("[{one},{two}]"));
    lab.write("a.csv", "id,note,password\n1,a\0b,hunter2\n2,hunter2\n\"3,x,hunter2\n");
    lab.write("b.csv", "password,id\nhunter2,1,\nhunter2,\0\n");
    for (from, told) in [
        (
            "a.jsonl",
            vec![
                "{\"id\": 1, \"note\": \"ab\", \"api_key\": \"[redacted]\", \"password\": \"[redacted]\"}",
                "{\"line\": \"{\\\"id\\\":2,\\\"password[redacted]\"}",
            ],
        ),
        (
            "a.json",
            vec![
                "{\"id\": 1, \"note\": \"ab\", \"api_key\": \"[redacted]\", \"password\": \"[redacted]\"}",
                "{\"line\": \"{\\\"id\\\":2,\\\"password[redacted]\"}",
            ],
        ),
        ("a.csv", vec!["{\"id\": \"1\", \"note\": \"ab\", \"password\": \"[redacted]\"}", "none", "none"]),
        ("b.csv", vec!["none", "{\"id\": \"\", \"password\": \"[redacted]\"}"]),
    ] {
        let run = copy(&lab, from, "out.jsonl", json!({})).await;
        let payloads = format!(
            "select array_agg(coalesce(payload::text, 'none') order by record_index) from run_errors
              where run_id = '{run}'"
        );
        assert_eq!(lab.ask::<Vec<String>>(&payloads).await, told, "{from}");
    }
}

#[tokio::test]
async fn a_header_must_name_its_columns() {
    let lab = Lab::start().await;
    let columns = (0..10_000).map(|n| format!("c{n}")).collect::<Vec<_>>().join(",");
    for (content, expected) in [
        (String::new(), "the file is empty"),
        (columns, "names 10000 columns; 2000 are allowed"),
        ("id,id\n1,2\n".to_owned(), "names 'id' twice"),
        (format!("\"{}", "x".repeat(3 << 20)), "does not name columns"),
    ] {
        lab.write("h.csv", content);
        let run = copy(&lab, "h.csv", "h.jsonl", json!({})).await;
        let said: String = lab
            .ask(&format!("select reason_code || ' ' || reason_message from runs where run_id = '{run}'"))
            .await;
        assert!(said.starts_with("CONFIG_INVALID") && said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn nothing_outside_of_the_directory_is_touched() {
    let lab = Lab::start().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.csv"), "id\n1\n").unwrap();
    symlink(outside.path().join("secret.csv"), lab.files.path().join("link.csv")).unwrap();
    symlink(outside.path(), lab.files.path().join("dir")).unwrap();
    symlink(outside.path().join("new.jsonl"), lab.files.path().join("link.jsonl")).unwrap();
    nix::unistd::mkfifo(&lab.files.path().join("pipe.csv"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::create_dir(lab.files.path().join("folder.csv")).unwrap();
    lab.write("good.csv", "id\n1\n");
    let secret = outside.path().join("secret.csv").display().to_string();
    for (from, to) in [
        (secret.as_str(), "o.jsonl"),
        ("../secret.csv", "o.jsonl"),
        ("a/../../secret.csv", "o.jsonl"),
        ("link.csv", "o.jsonl"),
        ("dir/secret.csv", "o.jsonl"),
        ("pipe.csv", "o.jsonl"),
        ("folder.csv", "o.jsonl"),
        ("missing.csv", "o.jsonl"),
        ("a\u{0}.csv", "o.jsonl"),
        ("good.csv", "../o.jsonl"),
        ("good.csv", "dir/o.jsonl"),
        ("good.csv", "link.jsonl"),
        ("good.csv", "nowhere/o.jsonl"),
        ("good.csv", "o.csv"),
    ] {
        // The database cannot even hold a NUL.
        if from.contains('\0') {
            continue;
        }
        let run = copy(&lab, from, to, json!({})).await;
        let outcome = lab.outcome(&run).await;
        assert_eq!(outcome, "failed CONFIG_INVALID: 0 0 0 0", "{from} -> {to}");
        let said: String = lab.ask(&format!("select reason_message from runs where run_id = '{run}'")).await;
        assert!(!said.contains(&outside.path().display().to_string()) || from == secret, "{said}");
    }
    let left: Vec<_> = std::fs::read_dir(outside.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing was written there");
}

#[tokio::test]
async fn an_incremental_stream_reads_on_from_its_cursor() {
    let lab = Lab::start().await;
    let more = json!({"sync_mode": "incremental", "cursor_field": "at"});
    lab.write("feed.csv", "id,at\n1,2026-11-01\n2,2026-11-03\n3,2026-11-02\n");
    let files = lab.connector(ConnectorKind::Files, json!({"root": "mine"})).await;
    let flow = lab.flow(&files, &files, streams("feed.csv", "feed.jsonl", more), Policy::default()).await;
    let first = lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(lab.outcome(&first).await, "succeeded: 3 3 0 0");
    lab.write(
        "feed.csv",
        "id,at\n1,2026-11-01\n2,2026-11-03\n3,2026-11-02\n4,2026-11-03\n5,2026-11-04\n5,2026-11-05\n",
    );
    let second = lab.queue(&flow).await;
    lab.work().await;
    // 2 once more (its cursor is the saved one), 4 new, 5 twice of which the last counts.
    assert_eq!(lab.outcome(&second).await, "succeeded: 4 2 0 2");
    assert_eq!(lines(&lab, "feed.jsonl").last().unwrap(), &json!({"id": "5", "at": "2026-11-05"}));
    assert_eq!(lab.ask::<String>("select cursor #>> '{}' from flow_cursors").await, "2026-11-05");
}

#[tokio::test]
async fn what_has_no_cursor_or_an_odd_one_is_appended_once_and_passes_over_none() {
    let lab = Lab::start().await;
    let files = lab.connector(ConnectorKind::Files, json!({"root": "mine"})).await;
    // Upserted, it may be read again: it changes nothing.
    for (mode, later) in [("append", "succeeded: 1 1 0 0"), ("upsert", "succeeded: 3 1 0 2")] {
        for odd in ["", "n/a"] {
            let from = format!("{mode}{}.csv", odd.len());
            let to = format!("{from}.jsonl");
            let more = json!({"sync_mode": "incremental", "cursor_field": "at", "write_mode": mode});
            let flow = lab.flow(&files, &files, streams(&from, &to, more), Policy::default()).await;
            for (rows, outcome, cursor) in
                [("", "succeeded: 2 2 0 0", "2026-11-01"), ("3,2026-12-01\n", later, "2026-12-01")]
            {
                lab.write(&from, format!("id,at\n1,2026-11-01\n2,{odd}\n{rows}"));
                let run = lab.queue(&flow).await;
                lab.work().await;
                assert_eq!(lab.outcome(&run).await, outcome, "{mode} {odd}");
                let saved = format!("select cursor #>> '{{}}' from flow_cursors where flow_id = '{flow}'");
                assert_eq!(lab.ask::<String>(&saved).await, cursor, "{mode} {odd}");
            }
            assert_eq!(lines(&lab, &to).len(), 3, "{mode} {odd}");
        }
    }
}

#[tokio::test]
async fn a_cursor_that_no_record_has_is_told() {
    let lab = Lab::start().await;
    lab.write("a.csv", "id,at,empty\n1,2026-11-01,\n2,2026-11-02,\n");
    lab.write("a.jsonl", "{\"id\":1,\"empty\":null}\n{\"id\":2}\n");
    lab.write("none.csv", "id,at\n");
    let (failed, done) = ("failed CONFIG_INVALID: 0 0 0 0", "succeeded: 2 2 0 0");
    for (from, field, mode, outcome) in [
        ("a.csv", "att", "append", failed),
        ("a.csv", "att", "upsert", failed),
        ("a.csv", "empty", "append", failed),
        ("a.csv", "empty", "upsert", done),
        ("a.jsonl", "at", "append", failed),
        ("a.jsonl", "empty", "upsert", done),
        ("none.csv", "att", "append", "succeeded: 0 0 0 0"),
    ] {
        let to = format!("{from}.{field}.{mode}.jsonl");
        let run = copy(
            &lab,
            from,
            &to,
            json!({"sync_mode": "incremental", "cursor_field": field, "write_mode": mode}),
        )
        .await;
        assert_eq!(lab.outcome(&run).await, outcome, "{to}");
        if outcome == failed {
            let said: String =
                lab.ask(&format!("select reason_message from runs where run_id = '{run}'")).await;
            assert_eq!(said, format!("no record of '{from}' has a value for the cursor field '{field}'"));
            assert!(!lab.files.path().join(to).exists());
        }
    }
}

#[tokio::test]
async fn what_follows_an_array_does_not_have_it_appended_again() {
    let lab = Lab::start().await;
    let more = json!({"sync_mode": "incremental", "cursor_field": "id", "write_mode": "append"});
    let files = lab.connector(ConnectorKind::Files, json!({"root": "mine"})).await;
    let flow = lab.flow(&files, &files, streams("a.json", "a.jsonl", more), Policy::default()).await;
    // (pages hold 100 records, so the second file ends where a page does)
    for (last, outcome) in
        [(3, "failed CONFIG_INVALID: 3 3 0 0"), (103, "failed CONFIG_INVALID: 100 100 0 0")]
    {
        let all: Vec<String> = (1..=last).map(|id| format!("{{\"id\":{id}}}")).collect();
        lab.write("a.json", format!("[{}]x", all.join(",")));
        for outcome in [outcome, "failed CONFIG_INVALID: 0 0 0 0"] {
            let run = lab.queue(&flow).await;
            lab.work().await;
            assert_eq!(lab.outcome(&run).await, outcome);
            assert_eq!(codes(&lab, &run).await, ["MORE_AFTER_ARRAY:1"]);
        }
        assert_eq!(lines(&lab, "a.jsonl").len(), last);
    }
}

#[tokio::test]
async fn one_cursor_out_of_order_has_nothing_appended_again() {
    let lab = Lab::start().await;
    let more = json!({"sync_mode": "incremental", "cursor_field": "at", "write_mode": "append"});
    let files = lab.connector(ConnectorKind::Files, json!({"root": "mine"})).await;
    let policy = Policy { max_error_rate: 1.0, ..Policy::default() };
    let flow = lab.flow(&files, &files, streams("a.csv", "a.jsonl", more), policy).await;
    let row = |n| match n {
        190 => "190,31.12.2025\n".to_owned(),
        n => format!("{n},{}\n", DateTime::UNIX_EPOCH + TimeDelta::days(n)),
    };
    lab.write("a.csv", "id,at\n".to_owned() + &(1..=250).map(row).collect::<String>());
    for outcome in ["partial: 250 249 1 0", "partial: 1 0 1 0"] {
        let run = lab.queue(&flow).await;
        lab.work().await;
        assert_eq!(lab.outcome(&run).await, outcome);
        assert_eq!(codes(&lab, &run).await, ["INVALID_CURSOR:1"]);
        assert_eq!(lines(&lab, "a.jsonl").len(), 249);
    }
}

#[tokio::test]
async fn a_cursor_whose_order_its_text_does_not_tell_is_refused() {
    let lab = Lab::start().await;
    let more = json!({"sync_mode": "incremental", "cursor_field": "at", "write_mode": "append"});
    for (name, at, outcome) in [
        ("dots", ["31.12.2025", "01.01.2026"], "failed ERROR_THRESHOLD: "),
        ("slashes", ["12/31/2025 10:00", "1/1/2026 10:00"], "failed ERROR_THRESHOLD: "),
        ("copied", ["2026-10-25 02:55:00+02", "2026-10-25 02:30:00+01"], "succeeded: 1 1 0 0"),
        ("short", ["2026-11-20T10:00:00.000+0100", "2026-11-20T09:30Z"], "succeeded: 1 1 0 0"),
    ] {
        let from = format!("{name}.csv");
        let files = lab.connector(ConnectorKind::Files, json!({"root": "mine"})).await;
        let to = format!("{name}.jsonl");
        let flow = lab.flow(&files, &files, streams(&from, &to, more.clone()), Policy::default()).await;
        for rows in [&at[..1], &at[..]] {
            lab.write(
                &from,
                format!("id,at\n{}", rows.iter().map(|at| format!("1,{at}\n")).collect::<String>()),
            );
            let run = lab.queue(&flow).await;
            lab.work().await;
            let end = match outcome.starts_with("failed") {
                true => format!("{outcome}{0} 0 {0} 0", rows.len()),
                false => outcome.to_owned(),
            };
            assert_eq!(lab.outcome(&run).await, end, "{name}");
            if outcome.starts_with("failed") {
                let said: String =
                    lab.ask(&format!("select min(message) from run_errors where run_id = '{run}'")).await;
                assert!(said.contains("cursor") && said.contains("ISO 8601"), "{said}");
                assert!(codes(&lab, &run).await[0].starts_with("INVALID_CURSOR:"));
            }
        }
    }
}

/// A run that failed after two pages of a file of 400 records, which its next attempt goes on with.
async fn interrupted(lab: &Lab, from: &str, more: Value) -> RunId {
    let source = lab.connector(ConnectorKind::Files, json!({"root": "mine"})).await;
    let fails = json!({"sim": {"fail_write": {"after": 250, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "later"}}});
    let sink = lab.connector(ConnectorKind::Sim, fails).await;
    let flow = lab.flow(&source, &sink, streams(from, "all", more), Policy::default()).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "retrying: 200 200 0 0");
    run
}

async fn next_attempt(lab: &Lab, run: &RunId) -> String {
    lab.clock.advance(TimeDelta::seconds(36));
    lab.work().await;
    lab.outcome(run).await
}

/// Records of these numbers, in the form that a file's name tells.
fn records(name: &str, numbers: std::ops::Range<i32>) -> String {
    let csv = name.ends_with(".csv");
    let line = |n| if csv { format!("{n},\"name\n{n}\"\n") } else { format!("{{\"id\":{n}}}\n") };
    let header = if csv { "id,name\n" } else { "" };
    header.to_owned() + &numbers.map(line).collect::<String>()
}

#[tokio::test]
async fn an_interrupted_read_goes_on_in_a_file_that_grew_or_was_delivered_again() {
    let lab = Lab::start().await;
    for name in ["a.csv", "a.jsonl"] {
        for mode in ["upsert", "append"] {
            lab.write(name, records(name, 1..401));
            let run = interrupted(&lab, name, json!({"write_mode": mode})).await;
            std::fs::remove_file(lab.files.path().join(name)).unwrap();
            lab.write(name, records(name, 1..501));
            assert_eq!(next_attempt(&lab, &run).await, "succeeded: 500 500 0 0", "{name} {mode}");
        }
    }
}

#[tokio::test]
async fn an_interrupted_read_begins_anew_with_another_file() {
    let lab = Lab::start().await;
    for name in ["a.csv", "a.jsonl"] {
        // Longer than the first one was read, and too short for that.
        for numbers in [1_000..1_600, 1_000..1_010] {
            lab.write(name, records(name, 1..401));
            let run = interrupted(&lab, name, json!({})).await;
            lab.write(name, records(name, numbers.clone()));
            let all = 200 + numbers.len();
            assert_eq!(next_attempt(&lab, &run).await, format!("succeeded: {all} {all} 0 0"), "{name}");
            let told: String = lab
                .ask(&format!(
                    "select message from run_events where run_id = '{run}' and kind = 'checkpoint'"
                ))
                .await;
            assert_eq!(
                told,
                format!("'{name}' is no longer the file that was begun: all of this one is read")
            );
        }
    }
}

#[tokio::test]
async fn nothing_is_appended_from_the_middle_of_another_file() {
    let lab = Lab::start().await;
    lab.write("a.csv", records("a.csv", 1..401));
    let run = interrupted(&lab, "a.csv", json!({"write_mode": "append"})).await;
    lab.write("a.csv", records("a.csv", 1_000..1_600));
    assert_eq!(next_attempt(&lab, &run).await, "failed SOURCE_ERROR: 200 200 0 0");
    assert_eq!(codes(&lab, &run).await, ["FILE_REPLACED:1"]);
}

#[tokio::test]
async fn a_cursor_is_of_no_use_elsewhere() {
    let lab = Lab::start().await;
    let by = |field| json!({"sync_mode": "incremental", "cursor_field": field});
    lab.write("feed.csv", "id,at\n17,2026-11-01\n18,2026-11-03\n");
    let files = lab.connector(ConnectorKind::Files, json!({"root": "mine"})).await;
    let flow = lab.flow(&files, &files, streams("feed.csv", "feed.jsonl", by("at")), Policy::default()).await;
    let outcome = async || {
        let run = lab.queue(&flow).await;
        lab.work().await;
        lab.outcome(&run).await
    };
    let change = async |text: String| {
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut lab.owner().await).await;
        assert_eq!(done.unwrap().rows_affected(), 1);
    };
    assert_eq!(outcome().await, "succeeded: 2 2 0 0");
    assert_eq!(outcome().await, "succeeded: 1 0 0 1");
    for side in ["source", "destination"] {
        let (other, _) = lab.connector(ConnectorKind::Files, json!({"root": "mine"})).await;
        change(format!("update flows set {side}_connector_id = '{other}'")).await;
        assert_eq!(outcome().await, "succeeded: 2 0 0 2", "another {side} is read whole");
        assert_eq!(outcome().await, "succeeded: 1 0 0 1");
    }
    let by_id =
        "update flow_versions set definition = jsonb_set(definition, '{streams,0,cursor_field}', '\"id\"')";
    change(by_id.to_owned()).await;
    assert_eq!(outcome().await, "succeeded: 2 0 0 2", "every id stands before a date");
}

#[tokio::test]
async fn a_page_boundary_changes_nothing() {
    let lab = Lab::start().await;
    let mut csv = "id,name\n".to_owned();
    for n in 0..1_234 {
        csv.push_str(&format!("{n},\"name\n{n}\"\n"));
    }
    lab.write("many.csv", csv);
    let run = copy(
        &lab,
        "many.csv",
        "many.jsonl",
        json!({"mappings": [
        {"destination_field": "id", "source_path": "$.id", "destination_type": "integer", "is_key": true},
        {"destination_field": "name", "source_path": "$.name", "transform": "value.replace('\\n', ' ')"}
    ], "record_filter": "int(record.id) % 2 == 0"}),
    )
    .await;
    assert_eq!(lab.outcome(&run).await, "succeeded: 1234 617 0 617");
    assert_eq!(lines(&lab, "many.jsonl")[616], json!({"id": 1232, "name": "name 1232"}));
    assert_eq!(lab.ask::<i64>("select (checkpoint ->> 'batch')::bigint from runs").await, 14);
}

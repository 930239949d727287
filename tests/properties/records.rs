//! A file of records: its first letter says of which form (`c`: CSV, `l`: JSON lines, anything else: JSON), the rest is
//! the file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::connector::ConnectorKind;
use apixx_mcp::domain::definition::Stream;
use apixx_mcp::domain::ids::RunId;
use apixx_mcp::engine::connectors::{Connector, Connectors, Item, Pacer, ReadRequest};
use apixx_mcp::store::DatabaseIdentity;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

struct Bench {
    runtime: Runtime,
    directory: tempfile::TempDir,
    files: Box<dyn Connector>,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(bench());
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().expect("a place for files");
    let connectors = Connectors {
        files_roots: BTreeMap::from([("here".to_owned(), directory.path().to_owned())]),
        postgres_dsns: BTreeMap::new(),
        own: DatabaseIdentity { system: 0, database: String::new(), roles: vec![] },
        pacer: Pacer::Instant,
        clock: Clock::system(),
    };
    let files = connectors.open_kind(ConnectorKind::Files, &json!({"root": "here"})).expect("a connector");
    Bench { runtime: Builder::new_current_thread().build().expect("a runtime"), directory, files }
}

/// Reading ends, in no more steps than there are bytes; it gives the same records in pages of any size, also where it
/// goes on from a page's position; and no record holds what no database takes.
pub fn hold(input: &[u8]) {
    let Some((form, content)) = input.split_first() else { return };
    let form = match form {
        b'c' => "csv",
        b'l' => "jsonl",
        _ => "json",
    };
    BENCH.with_borrow(|bench| {
        let name = format!("input.{form}");
        fs::write(bench.directory.path().join(&name), content).expect("the file is ours");
        let stream: Stream = serde_json::from_value(json!({
            "source_object": name, "destination_object": "nowhere.jsonl",
            "sync_mode": "full_refresh", "write_mode": "append", "mappings": []
        }))
        .expect("a stream");
        let whole = bench.runtime.block_on(read(bench.files.as_ref(), &stream, 1_000, false, content.len()));
        let resumed = bench.runtime.block_on(read(bench.files.as_ref(), &stream, 1, true, content.len()));
        assert_eq!(whole, resumed, "pages of one record, each read anew");
        for item in &whole {
            match item {
                Ok(Item::Record(fields)) => {
                    assert!(!holds_nul(&Value::Object(fields.clone())), "{fields:?}");
                }
                Ok(Item::Bad(failure, kept)) => {
                    assert!(!failure.message.is_empty());
                    assert!(
                        kept.as_ref().and_then(Value::as_str).is_none_or(|kept| kept.chars().count() <= 200)
                    );
                }
                Err(why) => assert!(!why.is_empty()),
            }
        }
    });
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Every item of a file, and at last what ended it too early.
async fn read(
    files: &dyn Connector,
    stream: &Stream,
    page_records: usize,
    resume: bool,
    bytes: usize,
) -> Vec<Result<Item, String>> {
    let run = RunId::parse("run_abc123").expect("an id");
    let mut all = Vec::new();
    let mut position: Option<Value> = None;
    let mut source = None;
    for step in 0.. {
        assert!(step <= bytes + 2, "{step} pages of {bytes} bytes");
        if resume || source.is_none() {
            let request = ReadRequest {
                run: &run,
                attempt: 1,
                stream,
                position: position.as_ref(),
                cursor: None,
                page_records,
            };
            match files.read(request).await {
                Ok(opened) => source = Some(opened),
                Err(failure) => {
                    all.push(Err(failure.message));
                    return all;
                }
            }
        }
        let Some(open) = &mut source else { unreachable!("it was just opened") };
        match open.next().await {
            // Only the end makes a page of nothing, behind which stands what may have made it come too early.
            Ok(Some(page)) if page.items.is_empty() && resume => {
                all.extend(open.next().await.err().map(|failure| Err(failure.message)));
                return all;
            }
            Ok(Some(page)) => {
                all.extend(page.items.into_iter().map(Ok));
                assert!(all.len() <= bytes, "{} items of {bytes} bytes", all.len());
                position = Some(page.position);
            }
            Ok(None) => return all,
            Err(failure) => {
                all.push(Err(failure.message));
                return all;
            }
        }
    }
    all
}

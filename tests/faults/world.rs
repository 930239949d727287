//! What the flows of a schedule move: sources with known records, some of them known to be wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;

/// The one workspace.
pub const CUSTOMER: &str = "north";

/// Connectors and flows of the workspace.
pub const DEFINITIONS: &str = r#"
connector = [
  { name = "Files", kind = "files", root = "mine", check_interval_s = 5 },
  { name = "Tables", kind = "postgres", dsn = "flows", create_tables = true, check_interval_s = 5 },
]
"#;

/// A source and where it goes.
pub struct Stream {
    pub from: &'static str,
    pub to: &'static str,
}

/// A flow of the workspace.
pub struct Flow {
    pub name: &'static str,
    source: &'static str,
    destination: &'static str,
    pub streams: &'static [Stream],
    pub incremental: bool,
}

/// Every pair of connectors, a flow of several streams, and one that reads changes only.
pub const FLOWS: &[Flow] = &[
    Flow {
        name: "csv to table",
        source: "Files",
        destination: "Tables",
        streams: &[Stream { from: "a.csv", to: "public.a" }],
        incremental: false,
    },
    Flow {
        name: "table to table",
        source: "Tables",
        destination: "Tables",
        streams: &[Stream { from: "public.source", to: "public.c" }],
        incremental: false,
    },
    Flow {
        name: "csv to lines",
        source: "Files",
        destination: "Files",
        streams: &[Stream { from: "a.csv", to: "d.jsonl" }],
        incremental: false,
    },
    Flow {
        name: "table to lines",
        source: "Tables",
        destination: "Files",
        streams: &[Stream { from: "public.source", to: "e.jsonl" }],
        incremental: false,
    },
    Flow {
        name: "two streams",
        source: "Files",
        destination: "Tables",
        streams: &[Stream { from: "b.jsonl", to: "public.f" }, Stream { from: "a.csv", to: "public.g" }],
        incremental: false,
    },
    Flow {
        name: "changes to table",
        source: "Tables",
        destination: "Tables",
        streams: &[Stream { from: "public.source", to: "public.h" }],
        incremental: true,
    },
];

/// The file that makes the workspace what it is.
pub fn definitions() -> String {
    let mut text = DEFINITIONS.to_owned();
    for flow in FLOWS {
        let Flow { name, source, destination, .. } = flow;
        writeln!(text, "[[flow]]\nname = \"{name}\"\nsource = \"{source}\"\ndestination = \"{destination}\"")
            .unwrap();
        writeln!(text, "max_attempts = 10\nmax_error_rate = 0.9").unwrap();
        for Stream { from, to } in flow.streams {
            writeln!(text, "[[flow.stream]]\nfrom = \"{from}\"\nto = \"{to}\"\nkey = [\"id\"]").unwrap();
            if flow.incremental {
                writeln!(text, "sync = \"incremental\"\ncursor = \"amount\"").unwrap();
            }
            for (field, kind, more) in [
                ("id", "integer", "required = true"),
                ("name", "string", ""),
                ("amount", "integer", "validate = { minimum = 0 }"),
            ] {
                writeln!(text, "[[flow.stream.field]]\nto = \"{field}\"\ntype = \"{kind}\"\n{more}").unwrap();
            }
        }
    }
    text
}

/// A record as sources have it; destinations have those whose amount is not negative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Row {
    pub id: i64,
    pub name: String,
    pub amount: i64,
}

/// The records of each source.
pub struct World {
    sources: BTreeMap<&'static str, Vec<Row>>,
}

impl World {
    /// Sources of these sizes.
    pub fn new(seed: u64, size: i64) -> Self {
        let rows = |name: &str, size: i64| -> Vec<Row> {
            (1..=size)
                .map(|id| {
                    let wrong = (id.cast_unsigned().wrapping_mul(2_654_435_761) ^ seed).is_multiple_of(17);
                    let amount = if wrong { -id } else { id / 3 };
                    Row { id, name: format!("{name} {id} of {seed}"), amount }
                })
                .collect()
        };
        Self {
            sources: BTreeMap::from([
                ("a.csv", rows("a", size)),
                ("b.jsonl", rows("b", size / 2)),
                ("public.source", rows("s", size)),
            ]),
        }
    }

    pub fn read(&self, flow: &Flow) -> i64 {
        flow.streams.iter().map(|stream| self.sources[stream.from].len() as i64).sum()
    }

    pub fn wrong(&self, flow: &Flow) -> i64 {
        self.read(flow) - flow.streams.iter().map(|stream| self.valid(stream).len() as i64).sum::<i64>()
    }

    /// Records of an incremental flow's source that are no further than where its first run came to: what the next may
    /// read again.
    pub fn at_cursor(&self, flow: &Flow) -> i64 {
        let last = |rows: &[Row]| {
            let most = rows.iter().map(|row| row.amount).max();
            rows.iter().filter(|row| Some(row.amount) == most).count() as i64
        };
        flow.streams.iter().map(|stream| last(&self.sources[stream.from])).sum()
    }

    /// What the destination has in the end, by key.
    pub fn valid(&self, stream: &Stream) -> Vec<Row> {
        self.sources[stream.from].iter().filter(|row| row.amount >= 0).cloned().collect()
    }

    /// Writes the sources.
    pub async fn make(&self, files: &Path, tables: &mut PgConnection) -> anyhow::Result<()> {
        self.make_files(files)?;
        sqlx::query("create table source (id bigint primary key, name text, amount bigint)")
            .execute(&mut *tables)
            .await?;
        sqlx::query("insert into source select * from jsonb_populate_recordset(null::source, $1)")
            .bind(Json(&self.sources["public.source"]))
            .execute(tables)
            .await?;
        Ok(())
    }

    /// Writes those that are files.
    pub fn make_files(&self, files: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(files)?;
        let mut csv = "id,name,amount\n".to_owned();
        for Row { id, name, amount } in &self.sources["a.csv"] {
            writeln!(csv, "{id},{name},{amount}")?;
        }
        std::fs::write(files.join("a.csv"), csv)?;
        let lines = |rows: &[Row]| -> serde_json::Result<String> {
            rows.iter().map(|row| serde_json::to_string(row).map(|line| line + "\n")).collect()
        };
        std::fs::write(files.join("b.jsonl"), lines(&self.sources["b.jsonl"])?)?;
        Ok(())
    }
}

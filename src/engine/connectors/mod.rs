//! Connectors: how other systems are read and written.
//!
//! A source gives pages, a destination takes batches, each at its own pace: that suits a database that is
//! asked, a file that is read and a child process that talks.

mod csv_file;
mod file_name;
mod file_place;
mod files;
mod json_file;
mod json_out;
mod postgres;
mod sim;
mod sim_script;

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use sqlx::postgres::PgConnectOptions;

use crate::domain::clock::Clock;
use crate::domain::connector::ConnectorKind;
use crate::domain::definition::{FieldType, Stream, SyncMode, WriteMode};
use crate::domain::failure::Failure;
use crate::domain::ids::RunId;
use crate::engine::convert::moment;
use crate::engine::digits::Decimal;
use crate::store::DatabaseIdentity;
use crate::store::checks::{AuthSeen, QuotaSeen};
use crate::store::leases::ConnectorConfig;

/// Largest record, in bytes of its source's form.
pub const MAX_RECORD: usize = 1 << 20;
/// Bytes of records that a page may hold.
const MAX_PAGE: usize = 8 << 20;

/// The fields of a record, in order.
pub type Fields = Map<String, Value>;

/// Another system.
pub trait Connector: Send + Sync {
    /// Whether it can be used, without changing anything there.
    fn check(&self) -> BoxFuture<'_, CheckReport>;

    /// Begins to read one stream.
    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Box<dyn Source>, Failure>>;

    /// Begins to write one stream.
    fn write<'a>(&'a self, request: WriteRequest<'a>) -> BoxFuture<'a, Result<Box<dyn Sink>, Failure>>;
}

/// Records of one stream, in pages.
pub trait Source: Send {
    /// The next page, `None` after the last one. A failure ends the attempt.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Page>, Failure>>;
}

/// The destination of one stream.
pub trait Sink: Send {
    /// Writes records whose keys differ, and returns when they are there to stay. A failure ends the attempt;
    /// nothing or all of the batch may have been written then.
    fn write<'a>(&'a mut self, batch: &'a [Fields]) -> BoxFuture<'a, Result<WriteReport, Failure>>;
}

/// What a check saw.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// What went wrong with reaching it, in a redacted sentence.
    pub error: Option<String>,
    /// What was learnt of the authorization.
    pub auth: Option<AuthSeen>,
    /// Its allowances.
    pub quotas: Vec<QuotaSeen>,
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest<'a> {
    /// The run.
    pub run: &'a RunId,
    /// Its attempt, from 1.
    pub attempt: i32,
    /// The stream.
    pub stream: &'a Stream,
    /// The [`Page::position`] after which an earlier attempt stopped.
    pub position: Option<&'a Value>,
    /// The cursor up to which earlier runs read (incremental streams).
    pub cursor: Option<&'a Value>,
    /// Most records of a page.
    pub page_records: usize,
}

impl ReadRequest<'_> {
    /// The field and the value that an incremental run reads on from, and whether records that have that very
    /// value are read again: where writing them twice does no harm they are, since more of them may have come.
    pub fn after(&self) -> Option<(&str, Option<&Value>, bool)> {
        let field =
            self.stream.cursor_field.as_deref().filter(|_| self.stream.sync_mode == SyncMode::Incremental)?;
        Some((field, self.cursor, self.stream.write_mode == WriteMode::Upsert))
    }
}

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    /// The run.
    pub run: &'a RunId,
    /// Its attempt, from 1.
    pub attempt: i32,
    /// The stream.
    pub stream: &'a Stream,
    /// The fields with the types that they are converted to; empty when every field is copied.
    pub fields: &'a [(&'a str, Option<FieldType>)],
    /// The fields that identify a record.
    pub key: &'a [String],
}

/// Something read.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A record.
    Record(Fields),
    /// Something that should have been one, a broken line, say; with its fields where they can be told apart, or the
    /// beginning of its text.
    Bad(Failure, Option<Value>),
}

/// A page of a source.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// What was read.
    pub items: Vec<Item>,
    /// The place of the first item in the source, from 0.
    pub first_index: i64,
    /// Where the source goes on after this page.
    pub position: Value,
    /// The cursor that the next run may read on from once this page is written.
    pub cursor: Option<Value>,
    /// Bytes taken from the source.
    pub bytes: i64,
    /// How many records the whole run will read, where that is known.
    pub estimated: Option<i64>,
    /// What the run's timeline should tell of how it was read.
    pub note: Option<String>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteReport {
    /// Records that are new or changed.
    pub written: i64,
    /// Records that the destination had already, just so.
    pub unchanged: i64,
    /// Records that it refused, by their place in the batch.
    pub rejected: Vec<(usize, Failure)>,
    /// Bytes given to it.
    pub bytes: i64,
}

/// How scripted connectors wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pacer {
    /// As long as they say.
    Real,
    /// Not at all, for tests.
    Instant,
}

impl Pacer {
    async fn pause(self, time: Duration) {
        if self == Self::Real && !time.is_zero() {
            tokio::time::sleep(time).await;
        }
    }
}

/// What the operator allows flows to reach, and who we are ourselves.
#[derive(Clone, Debug)]
pub struct Connectors {
    /// Directories by the name that connectors use for them.
    pub files_roots: BTreeMap<String, PathBuf>,
    /// Databases by the name that connectors use for them.
    pub postgres_dsns: BTreeMap<String, PgConnectOptions>,
    /// Our own database, which no flow may reach.
    pub own: DatabaseIdentity,
    /// How scripted connectors wait.
    pub pacer: Pacer,
    /// The time.
    pub clock: Clock,
}

impl Connectors {
    /// The connector that a configuration describes. Nothing is reached yet.
    ///
    /// # Errors
    /// When the configuration is wrong, or names what the operator did not.
    pub fn open(&self, connector: &ConnectorConfig) -> Result<Box<dyn Connector>, Failure> {
        self.open_kind(connector.kind, &connector.config)
    }

    /// The same, of a connector that is not stored yet.
    ///
    /// # Errors
    /// As [`Connectors::open`].
    pub fn open_kind(&self, kind: ConnectorKind, config: &Value) -> Result<Box<dyn Connector>, Failure> {
        Ok(match kind {
            ConnectorKind::Files => Box::new(files::Files::open(config, &self.files_roots)?),
            ConnectorKind::Postgres => {
                Box::new(postgres::Postgres::open(config, &self.postgres_dsns, &self.own)?)
            }
            ConnectorKind::Sim => Box::new(sim::Sim::open(config, self.pacer, self.clock.clone())?),
        })
    }
}

/// Whether a connector of this kind can read a stream, as far as the stream's own words tell.
///
/// # Errors
/// Why not.
pub fn readable(kind: ConnectorKind, stream: &Stream) -> Result<(), Failure> {
    match kind {
        ConnectorKind::Files => file_name::readable(stream),
        ConnectorKind::Postgres => postgres::readable(stream),
        ConnectorKind::Sim => Ok(()),
    }
}

/// The same of writing it.
///
/// # Errors
/// Why not.
pub fn writable(kind: ConnectorKind, stream: &Stream) -> Result<(), Failure> {
    match kind {
        ConnectorKind::Files => file_name::writable(stream),
        ConnectorKind::Postgres => postgres::writable(stream),
        ConnectorKind::Sim => Ok(()),
    }
}

/// Reads a connector's configuration.
fn configuration<T: serde::de::DeserializeOwned>(config: &Value) -> Result<T, Failure> {
    serde_json::from_value(config.clone())
        .map_err(|error| Failure::config(&format!("the connector's configuration is wrong: {error}")))
}

/// What the operator named so. The failure does not list what there is: that is no customer's to know.
fn named<'a, T>(what: &str, name: &str, all: &'a BTreeMap<String, T>) -> Result<&'a T, Failure> {
    all.get(name).ok_or_else(|| Failure::config(&format!("the operator named no {what} '{name}'")))
}

/// A cursor's value, in the order in which records are read on: moments by when they are, whatever their offset and
/// fraction look like, numbers by size (also as text), all else as text. Any moment comes after any number and both after
/// any text, so that one record that says `n/a` passes over none that say when they are.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cursor {
    Text(String),
    Number(Decimal),
    Moment(DateTime<Utc>),
}

impl Cursor {
    fn of(value: &Value) -> Self {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if let Some(number) = Decimal::parse(text.trim()) {
            return Self::Number(number);
        }
        match value.as_str().and_then(moment) {
            Some(moment) => Self::Moment(moment),
            None => Self::Text(text),
        }
    }

    /// Whether it is of a lower kind than another one, to which it says nothing of when it was.
    fn is_below(&self, other: &Self) -> bool {
        self < other && discriminant(self) != discriminant(other)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;
    use serde_json::json;

    fn cursor_order(a: &Value, b: &Value) -> Ordering {
        Cursor::of(a).cmp(&Cursor::of(b))
    }

    #[test]
    fn cursors_order_numbers_and_dates() {
        assert_eq!(cursor_order(&json!(9), &json!("10")), Ordering::Less);
        assert_eq!(
            cursor_order(&json!("2026-11-20T10:00:00Z"), &json!("2026-11-20T09:59:59Z")),
            Ordering::Greater
        );
        assert_eq!(cursor_order(&json!("a"), &json!("a")), Ordering::Equal);
        // The hour that comes twice when summer ends; fractions of other lengths; dates beside moments.
        for (less, greater) in [
            ("2026-10-25T02:55:00+02:00", "2026-10-25T02:10:00+01:00"),
            ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00.5Z"),
            ("2026-11-20", "2026-11-20 00:00:01"),
            ("2026-10-25 02:55:00+02", "2026-10-25 02:30:00+01"),
            ("2026-11-20T10:00:00.000+0100", "2026-11-20T09:30Z"),
        ] {
            assert_eq!(cursor_order(&json!(less), &json!(greater)), Ordering::Less, "{less}");
            assert_eq!(cursor_order(&json!(greater), &json!(less)), Ordering::Greater, "{less}");
        }
        let (one, same) = (json!("2026-11-20T10:00:00Z"), json!("2026-11-20T11:00:00.000+01:00"));
        assert_eq!(cursor_order(&one, &same), Ordering::Equal);
        // Numbers that are one and the same in 64 bits floating.
        for (less, greater) in [
            (json!(9_007_199_254_740_992_i64), json!(9_007_199_254_740_993_i64)),
            (json!("-12345678901234567.89"), json!("-12345678901234567.88")),
        ] {
            assert_eq!(cursor_order(&less, &greater), Ordering::Less);
            assert_eq!(cursor_order(&greater, &less), Ordering::Greater);
        }
        assert_eq!(cursor_order(&json!(" 10.0"), &json!(10)), Ordering::Equal);
        for (less, greater) in
            [(json!("n/a"), json!("2026-11-20")), (json!("zz"), json!(-1)), (json!(9e9), json!("1999-01-01"))]
        {
            assert!(Cursor::of(&less).is_below(&Cursor::of(&greater)), "{less}");
            assert!(!Cursor::of(&greater).is_below(&Cursor::of(&less)), "{less}");
        }
        assert!(!Cursor::of(&json!(1)).is_below(&Cursor::of(&json!(2))));
    }
}

//! PostgreSQL databases that the operator named. The statements here speak to other people's databases.
//!
//! The configuration of a connector of kind `postgres` is `{"dsn": "name", "create_tables": false}`. A table or
//! a query is read through a cursor of a read-only transaction; records are written by key, so that writing
//! one twice changes nothing. A flow never reaches our own database, nor any as a superuser.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::{
    CheckReport, Connector, Fields, Item, MAX_PAGE, MAX_RECORD, Page, ReadRequest, Sink, Source, WriteReport,
    WriteRequest, configuration, named,
};
use crate::domain::connector::AuthStatus;
use crate::domain::definition::{FieldType, WriteMode};
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::store::DatabaseIdentity;
use crate::store::checks::AuthSeen;

/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Rows of the first page, before the size of a row is known.
const FIRST_PAGE: usize = 50;
/// Longest identifier, in bytes (NAMEDATALEN - 1).
const MAX_NAME: usize = 63;
/// Rows that are counted at most, to estimate how long a table takes.
const MAX_COUNTED: i64 = 10_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    dsn: String,
    #[serde(default)]
    create_tables: bool,
}

/// A database.
#[derive(Debug)]
pub(super) struct Postgres {
    name: String,
    options: PgConnectOptions,
    create_tables: bool,
    own: DatabaseIdentity,
}

impl Postgres {
    pub(super) fn open(
        config: &Value,
        dsns: &BTreeMap<String, PgConnectOptions>,
        own: &DatabaseIdentity,
    ) -> Result<Self, Failure> {
        let Config { dsn: name, create_tables } = configuration(config)?;
        let options = named("database", &name, dsns)?.clone().application_name("apixx-mcp flow").options([
            ("statement_timeout", "120s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "3600s"),
            ("timezone", "UTC"),
            ("datestyle", "ISO"),
            ("standard_conforming_strings", "on"),
        ]);
        Ok(Self { name, options, create_tables, own: own.clone() })
    }

    async fn connect(&self, stage: Stage) -> Result<PgConnection, Failure> {
        let late = |_| {
            Failure::new(ErrorClass::Connectivity, "TIMEOUT", stage, "the database did not answer in time")
        };
        let mut conn = tokio::time::timeout(CONNECT, self.options.connect())
            .await
            .map_err(late)?
            .map_err(|error| failure(&error, stage))?;
        self.refuse_ours(&mut conn, stage).await?;
        Ok(conn)
    }

    /// A flow must not be a way into our own tables, nor around anyone's rights.
    async fn refuse_ours(&self, conn: &mut PgConnection, stage: Stage) -> Result<(), Failure> {
        let refused =
            |why: &str| Err(Failure::config(&format!("the database '{}' is refused: {why}", self.name)));
        let (superuser, role, database, ours, readable): (bool, String, String, bool, bool) = sqlx::query_as(
            "select r.rolsuper or r.rolbypassrls or r.rolreplication, r.rolname::text, current_database()::text,
                    to_regclass('public.run_error_counts') is not null and to_regclass('public.installation') is not null,
                    has_function_privilege('pg_control_system()', 'execute')
               from pg_roles r
              where r.rolname = current_user",
        )
        .fetch_one(&mut *conn)
        .await
        .map_err(|error| failure(&error, stage))?;
        if superuser {
            return refused("its role is a superuser; name a role that owns only what flows may touch");
        }
        if ours {
            return refused("it is a database of this server");
        }
        if readable {
            let system: i64 = sqlx::query_scalar("select system_identifier from pg_control_system()")
                .fetch_one(&mut *conn)
                .await
                .map_err(|error| failure(&error, stage))?;
            if system == self.own.system && (database == self.own.database || self.own.roles.contains(&role))
            {
                return refused("it is this server's own database, or its role");
            }
        }
        Ok(())
    }
}

impl Connector for Postgres {
    fn check(&self) -> BoxFuture<'_, CheckReport> {
        async move {
            let seen = |status, error| Some(AuthSeen { status, error, expires_at: None });
            match self.connect(Stage::Platform).await {
                Ok(conn) => {
                    close(conn).await;
                    CheckReport { auth: seen(AuthStatus::Valid, None), ..CheckReport::default() }
                }
                Err(failure) if failure.class == ErrorClass::Auth => CheckReport {
                    auth: seen(AuthStatus::Invalid, Some(failure.message)),
                    ..CheckReport::default()
                },
                Err(failure) => CheckReport { error: Some(failure.message), ..CheckReport::default() },
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Box<dyn Source>, Failure>> {
        async move {
            let conn = self.connect(Stage::Extract).await?;
            let source = Rows::open(conn, &request).await?;
            Ok(Box::new(source) as Box<dyn Source>)
        }
        .boxed()
    }

    fn write<'a>(&'a self, request: WriteRequest<'a>) -> BoxFuture<'a, Result<Box<dyn Sink>, Failure>> {
        async move {
            let key = match request.stream.write_mode {
                WriteMode::Append => Vec::new(),
                WriteMode::Upsert if request.key.is_empty() => {
                    return Err(Failure::config(
                        "an upsert needs a key; name the fields that identify a record",
                    ));
                }
                WriteMode::Upsert => request.key.to_vec(),
            };
            let table = Name::parse(&request.stream.destination_object)?;
            let conn = self.connect(Stage::Load).await?;
            let mut sink = Table {
                conn: Some(conn),
                columns: BTreeMap::new(),
                create: self.create_tables,
                fields: request.fields.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
                key,
                name: table,
            };
            sink.load_columns().await?;
            Ok(Box::new(sink) as Box<dyn Sink>)
        }
        .boxed()
    }
}

async fn close(conn: PgConnection) {
    if let Err(error) = conn.close().await {
        tracing::debug!(%error, "a connection did not close well");
    }
}

/// A table's name, quoted.
#[derive(Clone, Debug)]
struct Name {
    plain: String,
    quoted: String,
}

impl Name {
    /// `schema.table` or `table`.
    fn parse(object: &str) -> Result<Self, Failure> {
        let parts: Vec<&str> = object.split('.').collect();
        let fits = |part: &&str| !part.is_empty() && part.len() <= MAX_NAME && !part.contains('\0');
        if parts.len() > 2 || !parts.iter().all(fits) {
            return Err(Failure::config(&format!("'{object}' names no table; write `schema.table`")));
        }
        Ok(Self {
            plain: object.to_owned(),
            quoted: parts.iter().map(|part| quote(part)).collect::<Vec<_>>().join("."),
        })
    }
}

/// An identifier (PostgreSQL manual, section 4.1.1).
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant (section 4.1.2.1), for values whose type only the database knows.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', "''"))
}

/// What a read goes over: a table, or a query that only reads.
fn relation(request: &ReadRequest<'_>) -> Result<(String, bool), Failure> {
    let Some(query) = &request.stream.source_query else {
        return Ok((format!("select * from {}", Name::parse(&request.stream.source_object)?.quoted), true));
    };
    let query = query.trim().trim_end_matches(';').trim_end();
    let first =
        query.split(|c: char| !c.is_ascii_alphabetic()).find(|word| !word.is_empty()).unwrap_or_default();
    if !["select", "with", "values", "table"].contains(&first.to_ascii_lowercase().as_str())
        || query.contains('\0')
    {
        return Err(Failure::config("a query of a source begins with `select`"));
    }
    // The line break ends a comment that the query may end with.
    Ok((format!("{query}\n"), false))
}

/// Rows of one stream, through a cursor that stays open.
struct Rows {
    conn: Option<PgConnection>,
    cursor: Option<String>,
    skip: i64,
    index: i64,
    incremental: bool,
    estimated: Option<i64>,
    most: usize,
    next: usize,
}

impl Rows {
    async fn open(mut conn: PgConnection, request: &ReadRequest<'_>) -> Result<Self, Failure> {
        let (relation, is_table) = relation(request)?;
        let place = request.position.cloned().unwrap_or_default();
        let (skip, index) = (place["skip"].as_i64().unwrap_or(0), place["index"].as_i64().unwrap_or(0));
        let reached = place["cursor"].as_str().map(str::to_owned);
        let (select, filter, order) = match request.after() {
            None => ("null::text".to_owned(), String::new(), String::new()),
            Some((field, saved, inclusive)) => {
                let column = format!("s.{}", quote(field));
                // An interrupted run goes on at the value it had reached, past the rows of that value it had.
                let filter = match (&reached, saved) {
                    (Some(reached), _) => format!("where {column} >= {}", literal(reached)),
                    (None, Some(saved)) => {
                        let saved = saved.as_str().map_or_else(|| saved.to_string(), str::to_owned);
                        format!("where {column} {} {}", if inclusive { ">=" } else { ">" }, literal(&saved))
                    }
                    (None, None) => String::new(),
                };
                let order = format!("order by {column} nulls first, to_jsonb(s)::text collate \"C\"");
                (format!("{column}::text"), filter, order)
            }
        };
        let rows = format!("from ({relation}) s {filter}");
        run(&mut conn, "begin isolation level repeatable read read only").await?;
        // The order of a table must be the same when an interrupted run goes on.
        run(&mut conn, "set local synchronize_seqscans = off").await?;
        let estimated = if is_table {
            let counting = format!("select count(*) from (select {rows} limit {MAX_COUNTED}) counted");
            let count: i64 = sqlx::query_scalar(AssertSqlSafe(counting))
                .persistent(false)
                .fetch_one(&mut conn)
                .await
                .map_err(|error| failure(&error, Stage::Extract))?;
            Some(index + (count - skip).max(0))
        } else {
            None
        };
        let declare = format!(
            "declare apixx_rows no scroll cursor for
             select case when octet_length(r.j) <= {MAX_RECORD} then r.j end, r.c
               from (select to_jsonb(s)::text as j, {select} as c {rows} {order} offset {skip}) r"
        );
        run(&mut conn, &declare).await?;
        Ok(Self {
            conn: Some(conn),
            cursor: reached,
            skip,
            index,
            incremental: request.after().is_some(),
            estimated,
            most: request.page_records,
            next: FIRST_PAGE.min(request.page_records),
        })
    }

    async fn page(&mut self) -> Result<Option<Page>, Failure> {
        let Some(conn) = &mut self.conn else { return Ok(None) };
        let fetch = format!("fetch {} from apixx_rows", self.next);
        let rows: Vec<(Option<String>, Option<String>)> = sqlx::query_as(AssertSqlSafe(fetch))
            .persistent(false)
            .fetch_all(conn)
            .await
            .map_err(|error| failure(&error, Stage::Extract))?;
        if rows.is_empty() {
            if let Some(conn) = self.conn.take() {
                close(conn).await;
            }
            return Ok(None);
        }
        let bytes: usize = rows.iter().map(|(text, _)| text.as_ref().map_or(MAX_RECORD, String::len)).sum();
        let mut page = Page {
            first_index: self.index,
            bytes: bytes as i64,
            estimated: self.estimated,
            ..Page::default()
        };
        for (text, cursor) in &rows {
            if self.incremental && *cursor != self.cursor {
                self.cursor.clone_from(cursor);
                self.skip = 0;
            }
            self.skip += 1;
            page.items.push(item(text.as_deref()));
        }
        self.index += rows.len() as i64;
        self.next = (MAX_PAGE * rows.len() / bytes.max(1)).clamp(1, self.most);
        page.position = json!({"cursor": self.cursor, "skip": self.skip, "index": self.index});
        // Rows come in the order of the cursor, so all that went before is done.
        page.cursor = self.cursor.clone().filter(|_| self.incremental).map(Value::String);
        Ok(Some(page))
    }
}

fn item(text: Option<&str>) -> Item {
    match text.map(serde_json::from_str) {
        Some(Ok(fields)) => Item::Record(fields),
        Some(Err(_)) => Item::Bad(
            Failure::new(ErrorClass::Type, "INVALID_JSON", Stage::Extract, "the row is no JSON object"),
            None,
        ),
        None => {
            let message = format!("a row is larger than {} KiB", MAX_RECORD >> 10);
            Item::Bad(Failure::new(ErrorClass::Size, "RECORD_TOO_LARGE", Stage::Extract, &message), None)
        }
    }
}

impl Source for Rows {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Page>, Failure>> {
        self.page().boxed()
    }
}

async fn run(conn: &mut PgConnection, text: &str) -> Result<u64, Failure> {
    sqlx::query(AssertSqlSafe(text.to_owned()))
        .persistent(false)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
        .map_err(|error| failure(&error, Stage::Extract))
}

/// A table that is written.
struct Table {
    conn: Option<PgConnection>,
    name: Name,
    /// Columns with their types; empty while the table does not exist.
    columns: BTreeMap<String, String>,
    create: bool,
    fields: Vec<(String, Option<FieldType>)>,
    key: Vec<String>,
}

impl Table {
    async fn load_columns(&mut self) -> Result<(), Failure> {
        let Some(conn) = &mut self.conn else { return Err(Failure::internal()) };
        let columns: Vec<(String, String)> = sqlx::query_as(
            "select a.attname::text, t.typname::text
               from pg_attribute a
               join pg_type t on t.oid = a.atttypid
              where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''",
        )
        .bind(&self.name.quoted)
        .fetch_all(conn)
        .await
        .map_err(|error| failure(&error, Stage::Load))?;
        self.columns = columns.into_iter().collect();
        if self.columns.is_empty() {
            return if self.create { Ok(()) } else { Err(undefined_table(&self.name)) };
        }
        match self
            .fields
            .iter()
            .map(|(name, _)| name)
            .chain(&self.key)
            .find(|name| !self.columns.contains_key(*name))
        {
            Some(lost) => Err(undefined_column(&self.name, lost)),
            None => Ok(()),
        }
    }

    /// Makes the table that a first batch needs: mapped fields by their types, others by what they hold.
    async fn create(&mut self, batch: &[Fields]) -> Result<(), Failure> {
        let mut columns = self.fields.clone();
        if columns.is_empty() {
            for name in batch.iter().flat_map(|record| record.keys()) {
                if !columns.iter().any(|(known, _)| known == name) {
                    columns.push((name.clone(), None));
                }
            }
        }
        let definitions: Vec<String> = columns
            .iter()
            .map(|(name, kind)| {
                format!("{} {}", quote(name), column_type(*kind, batch.iter().filter_map(|r| r.get(name))))
            })
            .chain((!self.key.is_empty()).then(|| format!("primary key ({})", quoted(&self.key))))
            .collect();
        let text = format!("create table if not exists {} ({})", self.name.quoted, definitions.join(", "));
        let Some(conn) = &mut self.conn else { return Err(Failure::internal()) };
        run(conn, &text).await.map_err(|failure| Failure { stage: Stage::Load, ..failure })?;
        self.load_columns().await
    }

    async fn write_batch(&mut self, batch: &[Fields]) -> Result<WriteReport, Failure> {
        if self.columns.is_empty() && !batch.is_empty() {
            self.create(batch).await?;
        }
        let mut report = WriteReport::default();
        // Records with different fields need different statements: a field left out stays as it is.
        let mut groups: BTreeMap<Vec<&String>, Vec<usize>> = BTreeMap::new();
        for (place, record) in batch.iter().enumerate() {
            if let Some(lost) = record.keys().find(|name| !self.columns.contains_key(*name)) {
                report.rejected.push((place, undefined_column(&self.name, lost)));
                continue;
            }
            report.bytes += serde_json::to_string(record).map_or(0, |text| text.len() as i64);
            let mut names: Vec<&String> = record.keys().collect();
            names.sort();
            groups.entry(names).or_default().push(place);
        }
        let statements: Vec<(String, Vec<usize>)> =
            groups.into_iter().map(|(names, places)| (self.statement(&names), places)).collect();
        let Some(conn) = &mut self.conn else { return Err(Failure::internal()) };
        let mut tx = conn.begin().await.map_err(|error| failure(&error, Stage::Load))?;
        for (statement, places) in statements {
            write_places(&mut tx, &statement, batch, places, &mut report).await?;
        }
        tx.commit().await.map_err(|error| failure(&error, Stage::Load))?;
        report.rejected.sort_by_key(|(place, _)| *place);
        Ok(report)
    }

    /// Inserts records that have these fields; one whose key is there is updated where it differs.
    fn statement(&self, names: &[&String]) -> String {
        let list = quoted(names);
        let table = &self.name.quoted;
        let mut text = format!(
            "insert into {table} as t ({list}) select {list} from jsonb_populate_recordset(null::{table}, $1)"
        );
        if self.key.is_empty() {
            return text;
        }
        text.push_str(&format!(" on conflict ({}) do ", quoted(&self.key)));
        let others: Vec<&&String> = names.iter().filter(|name| !self.key.contains(name)).collect();
        if others.is_empty() {
            text.push_str("nothing");
            return text;
        }
        let sets: Vec<String> =
            others.iter().map(|name| format!("{0} = excluded.{0}", quote(name))).collect();
        let compared = |side: &str| {
            let columns: Vec<String> = others.iter().map(|name| self.comparable(side, name)).collect();
            format!("row({})", columns.join(", "))
        };
        text.push_str(&format!(
            "update set {} where {} is distinct from {}",
            sets.join(", "),
            compared("t"),
            compared("excluded")
        ));
        text
    }

    /// A column in a form that has an equality: some types have none.
    fn comparable(&self, side: &str, name: &str) -> String {
        let kind = self.columns.get(name).map(String::as_str).unwrap_or_default();
        let unequal =
            ["json", "xml", "point", "line", "lseg", "box", "path", "polygon", "circle"].contains(&kind);
        format!("{side}.{}{}", quote(name), if unequal { "::text" } else { "" })
    }
}

fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| quote(name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Writes the records at `places`; where the database refuses them, finds out which ones by halves.
async fn write_places(
    conn: &mut PgConnection,
    statement: &str,
    batch: &[Fields],
    places: Vec<usize>,
    report: &mut WriteReport,
) -> Result<(), Failure> {
    let mut pending = vec![places];
    while let Some(places) = pending.pop() {
        let records: Vec<&Fields> = places.iter().map(|place| &batch[*place]).collect();
        let mut savepoint = conn.begin().await.map_err(|error| failure(&error, Stage::Load))?;
        let done = sqlx::query(AssertSqlSafe(statement.to_owned()))
            .bind(Json(records))
            .execute(&mut *savepoint)
            .await;
        match done {
            Ok(done) => {
                savepoint.commit().await.map_err(|error| failure(&error, Stage::Load))?;
                let written = i64::try_from(done.rows_affected()).unwrap_or(0);
                report.written += written;
                report.unchanged += places.len() as i64 - written;
            }
            Err(error) => {
                let problem = failure(&error, Stage::Load);
                if !is_of_a_record(&problem) {
                    return Err(problem);
                }
                savepoint.rollback().await.map_err(|error| failure(&error, Stage::Load))?;
                match places.as_slice() {
                    [place] => report.rejected.push((*place, problem)),
                    _ => {
                        let (left, right) = places.split_at(places.len() / 2);
                        pending.push(right.to_vec());
                        pending.push(left.to_vec());
                    }
                }
            }
        }
    }
    Ok(())
}

impl Sink for Table {
    fn write<'a>(&'a mut self, batch: &'a [Fields]) -> BoxFuture<'a, Result<WriteReport, Failure>> {
        self.write_batch(batch).boxed()
    }
}

fn column_type<'a>(kind: Option<FieldType>, mut values: impl Iterator<Item = &'a Value>) -> &'static str {
    match kind {
        Some(FieldType::String) => "text",
        Some(FieldType::Integer) => "bigint",
        Some(FieldType::Number) => "numeric",
        Some(FieldType::Boolean) => "boolean",
        Some(FieldType::Date) => "date",
        Some(FieldType::Datetime) => "timestamptz",
        Some(FieldType::Object | FieldType::Array) => "jsonb",
        None => {
            let kind = |value: &Value| match value {
                Value::Null => None,
                Value::Bool(_) => Some("boolean"),
                Value::Number(_) => Some("numeric"),
                Value::String(_) => Some("text"),
                Value::Array(_) | Value::Object(_) => Some("jsonb"),
            };
            let first = values.find_map(kind);
            // A column that holds several kinds takes them all as text.
            match first {
                Some(first) if values.filter_map(kind).all(|other| other == first) => first,
                _ => "text",
            }
        }
    }
}

fn undefined_table(name: &Name) -> Failure {
    let message = format!("the table '{}' does not exist", name.plain);
    Failure::new(ErrorClass::Schema, "UNDEFINED_TABLE", Stage::Load, &message)
}

fn undefined_column(name: &Name, column: &str) -> Failure {
    let message = format!("the table '{}' has no column '{column}'", name.plain);
    Failure::new(ErrorClass::Schema, "UNDEFINED_COLUMN", Stage::Load, &message).at_field(column)
}

/// Whether one record is to blame, so that the others may go on without it.
fn is_of_a_record(failure: &Failure) -> bool {
    matches!(
        failure.class,
        ErrorClass::RequiredField
            | ErrorClass::Duplicate
            | ErrorClass::Reference
            | ErrorClass::Type
            | ErrorClass::Validation
            | ErrorClass::Size
    )
}

/// What an answer of a database means (PostgreSQL manual, appendix A).
fn failure(error: &sqlx::Error, stage: Stage) -> Failure {
    let Some(database) =
        error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
    else {
        tracing::info!(%error, "a flow's database cannot be reached");
        let (class, code, message) = match error {
            sqlx::Error::Tls(_) => {
                (ErrorClass::Connectivity, "TLS_FAILED", "the database's certificate was not accepted")
            }
            sqlx::Error::Io(_) => {
                (ErrorClass::Connectivity, "CONNECTION_FAILED", "the database cannot be reached")
            }
            sqlx::Error::Configuration(_) => {
                (ErrorClass::Config, "CONFIG_INVALID", "the database's address is wrong")
            }
            _ => (ErrorClass::Unavailable, "DATABASE_ERROR", "the database broke off"),
        };
        return Failure::new(class, code, stage, message);
    };
    let state = database.code();
    let (class, code) = classify(state);
    let code: Cow<'static, str> = code.map_or_else(|| Cow::Owned(state.to_owned()), Cow::Borrowed);
    let problem = Failure::new(class, code, stage, database.message());
    match database.column().or(database.constraint()) {
        Some(field) => problem.at_field(field),
        None => problem,
    }
}

/// The class of an SQLSTATE, and the name of its condition where we know it.
fn classify(state: &str) -> (ErrorClass, Option<&'static str>) {
    match state {
        "23502" => (ErrorClass::RequiredField, Some("NOT_NULL_VIOLATION")),
        "23503" => (ErrorClass::Reference, Some("FOREIGN_KEY_VIOLATION")),
        "23505" => (ErrorClass::Duplicate, Some("UNIQUE_VIOLATION")),
        "23514" => (ErrorClass::Validation, Some("CHECK_VIOLATION")),
        "23P01" => (ErrorClass::Validation, Some("EXCLUSION_VIOLATION")),
        // Two spellings of one key in a batch: written one by one, the last one counts.
        "21000" => (ErrorClass::Duplicate, Some("DUPLICATE_KEY")),
        "22001" => (ErrorClass::Size, Some("STRING_TOO_LONG")),
        "22003" => (ErrorClass::Type, Some("NUMBER_OUT_OF_RANGE")),
        "22007" | "22008" => (ErrorClass::Type, Some("INVALID_DATE")),
        "22P02" => (ErrorClass::Type, Some("INVALID_VALUE")),
        "22P05" | "22021" => (ErrorClass::Type, Some("INVALID_CHARACTER")),
        "42P01" => (ErrorClass::Schema, Some("UNDEFINED_TABLE")),
        "42703" => (ErrorClass::Schema, Some("UNDEFINED_COLUMN")),
        "3F000" => (ErrorClass::Schema, Some("UNDEFINED_SCHEMA")),
        "42P10" => (ErrorClass::Config, Some("NO_UNIQUE_KEY")),
        "42501" => (ErrorClass::Permission, Some("INSUFFICIENT_PRIVILEGE")),
        "25006" => (ErrorClass::Config, Some("QUERY_WRITES")),
        "3D000" => (ErrorClass::Config, Some("UNDEFINED_DATABASE")),
        "40001" | "40P01" => (ErrorClass::Conflict, Some("DEADLOCK_OR_RACE")),
        "55P03" => (ErrorClass::Conflict, Some("LOCK_TIMEOUT")),
        "57014" => (ErrorClass::Unavailable, Some("STATEMENT_TIMEOUT")),
        _ => match state.get(..2) {
            Some("22") => (ErrorClass::Type, None),
            Some("23") => (ErrorClass::Validation, None),
            Some("08") => (ErrorClass::Connectivity, None),
            Some("28") => (ErrorClass::Auth, Some("AUTH_FAILED")),
            Some("42" | "0A") => (ErrorClass::Config, None),
            Some("54") => (ErrorClass::Size, None),
            _ => (ErrorClass::Unavailable, None),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_quoted() {
        assert_eq!(Name::parse("public.people").unwrap().quoted, r#""public"."people""#);
        assert_eq!(Name::parse(r#"a"; drop table x; --"#).unwrap().quoted, r#""a""; drop table x; --""#);
        assert_eq!(literal("it's"), "'it''s'");
        for object in ["", "a.b.c", ".a", "a.", &"x".repeat(64), "a\0b"] {
            assert!(Name::parse(object).is_err(), "{object}");
        }
    }

    #[test]
    fn a_state_says_whose_fault_it_is() {
        for (state, class) in [
            ("23502", ErrorClass::RequiredField),
            ("22012", ErrorClass::Type),
            ("08006", ErrorClass::Connectivity),
            ("28P01", ErrorClass::Auth),
            ("57P01", ErrorClass::Unavailable),
            ("42601", ErrorClass::Config),
            ("XX000", ErrorClass::Unavailable),
        ] {
            assert_eq!(classify(state).0, class, "{state}");
        }
    }

    #[test]
    fn a_column_takes_what_the_first_records_hold() {
        let kind = |values: &[Value]| column_type(None, values.iter());
        assert_eq!(kind(&[json!(null), json!(1), json!(2.5)]), "numeric");
        assert_eq!(kind(&[json!(1), json!("a")]), "text");
        assert_eq!(kind(&[json!({})]), "jsonb");
        assert_eq!(kind(&[]), "text");
        assert_eq!(column_type(Some(FieldType::Date), [].iter()), "date");
    }
}

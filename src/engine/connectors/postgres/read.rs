//! Rows of a table or a query, through a cursor that stays open.

use std::collections::BTreeSet;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Column, FromRow, Row as _};

use super::super::{Item, MAX_PAGE, MAX_RECORD, Page, ReadRequest, Source};
use super::answer::failure;
use super::{Name, close, literal, quote, run};
use crate::domain::definition::Stream;
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::engine::digits;

/// Rows that are fetched at once before their size is known: a page is full when each is as large as a record may be.
const FIRST_ROWS: usize = MAX_PAGE / MAX_RECORD;
/// Rows that are fetched at once at most, since those after small ones may be large.
const MAX_ROWS: usize = 64;
/// Rows that are counted at most, to estimate how long a table takes.
const MAX_COUNTED: i64 = 10_000_000;

/// What stands for a whole row. (`s.*`: the table may have a column called `s`.)
const DIGEST: &str = "encode(sha256(convert_to(to_jsonb(s.*)::text, 'UTF8')), 'hex') collate \"C\"";

/// What a read goes over: a table, or a query that only reads.
pub(super) fn relation(stream: &Stream) -> Result<(String, bool), Failure> {
    let Some(query) = &stream.source_query else {
        return Ok((format!("select * from {}", Name::parse(&stream.source_object)?.quoted), true));
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

/// A row as the cursor gives it: as JSON unless it is too large, its cursor, its primary key, and its digest.
#[derive(FromRow)]
struct Row {
    j: Option<String>,
    c: Option<String>,
    k: Vec<String>,
    d: Option<String>,
}

/// Where an interrupted read in the order of a cursor goes on, as conditions on `s`.
struct After {
    /// Rows like the last one: so many of them as there were before are passed over, or all that are left.
    same: String,
    /// These, and those that come after them.
    rest: String,
}

impl After {
    /// After a row whose cursor (none: null) and digest these are.
    fn new(column: &str, cursor: Option<&str>, digest: &str) -> Self {
        let digest = literal(digest);
        let (equal, rest) = match cursor.map(literal) {
            // (the first condition is what an index on the column serves)
            Some(value) => (
                format!("{column} = {value}"),
                format!("{column} >= {value} and ({column} > {value} or {DIGEST} >= {digest})"),
            ),
            None => (format!("{column} is null"), format!("({column} is not null or {DIGEST} >= {digest})")),
        };
        Self { same: format!("{equal} and {DIGEST} = {digest}"), rest }
    }
}

/// Rows of one stream, through a cursor that stays open.
pub(super) struct Rows {
    conn: Option<PgConnection>,
    cursor: Option<String>,
    /// The cursor that the next run may go on after: the one reached where that is read again, else the last
    /// one that all rows of were read.
    passed: Option<String>,
    inclusive: bool,
    /// The primary key of the last row, where rows come in its order.
    key: Option<Vec<String>>,
    /// The digest of the last row, where rows come in the order of a cursor and, of one value, in that of their digests.
    digest: Option<String>,
    /// Rows so far that are like the last one, or all where rows have no order.
    skip: i64,
    index: i64,
    incremental: bool,
    estimated: Option<i64>,
    most: usize,
}

impl Rows {
    /// Opens the cursor.
    pub(super) async fn open(mut conn: PgConnection, request: &ReadRequest<'_>) -> Result<Self, Failure> {
        let (relation, is_table) = relation(request.stream)?;
        let place = request.position.cloned().unwrap_or_default();
        let (skip, index) = (place["skip"].as_i64().unwrap_or(0), place["index"].as_i64().unwrap_or(0));
        let reached = place["cursor"].as_str().map(str::to_owned);
        let whole_table = is_table && request.after().is_none();
        let columns =
            if whole_table { primary_key(&mut conn, &request.stream.source_object).await? } else { vec![] };
        let key = place["key"].as_array().filter(|key| key.len() == columns.len() && !key.is_empty());
        let key: Option<Vec<String>> =
            key.map(|key| key.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect());
        let digest = place["digest"].as_str().map(str::to_owned);
        // What a key or a digest says stays true while rows come and go; a number of rows to skip does not.
        let skip = if key.is_some() || (request.after().is_some() && digest.is_none()) { 0 } else { skip };
        let mut offset = skip.to_string();
        let listed = columns.join(", ");
        let keys = columns.iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ");
        let (select, filter, order) = match request.after() {
            None if columns.is_empty() => ("null::text".to_owned(), String::new(), String::new()),
            None => {
                let after: Vec<String> = key.iter().flatten().map(|value| literal(value)).collect();
                let filter = if after.is_empty() {
                    String::new()
                } else {
                    format!("where ({listed}) > ({})", after.join(", "))
                };
                ("null::text".to_owned(), filter, format!("order by {listed}"))
            }
            Some((field, saved, inclusive)) => {
                let column = format!("s.{}", quote(field));
                let never_null =
                    is_table && never_null(&mut conn, &request.stream.source_object, field).await?;
                // What has no cursor may be new each time: it is read once where it would be written twice.
                let since = saved.map(|saved| {
                    let saved = saved.as_str().map_or_else(|| saved.to_string(), str::to_owned);
                    let saved = literal(&saved);
                    match (inclusive, never_null) {
                        (false, _) => format!("{column} > {saved}"),
                        (true, true) => format!("{column} >= {saved}"),
                        (true, false) => format!("({column} >= {saved} or {column} is null)"),
                    }
                });
                let filter = match (&digest, since) {
                    (Some(digest), since) => {
                        let after = After::new(&column, reached.as_deref(), digest);
                        offset = format!(
                            "least({skip}, (select count(*) from ({relation}) s where {}))",
                            after.same
                        );
                        // (where a value was reached it says more than the one that was saved)
                        let since = since.filter(|_| reached.is_none()).map(|since| format!(" and {since}"));
                        format!("where {}{}", after.rest, since.unwrap_or_default())
                    }
                    (None, Some(since)) => format!("where {since}"),
                    (None, None) => String::new(),
                };
                // Without nulls this is the order of any index on the column.
                let nulls = if never_null { "" } else { " nulls first" };
                (format!("{column}::text"), filter, format!("order by {column}{nulls}, {DIGEST}"))
            }
        };
        let rows = format!("from ({relation}) s {filter}");
        run(&mut conn, "begin isolation level repeatable read read only").await?;
        if !is_table {
            refuse_equal_names(&mut conn, &relation).await?;
        }
        // Rows without a cursor would be appended again by each run, as long as none has one.
        if let Some((field, None, false)) = request.after()
            && request.position.is_none()
            && lacks_cursor(&mut conn, &relation, field).await?
        {
            let object = &request.stream.source_object;
            let message = format!("no record of '{object}' has a value for the cursor field '{field}'");
            return Err(Failure::config(&message).at_field(field));
        }
        // The order of a table must be the same when an interrupted run goes on.
        run(&mut conn, "set local synchronize_seqscans = off").await?;
        let estimated = if is_table {
            counted(&mut conn, &rows).await?.map(|count| index + (count - skip).max(0))
        } else {
            None
        };
        let declare = format!(
            "declare apixx_rows no scroll cursor for
             select case when octet_length(r.j) <= {MAX_RECORD} then r.j end as j, r.c, r.k, r.d
               from (select to_jsonb(s.*)::text as j, {select} as c, array[{keys}]::text[] as k, {told} as d
                       {rows} {order} offset {offset}) r",
            told = if request.after().is_some() { DIGEST } else { "null" }
        );
        run(&mut conn, &declare).await?;
        Ok(Self {
            conn: Some(conn),
            cursor: reached,
            passed: None,
            inclusive: request.after().is_some_and(|(_, _, inclusive)| inclusive),
            key,
            digest,
            skip,
            index,
            incremental: request.after().is_some(),
            estimated,
            most: request.page_records,
        })
    }

    async fn page(&mut self) -> Result<Option<Page>, Failure> {
        let Some(conn) = &mut self.conn else { return Ok(None) };
        let mut page = Page { first_index: self.index, estimated: self.estimated, ..Page::default() };
        let (mut bytes, mut asked) = (0, FIRST_ROWS);
        while bytes < MAX_PAGE && page.items.len() < self.most {
            asked = asked.min(self.most - page.items.len());
            let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(format!("fetch {asked} from apixx_rows")))
                .persistent(false)
                .fetch_all(&mut *conn)
                .await
                .map_err(|error| failure(&error, Stage::Extract))?;
            for row in &rows {
                if self.incremental && row.c != self.cursor {
                    self.passed = std::mem::replace(&mut self.cursor, row.c.clone());
                    self.skip = 0;
                }
                if self.incremental && row.d != self.digest {
                    self.digest.clone_from(&row.d);
                    self.skip = 0;
                }
                self.skip += 1;
                bytes += row.j.as_ref().map_or(MAX_RECORD, String::len);
                page.items.push(item(row.j.as_deref()));
            }
            if let Some(last) = rows.last() {
                self.key = Some(last.k.clone()).filter(|key| !key.is_empty());
            }
            if rows.len() < asked {
                break;
            }
            let room = MAX_PAGE.saturating_sub(bytes) * page.items.len() / bytes.max(1);
            asked = room.clamp(1, (2 * asked).min(MAX_ROWS));
        }
        self.index += page.items.len() as i64;
        page.bytes = bytes as i64;
        page.position = self.position();
        if page.items.is_empty() {
            if let Some(conn) = self.conn.take() {
                close(conn).await;
            }
            // Now every row of the last value was read.
            let last = self.cursor.clone().filter(|_| self.incremental && !self.inclusive);
            return Ok(last.map(|last| Page { cursor: Some(Value::String(last)), ..page }));
        }
        // Rows come in the order of the cursor, so all that went before is done.
        let done = if self.inclusive { &self.cursor } else { &self.passed };
        page.cursor = done.clone().filter(|_| self.incremental).map(Value::String);
        Ok(Some(page))
    }

    fn position(&self) -> Value {
        json!({
            "cursor": self.cursor, "key": self.key, "digest": self.digest, "skip": self.skip, "index": self.index
        })
    }
}

/// How many rows there are, up to [`MAX_COUNTED`]; `None` where that takes long or fails, since a run goes on without
/// an estimate.
async fn counted(conn: &mut PgConnection, rows: &str) -> Result<Option<i64>, Failure> {
    run(conn, "savepoint counting").await?;
    run(conn, "set local statement_timeout = '5s'").await?;
    let count = format!("select count(*) from (select {rows} limit {MAX_COUNTED}) counted");
    let count = sqlx::query_scalar(AssertSqlSafe(count)).persistent(false).fetch_one(&mut *conn).await;
    // (the time that a statement may take is what it was, too)
    run(conn, "rollback to savepoint counting").await?;
    Ok(count.inspect_err(|error| tracing::debug!(%error, "rows are not counted")).ok())
}

/// The columns of a table's primary key, quoted, as columns of `s`; none for what has no such key.
async fn primary_key(conn: &mut PgConnection, table: &str) -> Result<Vec<String>, Failure> {
    let names: Vec<String> = sqlx::query_scalar(
        "select a.attname::text
           from pg_index i
          cross join unnest(i.indkey::smallint[]) with ordinality k (attnum, place)
           join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
          where i.indrelid = to_regclass($1) and i.indisprimary and k.place <= i.indnkeyatts
          order by k.place",
    )
    .bind(Name::parse(table)?.quoted)
    .fetch_all(conn)
    .await
    .map_err(|error| failure(&error, Stage::Extract))?;
    Ok(names.iter().map(|name| format!("s.{}", quote(name))).collect())
}

/// Whether a table says that a column of it holds no nulls.
async fn never_null(conn: &mut PgConnection, table: &str, column: &str) -> Result<bool, Failure> {
    let found: Option<bool> = sqlx::query_scalar(
        "select a.attnotnull from pg_attribute a where a.attrelid = to_regclass($1) and a.attname = $2",
    )
    .bind(Name::parse(table)?.quoted)
    .bind(column)
    .fetch_optional(conn)
    .await
    .map_err(|error| failure(&error, Stage::Extract))?;
    Ok(found == Some(true))
}

/// Whether there are rows and none has a cursor.
async fn lacks_cursor(conn: &mut PgConnection, relation: &str, field: &str) -> Result<bool, Failure> {
    let text = format!(
        "select not exists (select from ({relation}) s where s.{} is not null) and exists (select from ({relation}) s)",
        quote(field)
    );
    sqlx::query_scalar(AssertSqlSafe(text))
        .persistent(false)
        .fetch_one(conn)
        .await
        .map_err(|error| failure(&error, Stage::Extract))
}

/// Of two columns with one name a row would keep the value of the last.
async fn refuse_equal_names(conn: &mut PgConnection, relation: &str) -> Result<(), Failure> {
    // (a row of nulls, for which the query is not run)
    let text =
        format!("select s.* from (values (0)) o left join (select * from ({relation}) q limit 0) s on true");
    let row = match sqlx::query(AssertSqlSafe(text)).persistent(false).fetch_one(conn).await {
        Ok(row) => row,
        Err(error) if error.as_database_error().is_some() => return Err(failure(&error, Stage::Extract)),
        // A column may be of a kind that only the database knows, and rows are read as JSON.
        Err(error) => {
            tracing::debug!(%error, "a query's columns are not known");
            return Ok(());
        }
    };
    let mut seen = BTreeSet::new();
    match row.columns().iter().map(Column::name).find(|name| !seen.insert(*name)) {
        Some(name) => {
            Err(Failure::config(&format!("the query gives '{name}' twice; name one of them with `as`")))
        }
        None => Ok(()),
    }
}

fn item(text: Option<&str>) -> Item {
    match text.map(digits::from_row) {
        Some(Ok(Value::Object(fields))) => Item::Record(fields),
        Some(_) => Item::Bad(
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

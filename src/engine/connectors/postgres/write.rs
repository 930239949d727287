//! Records into a table, by key.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Connection};

use super::super::{Fields, Sink, WriteReport};
use super::answer::{failure, undefined_column, undefined_table};
use super::{Name, quote, run};
use crate::domain::definition::FieldType;

use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::engine::digits;

/// A table that is written.
pub(super) struct Table {
    conn: Option<PgConnection>,
    name: Name,
    /// Columns with their types, of a domain with the one below it; empty while the table does not exist.
    columns: BTreeMap<String, String>,
    create: bool,
    fields: Vec<(String, Option<FieldType>)>,
    key: Vec<String>,
}

impl Table {
    /// The table that records are written to, by `key` (none: they are added).
    pub(super) async fn open(
        conn: PgConnection,
        name: Name,
        key: Vec<String>,
        create: bool,
        fields: &[(&str, Option<FieldType>)],
    ) -> Result<Self, Failure> {
        let fields = fields.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        let mut table = Self { conn: Some(conn), name, columns: BTreeMap::new(), create, fields, key };
        table.load_columns().await?;
        Ok(table)
    }

    async fn load_columns(&mut self) -> Result<(), Failure> {
        let Some(conn) = &mut self.conn else { return Err(Failure::internal()) };
        let columns: Vec<(String, String)> = sqlx::query_as(
            "select a.attname::text, coalesce(b.typname, t.typname)::text
               from pg_attribute a
               join pg_type t on t.oid = a.atttypid
               left join pg_type b on b.oid = t.typbasetype
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
        match run(conn, &text).await {
            Ok(_) => {}
            // Somebody made it in the same moment, which `if not exists` does not cover.
            Err(failure) if matches!(failure.code.as_ref(), "UNIQUE_VIOLATION" | "42P07") => {}
            Err(failure) => return Err(Failure { stage: Stage::Load, ..failure }),
        }
        self.load_columns().await
    }

    async fn write_batch(&mut self, batch: &[Fields]) -> Result<WriteReport, Failure> {
        if self.columns.is_empty() && batch.iter().any(|record| !record.is_empty()) {
            self.create(batch).await?;
        }
        let mut report = WriteReport::default();
        // Records with different fields need different statements: a field left out stays as it is.
        let mut groups: BTreeMap<Vec<&String>, Vec<usize>> = BTreeMap::new();
        for (place, record) in batch.iter().enumerate() {
            if record.is_empty() {
                let message = "the record has no field to write";
                let problem = Failure::new(ErrorClass::Validation, "EMPTY_RECORD", Stage::Load, message);
                report.rejected.push((place, problem));
                continue;
            }
            if let Some(lost) = record.keys().find(|name| !self.columns.contains_key(*name)) {
                report.rejected.push((place, undefined_column(&self.name, lost)));
                continue;
            }
            if let Some((name, _)) = record.iter().find(|(name, value)| self.must_guess(name, value)) {
                // (it would drop the time of a moment)
                let message = match self.columns.get(name).map(String::as_str) {
                    Some("date") => {
                        "a date begins with its year, as in 2026-11-05; `to_date` reads other forms"
                    }
                    _ => "a moment begins with its year, as in 2026-11-05 10:00:00",
                };
                let problem = Failure::new(ErrorClass::Type, "INVALID_DATE", Stage::Load, message);
                report.rejected.push((place, problem.at_field(name)));
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
        // Or a constraint that waits for the commit would refuse all of them.
        run(&mut tx, "set constraints all immediate")
            .await
            .map_err(|failure| Failure { stage: Stage::Load, ..failure })?;
        for (statement, places) in statements {
            write_places(&mut tx, &statement, batch, places, &mut report).await?;
        }
        tx.commit().await.map_err(|error| failure(&error, Stage::Load))?;
        report.rejected.sort_by_key(|(place, _)| *place);
        Ok(report)
    }

    /// Whether the database would have to guess what is the day, the month and the year of a text for a column.
    fn must_guess(&self, name: &str, value: &Value) -> bool {
        let kind = self.columns.get(name).map(String::as_str);
        matches!(kind, Some("date" | "timestamp" | "timestamptz")) && value.as_str().is_some_and(is_ambiguous)
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

    /// A column in a form whose equality means the same value. Numbers have one; of other types some have none, and some
    /// take for equal what is written differently (`citext`, intervals, collations that mind no case).
    fn comparable(&self, side: &str, name: &str) -> String {
        let kind = self.columns.get(name).map(String::as_str).unwrap_or_default();
        let column = format!("{side}.{}", quote(name));
        match kind {
            "int2" | "int4" | "int8" | "numeric" | "float4" | "float8" => column,
            _ => format!("{column}::text collate \"C\""),
        }
    }
}

fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| quote(name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Whether the date that a text begins with has its year nowhere for certain: neither first nor, in four digits, behind
/// the name of a month.
fn is_ambiguous(text: &str) -> bool {
    let digit = |c: char| c.is_ascii_digit();
    let digits = |text: &str| text.len() - text.trim_start_matches(digit).len();
    let (first, rest) = text.trim_start().split_at(digits(text.trim_start()));
    let Some(next) = rest.strip_prefix(['-', '.', '/', ' ']) else { return false };
    let named = next.trim_start_matches(|c: char| !digit(c));
    (1..4).contains(&first.len()) && (next.starts_with(digit) || (1..3).contains(&digits(named)))
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
                if !problem.class.is_of_a_record() {
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

/// What holds digits and nothing else: numbers beside others, by itself a text.
const DIGITS: &str = "digits";

fn column_type<'a>(kind: Option<FieldType>, values: impl Iterator<Item = &'a Value>) -> &'static str {
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
                Value::String(text) if digits::are_lost(text) => Some(DIGITS),
                Value::String(_) => Some("text"),
                Value::Array(_) | Value::Object(_) => Some("jsonb"),
            };
            let joined = values.filter_map(kind).reduce(|kind, other| match (kind, other) {
                _ if kind == other => kind,
                (DIGITS, "numeric") | ("numeric", DIGITS) => "numeric",
                // A column that holds several kinds takes them all as text.
                _ => "text",
            });
            joined.filter(|kind| *kind != DIGITS).unwrap_or("text")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_date_is_guessed_where_its_year_may_be_another_part() {
        for text in
            ["05.11.2026", " 5-11-2026 10:00", "12/11/26", "05 11 2026", "05-Nov-26", "5 Nov 26 10:00"]
        {
            assert!(is_ambiguous(text), "{text}");
        }
        for text in
            ["2026-11-05", "20261105", "05-Nov-2026", "5 Nov 2026 10:00", "10:00 2026-11-05", "infinity", ""]
        {
            assert!(!is_ambiguous(text), "{text}");
        }
    }

    #[test]
    fn a_column_takes_what_the_first_records_hold() {
        let kind = |values: &[Value]| column_type(None, values.iter());
        assert_eq!(kind(&[json!(null), json!(1), json!(2.5)]), "numeric");
        assert_eq!(kind(&[json!(1), json!("a")]), "text");
        let digits = json!("12345678901234567.89");
        assert_eq!(kind(&[digits.clone(), json!(1), digits.clone()]), "numeric");
        assert_eq!(kind(&[digits.clone(), digits.clone()]), "text");
        assert_eq!(kind(&[json!(1), json!("a"), digits, json!(2)]), "text");
        assert_eq!(kind(&[json!({})]), "jsonb");
        assert_eq!(kind(&[]), "text");
        assert_eq!(column_type(Some(FieldType::Date), [].iter()), "date");
    }
}

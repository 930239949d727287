//! A row's columns one after the other. Finding each of forty columns by its name, and copying words that are only
//! parsed, costs more than all the rest of a page of runs.

use sqlx::postgres::{PgRow, Postgres};
use sqlx::{Column, Decode, Row};

/// Columns of a row that are still to be read.
pub(super) struct Columns<'r> {
    row: &'r PgRow,
    next: usize,
}

impl<'r> Columns<'r> {
    /// The columns from `first` on.
    pub(super) fn from(row: &'r PgRow, first: &str) -> Result<Self, sqlx::Error> {
        Ok(Self { row, next: row.try_column(first)?.ordinal() })
    }

    /// The next column.
    pub(super) fn next<T: Decode<'r, Postgres>>(&mut self) -> Result<T, sqlx::Error> {
        // (unchecked: that it is of this type is the statement's doing, not each row's)
        let value = self.row.try_get_unchecked(self.next)?;
        self.next += 1;
        Ok(value)
    }

    /// The next column, a word that `parse` knows.
    pub(super) fn word<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Result<T, sqlx::Error> {
        let word = self.next()?;
        parse(word).ok_or_else(|| self.unknown())
    }

    /// The next column, a word that `parse` knows or null.
    pub(super) fn word_if_any<T>(
        &mut self,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, sqlx::Error> {
        let Some(word) = self.next::<Option<&str>>()? else { return Ok(None) };
        parse(word).map(Some).ok_or_else(|| self.unknown())
    }

    fn unknown(&self) -> sqlx::Error {
        let index = self.row.try_column(self.next - 1).map_or("?", Column::name).to_owned();
        sqlx::Error::ColumnDecode { index, source: "a value that this build does not know".into() }
    }
}

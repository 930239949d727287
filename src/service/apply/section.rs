//! One table of a TOML file, read key by key. What is wrong is collected, so that an author sees all of it
//! at once.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::Problem;
use crate::domain::names::nearest_word;

/// What is wrong with a file so far.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// Notes that what stands at `path` cannot be used, and why.
    pub(super) fn add(&self, path: impl Into<String>, reason: impl Into<String>) {
        self.0.borrow_mut().push(Problem { path: path.into(), reason: reason.into() });
    }

    /// All of them, in the order they were found.
    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// A table of the file and where it stands in it.
pub(super) struct Section<'a> {
    path: String,
    table: &'a Table,
    asked: RefCell<Vec<&'static str>>,
    problems: &'a Problems,
}

/// What people call the type of a value.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a Table, problems: &'a Problems) -> Self {
        Self { path: String::new(), table, asked: RefCell::default(), problems }
    }

    /// Where the table stands, e.g. `flow[2].stream[0]`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where `key` of the table stands.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a problem with `key`.
    pub(super) fn problem(&self, key: &str, reason: impl Into<String>) {
        self.problems.add(self.at(key), reason);
    }

    /// Whether the table has `key` (which it then may have).
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().push(key);
        self.table.get(key)
    }

    fn read<T>(
        &self,
        key: &'static str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let read = read(value);
        if read.is_none() {
            self.problem(key, format!("must be {wanted}, not {}", type_name(value)));
        }
        read
    }

    /// A text that is not blank.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        let text = self.read(key, "text", Value::as_str)?;
        if text.trim().is_empty() {
            self.problem(key, "must not be empty");
            return None;
        }
        Some(text.to_owned())
    }

    /// A text that must be there, of at most 200 characters in one line.
    pub(super) fn name(&self, key: &'static str) -> Option<String> {
        let text = self.text(key);
        if text.is_none() && !self.table.contains_key(key) {
            self.problem(key, "is missing");
        }
        let text = text?.trim().to_owned();
        if text.chars().count() > 200 {
            self.problem(key, "is longer than 200 characters");
            return None;
        }
        if text.contains(char::is_control) {
            self.problem(key, "holds a line break or another control character");
            return None;
        }
        Some(text)
    }

    /// True or false.
    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A whole number in `range`.
    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<i32>) -> Option<i32> {
        let number = self.read(key, "a whole number", Value::as_integer)?;
        let fits = i32::try_from(number).ok().filter(|number| range.contains(number));
        if fits.is_none() {
            self.problem(
                key,
                format!("must lie between {} and {}, not {number}", range.start(), range.end()),
            );
        }
        fits
    }

    /// A share between 0 and 1.
    pub(super) fn share(&self, key: &'static str) -> Option<f64> {
        let number = self.read(key, "a number", |value| match value {
            Value::Float(number) => Some(*number),
            Value::Integer(number) => Some(*number as f64),
            _ => None,
        })?;
        if !(0.0..=1.0).contains(&number) {
            self.problem(key, format!("must lie between 0 and 1, not {number}"));
            return None;
        }
        Some(number)
    }

    /// A list of texts without repetition; one text alone is a list of one.
    pub(super) fn texts(&self, key: &'static str) -> Vec<String> {
        let texts = self.read(key, "a list of texts", |value| match value {
            Value::String(text) => Some(vec![text.as_str()]),
            Value::Array(items) => items.iter().map(Value::as_str).collect(),
            _ => None,
        });
        let mut kept: Vec<String> = Vec::new();
        for text in texts.unwrap_or_default() {
            if text.trim().is_empty() {
                self.problem(key, "holds an empty text");
            } else if kept.iter().any(|earlier| earlier == text) {
                self.problem(key, format!("holds `{text}` twice"));
            } else {
                kept.push(text.to_owned());
            }
        }
        kept
    }

    /// One of the words of a closed vocabulary.
    pub(super) fn word<W: Copy>(
        &self,
        key: &'static str,
        all: &[W],
        spelling: impl Fn(W) -> &'static str,
    ) -> Option<W> {
        let text = self.text(key)?;
        let word = all.iter().copied().find(|word| spelling(*word) == text);
        if word.is_none() {
            let words: Vec<&str> = all.iter().map(|word| spelling(*word)).collect();
            self.problem(key, format!("`{text}` is not one of {}{}", words.join(", "), meant(&text, words)));
        }
        word
    }

    /// Any value, as JSON.
    pub(super) fn json(&self, key: &'static str) -> Option<Json> {
        let json = to_json(self.get(key)?);
        if json.is_none() {
            self.problem(key, "holds a number that JSON cannot hold");
        }
        json
    }

    /// A table, as a JSON object.
    pub(super) fn object(&self, key: &'static str) -> Option<serde_json::Map<String, Json>> {
        self.read(key, "a table such as { format = \"email\" }", Value::as_table)?;
        match self.json(key)? {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The tables of an array of tables.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let header = [self.path.rsplit('.').next().unwrap_or(""), key].join(".");
        let header: String =
            header.trim_start_matches('.').chars().filter(|c| !"[]0123456789".contains(*c)).collect();
        let tables: Option<Vec<&'a Table>> =
            value.as_array().and_then(|items| items.iter().map(Value::as_table).collect());
        let Some(tables) = tables else {
            self.problem(key, format!("is one table of several: begin each with [[{header}]]"));
            return Vec::new();
        };
        let section = |(n, table)| Section {
            path: format!("{}[{n}]", self.at(key)),
            table,
            asked: RefCell::default(),
            problems: self.problems,
        };
        tables.into_iter().enumerate().map(section).collect()
    }

    /// Notes every key that nobody asked for. The last thing to do with a table.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for key in self.table.keys().filter(|key| !asked.contains(&key.as_str())) {
            let shown: String = key.chars().take(60).collect();
            self.problem(&shown, format!("is not known here{}", meant(key, asked.iter().copied())));
        }
    }
}

/// `; did you mean …?`, where one of `words` is near.
fn meant<'w>(text: &str, words: impl IntoIterator<Item = &'w str>) -> String {
    nearest_word(text, words).map(|word| format!("; did you mean `{word}`?")).unwrap_or_default()
}

fn to_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::String(text) => Json::String(text.clone()),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) => Json::Number(serde_json::Number::from_f64(*number)?),
        Value::Boolean(flag) => Json::Bool(*flag),
        Value::Datetime(moment) => Json::String(moment.to_string()),
        Value::Array(items) => Json::Array(items.iter().map(to_json).collect::<Option<_>>()?),
        Value::Table(table) => {
            let entry = |(key, value): (&String, &Value)| Some((key.clone(), to_json(value)?));
            Json::Object(table.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}

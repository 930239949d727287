//! Files in a directory that the operator named: CSV, JSON lines and JSON arrays are read, JSON lines written.
//!
//! The configuration of a connector of kind `files` is `{"root": "name"}`. Objects are paths inside of that
//! directory. Nothing outside of it is ever opened: no absolute path, no `..`, no link that leads out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::Deserialize;
use serde_json::Value;

use super::csv_file::CsvFile;
use super::file_name::{form, is_written, stays_inside};
use super::file_place::{Passed, Place};
use super::json_file::JsonFile;
use super::json_out::{FileSink, Keyed, Target};
use super::{
    CheckReport, Connector, Cursor, Fields, Item, MAX_PAGE, Page, ReadRequest, Sink, Source, WriteRequest,
    configuration, named,
};
use crate::domain::definition::{FileFormat, WriteMode};
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::engine::convert::is_date_out_of_order;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 4 << 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    root: String,
}

/// A directory.
#[derive(Debug)]
pub(super) struct Files {
    name: String,
    root: PathBuf,
}

impl Files {
    pub(super) fn open(config: &Value, roots: &BTreeMap<String, PathBuf>) -> Result<Self, Failure> {
        let Config { root: name } = configuration(config)?;
        let root = named("directory", &name, roots)?.clone();
        Ok(Self { name, root })
    }

    fn canonical_root(&self, stage: Stage) -> Result<PathBuf, Failure> {
        self.root.canonicalize().map_err(|error| {
            tracing::warn!(root = %self.root.display(), %error, "a files root cannot be opened");
            let message = format!("the directory '{}' cannot be opened", self.name);
            Failure::new(ErrorClass::Connectivity, "DIRECTORY_UNREACHABLE", stage, &message)
        })
    }

    /// The path of an object inside of the root, its links not yet followed.
    fn inside(&self, object: &str, stage: Stage) -> Result<(PathBuf, PathBuf), Failure> {
        if !stays_inside(object) {
            let message = format!("'{object}' leads out of the directory '{}'", self.name);
            return Err(Failure::new(ErrorClass::Config, "PATH_OUTSIDE", stage, &message));
        }
        let root = self.canonical_root(stage)?;
        Ok((root.join(object), root))
    }

    /// Opens an object for reading: a regular file, really inside, not too large.
    fn open_file(&self, object: &str) -> Result<File, Failure> {
        let stage = Stage::Extract;
        let (path, root) = self.inside(object, stage)?;
        let real = path.canonicalize().map_err(|error| self.unreadable(object, &error))?;
        if !real.starts_with(&root) {
            let message = format!("'{object}' is a link out of the directory '{}'", self.name);
            return Err(Failure::new(ErrorClass::Config, "PATH_OUTSIDE", stage, &message));
        }
        // A pipe must not be waited for.
        let file = below(&root, &real, OFlag::O_RDONLY | OFlag::O_NONBLOCK)
            .map_err(|error| self.unreadable(object, &error))?;
        let about = file.metadata().map_err(|error| self.unreadable(object, &error))?;
        if !about.is_file() {
            let message = format!("'{object}' is no regular file");
            return Err(Failure::new(ErrorClass::Config, "NOT_A_FILE", stage, &message));
        }
        if about.len() > MAX_FILE {
            let message = format!("'{object}' is larger than {} GiB", MAX_FILE >> 30);
            return Err(Failure::new(ErrorClass::Size, "FILE_TOO_LARGE", stage, &message));
        }
        Ok(file)
    }

    /// Where the reading of a file starts: where an earlier attempt stopped, if that was in this file. Another one is
    /// read from its beginning where writing a record twice does no harm.
    async fn start(&self, file: &File, request: &ReadRequest<'_>) -> Result<Start, Failure> {
        let object = &request.stream.source_object;
        let copied = || file.try_clone().map_err(|error| self.unreadable(object, &error));
        let place = Place::of(request.position);
        let (saved, copy) = (place.clone(), copied()?);
        let passed = tokio::task::spawn_blocking(move || Passed::up_to(&saved, copy))
            .await
            .map_err(|_| Failure::internal())?
            .map_err(|error| self.unreadable(object, &error))?;
        match passed {
            Some(passed) => Ok(Start { place, passed, note: None }),
            None if request.stream.write_mode == WriteMode::Append => Err(Failure::new(
                // (nothing that passes: it is no other file at the next attempt)
                ErrorClass::Validation,
                "FILE_REPLACED",
                Stage::Extract,
                &format!(
                    "'{object}' is no longer the file that was begun: a new run appends all of this one"
                ),
            )),
            None => {
                let note =
                    format!("'{object}' is no longer the file that was begun: all of this one is read");
                Ok(Start { place: Place::default(), passed: Passed::nothing(copied()?), note: Some(note) })
            }
        }
    }

    fn unreadable(&self, object: &str, error: &std::io::Error) -> Failure {
        let (class, code, what) = match error.kind() {
            std::io::ErrorKind::NotFound => (ErrorClass::Schema, "FILE_NOT_FOUND", "does not exist"),
            std::io::ErrorKind::PermissionDenied => {
                (ErrorClass::Permission, "FILE_DENIED", "may not be read")
            }
            _ => (ErrorClass::Unavailable, "FILE_UNREADABLE", "cannot be read"),
        };
        tracing::debug!(object, %error, "a file cannot be read");
        Failure::new(
            class,
            code,
            Stage::Extract,
            &format!("'{object}' {what} in the directory '{}'", self.name),
        )
    }
}

/// Opens `real`, a path without links below `root`, step by step: what was no link a moment ago must not be one now,
/// on any step of the way.
pub(super) fn below(root: &Path, real: &Path, flags: OFlag) -> std::io::Result<File> {
    let outside = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let mut steps = real.strip_prefix(root).map_err(|_| outside())?.components().peekable();
    let mut at = File::open(root)?;
    while let Some(step) = steps.next() {
        let Component::Normal(name) = step else { return Err(outside()) };
        let last = steps.peek().is_none();
        let flags = if last { flags } else { OFlag::O_RDONLY | OFlag::O_DIRECTORY };
        at = openat(&at, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?.into();
    }
    Ok(at)
}

impl Connector for Files {
    fn check(&self) -> BoxFuture<'_, CheckReport> {
        let found = self.canonical_root(Stage::Platform).and_then(|root| {
            fs::read_dir(root)
                .map_err(|_| Failure::config(&format!("the directory '{}' may not be listed", self.name)))
        });
        let error = found.err().map(|failure| failure.message);
        std::future::ready(CheckReport { error, ..CheckReport::default() }).boxed()
    }

    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Box<dyn Source>, Failure>> {
        async move {
            let stream = request.stream;
            if stream.source_query.is_some() {
                return Err(Failure::config("files have no queries; name a file"));
            }
            let object = &stream.source_object;
            let format = form(stream)?;
            let file = self.open_file(object)?;
            let Start { place, passed, note } = self.start(&file, &request).await?;
            if let Some((field, from, inclusive)) = request.after()
                && place.offset == 0
            {
                let copy = file.try_clone().map_err(|error| self.unreadable(object, &error))?;
                let (file, name) = (Reader::open(copy, format, &place)?, field.to_owned());
                // Where a record is read once, those without a value are all read as long as none has one.
                let empty_counts = inclusive || from.is_some();
                let lacks = move || lacks_field(file, &name, empty_counts);
                if tokio::task::spawn_blocking(lacks).await.map_err(|_| Failure::internal())? {
                    let message =
                        format!("no record of '{object}' has a value for the cursor field '{field}'");
                    return Err(Failure::config(&message).at_field(field));
                }
            }
            let file = Reader::open(file, format, &place)?;
            let after = request.after().map(|(field, value, inclusive)| After {
                field: field.to_owned(),
                from: value.cloned(),
                inclusive,
                greatest: place.greatest.clone().or_else(|| value.cloned()),
            });
            let pages = Pages {
                file,
                passed,
                note,
                index: place.index,
                after,
                page_records: request.page_records,
                done: false,
                broken: None,
            };
            Ok(Box::new(FileSource { pages: Some(pages) }) as Box<dyn Source>)
        }
        .boxed()
    }

    fn write<'a>(&'a self, request: WriteRequest<'a>) -> BoxFuture<'a, Result<Box<dyn Sink>, Failure>> {
        async move {
            let object = &request.stream.destination_object;
            is_written(object)?;
            let (path, root) = self.inside(object, Stage::Load)?;
            let target = Target::open(&path, &root, object)?;
            let key = match request.stream.write_mode {
                WriteMode::Append => None,
                WriteMode::Upsert if request.key.is_empty() => {
                    return Err(Failure::config(
                        "an upsert needs a key; name the fields that identify a record",
                    ));
                }
                WriteMode::Upsert => Some(request.key.to_vec()),
            };
            let merges = !request.fields.is_empty();
            let state = tokio::task::spawn_blocking(move || {
                let keyed = key.map(|key| Keyed::load(&target, &key, merges)).transpose()?;
                Ok::<_, Failure>((target, keyed))
            })
            .await
            .map_err(|_| Failure::internal())??;
            Ok(Box::new(FileSink { state: Some(state) }) as Box<dyn Sink>)
        }
        .boxed()
    }
}

/// A file that was open cannot be read any further.
pub(super) fn unreadable(error: &dyn std::fmt::Display) -> Failure {
    tracing::warn!(%error, "a file cannot be read on");
    Failure::new(ErrorClass::Unavailable, "FILE_UNREADABLE", Stage::Extract, "the file cannot be read on")
}

/// Where the reading of a file starts.
struct Start {
    place: Place,
    passed: Passed,
    /// What the timeline tells of it.
    note: Option<String>,
}

enum Reader {
    Csv(Box<CsvFile>),
    Json(Box<JsonFile>),
}

impl Reader {
    fn open(file: File, format: FileFormat, place: &Place) -> Result<Self, Failure> {
        Ok(match format {
            FileFormat::Csv => Self::Csv(Box::new(CsvFile::open(file, place)?)),
            FileFormat::Jsonl => Self::Json(Box::new(JsonFile::lines(file, place)?)),
            FileFormat::Json => Self::Json(Box::new(JsonFile::array(file, place)?)),
        })
    }

    fn next(&mut self) -> Result<Option<Item>, Failure> {
        match self {
            Self::Csv(file) => file.next(),
            Self::Json(file) => file.next(),
        }
    }

    /// Whether there are no more records, though an error may follow them.
    fn has_ended(&self) -> bool {
        match self {
            Self::Csv(_) => false,
            Self::Json(file) => file.has_ended(),
        }
    }

    fn offset(&self) -> u64 {
        match self {
            Self::Csv(file) => file.offset(),
            Self::Json(file) => file.offset(),
        }
    }
}

/// Whether there are records and none has a field (most often the first one has it): then it is misspelt, and they would
/// be new each time. An empty value may count as one.
fn lacks_field(mut file: Reader, field: &str, empty_counts: bool) -> bool {
    let mut any = false;
    loop {
        match file.next() {
            Ok(Some(Item::Record(record))) => {
                if record.get(field).is_some_and(|value| empty_counts || !value.is_null()) {
                    return false;
                }
                any = true;
            }
            Ok(Some(Item::Bad(..))) => {}
            Ok(None) => return any,
            // Whoever reads it tells of it.
            Err(_) => return false,
        }
    }
}

/// What an incremental run leaves out.
struct After {
    field: String,
    from: Option<Value>,
    inclusive: bool,
    greatest: Option<Value>,
}

impl After {
    /// Whether the record is new; remembers the greatest cursor. One without a cursor, or with one of a lower kind, may be
    /// new each time: it is read once where it would be written twice.
    ///
    /// # Errors
    /// When its cursor is a date that would be compared as a text, and pass over others or be passed over by them.
    fn wants(&mut self, record: &Fields) -> Result<bool, Failure> {
        let Some(value) = record.get(&self.field).filter(|value| !value.is_null()) else {
            return Ok(self.inclusive || self.from.is_none());
        };
        if value.as_str().is_some_and(is_date_out_of_order) {
            let message = "the cursor is a date whose order its text does not tell; write it as ISO 8601, such as 2025-12-31";
            let failure = Failure::new(ErrorClass::Type, "INVALID_CURSOR", Stage::Extract, message);
            return Err(failure.at_field(&self.field));
        }
        let cursor = Cursor::of(value);
        if self.greatest.as_ref().is_none_or(|greatest| cursor > Cursor::of(greatest)) {
            self.greatest = Some(value.clone());
        }
        let Some(from) = self.from.as_ref().map(Cursor::of) else { return Ok(true) };
        Ok(cursor > from || (self.inclusive && (cursor == from || cursor.is_below(&from))))
    }
}

struct Pages {
    file: Reader,
    /// What was read of it.
    passed: Passed,
    /// What the first page tells the timeline.
    note: Option<String>,
    index: i64,
    after: Option<After>,
    page_records: usize,
    done: bool,
    /// What ended the reading, to be told after the page before it.
    broken: Option<Failure>,
}

impl Pages {
    fn next(&mut self) -> Result<Option<Page>, Failure> {
        if self.done {
            return Ok(None);
        }
        if let Some(failure) = self.broken.take() {
            return Err(failure);
        }
        let begin = self.file.offset();
        let mut end = begin;
        let mut page = Page { first_index: self.index, note: self.note.take(), ..Page::default() };
        while page.items.len() < self.page_records && end - begin < MAX_PAGE as u64 {
            let next = match self.file.next() {
                // What was read before stays, and is not read again where it was all.
                Err(failure) if !page.items.is_empty() || self.file.has_ended() => {
                    page.cursor = self.greatest().filter(|_| self.file.has_ended()).cloned();
                    self.broken = Some(failure);
                    break;
                }
                next => next?,
            };
            end = self.file.offset();
            let Some(item) = next else {
                self.done = true;
                // Only now is it certain that no record with a smaller cursor follows.
                page.cursor = self.greatest().cloned();
                break;
            };
            page.items.push(match (item, &mut self.after) {
                (Item::Record(record), Some(after)) => match after.wants(&record) {
                    Ok(true) => Item::Record(record),
                    Ok(false) => continue,
                    Err(failure) => Item::Bad(failure, Some(Value::Object(record))),
                },
                (item, _) => item,
            });
        }
        self.index += page.items.len() as i64;
        page.bytes = i64::try_from(end - begin).unwrap_or(0);
        self.passed.go_to(end).map_err(|error| unreadable(&error))?;
        page.position = Place::position(self.index, self.greatest(), &self.passed);
        Ok(Some(page))
    }

    fn greatest(&self) -> Option<&Value> {
        self.after.as_ref()?.greatest.as_ref()
    }
}

struct FileSource {
    pages: Option<Pages>,
}

impl Source for FileSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Page>, Failure>> {
        async move {
            let mut pages = self.pages.take().ok_or_else(Failure::internal)?;
            let (pages, page) = tokio::task::spawn_blocking(move || {
                let page = pages.next();
                (pages, page)
            })
            .await
            .map_err(|_| Failure::internal())?;
            self.pages = Some(pages);
            page
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A flow may append to the very file that it reads.
    #[test]
    fn what_is_added_while_a_file_is_read_is_left_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for (format, content, added) in [
            (FileFormat::Csv, "id\n1\n2\n", "3\n"),
            (FileFormat::Csv, "id\n1\n\"2\n", "3\n4\n"),
            (FileFormat::Jsonl, "{\"id\":1}\n{\"id\":2}\n", "{\"id\":3}\n"),
        ] {
            fs::write(&path, content).unwrap();
            let mut file = Reader::open(File::open(&path).unwrap(), format, &Place::default()).unwrap();
            for _ in 0..2 {
                assert!(file.next().unwrap().is_some(), "{content:?}");
                fs::write(&path, format!("{}{added}", fs::read_to_string(&path).unwrap())).unwrap();
            }
            assert_eq!(file.next().unwrap(), None, "{content:?}");
            assert_eq!(file.offset(), content.len() as u64, "{content:?}");
        }
    }

    #[test]
    fn a_line_that_was_not_whole_yet_is_left_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let (csv, jsonl) = ("id,n\n1,a\n2,b", "{\"id\":1}\n{\"id\":2}");
        for (format, content, added, records, end) in [
            (FileFormat::Csv, csv, "c\n3,d\n", 1, 9),
            (FileFormat::Csv, csv, "\r\n3,d\n", 2, 12),
            (FileFormat::Csv, csv, "", 2, 12),
            (FileFormat::Jsonl, jsonl, "}\n{\"id\":3}\n", 1, 9),
            (FileFormat::Jsonl, jsonl, "\n{\"id\":3}\n", 2, 17),
            (FileFormat::Jsonl, jsonl, "", 2, 17),
        ] {
            fs::write(&path, content).unwrap();
            let mut file = Reader::open(File::open(&path).unwrap(), format, &Place::default()).unwrap();
            fs::write(&path, format!("{content}{added}")).unwrap();
            for _ in 0..records {
                assert!(file.next().unwrap().is_some(), "{added:?}");
            }
            for _ in 0..2 {
                assert_eq!((file.next().unwrap(), file.offset()), (None, end), "{added:?}");
            }
        }
    }

    /// A link that was put in the way after the path was looked at leads nowhere.
    #[test]
    fn a_link_is_followed_on_no_step() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for place in [root.path().join("real"), outside.path().to_owned()] {
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("a.csv"), "id\n").unwrap();
        }
        symlink(outside.path(), root.path().join("swapped")).unwrap();
        symlink(outside.path().join("a.csv"), root.path().join("a.csv")).unwrap();
        let open = |path: &str| below(root.path(), &root.path().join(path), OFlag::O_RDONLY);
        assert!(open("real/a.csv").is_ok());
        for path in ["swapped/a.csv", "a.csv", "real/../swapped/a.csv"] {
            assert!(open(path).is_err(), "{path}");
        }
        assert!(below(root.path(), &outside.path().join("a.csv"), OFlag::O_RDONLY).is_err());
    }
}

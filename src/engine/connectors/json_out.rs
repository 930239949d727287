//! JSON lines, written: added to the end of a file, or kept by key in a file that is replaced whole.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, mode_t};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde_json::Value;

use super::files::below;
use super::{Fields, Sink, WriteReport};
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::engine::digits;

/// Largest file that is kept by key, in bytes: it is held in memory.
const MAX_KEYED_FILE: u64 = 256 << 20;

/// How long another writer of the file or the directory may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A file to write, by its directory, which is held open: nobody can put a link in the way to it any more.
pub(super) struct Target {
    directory: File,
    name: OsString,
    object: String,
}

impl Target {
    /// A regular file, new or not, whose directory lies in the root.
    pub(super) fn open(path: &Path, root: &Path, object: &str) -> Result<Self, Failure> {
        let outside = || {
            let message = format!("'{object}' leads out of its directory");
            Failure::new(ErrorClass::Config, "PATH_OUTSIDE", Stage::Load, &message)
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(outside()) };
        let missing = |_| {
            let message = format!("the directory of '{object}' does not exist");
            Failure::new(ErrorClass::Config, "DIRECTORY_NOT_FOUND", Stage::Load, &message)
        };
        let parent = parent.canonicalize().map_err(missing)?;
        if !parent.starts_with(root) {
            return Err(outside());
        }
        if fs::symlink_metadata(parent.join(name)).is_ok_and(|about| !about.is_file()) {
            let message = format!("'{object}' is no regular file");
            return Err(Failure::new(ErrorClass::Config, "NOT_A_FILE", Stage::Load, &message));
        }
        let directory = below(root, &parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(missing)?;
        Ok(Self { directory, name: name.to_owned(), object: object.to_owned() })
    }

    /// Opens a file of the directory, never through a link and never waiting for a pipe.
    fn open_at(&self, name: &OsStr, flags: OFlag) -> std::io::Result<File> {
        self.create_at(name, flags, 0)
    }

    /// The same of one that may be made, with this mode.
    fn create_at(&self, name: &OsStr, flags: OFlag, mode: mode_t) -> std::io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(openat(&self.directory, name, flags, Mode::from_bits_truncate(mode))?.into())
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        tracing::warn!(object = self.object, %error, "a file cannot be written");
        let (class, code) = match error.kind() {
            std::io::ErrorKind::PermissionDenied => (ErrorClass::Permission, "FILE_DENIED"),
            _ => (ErrorClass::Unavailable, "FILE_UNWRITABLE"),
        };
        Failure::new(class, code, Stage::Load, &format!("'{}' cannot be written", self.object))
    }

    /// It `is`, or `would be`, larger than what is kept by key may be.
    fn too_large(&self, is: &str) -> Failure {
        let message = format!("'{}' {is} larger than {} MiB", self.object, MAX_KEYED_FILE >> 20);
        Failure::new(ErrorClass::Size, "FILE_TOO_LARGE", Stage::Load, &message)
    }

    /// Adds lines to the end of the file, all or none.
    fn append(&self, lines: &[String]) -> std::io::Result<()> {
        let file = self.create_at(&self.name, OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT, 0o666)?;
        // What is taken back must be nobody else's.
        let file = locked(file)?;
        let mut text = String::new();
        if !ends_with_a_line(&file)? {
            text.push('\n');
        }
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        add(&file, |mut file| file.write_all(text.as_bytes()))
    }

    /// Puts the lines in the place of the file, if there is one, whole or not at all; gives the file that is there now.
    /// Whoever does this holds the directory's lock, so that nobody else writes the new file.
    fn replace(&self, replaced: Option<&File>, lines: &[String]) -> std::io::Result<File> {
        let mut beside = self.name.clone();
        beside.push(".new");
        // One that a writer left behind keeps its mode.
        match unlinkat(&self.directory, beside.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        // Nobody reads it who could not read the one before.
        let mode = if replaced.is_some() { 0o600 } else { 0o666 };
        let file = self.create_at(&beside, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, mode)?;
        let mut writer = std::io::BufWriter::new(&file);
        for line in lines {
            writer.write_all(line.as_bytes())?;
            writer.write_all(b"\n")?;
        }
        writer.flush()?;
        drop(writer);
        if let Some(replaced) = replaced {
            file.set_permissions(replaced.metadata()?.permissions())?;
        }
        file.sync_all()?;
        renameat(&self.directory, beside.as_os_str(), &self.directory, self.name.as_os_str())?;
        self.directory.sync_all()?;
        Ok(file)
    }

    /// The directory, locked against everybody else who puts files in the place of others there (a worker that
    /// lost its run and does not know it yet, for one); freed when it is dropped.
    fn lock(&self) -> std::io::Result<File> {
        // Opened anew, because a lock lasts as long as any copy of what was opened.
        locked(self.open_at(OsStr::new("."), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)
    }
}

/// What was opened, locked until it is dropped, once nobody else has it so.
fn locked(file: File) -> std::io::Result<File> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Whether what is added next begins a line.
fn ends_with_a_line(file: &File) -> std::io::Result<bool> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(true) };
    let mut end = [0];
    file.read_exact_at(&mut end, last)?;
    Ok(end == *b"\n")
}

/// Adds to a file what `write` gives it. When that fails (the disk is full, say), what it did give is taken back, so
/// that whoever tries again adds nothing behind the torn rest of it.
fn add(file: &File, write: impl FnOnce(&File) -> std::io::Result<()>) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    let added = write(file).and_then(|()| file.sync_data());
    if added.is_err()
        && let Err(error) = file.set_len(length)
    {
        tracing::warn!(%error, "what was written in part could not be taken back");
    }
    added
}

/// The lines of a file by their key.
pub(super) struct Keyed {
    key: Vec<String>,
    /// Whether fields that a record leaves out stay as they are; where every field is copied they are gone.
    merges: bool,
    lines: Vec<String>,
    places: HashMap<String, usize>,
    /// Bytes of the lines and their ends.
    size: u64,
    /// The file that they are of, kept open so that no other takes its number; `None` when there was none.
    of: Option<File>,
}

impl Keyed {
    /// The lines that the file has.
    pub(super) fn load(target: &Target, key: &[String], merges: bool) -> Result<Self, Failure> {
        let (key, lines, places) = (key.to_vec(), Vec::new(), HashMap::new());
        let mut keyed = Self { key, merges, lines, places, size: 0, of: None };
        let file = match target.open_at(&target.name, OFlag::O_RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(keyed),
            Err(error) => return Err(target.failed(&error)),
        };
        keyed.of = Some(file.try_clone().map_err(|error| target.failed(&error))?);
        let mut reader = BufReader::new(file.take(MAX_KEYED_FILE + 1));
        let (mut line, mut size) = (String::new(), 0);
        loop {
            line.clear();
            let read = reader.read_line(&mut line).map_err(|error| target.failed(&error))?;
            size += read as u64;
            if read == 0 {
                return Ok(keyed);
            }
            if size > MAX_KEYED_FILE {
                return Err(target.too_large("is"));
            }
            let text = line.trim_end_matches(['\n', '\r']);
            let Ok(Value::Object(record)) = digits::from_json(text) else {
                let message = format!("'{}' holds a line that is no JSON object", target.object);
                return Err(Failure::new(ErrorClass::Schema, "INVALID_LINE", Stage::Load, &message));
            };
            match keyed.key_of(&record) {
                Some(key) => keyed.set(key, text.to_owned()),
                // It is nobody's to replace: it stays as it stands.
                None => keyed.add(text.to_owned()),
            }
        }
    }

    /// Whether these are still the lines of the file: another writer puts another file in its place.
    fn is_current(&self, target: &Target) -> std::io::Result<bool> {
        let there = match target.open_at(&target.name, OFlag::O_RDONLY).and_then(|file| file.metadata()) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(match (&self.of, there) {
            (None, None) => true,
            (Some(known), Some(there)) => {
                let known = known.metadata()?;
                known.dev() == there.dev() && known.ino() == there.ino()
            }
            _ => false,
        })
    }

    /// The key of a record; `None` when a part of it is missing or null, as it identifies nothing then.
    fn key_of(&self, record: &Fields) -> Option<String> {
        let part = |name| record.get(name).filter(|value| !value.is_null());
        let key: Vec<&Value> = self.key.iter().map(part).collect::<Option<_>>()?;
        serde_json::to_string(&key).ok()
    }

    /// Puts a record in its place; false when it is there already. (One without a key was rejected before.)
    fn put(&mut self, record: &Fields, line: String) -> bool {
        let Some(key) = self.key_of(record) else {
            self.add(line);
            return true;
        };
        let line = match self.places.get(&key).map(|place| &self.lines[*place]) {
            None => line,
            Some(before) if *before == line => return false,
            Some(before) if self.merges => match with(before, record) {
                Some(line) => line,
                None => return false,
            },
            Some(_) => line,
        };
        self.set(key, line);
        true
    }

    /// Puts a line in the place of its key.
    fn set(&mut self, key: String, line: String) {
        match self.places.get(&key) {
            Some(place) => {
                self.size += size(&line);
                self.size -= size(&std::mem::replace(&mut self.lines[*place], line));
            }
            None => {
                self.places.insert(key, self.lines.len());
                self.add(line);
            }
        }
    }

    /// Puts a line at the end.
    fn add(&mut self, line: String) {
        self.size += size(&line);
        self.lines.push(line);
    }
}

/// A line with the fields of a record; `None` when it has them just so.
fn with(line: &str, record: &Fields) -> Option<String> {
    let mut fields = match digits::from_json(line) {
        Ok(Value::Object(fields)) => fields,
        _ => Fields::new(),
    };
    if record.iter().all(|(name, value)| fields.get(name) == Some(value)) {
        return None;
    }
    fields.extend(record.clone());
    serde_json::to_string(&fields).ok()
}

/// Bytes of a line and its end.
fn size(line: &str) -> u64 {
    line.len() as u64 + 1
}

/// A file that is written.
pub(super) struct FileSink {
    pub(super) state: Option<(Target, Option<Keyed>)>,
}

impl Sink for FileSink {
    fn write<'a>(&'a mut self, batch: &'a [Fields]) -> BoxFuture<'a, Result<WriteReport, Failure>> {
        async move {
            let (target, mut keyed) = self.state.take().ok_or_else(Failure::internal)?;
            let lines: Vec<(Fields, String)> = batch
                .iter()
                .map(|record| (record.clone(), serde_json::to_string(record).unwrap_or_default()))
                .collect();
            let (state, report) = tokio::task::spawn_blocking(move || {
                let report = write(&target, keyed.as_mut(), lines);
                ((target, keyed), report)
            })
            .await
            .map_err(|_| Failure::internal())?;
            self.state = Some(state);
            report
        }
        .boxed()
    }
}

fn write(
    target: &Target,
    keyed: Option<&mut Keyed>,
    lines: Vec<(Fields, String)>,
) -> Result<WriteReport, Failure> {
    let mut report = WriteReport::default();
    match keyed {
        None => {
            let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
            report.written = lines.len() as i64;
            report.bytes = lines.iter().map(|line| line.len() as i64 + 1).sum();
            target.append(&lines).map_err(|error| target.failed(&error))?;
        }
        Some(keyed) => upsert(target, keyed, lines, &mut report)?,
    };
    Ok(report)
}

/// Writes records by key into the file as it is now, whoever wrote it last.
fn upsert(
    target: &Target,
    keyed: &mut Keyed,
    lines: Vec<(Fields, String)>,
    report: &mut WriteReport,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| target.failed(&error);
    let _lock = target.lock().map_err(failed)?;
    if !keyed.is_current(target).map_err(failed)? {
        *keyed = Keyed::load(target, &keyed.key, keyed.merges)?;
    }
    for (record, line) in lines {
        let bytes = line.len() as i64 + 1;
        if keyed.put(&record, line) {
            report.written += 1;
            report.bytes += bytes;
        } else {
            report.unchanged += 1;
        }
    }
    if report.written > 0 {
        // Until the file is there these are the lines of none.
        let replaced = keyed.of.take();
        if keyed.size > MAX_KEYED_FILE {
            return Err(target.too_large("would be"));
        }
        keyed.of = Some(target.replace(replaced.as_ref(), &keyed.lines).map_err(failed)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn records(ids: &[i64]) -> Vec<(Fields, String)> {
        let record = |id: &i64| {
            let record = serde_json::json!({ "id": id });
            (record.as_object().unwrap().clone(), record.to_string())
        };
        ids.iter().map(record).collect()
    }

    #[test]
    fn what_is_appended_begins_on_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let path = root.join("out.jsonl");
        for (before, after) in [
            ("", "{\"id\":1}\n{\"id\":2}\n"),
            ("{\"id\":0}\n", "{\"id\":0}\n{\"id\":1}\n{\"id\":2}\n"),
            ("{\"id\":0}", "{\"id\":0}\n{\"id\":1}\n{\"id\":2}\n"),
            ("{\"id\":0}\r\n", "{\"id\":0}\r\n{\"id\":1}\n{\"id\":2}\n"),
        ] {
            fs::write(&path, before).unwrap();
            let target = Target::open(&path, &root, "out.jsonl").unwrap();
            for id in [1, 2] {
                assert_eq!(write(&target, None, records(&[id])).unwrap().written, 1);
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), after, "{before:?}");
        }
    }

    #[test]
    fn what_cannot_be_written_whole_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        fs::write(&path, "{\"id\":0}\n").unwrap();
        let file = File::options().append(true).open(&path).unwrap();
        let torn = |mut file: &File| {
            file.write_all(b"{\"id\":1}\n{\"i")?;
            Err(std::io::ErrorKind::StorageFull.into())
        };
        assert_eq!(add(&file, torn).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"id\":0}\n");
        add(&file, |mut file| file.write_all(b"{\"id\":1}\n")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"id\":0}\n{\"id\":1}\n");
    }

    #[test]
    fn a_file_that_is_kept_by_key_does_not_outgrow_memory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let path = root.join("out.jsonl");
        let target = Target::open(&path, &root, "out.jsonl").unwrap();
        let mut keyed = Keyed::load(&target, &["id".to_owned()], false).unwrap();
        let line = |text: &str| {
            let record: serde_json::Value = serde_json::from_str(text).unwrap();
            vec![(record.as_object().unwrap().clone(), text.to_owned())]
        };
        for text in [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":1,"name":"Ana"}"#, r#"{"id":1}"#] {
            write(&target, Some(&mut keyed), line(text)).unwrap();
            assert_eq!(keyed.size, fs::metadata(&path).unwrap().len(), "{text}");
        }
        let before = fs::read_to_string(&path).unwrap();
        keyed.size = MAX_KEYED_FILE - 8;
        let refused = write(&target, Some(&mut keyed), line(r#"{"id":3}"#)).unwrap_err();
        assert_eq!((refused.class, &*refused.code), (ErrorClass::Size, "FILE_TOO_LARGE"));
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (path, left) = (root.join("out.jsonl"), root.join("out.jsonl.new"));
        let target = Target::open(&path, &root, "out.jsonl").unwrap();
        let mut keyed = Keyed::load(&target, &["id".to_owned()], false).unwrap();
        write(&target, Some(&mut keyed), records(&[0])).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        fs::write(root.join("any"), "").unwrap();
        assert_eq!(mode(&path), mode(&root.join("any")), "a new file is as all are");
        for (id, private) in [0o600, 0o640, 0o664].into_iter().enumerate() {
            fs::set_permissions(&path, fs::Permissions::from_mode(private)).unwrap();
            // A writer that broke off left this.
            fs::write(&left, "").unwrap();
            let written = write(&target, Some(&mut keyed), records(&[id as i64 + 1])).unwrap().written;
            assert_eq!((written, mode(&path), left.exists()), (1, private, false));
        }
    }

    /// One of them is a worker that lost its run and does not know it yet.
    #[test]
    fn two_writers_of_a_file_keep_what_the_other_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let target = || Target::open(&root.join("out.jsonl"), &root, "out.jsonl").unwrap();
        let key = ["id".to_owned()];
        let mut one = Keyed::load(&target(), &key, false).unwrap();
        let mut other = Keyed::load(&target(), &key, false).unwrap();
        let put = |keyed: &mut Keyed, ids: &[i64]| {
            let report = write(&target(), Some(keyed), records(ids)).unwrap();
            (report.written, report.unchanged)
        };
        assert_eq!(put(&mut one, &[1, 2, 3]), (3, 0));
        assert_eq!(put(&mut other, &[2, 3, 4]), (1, 2));
        assert_eq!(put(&mut one, &[3, 4, 5]), (1, 2));
        assert_eq!(put(&mut one, &[6]), (1, 0));
        let text = fs::read_to_string(root.join("out.jsonl")).unwrap();
        let lines: Vec<String> = (1..=6).map(|id| format!("{{\"id\":{id}}}")).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }
}

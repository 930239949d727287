//! What the name of a file tells, whether there is one or not: that it leads nowhere else, and its form.

use std::path::{Component, Path};

use crate::domain::definition::{FileFormat, Stream};
use crate::domain::failure::Failure;

/// Whether a stream can be read from files, whichever there are.
pub(super) fn readable(stream: &Stream) -> Result<(), Failure> {
    is_plain(&stream.source_object)?;
    form(stream).map(drop)
}

/// Whether a stream can be written to files, whichever there are.
pub(super) fn writable(stream: &Stream) -> Result<(), Failure> {
    is_plain(&stream.destination_object)?;
    is_written(&stream.destination_object)
}

fn is_plain(object: &str) -> Result<(), Failure> {
    match stays_inside(object) {
        true => Ok(()),
        false => Err(Failure::config(&format!("'{object}' leads out of the directory"))),
    }
}

/// Whether an object is a path that only goes down, its links aside.
pub(super) fn stays_inside(object: &str) -> bool {
    let down = Path::new(object).components().all(|part| matches!(part, Component::Normal(_)));
    !object.is_empty() && !object.contains('\0') && down
}

/// The form of the file that a stream reads.
pub(super) fn form(stream: &Stream) -> Result<FileFormat, Failure> {
    let object = &stream.source_object;
    stream.source_format.or_else(|| format_of(object)).ok_or_else(|| {
        Failure::config(&format!(
            "the form of '{object}' is not known; say csv, jsonl or json as its `format`"
        ))
    })
}

/// Whether a file of that name is written.
pub(super) fn is_written(object: &str) -> Result<(), Failure> {
    match format_of(object) {
        Some(FileFormat::Jsonl) => Ok(()),
        _ => Err(Failure::config(&format!("files are written as JSON lines: '{object}' must end in .jsonl"))),
    }
}

/// The form that a file's name tells.
fn format_of(object: &str) -> Option<FileFormat> {
    match Path::new(object).extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(FileFormat::Csv),
        "jsonl" | "ndjson" => Some(FileFormat::Jsonl),
        "json" => Some(FileFormat::Json),
        _ => None,
    }
}

//! JSON lines and JSON arrays, read element by element: no more than one record is held.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Take};

use serde_json::Value;

use super::file_place::{Place, is_torn};
use super::files::unreadable;
use super::{Item, MAX_RECORD};
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::engine::digits;

/// Characters of a broken line that are kept.
const MAX_KEPT: usize = 200;

/// A file of JSON objects.
pub(super) struct JsonFile {
    /// To where the file ended when it was opened: what is added meanwhile may be what this very run writes.
    reader: BufReader<Take<File>>,
    offset: u64,
    array: bool,
    ended: bool,
}

fn fatal(code: &'static str, message: &str) -> Failure {
    Failure::new(ErrorClass::Schema, code, Stage::Extract, message)
}

impl JsonFile {
    /// One object per line, from `place` on.
    pub(super) fn lines(file: File, place: &Place) -> Result<Self, Failure> {
        Self::open(file, place, false)
    }

    /// One array of objects, from `place` on.
    pub(super) fn array(file: File, place: &Place) -> Result<Self, Failure> {
        let mut this = Self::open(file, place, true)?;
        if place.offset == 0 && this.blank(b"\xef\xbb\xbf")? != Some(b'[') {
            return Err(fatal(
                "NOT_AN_ARRAY",
                "the file does not begin with `[`; a JSON file is one array of objects",
            ));
        }
        if place.offset == 0 {
            this.take(1);
        }
        Ok(this)
    }

    fn open(mut file: File, place: &Place, array: bool) -> Result<Self, Failure> {
        let length = file.metadata().map_err(|error| unreadable(&error))?.len();
        file.seek(SeekFrom::Start(place.offset)).map_err(|error| unreadable(&error))?;
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, file.take(length.saturating_sub(place.offset))),
            offset: place.offset,
            array,
            ended: false,
        })
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether there are no more records, though an error may follow them.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next record, or what is wrong with it.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let found = if self.array { self.element()? } else { self.line()? };
        Ok(found.map(|found| match found {
            Some(text) => parse(&text),
            None => {
                let message = format!("a record is larger than {} KiB", MAX_RECORD >> 10);
                Item::Bad(Failure::new(ErrorClass::Size, "RECORD_TOO_LARGE", Stage::Extract, &message), None)
            }
        }))
    }

    /// The next line that is not blank; `Some(None)` when it is too large. One that was not whole when the file was opened
    /// is left to the next run.
    fn line(&mut self) -> Result<Option<Option<Vec<u8>>>, Failure> {
        loop {
            let (begin, mut text, mut large, mut any) = (self.offset, Vec::new(), false, false);
            loop {
                let buffer = self.reader.fill_buf().map_err(|error| unreadable(&error))?;
                if buffer.is_empty() {
                    let file = self.reader.get_ref().get_ref();
                    if any && is_torn(file, self.offset).map_err(|error| unreadable(&error))? {
                        (self.offset, self.ended) = (begin, true);
                        return Ok(None);
                    }
                    self.ended = !any;
                    break;
                }
                any = true;
                let end = buffer.iter().position(|byte| *byte == b'\n');
                let used = end.map_or(buffer.len(), |end| end + 1);
                large |= text.len() + used > MAX_RECORD;
                if !large {
                    text.extend_from_slice(&buffer[..used]);
                }
                self.take(used);
                if end.is_some() {
                    break;
                }
            }
            if large {
                return Ok(Some(None));
            }
            if text.starts_with(b"\xef\xbb\xbf") {
                text.drain(..3);
            }
            if !text.trim_ascii().is_empty() {
                return Ok(Some(Some(text)));
            }
            if self.ended {
                return Ok(None);
            }
        }
    }

    /// The next element of the array; `Some(None)` when it is too large.
    fn element(&mut self) -> Result<Option<Option<Vec<u8>>>, Failure> {
        let open =
            || fatal("ARRAY_NOT_CLOSED", "the array does not end with `]`; what was read before it stays");
        if self.blank(b",")?.ok_or_else(open)? == b']' {
            // The bracket is left where it is: whoever goes on from here meets it again.
            let at = self.offset;
            self.take(1);
            let more = self.blank(b"")?;
            (self.offset, self.ended) = (at, true);
            return match more {
                None => Ok(None),
                Some(_) => Err(fatal(
                    "MORE_AFTER_ARRAY",
                    "more follows the `]` of the array; a JSON file is one array of objects, and what was read before stays",
                )),
            };
        }
        let mut text = Vec::new();
        let (mut depth, mut quoted, mut escaped, mut large) = (0_u32, false, false, false);
        loop {
            let buffer = self.reader.fill_buf().map_err(|error| unreadable(&error))?;
            if buffer.is_empty() {
                return Err(open());
            }
            let mut end = None;
            for (place, byte) in buffer.iter().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    _ if quoted => {}
                    b'{' | b'[' => depth += 1,
                    b',' | b']' if depth == 0 => {
                        end = Some(place);
                        break;
                    }
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            let used = end.unwrap_or(buffer.len());
            large |= text.len() + used > MAX_RECORD;
            if !large {
                text.extend_from_slice(&buffer[..used]);
            }
            self.take(used);
            if end.is_some() {
                return Ok(Some((!large).then_some(text)));
            }
        }
    }

    /// Passes over blanks and `more`; the byte that follows.
    fn blank(&mut self, more: &[u8]) -> Result<Option<u8>, Failure> {
        loop {
            let buffer = self.reader.fill_buf().map_err(|error| unreadable(&error))?;
            let Some(first) = buffer.first().copied() else { return Ok(None) };
            if !first.is_ascii_whitespace() && !more.contains(&first) {
                return Ok(Some(first));
            }
            self.take(1);
        }
    }

    fn take(&mut self, bytes: usize) {
        self.reader.consume(bytes);
        self.offset += bytes as u64;
    }
}

fn parse(text: &[u8]) -> Item {
    let wrong = |code, message: &str| Failure::new(ErrorClass::Type, code, Stage::Extract, message);
    let bad = |failure: Failure| {
        let kept: String = String::from_utf8_lossy(text).trim().chars().take(MAX_KEPT).collect();
        // The key of what does not begin an object may stand on a line before it.
        Item::Bad(failure, kept.starts_with('{').then(|| kept.into()))
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return bad(wrong("INVALID_UTF8", "the record is not UTF-8"));
    };
    match digits::from_json(text) {
        Ok(Value::Object(fields)) => {
            match fields.iter().find(|(name, value)| name.contains('\0') || holds_nul(value)) {
                None => Item::Record(fields),
                Some((name, _)) => {
                    let failure = wrong("INVALID_CHARACTER", "a field holds a NUL character").at_field(name);
                    Item::Bad(failure, Some(Value::Object(fields)))
                }
            }
        }
        Ok(_) => bad(wrong("NOT_AN_OBJECT", "the record is no JSON object")),
        Err(error) => bad(wrong("INVALID_JSON", &format!("the record is no JSON: {}", plain(&error)))),
    }
}

/// Whether U+0000 stands anywhere, keys included: PostgreSQL takes it in no text.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// What the parser says, without its place: that would make a group of each record.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_begins_no_object_nothing_is_kept() {
        for (text, kept) in [
            ("\"abc123\",", None),
            ("\"abc123\"", None),
            ("\"token\": [", None),
            (" {\"id\": 1,", Some(Value::from("{\"id\": 1,"))),
        ] {
            let Item::Bad(_, found) = parse(text.as_bytes()) else { panic!("{text} is refused") };
            assert_eq!(found, kept, "{text}");
        }
    }

    #[test]
    fn a_nul_character_is_refused_wherever_it_stands() {
        for text in [
            r#"{"ok": 1, "a": "x\u0000"}"#,
            r#"{"a": {"b": [1, {"c": "\u0000"}]}}"#,
            r#"{"a": [{"\u0000k": 1}]}"#,
            r#"{"\u0000a": 1}"#,
        ] {
            let Item::Bad(failure, Some(Value::Object(_))) = parse(text.as_bytes()) else {
                panic!("{text} is refused")
            };
            assert_eq!((failure.code.as_ref(), failure.field.as_deref()), ("INVALID_CHARACTER", Some("a")));
        }
        assert!(matches!(parse(br#"{"a": "\\u0000"}"#), Item::Record(_)), "that is a backslash");
    }
}

//! CSV (RFC 4180) with a header row, read record by record. A broken line is an error of its own and never
//! the end of the file, nor of the lines that a quote left open would swallow.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::os::unix::fs::FileExt;

use csv::ByteRecord;
use serde_json::Value;

use super::file_place::{Place, is_torn};
use super::files::unreadable;
use super::{Item, MAX_RECORD};
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::domain::redact;

/// Most columns of a file.
const MAX_COLUMNS: usize = 2_000;
/// Bytes that are read again for the sake of the lines in a broken record, besides as many as the file had before it:
/// quotes can be set so that every line seems to swallow all that follow.
const MAX_AGAIN: u64 = 8 << 20;
/// Characters of a broken line that are kept.
const MAX_KEPT: usize = 200;

/// A CSV file.
pub(super) struct CsvFile {
    reader: Option<csv::Reader<Limited>>,
    /// Where the reader began.
    base: u64,
    /// Bytes that the file had when it was opened: what is added meanwhile is not read.
    length: u64,
    /// Bytes that are read a second time.
    again: u64,
    columns: Vec<String>,
    record: ByteRecord,
}

/// A file that gives so many bytes and then fails, so that one record cannot fill the memory.
struct Limited {
    file: Take<File>,
    left: usize,
    /// Whether the next bytes are the first that the reader sees, though not the first of the file. It takes a byte
    /// order mark off what it sees first, unless that is a single byte; within a file the mark is a part of the data.
    goes_on: bool,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let most = if std::mem::take(&mut self.goes_on) { 1 } else { self.left };
        let most = buffer.len().min(most);
        let read = self.file.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}

/// Reads a file from `at` to `end`.
fn reader(mut file: File, at: u64, end: u64) -> Result<csv::Reader<Limited>, Failure> {
    file.seek(SeekFrom::Start(at)).map_err(|error| unreadable(&error))?;
    let file = file.take(end.saturating_sub(at));
    let limited = Limited { file, left: MAX_RECORD, goes_on: at > 0 };
    Ok(csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(limited))
}

impl CsvFile {
    /// Reads the header, and goes on at `place`.
    pub(super) fn open(file: File, place: &Place) -> Result<Self, Failure> {
        let length = file.metadata().map_err(|error| unreadable(&error))?.len();
        let mut this = Self {
            reader: Some(reader(file, 0, length)?),
            base: 0,
            length,
            again: 0,
            columns: Vec::new(),
            record: ByteRecord::new(),
        };
        match this.read() {
            Ok(true) => {}
            Ok(false) => return Err(header_error("the file is empty; its first line names the columns")),
            Err(_) => return Err(header_error("the first line does not name columns")),
        }
        if !this.quotes_close(0)? {
            return Err(header_error("a quote in the first line is not closed"));
        }
        if this.record.len() > MAX_COLUMNS {
            return Err(header_error(&format!(
                "the first line names {} columns; {MAX_COLUMNS} are allowed",
                this.record.len()
            )));
        }
        for (place, name) in this.record.iter().enumerate() {
            let name = std::str::from_utf8(name).map_err(|_| header_error("the first line is not UTF-8"))?;
            let name = if place == 0 { name.trim_start_matches('\u{feff}') } else { name };
            let name =
                if name.trim().is_empty() { format!("column_{}", place + 1) } else { name.trim().to_owned() };
            if name.contains('\0') {
                return Err(header_error("the first line holds a NUL character"));
            }
            if this.columns.contains(&name) {
                return Err(header_error(&format!("the first line names '{name}' twice")));
            }
            this.columns.push(name);
        }
        if place.offset > this.offset() {
            this.go_to(place.offset)?;
        }
        Ok(this)
    }

    pub(super) fn offset(&self) -> u64 {
        self.base + self.reader.as_ref().map_or(0, |reader| reader.position().byte())
    }

    fn go_to(&mut self, at: u64) -> Result<(), Failure> {
        let file = self.reader.take().ok_or_else(Failure::internal)?.into_inner().file.into_inner();
        self.reader = Some(reader(file, at, self.length)?);
        self.base = at;
        Ok(())
    }

    /// Reads one record; false at the end.
    fn read(&mut self) -> csv::Result<bool> {
        let Some(reader) = &mut self.reader else { return Ok(false) };
        // The reader may hold a part of the record already; that much slack does no harm.
        reader.get_mut().left = MAX_RECORD;
        reader.read_byte_record(&mut self.record)
    }

    /// The next record, or what is wrong with it.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Failure> {
        let begin = self.offset();
        let read = self.read();
        if matches!(read, Ok(true)) && self.ends_torn()? {
            self.length = begin;
            self.go_to(begin)?;
            return Ok(None);
        }
        let problem = match read {
            Ok(false) => return Ok(None),
            Ok(true) if !self.quotes_close(begin)? => Failure::new(
                ErrorClass::Schema,
                "QUOTE_NOT_CLOSED",
                Stage::Extract,
                "a quote is not closed, or more follows it in its field",
            ),
            Ok(true) => match self.fields() {
                Ok(fields) => return Ok(Some(Item::Record(fields))),
                Err(problem) => problem,
            },
            Err(error) => match error.kind() {
                csv::ErrorKind::Io(io) if io.kind() == io::ErrorKind::FileTooLarge => {
                    let message =
                        format!("a record is larger than {} KiB, or a quote is not closed", MAX_RECORD >> 10);
                    Failure::new(ErrorClass::Size, "RECORD_TOO_LARGE", Stage::Extract, &message)
                }
                _ => return Err(unreadable(&error)),
            },
        };
        let swallows = matches!(problem.code.as_ref(), "WRONG_FIELD_COUNT" | "QUOTE_NOT_CLOSED");
        let too_large = problem.class == ErrorClass::Size;
        let kept = if swallows { self.beginning() } else { self.spelt() };
        // What is wrong with a record of many lines may be one quote too many in the first: read on after that.
        if too_large || (swallows && self.record.as_slice().iter().any(breaks)) {
            let read = self.offset() - begin;
            if self.again + read <= begin + MAX_AGAIN {
                self.again += read;
                self.skip_line(begin)?;
            } else if too_large {
                self.skip_line(self.offset())?;
            }
        }
        Ok(Some(Item::Bad(problem, kept)))
    }

    /// Whether the record just read is a line that was not whole when the file was opened: it is left to the next run.
    fn ends_torn(&self) -> Result<bool, Failure> {
        let Some(reader) = self.reader.as_ref().filter(|_| self.offset() == self.length) else {
            return Ok(false);
        };
        // (what a quote left open swallowed is more than that)
        let is_line = !self.record.as_slice().iter().any(breaks);
        let file = reader.get_ref().file.get_ref();
        Ok(is_line && is_torn(file, self.length).map_err(|error| unreadable(&error))?)
    }

    /// What is kept of a record whose columns are certain: its fields, however they are spelt.
    fn spelt(&self) -> Option<Value> {
        let value = |value| Value::String(String::from_utf8_lossy(value).into_owned());
        let fields = self.columns.iter().cloned().zip(self.record.iter().map(value));
        (self.record.len() == self.columns.len()).then(|| Value::Object(fields.collect()))
    }

    /// What is kept of a record of which nobody knows what stands in which column: what it begins with, unless that may
    /// be a secret.
    fn beginning(&self) -> Option<Value> {
        let first = String::from_utf8_lossy(self.record.iter().next()?).into_owned();
        let kept: String =
            first.split([',', '\n', '\r']).next().unwrap_or_default().chars().take(MAX_KEPT).collect();
        let hidden = kept.is_empty() || self.columns.iter().any(|name| redact::hides(name));
        (!hidden).then_some(Value::String(kept))
    }

    /// Whether every quote that opens a field of the record just read, which began at `begin`, is closed at the end of
    /// its field. The reader does not mind: with a quote left open it reads on to any next one, or to the end.
    fn quotes_close(&self, begin: u64) -> Result<bool, Failure> {
        let Some(reader) = &self.reader else { return Ok(true) };
        let taken = usize::try_from(self.offset() - begin).unwrap_or(usize::MAX);
        // Without quotes these are its fields, what parts them, and a line break of two bytes. Only at the end of the
        // file a quote may be where a line break would have been.
        if taken <= self.record.as_slice().len() + self.record.len() + 1 && self.offset() < self.length {
            return Ok(true);
        }
        let mut raw = vec![0; taken];
        reader.get_ref().file.get_ref().read_exact_at(&mut raw, begin).map_err(|error| unreadable(&error))?;
        let mark: &[u8] = if begin == 0 { b"\xef\xbb\xbf" } else { b"" };
        Ok(quotes_close(raw.strip_prefix(mark).unwrap_or(&raw)))
    }

    /// Goes to the beginning of the line after the one at `begin`.
    fn skip_line(&mut self, begin: u64) -> Result<(), Failure> {
        self.go_to(begin)?;
        let mut file = self.reader.take().ok_or_else(Failure::internal)?.into_inner().file;
        let mut buffer = [0; 8_192];
        let (mut at, mut content) = (begin, false);
        loop {
            let read = file.read(&mut buffer).map_err(|error| unreadable(&error))?;
            // Blank lines before the record are not the record.
            let end = buffer[..read].iter().position(|byte| {
                content |= !breaks(byte);
                content && breaks(byte)
            });
            at += end.map_or(read, |end| end + 1) as u64;
            if read == 0 || end.is_some() {
                break;
            }
        }
        self.reader = Some(reader(file.into_inner(), at, self.length)?);
        self.base = at;
        Ok(())
    }

    /// The fields of the record that was read; an empty one is null.
    fn fields(&self) -> Result<super::Fields, Failure> {
        let bad = |class, code, message: &str| Failure::new(class, code, Stage::Extract, message);
        if self.record.len() != self.columns.len() {
            let message = format!("the line has {} fields, not {}", self.record.len(), self.columns.len());
            return Err(bad(ErrorClass::Schema, "WRONG_FIELD_COUNT", &message));
        }
        let mut fields = super::Fields::with_capacity(self.columns.len());
        for (name, value) in self.columns.iter().zip(&self.record) {
            let text = std::str::from_utf8(value)
                .map_err(|_| bad(ErrorClass::Type, "INVALID_UTF8", "a field is not UTF-8").at_field(name))?;
            if text.contains('\0') {
                return Err(bad(ErrorClass::Type, "INVALID_CHARACTER", "a field holds a NUL character")
                    .at_field(name));
            }
            let value = if text.is_empty() { Value::Null } else { Value::String(text.to_owned()) };
            fields.insert(name.clone(), value);
        }
        Ok(fields)
    }
}

/// Whether a byte ends a line; of the two that some files end one with the first one does.
fn breaks(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Whether in a record, as it stands in the file, each quote that opens a field is followed by one that closes it, and
/// that by the end of the field; blanks between them are part of the field.
fn quotes_close(record: &[u8]) -> bool {
    let begin = record.iter().position(|byte| !breaks(byte)).unwrap_or(record.len());
    let mut rest = &record[begin..];
    loop {
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            let Some(closing) = closing_quote(quoted) else { return false };
            rest = &quoted[closing + 1..];
            if !matches!(rest.trim_ascii_start().first(), None | Some(b',')) {
                return false;
            }
        }
        let Some(comma) = rest.iter().position(|byte| *byte == b',') else { return true };
        rest = &rest[comma + 1..];
    }
}

/// The place of the quote that ends a quoted field; two in a row are one of its content.
fn closing_quote(quoted: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += quoted[at..].iter().position(|byte| *byte == b'"')?;
        if quoted.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

fn header_error(message: &str) -> Failure {
    Failure::new(ErrorClass::Schema, "INVALID_HEADER", Stage::Extract, message)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What a file gives: of each record the fields that are not null, or the code of what is wrong with it.
    fn read(content: &str) -> Vec<String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let mut csv = CsvFile::open(file, &Place::default()).unwrap();
        let mut all = Vec::new();
        while let Some(item) = csv.next().unwrap() {
            all.push(match item {
                Item::Record(fields) => {
                    fields.values().filter_map(Value::as_str).collect::<Vec<_>>().join("|")
                }
                Item::Bad(failure, _) => failure.code.to_string(),
            });
        }
        all
    }

    #[test]
    fn a_quote_left_open_swallows_no_line() {
        const OPEN: &str = "QUOTE_NOT_CLOSED";
        for (content, expected) in [
            // The next line's quote seems to close it.
            ("id,note,n\n1,\"a,x\n2,\"b\",y\n3,\"c\",z\n", &[OPEN, "2|b|y", "3|c|z"][..]),
            ("id,note,n\r\n1,\"a,x\r\n2,\"b\",y\r\n3,c,z\r\n", &[OPEN, "2|b|y", "3|c|z"]),
            ("id,note,n\r1,\"a,x\r2,\"b\",y\r3,c,z", &[OPEN, "2|b|y", "3|c|z"]),
            ("id,note,n\n1,\"a,x\n2,\"\u{0}\",y\n", &[OPEN, "INVALID_CHARACTER"]),
            // The end of the file does.
            ("id,name\n1,a\n2,\"b\n3,c", &["1|a", OPEN, "3|c"]),
            ("id,name\n1,a\n2,\"b\n", &["1|a", OPEN]),
            ("id,name\n1,a\n2,\"b", &["1|a", OPEN]),
            // Something follows it on its own line.
            ("id,name\n1,\"5\" pipe\"\n2,b\n", &[OPEN, "2|b"]),
        ] {
            assert_eq!(read(content), expected, "{content}");
        }
    }

    #[test]
    fn quotes_that_close_are_read() {
        for (content, expected) in [
            (
                "id,name\n1,\"two\n\nlines, one\r\nfield\"\n2,b\n",
                &["1|two\n\nlines, one\r\nfield", "2|b"][..],
            ),
            ("id,name\n1,\"say \"\"hi\"\"\"\n\"2\",\"\"\"\"\n", &["1|say \"hi\"", "2|\""]),
            ("\u{feff}\"id\",\"na\nme\"\r\n\r\n\"1\",\"a\nb\"\r\n\"2\",\"\"", &["1|a\nb", "2"]),
            ("id,name\n1,\"a\" \n \"2\" x,5\" pipe", &["1|a ", " \"2\" x|5\" pipe"]),
        ] {
            assert_eq!(read(content), expected, "{content}");
        }
    }

    #[test]
    fn a_quote_left_open_in_the_header_is_an_error_of_the_header() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"id,\"name\n1,\"a\"\n2,b\n").unwrap();
        let Err(failure) = CsvFile::open(file, &Place::default()) else { panic!("it is refused") };
        assert_eq!((failure.code.as_ref(), failure.class), ("INVALID_HEADER", ErrorClass::Schema));
    }

    /// Quotes that make every line swallow all that follow would have each line read a thousand thousand times.
    #[test]
    fn lines_are_not_read_again_and_again() {
        let mut file = tempfile::tempfile().unwrap();
        let lines = "a\",\"\n".repeat(400_000);
        file.write_all(format!("id,name\n{lines}").as_bytes()).unwrap();
        let mut csv = CsvFile::open(file, &Place::default()).unwrap();
        let mut broken = 0;
        while let Some(item) = csv.next().unwrap() {
            broken += u32::from(matches!(item, Item::Bad(..)));
        }
        let length = lines.len() as u64;
        assert!(csv.offset() >= length && csv.again <= length + MAX_AGAIN, "{} of {length}", csv.again);
        assert!(broken > 0);
    }
}

//! Where the reading of a file goes on, and whether it is still the file that was begun.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crc32fast::Hasher;
use serde_json::{Value, json};

/// Where reading goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Bytes from the beginning of the file; 0 is before any header.
    pub(super) offset: u64,
    /// Records before it.
    pub(super) index: i64,
    /// The greatest cursor before it.
    pub(super) greatest: Option<Value>,
    /// The digest of the bytes before it.
    digest: u32,
}

impl Place {
    /// The place that a position says; without one the beginning.
    pub(super) fn of(position: Option<&Value>) -> Self {
        let Some(position) = position else { return Self::default() };
        Self {
            offset: position["offset"].as_u64().unwrap_or(0),
            index: position["index"].as_i64().unwrap_or(0),
            greatest: position.get("greatest").filter(|value| !value.is_null()).cloned(),
            digest: position["digest"].as_u64().and_then(|digest| u32::try_from(digest).ok()).unwrap_or(0),
        }
    }

    /// The place after the bytes that were `passed`, as a position.
    pub(super) fn position(index: i64, greatest: Option<&Value>, passed: &Passed) -> Value {
        let digest = passed.sum.clone().finalize();
        json!({"offset": passed.bytes, "index": index, "greatest": greatest, "digest": digest})
    }
}

/// The bytes of a file that were passed over, of which a digest is kept. By its content a file is known wherever it
/// lies and whoever copied it: another one may have its name, its length, its time and even its number.
pub(super) struct Passed {
    file: File,
    sum: Hasher,
    bytes: u64,
}

impl Passed {
    /// At the beginning of a file.
    pub(super) fn nothing(file: File) -> Self {
        Self { file, sum: Hasher::new(), bytes: 0 }
    }

    /// At a place in a file; `None` when it is a place in another one, because what is before it differs.
    pub(super) fn up_to(place: &Place, file: File) -> io::Result<Option<Self>> {
        let mut passed = Self::nothing(file);
        match passed.go_to(place.offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            done => done?,
        }
        let same = place.digest == passed.sum.clone().finalize();
        Ok(same.then_some(passed))
    }

    /// Passes over what is before `offset`.
    pub(super) fn go_to(&mut self, offset: u64) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while self.bytes < offset {
            let most =
                usize::try_from(offset - self.bytes).map_or(buffer.len(), |left| left.min(buffer.len()));
            let read = self.file.read_at(&mut buffer[..most], self.bytes)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.sum.update(&buffer[..read]);
            self.bytes += read as u64;
        }
        Ok(())
    }
}

/// Whether the line that a file ended with at `end`, when it was opened, goes on behind that by now: whoever writes it had
/// not come to its end.
pub(super) fn is_torn(file: &File, end: u64) -> io::Result<bool> {
    let Some(last) = end.checked_sub(1) else { return Ok(false) };
    let mut around = [0; 2];
    let read = file.read_at(&mut around, last)?;
    Ok(read == 2 && !around.iter().any(|byte| matches!(byte, b'\n' | b'\r')))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_grew_is_the_same_and_one_that_differs_before_the_place_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        let open = || File::open(&path).unwrap();
        fs::write(&path, "id\n1\n2\n").unwrap();
        let mut passed = Passed::nothing(open());
        passed.go_to(5).unwrap();
        let place = Place::of(Some(&Place::position(1, Some(&json!("x")), &passed)));
        assert_eq!((place.offset, place.index, &place.greatest), (5, 1, &Some(json!("x"))));
        for (content, same) in [
            ("id\n1\n", true),
            ("id\n1\n2\n3\n", true),
            ("id\n1\n4\n", true),
            ("id\n7\n2\n", false),
            ("id\n1", false),
            ("", false),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(Passed::up_to(&place, open()).unwrap().is_some(), same, "{content:?}");
        }
    }

    #[test]
    fn a_digest_is_the_same_in_whatever_steps_it_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        fs::write(&path, "0123456789".repeat(50_000)).unwrap();
        let mut steps = Passed::nothing(File::open(&path).unwrap());
        for offset in [0, 7, 7, 65_536, 400_000] {
            steps.go_to(offset).unwrap();
        }
        let place = Place::of(Some(&Place::position(0, None, &steps)));
        assert!(Passed::up_to(&place, File::open(&path).unwrap()).unwrap().is_some());
    }
}

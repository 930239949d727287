//! Where PostgreSQL's programs are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::EmbeddedError;

/// The oldest major version that serves.
pub(super) const OLDEST: u32 = 14;

/// The programs of one installed PostgreSQL.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    dir: PathBuf,
    /// The major version.
    pub(super) major: u32,
}

impl Binaries {
    /// The programs in `named`; without it the best ones on this machine: of the version that made the
    /// data (`wanted`) if there is data, else the first found of `PATH`, `pg_config`, and the usual places.
    pub(super) fn find(named: Option<&Path>, wanted: Option<u32>) -> Result<Self, EmbeddedError> {
        if let Some(dir) = named {
            return Self::probe(dir).ok_or_else(|| EmbeddedError::NotBinaries { dir: dir.to_owned() });
        }
        let mut fallback = None;
        for dir in candidates() {
            if let Some(found) = Self::probe(&dir) {
                if wanted.is_none_or(|wanted| wanted == found.major) {
                    return Ok(found);
                }
                fallback.get_or_insert(found);
            }
        }
        fallback.ok_or(EmbeddedError::NoBinaries)
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }

    /// The programs in `dir`, if they are there and new enough. A link leads to the real directory, because
    /// distributions link single programs into `PATH`.
    fn probe(dir: &Path) -> Option<Self> {
        let postgres = fs::canonicalize(dir.join("postgres")).ok()?;
        let dir = postgres.parent()?.to_owned();
        if !dir.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(&postgres).arg("--version").output().ok()?;
        let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
        (major >= OLDEST).then_some(Self { dir, major })
    }
}

/// Reads `postgres (PostgreSQL) 15.20 (Debian …)`, or `17beta1` in place of the number.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

fn candidates() -> impl Iterator<Item = PathBuf> {
    let path =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    path.into_iter()
        .chain(std::iter::once_with(pg_config).flatten())
        .chain(newest_first("/usr/lib/postgresql", "", "bin"))
        .chain(newest_first("/usr", "pgsql-", "bin"))
        .chain(newest_first("/opt/homebrew/opt", "postgresql@", "bin"))
        .chain(newest_first("/usr/local/opt", "postgresql@", "bin"))
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
}

/// `parent/prefix<number>/child` for every number there is, the highest first.
fn newest_first(parent: &str, prefix: &str, child: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((number, entry.path().join(child)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_prints() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_of("postgres (PostgreSQL) 17\n"), Some(17));
        assert_eq!(major_of("postgres (Other) 15.2\n"), None);
    }

    #[test]
    fn the_highest_number_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["9", "16", "14", "common"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let found = newest_first(dir.path().to_str().unwrap(), "", "bin");
        assert_eq!(found, ["16", "14", "9"].map(|name| dir.path().join(name).join("bin")));
    }
}

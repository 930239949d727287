//! A PostgreSQL whose machine's clock is wrong: libfaketime between it and the time, where that is installed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use nix::unistd::Pid;

/// Programs of PostgreSQL that see another time.
pub struct Liar {
    /// Where they are.
    pub dir: PathBuf,
    /// By how many seconds they are wrong now.
    offset: AtomicI64,
}

impl Liar {
    /// Makes them; `None` without the library or the places of a Debian.
    pub fn make(dir: &Path) -> anyhow::Result<Option<Self>> {
        let (Some(library), Some(real)) = (library(), programs()) else { return Ok(None) };
        std::fs::create_dir_all(dir)?;
        let liar = Self { dir: dir.to_owned(), offset: AtomicI64::new(0) };
        liar.set(0)?;
        let lies = format!(
            "LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
             DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1 ",
            library.display(),
            liar.file().display()
        );
        for (program, lies) in [("postgres", lies.as_str()), ("initdb", "")] {
            let text = format!("#!/bin/sh\n{lies}exec {} \"$@\"\n", real.join(program).display());
            std::fs::write(dir.join(program), text)?;
            crate::open_to_postgres(&dir.join(program))?;
        }
        Ok(Some(liar))
    }

    fn file(&self) -> PathBuf {
        self.dir.join("clock")
    }

    /// Makes them wrong by so many seconds from now on; by how many the time jumps with it.
    pub fn set(&self, seconds: i64) -> anyhow::Result<i64> {
        // (whole or not at all: it is read all the time)
        let draft = self.dir.join("clock.new");
        std::fs::write(&draft, format!("{seconds:+}\n"))?;
        std::fs::rename(draft, self.file())?;
        Ok(seconds - self.offset.swap(seconds, Ordering::SeqCst))
    }

    /// By how many seconds they are wrong now.
    pub fn offset(&self) -> i64 {
        self.offset.load(Ordering::SeqCst)
    }

    /// Removes what a killed process of theirs left in memory.
    pub fn forget(pid: Pid) {
        for name in ["faketime_shm", "sem.faketime_sem"] {
            let _never_was = std::fs::remove_file(format!("/dev/shm/{name}_{pid}"));
        }
    }
}

/// The library that makes a process see another time.
fn library() -> Option<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    libraries.map(|dir| dir.join("faketime/libfaketime.so.1")).find(|path| path.is_file())
}

/// The programs of the newest PostgreSQL there is.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max()?;
    let dir = PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"));
    dir.join("postgres").is_file().then_some(dir)
}

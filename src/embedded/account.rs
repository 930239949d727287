//! Which users are involved: PostgreSQL refuses to run as root, so root steps down.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, User, geteuid};

use super::error::EmbeddedError;

/// Who we are and who PostgreSQL runs as.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// The user PostgreSQL runs as.
    server: User,
    /// Whether the two differ, that is whether we are root.
    steps_down: bool,
}

impl Account {
    /// Who we are, and who PostgreSQL is to run as: root leaves a data directory to whom it belongs.
    pub(super) fn choose(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let uid = geteuid();
        let no_user = || EmbeddedError::NoUser { uid: uid.as_raw() };
        let server = if uid.is_root() {
            match fs::metadata(data_dir).map(|found| Uid::from_raw(found.uid())) {
                Ok(owner) if !owner.is_root() => {
                    let no_user = || EmbeddedError::NoUser { uid: owner.as_raw() };
                    User::from_uid(owner).ok().flatten().ok_or_else(no_user)?
                }
                _ => ["postgres", "nobody"]
                    .into_iter()
                    .find_map(|name| User::from_name(name).ok().flatten())
                    .ok_or_else(no_user)?,
            }
        } else {
            User::from_uid(uid).ok().flatten().ok_or_else(no_user)?
        };
        Ok(Self { server, steps_down: uid.is_root() })
    }

    /// The user PostgreSQL runs as.
    pub(super) fn server_name(&self) -> &str {
        &self.server.name
    }

    pub(super) fn server_uid(&self) -> u32 {
        self.server.uid.as_raw()
    }

    /// The system users that may log in: PostgreSQL's, and root, who may become it anyway.
    pub(super) fn names(&self) -> [&str; 2] {
        [self.server.name.as_str(), "root"]
    }

    /// A command that runs as PostgreSQL's user, in `dir`, and inherits nothing: our environment holds
    /// secrets, and `PG…` variables would change what PostgreSQL does.
    pub(super) fn command(&self, program: &Path, dir: &Path) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir(dir);
        if self.steps_down {
            // The standard library drops root's supplementary groups along with the user id.
            command.uid(self.server.uid.as_raw()).gid(self.server.gid.as_raw());
        }
        command
    }

    /// Makes `path` PostgreSQL's, for nobody else to see.
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        if self.steps_down {
            chown(path, Some(self.server.uid.as_raw()), Some(self.server.gid.as_raw()))?;
        }
        Ok(())
    }
}

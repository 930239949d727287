//! Processes, asked and told by number.

use std::fs;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::warn;

/// Sends a signal; a process that is gone needs none.
pub(super) fn send(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => warn!(pid, "cannot send {signal}: {error}"),
    }
}

/// Whether there is such a process, ours or not.
pub(super) fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// The command line of a process, its arguments parted by blanks; `None` if there is no such process.
pub(super) fn command_line(pid: i32) -> Option<String> {
    let bytes = match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(bytes) => bytes,
        Err(_) if fs::exists("/proc/self").unwrap_or(false) => return None,
        Err(_) => Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output().ok()?.stdout,
    };
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

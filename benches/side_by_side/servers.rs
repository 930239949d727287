//! The processes that are measured, and what the system tells of them.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::load::Requests;

/// Memory of a process in MB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident now.
    pub resident: f64,
    /// Of that, what is no file's: the rest is mostly the program's own, which the system keeps once for all.
    pub private: f64,
    /// Resident at the highest.
    pub most: f64,
}

/// A server in a process of its own, ended with this value.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// From the start of the process to its first answer that is a success.
    pub started_in: Duration,
}

impl Server {
    /// Starts `command`, which is given the address to listen on, and waits until it answers the first of `requests`.
    pub async fn start(
        mut command: Command,
        log: &Path,
        address: impl FnOnce(&mut Command, SocketAddr),
        requests: impl FnOnce(SocketAddr) -> Requests,
    ) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
        address(&mut command, free);
        let log = fs::File::create(log).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let began = Instant::now();
        let child = command.spawn().expect("the server starts");
        let mut server = Self { child, address: free, started_in: Duration::ZERO };
        while tokio::net::TcpStream::connect(free).await.is_err() {
            let ended = server.child.try_wait().expect("its state");
            assert!(
                ended.is_none() && began.elapsed() < Duration::from_secs(60),
                "{command:?} did not start"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        requests(free).one(0).await;
        server.started_in = began.elapsed();
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
        };
        Memory { resident: of("VmRSS:"), private: of("RssAnon:"), most: of("VmHWM:") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _gone_already = self.child.wait();
    }
}

/// Nanoseconds that each thread of a process has run.
fn threads(pid: u32, into: &mut HashMap<String, u64>) {
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        if let Some(ran) = stat.split_whitespace().next().and_then(|ran| ran.parse().ok()) {
            into.insert(task.path().display().to_string(), ran);
        }
    }
}

/// The processes below `parent`.
fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1).and_then(|ppid| ppid.parse().ok()) == Some(parent)
    })
    .collect()
}

/// How long a server and the database's processes have run, at one moment.
pub struct Ran {
    server: HashMap<String, u64>,
    database: HashMap<String, u64>,
}

impl Ran {
    pub fn now(server: u32, postmaster: u32) -> Self {
        let mut ran = Self { server: HashMap::new(), database: HashMap::new() };
        threads(server, &mut ran.server);
        for child in children(postmaster) {
            threads(child, &mut ran.database);
        }
        ran
    }

    /// Microseconds of the server and of the database since `earlier`.
    pub fn since(&self, earlier: &Self) -> (f64, f64) {
        let spent = |now: &HashMap<String, u64>, then: &HashMap<String, u64>| -> f64 {
            // A thread that began meanwhile counts whole.
            let one = |(thread, ran): (&String, &u64)| ran.saturating_sub(*then.get(thread).unwrap_or(&0));
            now.iter().map(one).sum::<u64>() as f64 / 1e3
        };
        (spent(&self.server, &earlier.server), spent(&self.database, &earlier.database))
    }
}

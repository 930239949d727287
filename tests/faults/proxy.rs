//! A way to the database that can break: a proxy on a unix socket that reads PostgreSQL's protocol well enough to
//! fail exactly before a message reaches the server, after it did, or before its answer comes back
//! (PostgreSQL manual, chapter "Frontend/Backend Protocol").

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

use crate::lane::Lane;
use crate::process::Target;

/// What a process asks of the database, as far as a fault may want to hit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    Claim,
    Load,
    Heartbeat,
    Checkpoint,
    Finish,
    Reap,
    Trigger,
    TokenAdded,
    TokenRevoked,
    Usage,
    Permits,
    Recognition,
    SourceRead,
    DestinationWrite,
}

/// The steps, each with words that only its statement has.
const STEPS: [(&str, Step); 14] = [
    ("claim_runs(", Step::Claim),
    ("jsonb_build_object('id', s.connector_id", Step::Load),
    ("set lease_until = $4", Step::Heartbeat),
    ("set records_read = records_read +", Step::Checkpoint),
    ("set status = case when $3 <> 'completed'", Step::Finish),
    ("attempt < max_attempts as attempts_left", Step::Reap),
    ("insert into runs (", Step::Trigger),
    ("insert into tokens (", Step::TokenAdded),
    ("update tokens set revoked_at", Step::TokenRevoked),
    ("flush_usage(", Step::Usage),
    ("lease_permits(", Step::Permits),
    ("token_owner(", Step::Recognition),
    ("from apixx_rows", Step::SourceRead),
    ("jsonb_populate_recordset(null::", Step::DestinationWrite),
];

impl Step {
    /// Every step.
    pub fn all() -> impl Iterator<Item = Self> {
        STEPS.iter().map(|(_, step)| *step)
    }

    /// The step that a statement belongs to.
    fn of(statement: &str) -> Option<Self> {
        STEPS.iter().find(|(words, _)| statement.contains(words)).map(|(_, step)| *step)
    }
}

/// That the words of each step stand in one statement of the program, or in none where they are for a flow's database: a
/// fault at a statement that is called otherwise now would strike elsewhere, or never.
pub fn words_are_of_one_statement() -> Result<(), String> {
    let all = apixx_mcp::store::all_statements();
    for (words, step) in STEPS {
        let found = all.iter().filter(|statement| statement.contains(words)).count();
        let expected = usize::from(!matches!(step, Step::SourceRead | Step::DestinationWrite));
        if found != expected {
            return Err(format!("{step:?} is looked for by `{words}`, which {found} statements have"));
        }
    }
    Ok(())
}

/// When a trap springs, seen from the message it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The server never sees the message.
    Before,
    /// The server has it, and nobody waits for the answer.
    After,
    /// The server has answered; the answer is lost.
    Answered,
}

/// Waits for one message.
#[derive(Clone)]
pub struct Trap {
    /// Which statement.
    pub step: Step,
    /// The commit of its transaction instead of the statement itself.
    pub commit: bool,
    /// How many of these pass before it springs.
    pub pass: u32,
    pub moment: Moment,
    pub action: Action,
    /// What the harness knows it by.
    pub id: usize,
    /// Whether its message has come; it acts yet if nobody takes it back before.
    pub met: bool,
}

/// What a trap does.
#[derive(Clone)]
pub enum Action {
    /// Cuts the connection.
    Cut,
    /// Sends the process a signal.
    Signal(Arc<Target>, Signal),
    /// Kills the server.
    Crash(Arc<Lane>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gate {
    mode: Mode,
    /// Connections of an earlier epoch are cut.
    epoch: u64,
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Open,
    /// Bytes stay where they are.
    Stalled,
    /// New connections are closed at once.
    Refused,
}

impl Trap {
    /// Who falls asleep, if somebody does: the connection stays then.
    fn sleeper(&self) -> Option<&Target> {
        match &self.action {
            Action::Signal(target, Signal::SIGSTOP) => Some(target),
            _ => None,
        }
    }

    /// Acts and says so, unless it was taken back since it met its message (nobody would put right what it did), or
    /// there is nobody to hit: then it waits for another message.
    fn acts(&self, shared: &Shared) -> bool {
        let mut traps = shared.traps.lock().unwrap();
        let Some(place) = traps.iter().position(|trap| trap.met && trap.id == self.id) else { return false };
        let hit = match &self.action {
            Action::Cut => true,
            Action::Signal(target, signal) => target.signal(*signal),
            Action::Crash(lane) => lane.signal(Signal::SIGKILL),
        };
        if hit {
            traps.remove(place);
            let _told = shared.sprung.send(self.id);
        } else {
            traps[place].met = false;
        }
        hit
    }
}

/// One process's way to the database.
pub struct Proxy {
    dir: PathBuf,
    gate: watch::Sender<Gate>,
    traps: Arc<Mutex<Vec<Trap>>>,
    task: JoinHandle<()>,
}

/// What all connections of a proxy share.
#[derive(Clone)]
struct Shared {
    upstream: PathBuf,
    gate: watch::Receiver<Gate>,
    traps: Arc<Mutex<Vec<Trap>>>,
    sprung: mpsc::UnboundedSender<usize>,
}

impl Proxy {
    /// A proxy in `dir` to the server whose socket is `upstream`; the ids of traps that sprang go to `sprung`.
    pub fn start(dir: &Path, upstream: &Path, sprung: mpsc::UnboundedSender<usize>) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let listener = UnixListener::bind(dir.join(".s.PGSQL.5432"))?;
        let (gate, seen) = watch::channel(Gate { mode: Mode::Open, epoch: 0 });
        let traps = Arc::new(Mutex::new(Vec::new()));
        let shared = Shared { upstream: upstream.to_owned(), gate: seen, traps: traps.clone(), sprung };
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let shared = shared.clone();
                // A connection that broke is what this is for.
                tokio::spawn(async move { connection(client, shared).await.ok() });
            }
        });
        Ok(Self { dir: dir.to_owned(), gate, traps, task })
    }

    /// The database `name` through here, as `role`.
    pub fn url(&self, role: &str, name: &str) -> String {
        let host = self.dir.display().to_string().replace('/', "%2F");
        format!("postgresql:///{name}?host={host}&port=5432&user={role}&sslmode=disable")
    }

    pub fn set(&self, mode: Mode) {
        self.gate.send_modify(|gate| gate.mode = mode);
    }

    /// Cuts every connection there is.
    pub fn cut(&self) {
        self.gate.send_modify(|gate| gate.epoch += 1);
    }

    pub fn arm(&self, trap: Trap) {
        self.traps.lock().unwrap().push(trap);
    }

    /// Takes back what was armed as `id`, and tells whether it acted before.
    pub fn disarm(&self, id: usize) -> bool {
        let mut traps = self.traps.lock().unwrap();
        let armed = traps.len();
        traps.retain(|trap| trap.id != id);
        traps.len() == armed
    }

    /// Lets everything pass.
    pub fn heal(&self) {
        self.traps.lock().unwrap().clear();
        self.set(Mode::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

/// What a connection has said so far, as far as traps need it.
#[derive(Default)]
struct Said {
    started: bool,
    statements: HashMap<Vec<u8>, Option<Step>>,
    in_transaction: HashSet<Step>,
}

async fn connection(mut client: UnixStream, mut shared: Shared) -> io::Result<()> {
    let epoch = shared.gate.borrow().epoch;
    if shared.gate.borrow().mode == Mode::Refused {
        return Ok(());
    }
    let mut server = UnixStream::connect(&shared.upstream).await?;
    let (mut from_client, mut from_server) = (Vec::new(), vec![0; 16 * 1024]);
    let mut said = Said::default();
    loop {
        let gate = *shared.gate.borrow_and_update();
        if gate.epoch != epoch {
            return Ok(());
        }
        if gate.mode == Mode::Stalled {
            if shared.gate.changed().await.is_err() {
                return Ok(());
            }
            continue;
        }
        tokio::select! {
            changed = shared.gate.changed() => if changed.is_err() { return Ok(()) },
            read = server.read(&mut from_server) => match read? {
                0 => return Ok(()),
                read => client.write_all(&from_server[..read]).await?,
            },
            read = client.read_buf(&mut from_client) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(length) = whole_message(&from_client, said.started) {
                    let rest = from_client.split_off(length);
                    let message = std::mem::replace(&mut from_client, rest);
                    let Some(trap) = sprung(&message, &mut said, &shared.traps) else {
                        server.write_all(&message).await?;
                        continue;
                    };
                    let rest = rest_of_statement(&message, &mut client, &mut from_client).await?;
                    if trap.moment == Moment::Before && trap.acts(&shared) {
                        // What a process said before it fell asleep arrives as it wakes: who sleeps long is stale then.
                        let Some(sleeper) = trap.sleeper() else { return Ok(()) };
                        sleeper.awake().await;
                        if shared.gate.borrow().epoch != epoch {
                            return Ok(());
                        }
                    }
                    server.write_all(&[message, rest].concat()).await?;
                    let mut answer = Vec::new();
                    if trap.moment == Moment::Answered {
                        let ready = timeout(Duration::from_secs(2), until_ready(&mut server)).await;
                        answer = ready.map_err(|_| io::ErrorKind::TimedOut)??;
                    }
                    if trap.moment != Moment::Before && trap.acts(&shared) && trap.sleeper().is_none() {
                        return Ok(());
                    }
                    client.write_all(&answer).await?;
                }
            }
        }
    }
}

/// What belongs to the same statement as `message` (describe, execute), up to its sync: whole messages, since those
/// after them are looked at again.
async fn rest_of_statement(
    message: &[u8],
    client: &mut UnixStream,
    from_client: &mut Vec<u8>,
) -> io::Result<Vec<u8>> {
    let (mut rest, mut last) = (Vec::new(), message[0]);
    while last != b'Q' && last != b'S' {
        match whole_message(from_client, true) {
            Some(length) => {
                last = from_client[0];
                rest.extend(from_client.drain(..length));
            }
            None if client.read_buf(from_client).await? == 0 => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            None => {}
        }
    }
    Ok(rest)
}

/// The length of the first message in `bytes`, once it is there whole.
fn whole_message(bytes: &[u8], started: bool) -> Option<usize> {
    let (begin, of_type) = if started { (1, 1) } else { (0, 0) };
    let length = bytes.get(begin..begin + 4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize + of_type;
    (bytes.len() >= length).then_some(length)
}

/// Notes what the message says; the trap that it springs, if one waits for it.
fn sprung(message: &[u8], said: &mut Said, traps: &Mutex<Vec<Trap>>) -> Option<Trap> {
    if !said.started {
        // An SSL or GSSAPI request is followed by another message of this form; a start is not.
        let code = u32::from_be_bytes(message.get(4..8)?.try_into().ok()?);
        said.started = code >> 16 == 3;
        return None;
    }
    let (kind, body) = (message[0], &message[5..]);
    let mut texts = body.split(|byte| *byte == 0);
    match kind {
        b'P' => {
            let (name, text) = (texts.next()?.to_vec(), texts.next()?);
            said.statements.insert(name, Step::of(&String::from_utf8_lossy(text)));
            None
        }
        b'B' => {
            let step = (*said.statements.get(texts.nth(1)?)?)?;
            said.in_transaction.insert(step);
            spring(traps, |trap| !trap.commit && trap.step == step)
        }
        b'Q' => {
            let text = String::from_utf8_lossy(texts.next()?).trim().to_ascii_lowercase();
            let found = match text.as_str() {
                "commit" => spring(traps, |trap| trap.commit && said.in_transaction.contains(&trap.step)),
                _ => None,
            };
            if text == "commit" || text == "rollback" || text.starts_with("begin") {
                said.in_transaction.clear();
            }
            found
        }
        _ => None,
    }
}

/// The first trap that fits, unless it lets more pass before.
fn spring(traps: &Mutex<Vec<Trap>>, fits: impl Fn(&Trap) -> bool) -> Option<Trap> {
    let mut traps = traps.lock().unwrap();
    let trap = traps.iter_mut().find(|trap| !trap.met && fits(trap))?;
    if trap.pass > 0 {
        trap.pass -= 1;
        return None;
    }
    trap.met = true;
    Some(trap.clone())
}

/// The server's messages up to the one that says that it waits for the next.
async fn until_ready(server: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let mut head = [0; 5];
        server.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]).saturating_sub(4);
        let mut body = vec![0; length as usize];
        server.read_exact(&mut body).await?;
        all.extend([head.as_slice(), &body].concat());
        if head[0] == b'Z' {
            return Ok(all);
        }
    }
}

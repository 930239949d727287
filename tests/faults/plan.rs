//! What a seed stands for: how much there is to do, and what goes wrong when.

use std::fmt;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Duration;

use crate::proxy::{Moment, Step};

/// Processes by their place: two that serve, two that work.
pub const SEATS: [&str; 4] = ["serve-1", "serve-2", "worker-1", "worker-2"];
const FIRST_WORKER: usize = 2;

/// The steps that each are struck before, at and after, in turn.
pub const NAMED: [Step; 6] = [
    Step::Claim,
    Step::DestinationWrite,
    Step::Checkpoint,
    Step::Finish,
    Step::TokenAdded,
    Step::TokenRevoked,
];
pub const MOMENTS: [Moment; 3] = [Moment::Before, Moment::After, Moment::Answered];
pub const AT_STEP: [AtStep; 4] = [AtStep::Cut, AtStep::Kill, AtStep::Freeze, AtStep::Crash];

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// When, from the beginning; a fault at a step waits from then on for it.
    pub at: Duration,
    /// How long until it is put right.
    lasts: Duration,
    /// And how many leases more: what a silent worker had is somebody else's by then, and it is stale.
    leases: f64,
}

impl Fault {
    fn of(kind: Kind, at: Duration, dice: &mut StdRng) -> Self {
        let silent = match &kind {
            Kind::Freeze(seat) | Kind::Stall(seat) | Kind::Unreachable(seat) => *seat >= FIRST_WORKER,
            Kind::At { seats, what: AtStep::Freeze, .. } => seats.start >= FIRST_WORKER,
            _ => false,
        };
        let leases = if silent && dice.random_bool(0.5) { dice.random_range(1.0..2.5) } else { 0.0 };
        Self { kind, at, lasts: Duration::from_millis(dice.random_range(50..=2_200)), leases }
    }

    /// How long until it is put right, where leases are so long.
    pub fn lasts(&self, lease: Duration) -> Duration {
        self.lasts + lease.mul_f64(self.leases)
    }
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// `kill -9`, and another process later.
    Kill(usize),
    /// SIGTERM, and another process later.
    End(usize),
    /// SIGSTOP, and SIGCONT later.
    Freeze(usize),
    /// Every connection to the database breaks.
    Cut(usize),
    /// Bytes to and from the database stay where they are.
    Stall(usize),
    /// The database is out of reach.
    Unreachable(usize),
    /// The clock of the database's machine jumps to so many seconds from the true time, and the process starts anew: it
    /// goes by the new time at once, the others once they look again.
    Clock(usize, i64),
    /// PostgreSQL restarts.
    Restart,
    /// PostgreSQL is killed.
    Crash,
    /// One of PostgreSQL's processes is killed.
    Backend,
    /// At a step of whichever of these processes comes to it first.
    At { seats: Range<usize>, step: Step, commit: bool, pass: u32, moment: Moment, what: AtStep },
}

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AtStep {
    Cut,
    Kill,
    Freeze,
    /// PostgreSQL is killed.
    Crash,
}

/// Every kind but those at a step, as it calls itself.
pub const KINDS: [&str; 10] = [
    "kill -9",
    "SIGTERM",
    "SIGSTOP",
    "connections cut",
    "connections stalled",
    "database unreachable",
    "clock jump",
    "PostgreSQL restart",
    "PostgreSQL crash",
    "backend killed",
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(_) => f.write_str("kill -9"),
            Self::End(_) => f.write_str("SIGTERM"),
            Self::Freeze(_) => f.write_str("SIGSTOP"),
            Self::Cut(_) => f.write_str("connections cut"),
            Self::Stall(_) => f.write_str("connections stalled"),
            Self::Unreachable(_) => f.write_str("database unreachable"),
            Self::Clock(..) => f.write_str("clock jump"),
            Self::Restart => f.write_str("PostgreSQL restart"),
            Self::Crash => f.write_str("PostgreSQL crash"),
            Self::Backend => f.write_str("backend killed"),
            Self::At { step, commit, moment, what, .. } => {
                let commit = if *commit { " (commit)" } else { "" };
                write!(f, "{what:?} {moment:?} {step:?}{commit}")
            }
        }
    }
}

/// A flow that is asked to run.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub flow: usize,
    pub after: Duration,
    pub if_running: &'static str,
    pub key: bool,
}

/// Everything that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Records of a source.
    pub size: i64,
    pub wanted: Vec<Wanted>,
    /// When the token that is made at the beginning is revoked.
    pub revoke_after: Duration,
    /// What happens at the commit that makes a token, and at the one that revokes it.
    pub token_faults: [Option<(Moment, AtStep)>; 2],
    pub faults: Vec<Fault>,
}

impl Plan {
    pub fn of(seed: u64, flows: usize) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let ms =
            |dice: &mut StdRng, low: u64, high: u64| Duration::from_millis(dice.random_range(low..=high));
        let mut wanted = Vec::new();
        let first = dice.random_range(0..flows);
        for place in 0..dice.random_range(2..=4) {
            for again in 0..dice.random_range(1..=2_u64) {
                wanted.push(Wanted {
                    flow: (first + place) % flows,
                    after: ms(&mut dice, 0, 300) + Duration::from_millis(400) * again as u32,
                    if_running: if dice.random_bool(0.5) { "queue" } else { "attach" },
                    key: dice.random_bool(0.8),
                });
            }
        }
        let mut token_faults = [0, 1].map(|_| {
            dice.random_bool(0.2).then(|| (one_of(&mut dice, &MOMENTS), one_of(&mut dice, &AT_STEP)))
        });
        let mut faults: Vec<Fault> = (0..dice.random_range(1..=3)).map(|_| fault(&mut dice)).collect();
        // Chance leaves out something; taking turns does not.
        let turn = usize::try_from(seed).unwrap_or_default();
        let step = NAMED[turn % NAMED.len()];
        let moment = MOMENTS[turn / NAMED.len() % MOMENTS.len()];
        let what = AT_STEP[turn / (NAMED.len() * MOMENTS.len()) % AT_STEP.len()];
        match step {
            Step::TokenAdded => token_faults[0] = Some((moment, what)),
            Step::TokenRevoked => token_faults[1] = Some((moment, what)),
            _ => {
                let commit = step != Step::Claim && dice.random_bool(0.7);
                let pass = dice.random_range(0..=u32::from(step != Step::Finish) * 2);
                let seats = FIRST_WORKER..SEATS.len();
                let kind = Kind::At { seats, step, commit, pass, moment, what };
                faults.push(Fault::of(kind, Duration::ZERO, &mut dice));
            }
        }
        // Runs are taken back from a worker that goes silent with one.
        if faults.iter().any(|fault| matches!(fault.kind, Kind::At { step: Step::Reap, .. })) {
            let kind = Kind::At {
                seats: FIRST_WORKER..SEATS.len(),
                step: Step::Checkpoint,
                commit: false,
                pass: 0,
                moment: Moment::Before,
                what: AtStep::Kill,
            };
            faults.push(Fault::of(kind, Duration::ZERO, &mut dice));
        }
        Self {
            seed,
            size: dice.random_range(200..=1_200),
            wanted,
            revoke_after: ms(&mut dice, 300, 1_200),
            token_faults,
            faults,
        }
    }
}

fn one_of<T: Copy>(dice: &mut StdRng, all: &[T]) -> T {
    all[dice.random_range(0..all.len())]
}

fn fault(dice: &mut StdRng) -> Fault {
    let seat = dice.random_range(0..SEATS.len());
    let worker = dice.random_range(FIRST_WORKER..SEATS.len());
    let kind = match dice.random_range(0..100) {
        0..6 => Kind::Kill(worker),
        6..10 => Kind::Kill(seat),
        10..14 => Kind::End(seat),
        14..21 => Kind::Freeze(worker),
        21..23 => Kind::Freeze(seat),
        23..28 => Kind::Cut(seat),
        28..33 => Kind::Stall(seat),
        33..38 => Kind::Unreachable(seat),
        38..43 => {
            // (backwards no further than a lease or so: until then nothing that is lost is found again)
            let by =
                if dice.random_bool(0.6) { dice.random_range(20..240) } else { -dice.random_range(1..=3) };
            Kind::Clock(seat, by)
        }
        43..47 => Kind::Restart,
        47..51 => Kind::Crash,
        51..55 => Kind::Backend,
        _ => {
            // Steps with how often they come about, and whether they have a transaction of their own.
            let (step, most, commit) = match dice.random_range(0..15) {
                0 => (Step::Claim, 3, false),
                1 => (Step::Load, 2, false),
                2 | 3 => (Step::Checkpoint, 20, dice.random_bool(0.7)),
                4 | 5 => (Step::Finish, 1, dice.random_bool(0.7)),
                6 | 7 => (Step::DestinationWrite, 15, dice.random_bool(0.7)),
                8 => (Step::SourceRead, 8, false),
                9 => (Step::Heartbeat, 1, dice.random_bool(0.5)),
                10 => (Step::Reap, 0, dice.random_bool(0.5)),
                11 => (Step::Usage, 1, false),
                12 => (Step::Permits, 1, false),
                13 => (Step::Recognition, 1, false),
                _ => (Step::Trigger, 1, dice.random_bool(0.8)),
            };
            let seats = match step {
                Step::Usage | Step::Permits | Step::Recognition | Step::Trigger => 0..FIRST_WORKER,
                _ => FIRST_WORKER..SEATS.len(),
            };
            let what = match dice.random_range(0..10) {
                0..4 => AtStep::Cut,
                4..7 => AtStep::Kill,
                7..9 => AtStep::Freeze,
                _ => AtStep::Crash,
            };
            let (pass, moment) = (dice.random_range(0..=most), one_of(dice, &MOMENTS));
            Kind::At { seats, step, commit, pass, moment, what }
        }
    };
    let at = match kind {
        Kind::At { .. } => 0,
        _ => dice.random_range(0..1_500),
    };
    Fault::of(kind, Duration::from_millis(at), dice)
}

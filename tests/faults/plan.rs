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

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// When, from the beginning; a fault at a step waits from then on for it.
    pub at: Duration,
    /// How long until it is put right.
    pub lasts: Duration,
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
    /// The process's clock jumps by so many seconds.
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
#[derive(Clone, Copy, Debug)]
pub enum AtStep {
    Cut,
    Kill,
    Freeze,
}

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
    /// At the making and at the revoking of a token: a cut before, at or after its commit.
    pub token_faults: [Option<Moment>; 2],
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
        let moment = |dice: &mut StdRng| match dice.random_range(0..3) {
            0 => Moment::Before,
            1 => Moment::After,
            _ => Moment::Answered,
        };
        let token_faults = [0, 1].map(|_| dice.random_bool(0.25).then(|| moment(&mut dice)));
        let mut faults: Vec<Fault> =
            (0..dice.random_range(1..=4)).map(|_| fault(&mut dice, moment)).collect();
        // Runs are taken back from a worker that goes silent with one.
        if faults.iter().any(|fault| matches!(fault.kind, Kind::At { step: Step::Reap, .. })) {
            faults.push(Fault {
                kind: Kind::At {
                    seats: FIRST_WORKER..SEATS.len(),
                    step: Step::Checkpoint,
                    commit: false,
                    pass: 0,
                    moment: Moment::Before,
                    what: AtStep::Kill,
                },
                at: Duration::ZERO,
                lasts: ms(&mut dice, 50, 2_200),
            });
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

fn fault(dice: &mut StdRng, moment: impl Fn(&mut StdRng) -> Moment) -> Fault {
    let seat = dice.random_range(0..SEATS.len());
    let worker = dice.random_range(FIRST_WORKER..SEATS.len());
    let kind = match dice.random_range(0..100) {
        0..10 => Kind::Kill(worker),
        10..14 => Kind::Kill(seat),
        14..18 => Kind::End(seat),
        18..26 => Kind::Freeze(worker),
        26..28 => Kind::Freeze(seat),
        28..34 => Kind::Cut(seat),
        34..38 => Kind::Stall(seat),
        38..42 => Kind::Unreachable(seat),
        42..47 => Kind::Clock(seat, if dice.random_bool(0.5) { 7_200 } else { -7_200 }),
        47..50 => Kind::Restart,
        50..53 => Kind::Crash,
        53..55 => Kind::Backend,
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
                0..5 => AtStep::Cut,
                5..8 => AtStep::Kill,
                _ => AtStep::Freeze,
            };
            Kind::At { seats, step, commit, pass: dice.random_range(0..=most), moment: moment(dice), what }
        }
    };
    let at = match kind {
        Kind::At { .. } => 0,
        _ => dice.random_range(0..1_500),
    };
    Fault { kind, at: Duration::from_millis(at), lasts: Duration::from_millis(dice.random_range(50..2_200)) }
}

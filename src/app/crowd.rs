//! The connections that are open: so many at most, and an idle one goes when somebody new comes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Between two looks for a connection that became idle, while somebody waits for its place.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a new connection has to send its first request before it counts as idle.
const GRACE: Duration = Duration::from_millis(200);

/// The connections that are open.
#[derive(Clone)]
pub(super) struct Crowd {
    places: Arc<Semaphore>,
    members: Arc<Mutex<HashMap<u64, Arc<Member>>>>,
    /// Counts what happens, which is how the members' idleness is compared.
    events: Arc<AtomicU64>,
    open: Gauge,
    evicted: Counter,
}

/// A connection, as others see it.
#[derive(Debug)]
pub(super) struct Member {
    /// Whether a request of it was ever answered other than with a refusal.
    pub proven: AtomicBool,
    requests: Mutex<Requests>,
    /// Its place among all that happened, when it came or last ended a request.
    last: AtomicU64,
    /// Counts what happens to everybody.
    events: Arc<AtomicU64>,
    came: Instant,
    leave: CancellationToken,
}

/// The requests of a connection. Time is counted in looks at it.
#[derive(Debug, Default)]
struct Requests {
    looks: u64,
    begun: u64,
    /// Those under way by their number, and the look that was the first to see each.
    under_way: BTreeMap<u64, u64>,
    /// The look that was the first to see none under way.
    idle_since: u64,
}

/// What a look at a connection sees.
pub(super) enum Seen {
    /// Nothing has been under way for so many looks.
    Idle(u32),
    /// The oldest request has been under way for so many looks.
    Asking(u32),
}

/// A place among the connections, given up when dropped.
pub(super) struct Place {
    /// Who has it.
    pub member: Arc<Member>,
    crowd: Crowd,
    number: u64,
    _place: OwnedSemaphorePermit,
}

impl Crowd {
    /// Room for `most` connections.
    pub(super) fn new(most: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            members: Arc::default(),
            events: Arc::default(),
            open: gauge!("apixx_connections_open"),
            evicted: counter!("apixx_connections_evicted_total"),
        }
    }

    /// A place for one more. Where there is none, the connection that has been idle for longest is told to leave, one
    /// that never asked anything worth an answer first; while none is idle, this waits.
    pub(super) async fn enter(&self) -> Option<Place> {
        let place = loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                break place;
            }
            self.evict();
            if let Ok(place) = timeout(LOOK_AGAIN, Arc::clone(&self.places).acquire_owned()).await {
                break place.ok()?;
            }
        };
        let number = self.events.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member {
            proven: AtomicBool::new(false),
            requests: Mutex::default(),
            last: AtomicU64::new(number),
            events: Arc::clone(&self.events),
            came: Instant::now(),
            leave: CancellationToken::new(),
        });
        self.members().insert(number, Arc::clone(&member));
        self.open.increment(1.0);
        Some(Place { member, crowd: self.clone(), number, _place: place })
    }

    fn evict(&self) {
        let members = self.members();
        let idle = members.values().filter(|member| member.is_idle() && !member.leave.is_cancelled());
        let longest = idle.min_by_key(|member| {
            (member.proven.load(Ordering::Relaxed), member.last.load(Ordering::Relaxed))
        });
        // Who is new is waited for: those who behaved do not leave in its stead.
        let longest = longest.filter(|member| member.came.elapsed() >= GRACE);
        if let Some(member) = longest {
            member.leave.cancel();
            self.evicted.increment(1);
        }
    }

    fn members(&self) -> MutexGuard<'_, HashMap<u64, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Whether no request of it is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.requests().under_way.is_empty()
    }

    /// A request of it begins; its number.
    pub(super) fn begin(&self) -> u64 {
        let mut requests = self.requests();
        requests.begun += 1;
        let (number, next_look) = (requests.begun, requests.looks + 1);
        requests.under_way.insert(number, next_look);
        number
    }

    /// Looks at it once more.
    pub(super) fn look(&self) -> Seen {
        let mut requests = self.requests();
        requests.looks += 1;
        let looks = |since| u32::try_from(requests.looks.saturating_sub(since)).unwrap_or(u32::MAX);
        match requests.under_way.first_key_value() {
            Some((_, since)) => Seen::Asking(looks(*since)),
            None => Seen::Idle(looks(requests.idle_since)),
        }
    }

    /// Its request of this number ended.
    pub(super) fn end(&self, number: u64) {
        self.last.store(self.events.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let mut requests = self.requests();
        requests.under_way.remove(&number);
        requests.idle_since = requests.looks + 1;
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Ends when the place is wanted for somebody else.
    pub(super) async fn wanted(&self) {
        self.member.leave.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.members().remove(&self.number);
        self.crowd.open.decrement(1.0);
    }
}

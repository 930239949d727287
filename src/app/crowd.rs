//! The connections that are open: so many at most, and one goes when somebody new comes, of a stranger if it can be.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::middleware::Known;

/// Between two looks for a connection that may leave, while somebody waits for its place.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a new connection has to send its first request before it counts as idle.
const GRACE: Duration = Duration::from_millis(200);

/// How long a stranger may have requests under way. Whoever has a token or a session is recognised long before; what else
/// takes longer is a body that does not arrive, or an answer that is not taken.
const PATIENCE: Duration = Duration::from_secs(1);

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
    /// Whether it is no stranger's.
    pub known: Known,
    requests: Mutex<Requests>,
    /// Its place among all that happened, when it came or last ended a request.
    last: AtomicU64,
    /// Counts what happens to everybody.
    events: Arc<AtomicU64>,
    came: Instant,
    leave: CancellationToken,
}

/// The requests of a connection. How long they are kept is counted in looks at it.
#[derive(Debug, Default)]
struct Requests {
    /// Since when at least one is under way.
    busy_since: Option<Instant>,
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

    /// A place for one more. Where there is none, a connection is told to leave; while none may, this waits.
    pub(super) async fn enter(&self) -> Option<Place> {
        let place = loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                break place;
            }
            self.evict(Instant::now());
            if let Ok(place) = timeout(LOOK_AGAIN, Arc::clone(&self.places).acquire_owned()).await {
                break place.ok()?;
            }
        };
        let number = self.events.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member {
            known: Known::default(),
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

    /// Tells one connection to leave: a stranger's that is idle, else a stranger's that takes too long, else one that is
    /// idle; of these, where nothing ended for longest. Who is known and has something under way stays.
    pub(super) fn evict(&self, now: Instant) {
        let members = self.members();
        let staying = || members.values().filter(|member| !member.leave.is_cancelled());
        let first = staying()
            .filter(|member| member.may_leave(now))
            .min_by_key(|member| (member.known.is(), !member.is_idle(), member.last.load(Ordering::Relaxed)));
        // Strangers whose time has not come are waited for: who is known does not leave in their stead.
        let first = first.filter(|first| !first.known.is() || staying().all(|member| member.known.is()));
        if let Some(member) = first {
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

    /// Whether it may be ended for somebody else.
    pub(super) fn may_leave(&self, now: Instant) -> bool {
        let (known, busy_since) = (self.known.is(), self.requests().busy_since);
        match busy_since {
            None => known || now.duration_since(self.came) >= GRACE,
            Some(since) => !known && now.duration_since(since) >= PATIENCE,
        }
    }

    /// A request of it begins; its number.
    pub(super) fn begin(&self) -> u64 {
        let mut requests = self.requests();
        requests.busy_since.get_or_insert_with(Instant::now);
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
        if requests.under_way.is_empty() {
            requests.busy_since = None;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn strangers_make_room_before_who_is_known() {
        let (crowd, before) = (Crowd::new(6), Instant::now());
        let mut places = Vec::new();
        for _ in 0..6 {
            places.push(crowd.enter().await.unwrap());
        }
        let [_, known, asking, other, slow, _] = &places[..] else { unreachable!() };
        for place in [known, asking, other] {
            let mut extensions = http::Extensions::new();
            extensions.insert(place.member.known.clone());
            Known::note(&extensions);
        }
        for place in [slow, asking] {
            place.member.begin();
        }
        // What ended a request last leaves last.
        known.member.end(known.member.begin());
        let begun = Instant::now();
        let gone = |now: Instant| {
            crowd.evict(now);
            places.iter().map(|place| u8::from(place.member.leave.is_cancelled())).collect::<Vec<_>>()
        };
        assert_eq!(gone(before), [0; 6], "strangers have a moment, and nobody leaves in their stead");
        assert_eq!(gone(begun + GRACE), [1, 0, 0, 0, 0, 0]);
        assert_eq!(gone(begun + GRACE), [1, 0, 0, 0, 0, 1]);
        assert_eq!(gone(begun + GRACE), [1, 0, 0, 0, 0, 1], "a request of a stranger has a second");
        assert_eq!(gone(begun + PATIENCE), [1, 0, 0, 0, 1, 1]);
        assert_eq!(gone(begun + PATIENCE), [1, 0, 0, 1, 1, 1]);
        assert_eq!(gone(begun + PATIENCE), [1, 1, 0, 1, 1, 1]);
        assert_eq!(gone(begun + 10 * PATIENCE), [1, 1, 0, 1, 1, 1], "who is known is not cut off");
    }
}

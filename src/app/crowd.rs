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

/// How long a request of which nobody is known yet may wait for its peer: for a body that does not arrive, or for an answer
/// to be taken. What it waits for here is not held against it.
const PATIENCE: Duration = Duration::from_secs(1);

/// One place of so many is for strangers: while they hold fewer, who is known and idle leaves rather than that somebody new
/// waits for them.
const STRANGERS: usize = 4;

/// The connections that are open.
#[derive(Clone)]
pub(super) struct Crowd {
    most: usize,
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
    known: Known,
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
    looks: u64,
    begun: u64,
    /// Those under way by their number.
    under_way: BTreeMap<u64, Asking>,
    /// The look that was the first to see none under way.
    idle_since: u64,
}

/// A request that is under way.
#[derive(Debug)]
struct Asking {
    known: Known,
    /// The look that was the first to see it.
    since: u64,
    /// Since when its peer is waited for, to send the rest of its body,
    for_body: Option<Instant>,
    /// or to take its answer.
    for_taking: Option<Instant>,
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
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            most,
            places: Arc::new(Semaphore::new(most)),
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

    /// Tells one connection to leave: a stranger's that is idle, else one whose requests are all of strangers and keep us
    /// waiting, else one that is idle; of these, where nothing ended for longest. Where somebody known has something under
    /// way, it stays.
    pub(super) fn evict(&self, now: Instant) {
        let members = self.members();
        let staying = || members.values().filter(|member| !member.leave.is_cancelled());
        let first = staying().filter(|member| member.may_leave(now)).min_by_key(|member| {
            let idle = member.is_idle();
            (idle && !member.is_strange(), !idle, member.last.load(Ordering::Relaxed))
        });
        // Strangers whose time has not come are waited for where they are many: who is known does not leave in their stead.
        let many = || staying().filter(|member| member.is_strange()).count() * STRANGERS >= self.most;
        if let Some(member) = first.filter(|first| first.is_strange() || !many()) {
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

    /// Whether nobody is known of what it has under way or, where that is nothing, of all that it ever had.
    fn is_strange(&self) -> bool {
        let under_way = &self.requests().under_way;
        if under_way.is_empty() {
            !self.known.ever()
        } else {
            !under_way.values().any(|asking| asking.known.now())
        }
    }

    /// Whether it may be ended for somebody else.
    pub(super) fn may_leave(&self, now: Instant) -> bool {
        let strange = self.is_strange();
        let requests = self.requests();
        if requests.under_way.is_empty() {
            return !strange || now.duration_since(self.came) >= GRACE;
        }
        let waits = requests.under_way.values().flat_map(|asking| [asking.for_body, asking.for_taking]);
        strange && waits.flatten().min().is_some_and(|since| now.duration_since(since) >= PATIENCE)
    }

    /// A request of it begins; its number, and what to know it by.
    pub(super) fn begin(&self) -> (u64, Known) {
        let mut requests = self.requests();
        requests.begun += 1;
        let (number, since, known) = (requests.begun, requests.looks + 1, self.known.one_more());
        let asking = Asking { known: known.clone(), since, for_body: None, for_taking: None };
        requests.under_way.insert(number, asking);
        (number, known)
    }

    /// The body of its request of this number is waited for, or no more.
    pub(super) fn waits_for_body(&self, number: u64, waits: bool) {
        if let Some(asking) = self.requests().under_way.get_mut(&number) {
            asking.for_body = waits.then(Instant::now);
        }
    }

    /// The answer to its request of this number is made, and waits to be taken.
    pub(super) fn answered(&self, number: u64) {
        if let Some(asking) = self.requests().under_way.get_mut(&number) {
            asking.for_taking = Some(Instant::now());
        }
    }

    /// Looks at it once more.
    pub(super) fn look(&self) -> Seen {
        let mut requests = self.requests();
        requests.looks += 1;
        let looks = |since| u32::try_from(requests.looks.saturating_sub(since)).unwrap_or(u32::MAX);
        match requests.under_way.first_key_value() {
            Some((_, asking)) => Seen::Asking(looks(asking.since)),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A full crowd of so many.
    async fn full(most: usize) -> (Crowd, Vec<Place>) {
        let crowd = Crowd::new(most);
        let mut places = Vec::new();
        for _ in 0..most {
            places.push(crowd.enter().await.unwrap());
        }
        (crowd, places)
    }

    /// A request begins over a connection, of somebody known or not; its number.
    fn begin(place: &Place, known: bool) -> u64 {
        let (number, asks) = place.member.begin();
        if known {
            let mut extensions = http::Extensions::new();
            extensions.insert(asks);
            Known::note(&extensions);
        }
        number
    }

    /// Who left, once somebody wanted a place at that moment.
    fn gone(crowd: &Crowd, places: &[Place], now: Instant) -> Vec<u8> {
        crowd.evict(now);
        places.iter().map(|place| u8::from(place.member.leave.is_cancelled())).collect()
    }

    #[tokio::test]
    async fn strangers_make_room_before_who_is_known() {
        let before = Instant::now();
        let (crowd, places) = full(6).await;
        let [_, known, asking, other, slow, _] = &places[..] else { unreachable!() };
        // What ended a request last leaves last.
        for place in [other, known] {
            place.member.end(begin(place, true));
        }
        begin(asking, true);
        slow.member.waits_for_body(begin(slow, false), true);
        let begun = Instant::now();
        let gone = |now: Instant| gone(&crowd, &places, now);
        assert_eq!(gone(before), [0; 6], "strangers have a moment, and nobody leaves in their stead");
        assert_eq!(gone(begun + GRACE), [1, 0, 0, 0, 0, 0]);
        assert_eq!(gone(begun + GRACE), [1, 0, 0, 0, 0, 1]);
        assert_eq!(gone(begun + PATIENCE), [1, 0, 0, 0, 1, 1], "a body of a stranger has a second");
        assert_eq!(gone(begun + PATIENCE), [1, 0, 0, 1, 1, 1]);
        assert_eq!(gone(begun + PATIENCE), [1, 1, 0, 1, 1, 1]);
        assert_eq!(gone(begun + 10 * PATIENCE), [1, 1, 0, 1, 1, 1], "who is known is not cut off");
    }

    #[tokio::test]
    async fn a_few_strangers_are_not_waited_for() {
        let (crowd, places) = full(9).await;
        for place in &places[..7] {
            place.member.end(begin(place, true));
        }
        for place in &places[7..] {
            place.member.waits_for_body(begin(place, false), true);
        }
        let now = Instant::now();
        assert_eq!(gone(&crowd, &places, now), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
        begin(&places[1], false);
        assert_eq!(gone(&crowd, &places, now), [1, 0, 0, 0, 0, 0, 0, 0, 0], "now they are many");
    }

    #[tokio::test]
    async fn only_its_peer_can_make_a_request_take_too_long_and_who_is_known_is_so_for_it_alone() {
        let (crowd, places) = full(4).await;
        let [here, sent, slow, untaken] = &places[..] else { unreachable!() };
        for place in &places {
            place.member.end(begin(place, true));
        }
        begin(here, false);
        let number = begin(sent, false);
        sent.member.waits_for_body(number, true);
        sent.member.waits_for_body(number, false);
        slow.member.waits_for_body(begin(slow, false), true);
        begin(untaken, false);
        untaken.member.answered(begin(untaken, false));
        let now = Instant::now();
        assert_eq!(gone(&crowd, &places, now), [0; 4]);
        assert_eq!(gone(&crowd, &places, now + PATIENCE), [0, 0, 1, 0]);
        assert_eq!(gone(&crowd, &places, now + PATIENCE), [0, 0, 1, 1]);
        assert_eq!(gone(&crowd, &places, now + 10 * PATIENCE), [0, 0, 1, 1], "they wait for us");
    }
}

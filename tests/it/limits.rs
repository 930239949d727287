//! One customer's limit, over any number of processes: never more than the plan grants, and next to nothing less.

use std::num::NonZeroU32;
use std::time::Duration;

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::service::access::{Access, Refused, Wants};
use apixx_mcp::store::Store;
use chrono::TimeDelta;

use crate::support::app::TestApp;

const BURST: f64 = 40.0;
const PER_SECOND: f64 = 10.0;
const STEP: TimeDelta = TimeDelta::milliseconds(100);
const STEPS_PER_SECOND: usize = 10;

/// A process of the installation, with a clock of its own.
struct Peer {
    access: Access,
    store: Store,
    clock: Clock,
}

/// Several processes over one database, and how many requests of one customer they admitted at each step.
struct Fleet {
    app: TestApp,
    token: String,
    peers: Vec<Peer>,
    admitted: Vec<u32>,
}

impl Fleet {
    /// Processes whose clocks are that many milliseconds ahead of the first one's.
    async fn of(ahead: &[i64]) -> Self {
        let app = TestApp::demo().await;
        let sql = format!(
            "update plans set burst = {BURST}, requests_per_minute = {} where plan_code = 'team'",
            PER_SECOND * 60.0
        );
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut app.owner().await).await.unwrap();
        let mut peers = Vec::new();
        for millis in ahead {
            peers.push(Self::peer(&app, *millis).await);
        }
        Self { token: app.globex().token(), app, peers, admitted: Vec::new() }
    }

    async fn peer(app: &TestApp, ahead: i64) -> Peer {
        let clock = Clock::fixed(app.clock.now() + TimeDelta::milliseconds(ahead));
        let ids = IdSource::random(clock.clone());
        let store =
            Store::connect(&app.database.server, 2, Duration::from_secs(10), clock.clone(), ids).await;
        let store = store.unwrap();
        let access = Access::new(store.clone(), NonZeroU32::new(100).unwrap());
        Peer { access, store, clock }
    }

    /// Goes on for `seconds`, each process asked as often at each step as `demand` says for its place and the step.
    async fn go(&mut self, seconds: usize, demand: impl Fn(usize, usize) -> u32) {
        for step in 0..seconds * STEPS_PER_SECOND {
            let mut admitted = 0;
            for (place, peer) in self.peers.iter().enumerate() {
                for _ in 0..demand(place, step) {
                    admitted += u32::from(peer.admits(&self.token).await);
                }
                if step % STEPS_PER_SECOND == place % STEPS_PER_SECOND {
                    peer.access.settle(false).await.unwrap();
                }
            }
            self.admitted.push(admitted);
            for clock in self.peers.iter().map(|peer| &peer.clock).chain([&self.app.clock]) {
                clock.advance(STEP);
            }
        }
    }

    /// That no stretch of time saw more than the burst and what the rate grants in it: a bucket from which every
    /// admitted request is taken never runs dry. Clocks that differ by `apart` seconds may give that much more.
    fn never_more(&self, apart: f64) {
        let burst = BURST + apart * PER_SECOND;
        let mut level = burst;
        for (step, admitted) in self.admitted.iter().enumerate() {
            level = f64::min(burst, level + PER_SECOND / STEPS_PER_SECOND as f64) - f64::from(*admitted);
            assert!(level > -1e-6, "step {step}: {:?}", &self.admitted[..=step]);
        }
    }

    /// The share that was admitted of all that the plan grants from the first step on.
    fn share(&self) -> f64 {
        let granted = BURST + PER_SECOND * (self.admitted.len() - 1) as f64 / STEPS_PER_SECOND as f64;
        f64::from(self.admitted.iter().sum::<u32>()) / granted
    }
}

impl Peer {
    async fn admits(&self, token: &str) -> bool {
        match self.access.recognise(Some(token), None, Wants::Service).await {
            Ok(_) => true,
            Err(Refused::Limited(wait, _)) => {
                assert!(!wait.is_zero());
                false
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn steady_demand_gets_the_limit_from_four_processes() {
    let mut fleet = Fleet::of(&[0; 4]).await;
    fleet.go(45, |_, _| 5).await;
    fleet.never_more(0.0);
    assert!(fleet.share() >= 0.95, "{}", fleet.share());
}

#[tokio::test]
async fn demand_that_is_unlike_or_moves_gets_the_limit_too() {
    // One process has nearly all of it.
    let mut fleet = Fleet::of(&[0; 4]).await;
    fleet.go(45, |place, step| if place == 0 { 4 } else { u32::from(step % 23 == place) }).await;
    fleet.never_more(0.0);
    assert!(fleet.share() >= 0.95, "{}", fleet.share());
    // All of it moves on every two seconds, as behind a balancer whose targets come and go.
    let mut fleet = Fleet::of(&[0; 4]).await;
    fleet.go(60, |place, step| if step / 20 % 4 == place { 3 } else { 0 }).await;
    fleet.never_more(0.0);
    assert!(fleet.share() >= 0.95, "{}", fleet.share());
}

#[tokio::test]
async fn bursts_after_a_rest_get_the_burst_and_no_more() {
    let mut fleet = Fleet::of(&[0; 4]).await;
    // A little from everyone, so that everyone holds a lease when the burst comes; then a burst, then rest.
    fleet
        .go(60, |_, step| match step % 150 {
            0..10 => 1,
            10..15 => 20,
            _ => 0,
        })
        .await;
    fleet.never_more(0.0);
    for burst in fleet.admitted.chunks(150) {
        let admitted: u32 = burst[..15].iter().sum();
        assert!(f64::from(admitted) >= 0.95 * (BURST + 1.4 * PER_SECOND), "{admitted}");
    }
}

#[tokio::test]
async fn processes_whose_clocks_differ_stay_within_that_difference() {
    let mut fleet = Fleet::of(&[0, 700, -600, 300]).await;
    fleet.go(45, |_, _| 5).await;
    fleet.never_more(1.3);
    assert!(fleet.share() >= 0.95, "{}", fleet.share());
}

#[tokio::test]
async fn processes_that_come_and_go_take_nothing_along() {
    let mut fleet = Fleet::of(&[0; 4]).await;
    for round in 0..8 {
        fleet.go(5, |_, _| 4).await;
        // One ends in order, another is killed; both come again.
        let gone = fleet.peers.remove(0);
        gone.access.settle(true).await.unwrap();
        drop(fleet.peers.remove(round % 3));
        let now = fleet.peers[0].clock.now();
        fleet.app.clock.set(now);
        for _ in 0..2 {
            fleet.peers.push(Fleet::peer(&fleet.app, 0).await);
        }
    }
    fleet.never_more(0.0);
    assert!(fleet.share() >= 0.95, "{}", fleet.share());
}

#[tokio::test]
async fn a_day_goes_by_once_though_clocks_differ() {
    let fleet = Fleet::of(&[0, 0]).await;
    let sql = "update plans set daily_requests = 25, burst = 20 where plan_code = 'team'";
    sqlx::query(sql).execute(&mut fleet.app.owner().await).await.unwrap();
    // One process is past midnight, the other is not yet.
    let midnight: chrono::DateTime<chrono::Utc> = "2026-11-22T00:00:00Z".parse().unwrap();
    fleet.peers[0].clock.set(midnight + TimeDelta::seconds(2));
    fleet.peers[1].clock.set(midnight - TimeDelta::seconds(2));
    let mut admitted = 0;
    for _ in 0..20 {
        for peer in &fleet.peers {
            for _ in 0..5 {
                admitted += u32::from(peer.admits(&fleet.token).await);
            }
            peer.clock.advance(STEP);
        }
    }
    assert_eq!(admitted, 25);
}

#[tokio::test]
async fn many_at_once_get_what_there_is_and_those_refused_ask_nobody() {
    let fleet = Fleet::of(&[0]).await;
    let peer = &fleet.peers[0];
    let all = futures_util::future::join_all((0..64).map(|_| peer.admits(&fleet.token))).await;
    assert_eq!(all.iter().filter(|admitted| **admitted).count(), BURST as usize);
    // Who floods is refused without a database.
    peer.store.close().await;
    for _ in 0..100 {
        assert!(!peer.admits(&fleet.token).await);
    }
}

#[tokio::test]
async fn what_was_leased_yesterday_is_not_given_back_to_today() {
    let app = TestApp::demo().await;
    let mut owner = app.owner().await;
    for (process, wanted, returned, at) in [
        ("a", 5, 0, "2026-11-21T23:59:59Z"),
        ("b", 5, 0, "2026-11-22T00:00:00Z"),
        ("a", 0, 4, "2026-11-22T00:00:00Z"),
        ("b", 0, 2, "2026-11-22T00:00:01Z"),
    ] {
        sqlx::query(
            "select lease_permits(customer_id, $1, $2, $3, $4::timestamptz, $4::timestamptz + interval '5 s')
               from customers where slug = 'acme'",
        )
        .bind(process)
        .bind(wanted)
        .bind(returned)
        .bind(at)
        .execute(&mut owner)
        .await
        .unwrap();
    }
    let requests = "select a.requests::text from allowances a join customers c using (customer_id) where c.slug = 'acme'";
    assert_eq!(app.column(requests).await, ["3"], "five of today, two of them given back");
}

#[tokio::test]
async fn a_large_daily_allowance_is_one() {
    let app = TestApp::demo().await;
    let sql = "update plans set daily_requests = 3000000000";
    sqlx::query(sql).execute(&mut app.owner().await).await.unwrap();
    app.globex().text("list_flows", serde_json::json!({})).await;
}

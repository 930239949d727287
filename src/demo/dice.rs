//! Chance that always falls alike: the same flow at the same time had the same run, whenever the demo starts.

use chrono::{DateTime, Utc};

use crate::domain::clock::Clock;
use crate::domain::ids::{IdSource, RunId};

/// A generator of numbers (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// The dice of one flow at one time.
    pub(super) fn of(flow: &str, at: DateTime<Utc>) -> Self {
        // FNV-1a, 64 bits.
        let hash = flow.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash ^ at.timestamp().cast_unsigned())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to just under 1.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number from `low` to `high`.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.fraction() * (high - low + 1) as f64) as i64
    }

    /// A factor around 1, log-normal with this sigma, at most three sigmas off.
    pub(super) fn factor(&mut self, sigma: f64) -> f64 {
        // The sum of twelve uniform numbers is close to normal.
        let normal: f64 = (0..12).map(|_| self.fraction()).sum::<f64>() - 6.0;
        (sigma * normal.clamp(-3.0, 3.0)).exp()
    }

    /// The id of a run queued at `at`.
    pub(super) fn run_id(&mut self, at: DateTime<Utc>) -> String {
        RunId::new(&IdSource::seeded(Clock::fixed(at), self.next())).as_str().to_owned()
    }
}

//! When the stories of the demo happened, relative to now.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::domain::window::local;

/// The times that the stories go by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Now.
    pub now: DateTime<Utc>,
    /// The clock that the workspace lives by.
    pub zone: Tz,
    /// Today there.
    pub today: NaiveDate,
}

impl Times {
    /// The times relative to `now` in `zone`.
    pub(super) fn new(now: DateTime<Utc>, zone: Tz) -> Self {
        Self { now, zone, today: now.with_timezone(&zone).date_naive() }
    }

    /// The moment so many days ago when the workspace's clock read `time`; where clocks were put forward over
    /// it, the first one after.
    pub(super) fn at(&self, days_ago: i64, time: [u32; 3]) -> DateTime<Utc> {
        let [hour, minute, second] = time;
        let time = NaiveTime::from_hms_opt(hour, minute, second).unwrap_or(NaiveTime::MIN);
        local(self.today - TimeDelta::days(days_ago), time, self.zone)
    }

    /// When the authorization of HubSpot was revoked: this morning, or a good hour ago when the morning is
    /// young.
    pub(super) fn revoked(&self) -> DateTime<Utc> {
        let morning = self.at(0, [5, 58, 0]);
        if self.now >= self.at(0, [7, 10, 0]) { morning } else { self.now - TimeDelta::minutes(72) }
    }

    /// The next midnight of UTC.
    pub(super) fn utc_midnight(&self) -> DateTime<Utc> {
        (self.now.date_naive() + TimeDelta::days(1)).and_time(NaiveTime::MIN).and_utc()
    }
}

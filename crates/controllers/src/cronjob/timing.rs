//! Which start of a schedule is due: the latest one that has passed since the last. Pure.

use std::time::Duration;

use api::cron::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use reconcile::clock::elapsed;

/// More missed starts than this are told about: a clock that jumps, or a very frequent schedule.
const MISSED_MAX: i64 = 100;

/// What the schedule says about now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub at: Timestamp,
    /// So many starts were missed that somebody should know.
    pub missed_many: bool,
}

/// The latest start after `since` and not after `now`.
///
/// The starts between are estimated from the distance of the first two and not walked one by one: there may be
/// millions.
#[must_use]
pub fn due(schedule: &Schedule, zone: &TimeZone, since: Timestamp, now: Timestamp) -> Option<Due> {
    let first = schedule.next(since, zone)?;
    if now < first {
        return None;
    }
    let Some(second) = schedule.next(first, zone) else { return Some(Due { at: first, missed_many: false }) };
    if now < second {
        return Some(Due { at: first, missed_many: false });
    }
    let distance = (second.as_second() - first.as_second()).max(1);
    let missed = (now.as_second() - first.as_second()) / distance + 1;
    // One period back: an uneven schedule may have its last start there.
    let skipped = SignedDuration::from_secs((missed - 2) * distance);
    let mut latest = None;
    let mut at = schedule.next(first.checked_add(skipped).ok()?, zone)?;
    while at <= now {
        latest = Some(at);
        at = schedule.next(at, zone)?;
    }
    latest.map(|at| Due { at, missed_many: missed > MISSED_MAX })
}

/// The wait until the next start.
#[must_use]
pub fn until_next(schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Duration> {
    // A little late rather than a little early: then the start has passed.
    schedule.next(now, zone).map(|next| elapsed(now, next) + Duration::from_millis(100))
}

//! Which start of a schedule is due: the latest one that has passed since the last, and not too long ago. Pure.
//!
//! What CronJobs and triggers of Functions have in common.

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

/// [`due`], without what is later than `deadline` by now.
#[must_use]
pub fn due_within(
    schedule: &Schedule,
    zone: &TimeZone,
    since: Timestamp,
    now: Timestamp,
    deadline: Option<Duration>,
) -> Option<Due> {
    let earliest = deadline.and_then(|deadline| now.checked_sub(deadline).ok());
    due(schedule, zone, earliest.map_or(since, |earliest| earliest.max(since)), now)
}

/// Whether a start has missed its deadline.
#[must_use]
pub fn is_too_late(at: Timestamp, deadline: Option<Duration>, now: Timestamp) -> bool {
    deadline.is_some_and(|deadline| at.checked_add(deadline).is_ok_and(|latest| latest < now))
}

/// `startingDeadlineSeconds` as a time.
#[must_use]
pub fn deadline(seconds: Option<i64>) -> Option<Duration> {
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// What is told of a start that has missed many others.
pub const MISSED_MANY: &str =
    "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";

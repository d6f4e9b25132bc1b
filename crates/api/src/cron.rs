//! Schedules of CronJobs: five fields, or `@daily` and the like, or `@every 1h30m`; and the times they name.
//!
//! Follows the rules of robfig/cron, which Kubernetes uses: a day matches by day of month *or* day of week when both
//! are restricted, and a time which a change of the clocks leaves out is left out. Pure: time zones come from a table
//! that is part of the program.

use std::time::Duration;

use jiff::civil::Time as Clock;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp, ToSpan, Zoned};

/// Such a schedule names no time that is worth waiting for: February 30th.
const YEARS_MAX: i16 = 5;

/// A schedule that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Fields(Box<Fields>),
    Every(Duration),
}

/// Bit n stands for the number n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Neither of the day fields is a star, so that either suffices.
    any_day: bool,
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Bounds {
    low: u32,
    high: u32,
    /// Words for the numbers from `low` on.
    words: &'static [&'static str],
}

const MINUTE: Bounds = Bounds { low: 0, high: 59, words: &[] };
const HOUR: Bounds = Bounds { low: 0, high: 23, words: &[] };
const DAY: Bounds = Bounds { low: 1, high: 31, words: &[] };
const MONTH: Bounds = Bounds { low: 1, high: 12, words: MONTHS };
const WEEKDAY: Bounds = Bounds { low: 0, high: 6, words: WEEKDAYS };

/// Reads a schedule; the error is a sentence about what is wrong.
pub fn parse(text: &str) -> Result<Schedule, String> {
    if text.is_empty() {
        return Err("empty spec string".to_owned());
    }
    if let Some(every) = text.strip_prefix("@every ") {
        let duration = duration(every).ok_or_else(|| format!("failed to parse duration {text}"))?;
        // Rounded down to seconds, and never less than one.
        return Ok(Schedule::Every(Duration::from_secs(duration.as_secs().max(1))));
    }
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
        _ => text,
    };
    let parts: Vec<&str> = fields.split_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = parts[..] else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    };
    let is_star = |field: &str| field.starts_with('*') || field.starts_with('?');
    Ok(Schedule::Fields(Box::new(Fields {
        minutes: field(minutes, &MINUTE)?,
        hours: field(hours, &HOUR)?,
        days: field(days, &DAY)?,
        months: field(months, &MONTH)?,
        weekdays: field(weekdays, &WEEKDAY)?,
        any_day: !is_star(days) && !is_star(weekdays),
    })))
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, String> {
    text.split(',').filter(|part| !part.is_empty()).try_fold(0, |bits, part| Ok(bits | range(part, bounds)?))
}

/// `*`, `5`, `1-5`, each with `/step`.
fn range(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let (span, step) = match text.split_once('/') {
        None => (text, None),
        Some((span, step)) => (span, Some(number(step)?)),
    };
    let (low, high) = match span.split_once('-') {
        _ if span == "*" || span == "?" => (bounds.low, bounds.high),
        Some((low, high)) => (value(low, bounds)?, value(high, bounds)?),
        // `5/15` means from five to the end.
        None => (value(span, bounds)?, if step.is_some() { bounds.high } else { value(span, bounds)? }),
    };
    let step = step.unwrap_or(1);
    if low < bounds.low {
        return Err(format!("beginning of range ({low}) below minimum ({}): {text}", bounds.low));
    }
    if high > bounds.high {
        return Err(format!("end of range ({high}) above maximum ({}): {text}", bounds.high));
    }
    if low > high {
        return Err(format!("beginning of range ({low}) beyond end of range ({high}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok((low..=high).step_by(usize::try_from(step).unwrap_or(usize::MAX)).fold(0, |bits, at| bits | 1 << at))
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let word = bounds.words.iter().position(|word| text.eq_ignore_ascii_case(word));
    match word.and_then(|at| u32::try_from(at).ok()) {
        Some(at) => Ok(at + bounds.low),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("failed to parse int from {text}"))
}

/// `1h30m`, as Go writes it.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..digits].parse().ok()?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| digits + at);
        let seconds = match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "us" | "µs" => 0.000_001,
            "ns" => 0.000_000_001,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(amount * seconds).ok()?)?;
        rest = &rest[unit_end..];
    }
    Some(total)
}

/// The time zone of a name; an empty one is UTC. `Local` is refused, it means nothing to others.
#[must_use]
pub fn time_zone(name: &str) -> Option<TimeZone> {
    match name {
        "" => Some(TimeZone::UTC),
        _ if name.eq_ignore_ascii_case("local") => None,
        _ => TimeZoneDatabase::bundled().get(name).ok(),
    }
}

impl Schedule {
    /// The first time after `after`; none within five years is none.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(period) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*period).ok()
            }
            Self::Fields(fields) => fields.next(after, zone),
        }
    }
}

fn has(bits: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| bits & (1 << number) != 0)
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60) + 1;
        let mut at = Timestamp::from_second(minute * 60).ok()?.to_zoned(zone.clone());
        // Zones whose offset has seconds: begin with a whole minute of theirs.
        if at.second() != 0 {
            at = at.checked_add(Span::new().seconds(60 - i64::from(at.second()))).ok()?;
        }
        let last = at.year() + YEARS_MAX;
        while at.year() <= last {
            if !has(self.months, at.month()) {
                at = start_of_day(&at.first_of_month().ok()?.checked_add(1.month()).ok()?)?;
            } else if !self.has_day(&at) {
                at = start_of_day(&at.checked_add(1.day()).ok()?)?;
            } else if !has(self.hours, at.hour()) {
                let rest = 60 - i64::from(at.minute());
                at = at.checked_add(Span::new().minutes(rest)).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }

    fn has_day(&self, at: &Zoned) -> bool {
        let by_month = has(self.days, at.day());
        let by_week = has(self.weekdays, at.weekday().to_sunday_zero_offset());
        if self.any_day { by_month || by_week } else { by_month && by_week }
    }
}

/// The first moment of the day, which a change of the clocks may move.
fn start_of_day(at: &Zoned) -> Option<Zoned> {
    at.date().to_datetime(Clock::midnight()).to_zoned(at.time_zone().clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: &str, zone: &str, after: &str, expect: &[&str]) {
        let schedule = parse(schedule).expect("a schedule");
        let zone = time_zone(zone).expect("a zone");
        let mut at: Timestamp = after.parse().expect("a time");
        for expect in expect {
            at = schedule.next(at, &zone).expect("there is a next time");
            assert_eq!(at.to_string(), *expect, "{schedule:?}");
        }
    }

    #[test]
    fn next_times() {
        let after = "2026-01-30T10:07:31Z";
        check("*/15 * * * *", "", after, &["2026-01-30T10:15:00Z", "2026-01-30T10:30:00Z"]);
        check("5/20 * * * *", "", after, &["2026-01-30T10:25:00Z", "2026-01-30T10:45:00Z"]);
        check(
            "0 9-17/4 * * mon-fri",
            "",
            after,
            &["2026-01-30T13:00:00Z", "2026-01-30T17:00:00Z", "2026-02-02T09:00:00Z"],
        );
        check("0 0 29 FEB *", "", after, &["2028-02-29T00:00:00Z"]);
        check("0 0 1,15 * 1", "", after, &["2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z"]);
        check("@monthly", "", after, &["2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]);
        check("@weekly", "", after, &["2026-02-01T00:00:00Z"]);
        check("@every 1h30m", "", after, &["2026-01-30T11:37:31Z", "2026-01-30T13:07:31Z"]);
        check("30 8 * * *", "Europe/Berlin", after, &["2026-01-31T07:30:00Z"]);
        check("0 0 * * *", "Asia/Kolkata", after, &["2026-01-30T18:30:00Z"]);
    }

    #[test]
    fn changes_of_the_clocks() {
        // On 2026-03-29 there is no half past two in Berlin.
        check("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", &["2026-03-30T00:30:00Z"]);
        check("0 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", &["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]);
        check("@daily", "America/Sao_Paulo", "2018-11-03T12:00:00Z", &["2018-11-05T02:00:00Z"]);
    }

    #[test]
    fn what_is_no_schedule() {
        for (given, expect) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every day", "failed to parse duration @every day"),
        ] {
            assert_eq!(parse(given), Err(expect.to_owned()));
        }
        assert!(time_zone("Mars/Olympus").is_none() && time_zone("Local").is_none());
        let never = parse("0 0 30 2 *").expect("it is well formed");
        assert_eq!(never.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }
}

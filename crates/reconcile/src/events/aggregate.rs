//! Decides which writes a stream of notes costs: a repeated note raises a count, many similar ones become one Event.
//!
//! Pure: time comes in. The rules follow what client-go's event correlator shows users: same object, reason and
//! message count up; more than ten different messages of one reason about one object are combined.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{EventType, Note};
use crate::clock::elapsed;

/// Distinct Events remembered for counting; the oldest are forgotten (and would be created anew).
pub const REMEMBERED_MAX: usize = 4096;
/// Different messages of one reason about one object before they are combined.
pub const SIMILAR_MAX: usize = 10;
/// Time after which a quiet Event is not continued but created anew.
pub const WINDOW: Duration = Duration::from_secs(600);
/// Writes about one Event are at least this far apart once it repeats quickly.
pub const BUMP_INTERVAL: Duration = Duration::from_secs(1);

/// A write to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum EventWrite {
    Create { event: EventName, note: Note, at: Timestamp },
    Count { event: EventName, message: String, count: i32, at: Timestamp },
}

/// Where the Event lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventName {
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Series {
    namespace: String,
    kind: String,
    object: String,
    uid: String,
    field_path: String,
    event_type: EventType,
    reason: String,
    /// `None` for the combined Event of a reason.
    message: Option<String>,
}

#[derive(Debug)]
struct Seen {
    event: EventName,
    message: String,
    count: i32,
    /// Counted but not written yet.
    unwritten: bool,
    seen_at: Timestamp,
    written_at: Timestamp,
}

#[derive(Debug)]
struct Similar {
    since: Timestamp,
    messages: usize,
}

/// The memory of a recorder.
#[derive(Debug, Default)]
pub struct Aggregator {
    seen: HashMap<Series, Seen>,
    similar: HashMap<Series, Similar>,
}

impl Aggregator {
    /// Takes a note in; `None` when its count will be written later (`due`).
    pub fn on_note(&mut self, note: Note, now: Timestamp) -> Option<EventWrite> {
        let exact = Series::of(&note, Some(note.message.clone()));
        let series = if self.seen.contains_key(&exact) { exact } else { self.combined_or(exact, &note, now) };
        match self.seen.get_mut(&series) {
            Some(seen) if elapsed(seen.seen_at, now) < WINDOW => {
                seen.count = seen.count.saturating_add(1);
                seen.seen_at = now;
                seen.message = message_of(&series, &note);
                seen.unwritten = true;
                (elapsed(seen.written_at, now) >= BUMP_INTERVAL).then(|| seen.write(now))
            }
            _ => {
                self.make_room();
                let event = EventName::for_note(&note, now, self.seen.len());
                let message = message_of(&series, &note);
                let seen = Seen {
                    event: event.clone(),
                    message: message.clone(),
                    count: 1,
                    unwritten: false,
                    seen_at: now,
                    written_at: now,
                };
                self.seen.insert(series, seen);
                Some(EventWrite::Create { event, note: Note { message, ..note }, at: now })
            }
        }
    }

    /// Counts that have waited long enough.
    pub fn due(&mut self, now: Timestamp) -> Vec<EventWrite> {
        let ripe = |seen: &&mut Seen| seen.unwritten && elapsed(seen.written_at, now) >= BUMP_INTERVAL;
        self.seen.values_mut().filter(ripe).map(|seen| seen.write(now)).collect()
    }

    /// Whether `due` will have something later.
    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        self.seen.values().any(|seen| seen.unwritten)
    }

    /// The Event vanished (its time to live ended, its namespace went): count it from one again.
    pub fn forget(&mut self, event: &EventName) {
        self.seen.retain(|_, seen| seen.event != *event);
    }

    fn combined_or(&mut self, exact: Series, note: &Note, now: Timestamp) -> Series {
        let group = Series::of(note, None);
        if self.similar.len() >= REMEMBERED_MAX {
            self.similar.retain(|_, similar| elapsed(similar.since, now) < WINDOW);
            if self.similar.len() >= REMEMBERED_MAX {
                self.similar.clear();
            }
        }
        let similar = self.similar.entry(group.clone()).or_insert(Similar { since: now, messages: 0 });
        if elapsed(similar.since, now) >= WINDOW {
            *similar = Similar { since: now, messages: 0 };
        }
        similar.messages += 1;
        if similar.messages > SIMILAR_MAX { group } else { exact }
    }

    fn make_room(&mut self) {
        if self.seen.len() < REMEMBERED_MAX {
            return;
        }
        let mut times: Vec<_> = self.seen.values().map(|seen| seen.seen_at).collect();
        times.sort_unstable();
        let middle = times[times.len() / 2];
        self.seen.retain(|_, seen| seen.seen_at > middle || seen.unwritten);
        if self.seen.len() >= REMEMBERED_MAX {
            self.seen.clear();
        }
    }
}

impl Seen {
    fn write(&mut self, now: Timestamp) -> EventWrite {
        self.unwritten = false;
        self.written_at = now;
        let Self { event, message, count, seen_at, .. } = self;
        EventWrite::Count { event: event.clone(), message: message.clone(), count: *count, at: *seen_at }
    }
}

impl Series {
    fn of(note: &Note, message: Option<String>) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self {
            namespace: text(&note.regarding.namespace),
            kind: text(&note.regarding.kind),
            object: text(&note.regarding.name),
            uid: text(&note.regarding.uid),
            field_path: text(&note.regarding.field_path),
            event_type: note.event_type,
            reason: note.reason.clone(),
            message,
        }
    }
}

impl EventName {
    /// Kubernetes' form: object name, dot, time in hexadecimal; `nth` separates Events of the same instant.
    fn for_note(note: &Note, now: Timestamp, nth: usize) -> Self {
        let namespace = note.regarding.namespace.clone().filter(|namespace| !namespace.is_empty());
        let object = note.regarding.name.as_deref().unwrap_or("unknown");
        let instant = now.as_nanosecond().unsigned_abs() as u64;
        Self {
            namespace: namespace.unwrap_or_else(|| "default".to_owned()),
            name: format!("{object}.{:x}", instant.wrapping_add(nth as u64)),
        }
    }
}

fn message_of(series: &Series, note: &Note) -> String {
    match series.message {
        Some(_) => note.message.clone(),
        None => format!("(combined from similar events): {}", note.message),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    fn note(object: &str, message: &str) -> Note {
        let regarding = ObjectReference {
            kind: Some("Pod".into()),
            name: Some(object.into()),
            namespace: Some("web".into()),
            ..Default::default()
        };
        Note { regarding, event_type: EventType::Warning, reason: "Failed".into(), message: message.into() }
    }

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(millisecond).expect("a small number of milliseconds is a time")
    }

    #[test]
    fn repeats_count_and_quick_repeats_are_written_together() {
        let mut aggregator = Aggregator::default();
        assert!(matches!(aggregator.on_note(note("a", "no"), at(0)), Some(EventWrite::Create { .. })));
        assert_eq!(aggregator.on_note(note("a", "no"), at(100)), None);
        assert_eq!(aggregator.on_note(note("a", "no"), at(200)), None);
        assert!(aggregator.has_unwritten());
        assert!(aggregator.due(at(900)).is_empty());
        let due = aggregator.due(at(1000));
        assert!(matches!(&due[..], [EventWrite::Count { count: 3, .. }]), "{due:?}");
        assert!(!aggregator.has_unwritten());
        assert!(matches!(aggregator.on_note(note("a", "no"), at(9000)), Some(EventWrite::Count { count: 4, .. })));
    }

    #[test]
    fn other_objects_and_messages_are_other_events() {
        let mut aggregator = Aggregator::default();
        let mut names = std::collections::HashSet::new();
        for (object, message) in [("a", "no"), ("b", "no"), ("a", "never")] {
            match aggregator.on_note(note(object, message), at(0)) {
                Some(EventWrite::Create { event, .. }) => assert!(names.insert(event)),
                other => panic!("{object} {message}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_eleventh_similar_message_is_combined() {
        let mut aggregator = Aggregator::default();
        let mut created = Vec::new();
        for n in 0..100 {
            match aggregator.on_note(note("a", &format!("created {n}")), at(n)) {
                Some(EventWrite::Create { note, .. }) => created.push(note.message),
                Some(EventWrite::Count { .. }) | None => {}
            }
        }
        assert_eq!(created.len(), 11);
        assert_eq!(created[10], "(combined from similar events): created 10");
        let due = aggregator.due(at(2000));
        assert!(matches!(&due[..], [EventWrite::Count { count: 90, message, .. }] if message.ends_with("created 99")));
    }

    #[test]
    fn a_forgotten_or_old_event_is_created_anew() {
        let mut aggregator = Aggregator::default();
        let Some(EventWrite::Create { event, .. }) = aggregator.on_note(note("a", "no"), at(0)) else { panic!() };
        aggregator.forget(&event);
        assert!(matches!(aggregator.on_note(note("a", "no"), at(1)), Some(EventWrite::Create { .. })));
        assert!(matches!(aggregator.on_note(note("a", "no"), at(700_000)), Some(EventWrite::Create { .. })));
    }

    #[test]
    fn memory_is_bounded() {
        let mut aggregator = Aggregator::default();
        for n in 0..(2 * REMEMBERED_MAX as i64 + 10) {
            aggregator.on_note(note(&format!("pod-{n}"), "no"), at(n));
        }
        assert!(aggregator.seen.len() <= REMEMBERED_MAX);
        assert!(aggregator.similar.len() <= REMEMBERED_MAX);
    }
}

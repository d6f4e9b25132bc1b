//! Events for people: `Recorder` takes notes without ever blocking; one task writes them as core/v1 Events.
//!
//! Events are best effort: when the queue is full, or the server refuses one, it is dropped and counted.

mod aggregate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::aggregate::{Aggregator, BUMP_INTERVAL, EventName, EventWrite};

/// Notes that may wait to be written.
pub const QUEUE_MAX: usize = 4096;
/// Longest message, as Kubernetes has it.
pub const MESSAGE_BYTES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// An Event before it is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub regarding: ObjectReference,
    pub event_type: EventType,
    /// CamelCase, for machines.
    pub reason: String,
    /// A sentence, for people.
    pub message: String,
}

impl Note {
    #[must_use]
    pub fn normal<K: Resource<DynamicType = ()>>(object: &K, reason: &str, message: impl Into<String>) -> Self {
        Self {
            regarding: reference(object),
            event_type: EventType::Normal,
            reason: reason.into(),
            message: message.into(),
        }
    }

    #[must_use]
    pub fn warning<K: Resource<DynamicType = ()>>(object: &K, reason: &str, message: impl Into<String>) -> Self {
        Self { event_type: EventType::Warning, ..Self::normal(object, reason, message) }
    }
}

/// The reference an Event holds to a typed object.
#[must_use]
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// Handle to the writer of one component's Events; cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    notes: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Starts the writer. `component` is the Event's source, `host` the node it ran on (empty for control loops).
    #[must_use]
    pub fn spawn(
        client: Client,
        component: &str,
        host: &str,
        tracker: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let (notes, inbox) = mpsc::channel(QUEUE_MAX);
        let source = EventSource {
            component: Some(component.to_owned()),
            host: Some(host.to_owned()).filter(|host| !host.is_empty()),
        };
        let worker = RecorderWorker { client, source, aggregator: Aggregator::default() };
        tracker.spawn(worker.run(inbox, shutdown));
        Self { notes, dropped: Arc::default() }
    }

    /// A recorder whose notes come out of the receiver, for tests.
    #[must_use]
    pub fn to_channel() -> (Self, mpsc::Receiver<Note>) {
        let (notes, inbox) = mpsc::channel(QUEUE_MAX);
        (Self { notes, dropped: Arc::default() }, inbox)
    }

    /// Hands a note over; drops it when the writer is far behind.
    pub fn record(&self, mut note: Note) {
        if note.message.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX - 3).rev().find(|end| note.message.is_char_boundary(*end)).unwrap_or(0);
            note.message.truncate(end);
            note.message.push_str("...");
        }
        if self.notes.try_send(note).is_err() && self.dropped.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tracing::warn!(queue_max = QUEUE_MAX, "Events are dropped: more are made than the API server takes");
        }
    }

    pub fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, message: impl Into<String>) {
        self.record(Note::normal(object, reason, message));
    }

    pub fn warning<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, message: impl Into<String>) {
        self.record(Note::warning(object, reason, message));
    }

    /// Notes lost so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

struct RecorderWorker {
    client: Client,
    source: EventSource,
    aggregator: Aggregator,
}

impl RecorderWorker {
    async fn run(mut self, mut inbox: mpsc::Receiver<Note>, shutdown: CancellationToken) {
        loop {
            let waiting = self.aggregator.has_unwritten();
            tokio::select! {
                () = shutdown.cancelled() => return,
                note = inbox.recv() => match note {
                    None => return,
                    Some(note) => {
                        if let Some(write) = self.aggregator.on_note(note, Timestamp::now()) {
                            self.write(write).await;
                        }
                    }
                },
                () = tokio::time::sleep(BUMP_INTERVAL), if waiting => {
                    for write in self.aggregator.due(Timestamp::now()) {
                        self.write(write).await;
                    }
                }
            }
        }
    }

    async fn write(&mut self, write: EventWrite) {
        let (event, result) = match write {
            EventWrite::Create { event, note, at } => {
                let api: Api<Event> = Api::namespaced(self.client.clone(), &event.namespace);
                let object = new_event(&event, note, at, &self.source);
                (event, api.create(&PostParams::default(), &object).await)
            }
            EventWrite::Count { event, message, count, at } => {
                let api: Api<Event> = Api::namespaced(self.client.clone(), &event.namespace);
                let patch = json!({ "count": count, "lastTimestamp": Time(at), "message": message });
                let result = api.patch(&event.name, &PatchParams::default(), &Patch::Merge(patch)).await;
                (event, result)
            }
        };
        if let Err(error) = result {
            tracing::debug!(event = %event.name, namespace = %event.namespace, %error, "writing an Event failed");
            self.aggregator.forget(&event);
        }
    }
}

fn new_event(event: &EventName, note: Note, at: Timestamp, source: &EventSource) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(event.name.clone()),
            namespace: Some(event.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: note.regarding,
        type_: Some(note.event_type.as_str().to_owned()),
        reason: Some(note.reason),
        message: Some(note.message),
        count: Some(1),
        first_timestamp: Some(Time(at)),
        last_timestamp: Some(Time(at)),
        event_time: None::<MicroTime>,
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        source: Some(source.clone()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let (recorder, mut inbox) = Recorder::to_channel();
        recorder.warning(&Pod::default(), "Failed", "ä".repeat(MESSAGE_BYTES_MAX));
        let note = inbox.try_recv().expect("the note was handed over");
        assert!(note.message.len() <= MESSAGE_BYTES_MAX && note.message.ends_with("ä..."));
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (recorder, _inbox) = Recorder::to_channel();
        for _ in 0..QUEUE_MAX + 3 {
            recorder.normal(&Pod::default(), "Started", "again");
        }
        assert_eq!(recorder.dropped(), 3);
    }
}

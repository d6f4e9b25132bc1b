//! What a controller remembers of its own writes until its caches show them, and of the last refusal.
//!
//! The loop waits for the caches after each plan, but not forever; with this a stale view neither creates a pod a
//! second time nor counts one twice.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use reconcile::clock::elapsed;
use reconcile::pod::Pod;
use reconcile::{ApiAction, ObjectKey, Outcome, PatchBody, Plan};

/// After this time an unseen creation counts as created and gone.
const UNSEEN_MAX: Duration = Duration::from_secs(60);

/// The last attempt's failure, for conditions and for the order of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
}

/// What is remembered for one key.
#[derive(Clone, Debug, Default)]
pub struct Recalled {
    /// Uids of pods that were deleted and are shown as running.
    pub deleted: HashSet<String>,
    /// Uids of pods whose finalizer was removed (the only strategic patch there is), whatever the cache shows.
    pub patched: HashSet<String>,
    /// Pods that were created and are not shown yet.
    pub unseen: usize,
    pub failure: Option<Failure>,
}

#[derive(Debug, Default)]
struct Entry {
    deleted: HashSet<String>,
    patched: HashSet<String>,
    created: HashMap<String, Timestamp>,
    failure: Option<Failure>,
}

/// The memory of one controller.
#[derive(Debug, Default)]
pub struct Memory {
    entries: Mutex<HashMap<ObjectKey, Entry>>,
}

impl Memory {
    pub fn forget(&self, key: &ObjectKey) {
        self.entries().remove(key);
    }

    /// What still matters in the light of `shown`, the pods of the key.
    pub fn recall(&self, key: &ObjectKey, shown: &[Arc<Pod>], now: Timestamp) -> Recalled {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else { return Recalled::default() };
        let shown: HashSet<&str> = shown.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        entry.deleted.retain(|uid| shown.contains(uid.as_str()));
        entry.patched.retain(|uid| shown.contains(uid.as_str()));
        entry.created.retain(|uid, at| !shown.contains(uid.as_str()) && elapsed(*at, now) < UNSEEN_MAX);
        Recalled {
            deleted: entry.deleted.clone(),
            patched: entry.patched.clone(),
            unseen: entry.created.len(),
            failure: entry.failure.clone(),
        }
    }

    /// Notes what became of `plan`.
    pub fn executed(&self, key: &ObjectKey, plan: &Plan, outcome: &Outcome, now: Timestamp) {
        let mut entries = self.entries();
        let entry = entries.entry(key.clone()).or_default();
        for applied in outcome.applied.iter().filter(|applied| applied.resource == "pods") {
            match plan.actions.get(applied.index) {
                Some(ApiAction::Create { .. }) => drop(entry.created.insert(applied.uid.clone(), now)),
                Some(ApiAction::Delete { uid: Some(uid), .. }) => drop(entry.deleted.insert(uid.clone())),
                Some(ApiAction::Patch { body: PatchBody::Strategic(_), .. }) => {
                    entry.patched.insert(applied.uid.clone());
                }
                _ => {}
            }
        }
        let writes = |action: &ApiAction| matches!(action, ApiAction::Create { .. } | ApiAction::Delete { .. });
        if let Some(error) = outcome.failed.iter().find(|error| !error.is_lost_race()) {
            entry.failure = Some(Failure { message: error.cause() });
        } else if plan.actions.iter().any(writes) {
            entry.failure = None;
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ObjectKey, Entry>> {
        self.entries.lock().expect("no holder of this lock can panic")
    }
}

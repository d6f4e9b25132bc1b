//! Keeps what is registered in step with the store: one task owns it, requests read a published value.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use store::{Change, Revision, Store, WatchEvent};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::registered::{Registered, Registrations};
use crate::core::Snapshot;
use crate::follow::{Follower, follow};
use crate::object::encode::decode;
use crate::object::facets::ObjectFacets;
use crate::reach::Dialer;

const PREFIX: &str = "/registry/admissionregistration.k8s.io/";
/// How long the writer of a registration waits for it to be in force.
const IN_FORCE: Duration = Duration::from_secs(5);

/// Reads what is registered.
#[derive(Clone)]
pub struct HooksHandle {
    published: Arc<ArcSwap<Registered>>,
    seen: watch::Receiver<Revision>,
}

impl HooksHandle {
    pub fn current(&self) -> Guard<Arc<Registered>> {
        self.published.load()
    }

    /// Returns when what was registered at this revision is in force here, or the task ended, or it takes too long:
    /// the registration is written in any case.
    pub async fn reached(&self, revision: Revision) {
        let mut seen = self.seen.clone();
        // An error means that the task ended with the server; nobody waits for it then.
        let _ = tokio::time::timeout(IN_FORCE, seen.wait_for(|seen| *seen >= revision)).await;
    }
}

/// Compiles what is stored and starts its upkeep.
pub fn spawn_hooks_upkeep(store: Store<ObjectFacets>, dialer: Dialer, shutdown: CancellationToken) -> HooksHandle {
    let view = store.view();
    let registrations = build(&view, &dialer);
    let published = Arc::new(ArcSwap::from_pointee(registrations.registered()));
    let (sender, seen) = watch::channel(view.revision());
    let worker =
        HooksWorker { store: store.clone(), dialer, registrations, published: published.clone(), seen: sender };
    tokio::spawn(shutdown.run_until_cancelled_owned(follow(store, view.revision(), worker)));
    HooksHandle { published, seen }
}

fn build(view: &Snapshot, dialer: &Dialer) -> Registrations {
    let mut registrations = Registrations::default();
    for entry in view.range(PREFIX.as_bytes(), None) {
        registrations.put(&entry.key, &decode(&entry.value), dialer);
    }
    registrations
}

struct HooksWorker {
    store: Store<ObjectFacets>,
    dialer: Dialer,
    registrations: Registrations,
    published: Arc<ArcSwap<Registered>>,
    seen: watch::Sender<Revision>,
}

impl Follower for HooksWorker {
    const PREFIX: &'static str = PREFIX;
    const FELL_BEHIND: &'static str = "admission hooks fell behind, reading them anew";

    fn read(&mut self) -> Revision {
        let view = self.store.view();
        self.registrations = build(&view, &self.dialer);
        self.publish(view.revision());
        view.revision()
    }

    fn take(&mut self, event: &WatchEvent<ObjectFacets>) {
        match &event.change {
            Change::Put { entry, .. } => self.registrations.put(&entry.key, &decode(&entry.value), &self.dialer),
            Change::Delete { previous } => self.registrations.remove(&previous.key),
        }
        self.publish(event.revision);
    }
}

impl HooksWorker {
    fn publish(&self, revision: Revision) {
        self.published.store(Arc::new(self.registrations.registered()));
        self.seen.send_replace(revision);
    }
}

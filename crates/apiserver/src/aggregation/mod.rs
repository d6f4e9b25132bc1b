//! API groups that others serve: extension API servers that an APIService names, behind this one.
//!
//! ```text
//! APIService ─► upkeep ─► remotes (who serves what)          a request loads a pointer
//!                 └► probe, one task for each: may it be asked? what does it serve?   ─► condition, discovery, OpenAPI
//! request ─► authorized here ─► forward ─► the extension server, told who asks
//! ```
//!
//! Owns: all of that, and the APIServices of groups that users define (`registrations`). Follows kube-aggregator
//! (`pkg/apiserver/{handler_proxy,handler_discovery}.go`, `pkg/controllers/status`).
//! May not know: what the objects of those groups mean.

mod availability;
mod documents;
pub mod forward;
pub mod front_proxy;
mod identity_headers;
mod probe;
mod registrations;
mod remotes;
pub mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use api::custom::Catalog;
use api::openapi::v2::Document;
use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use store::Revision;
use tokio::sync::watch;

pub use identity_headers::HeaderNames;
pub use remotes::{Remote, Remotes};

/// The group of the registrations.
pub const GROUP: &str = "apiregistration.k8s.io";
const PREFIX: &str = "/registry/apiregistration.k8s.io/apiservices/";
/// How long the writer of a registration waits for it to be in force.
const IN_FORCE: Duration = Duration::from_secs(5);

/// What requests look at.
pub struct Aggregation {
    remotes: ArcSwap<Remotes>,
    seen: watch::Sender<Revision>,
    v2: ArcSwapOption<Merged>,
}

/// The OpenAPI v2 document of this server and the others, and what it was made of.
struct Merged {
    catalog: Arc<Catalog>,
    remotes: Arc<Remotes>,
    generation: u64,
    document: Document,
}

impl Default for Aggregation {
    fn default() -> Self {
        Self { remotes: ArcSwap::default(), seen: watch::Sender::new(Revision(0)), v2: ArcSwapOption::default() }
    }
}

impl Aggregation {
    pub fn current(&self) -> Guard<Arc<Remotes>> {
        self.remotes.load()
    }

    /// Who serves a group version, if it is not this server.
    pub fn find(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        self.remotes.load().find(group, version).cloned()
    }

    /// As `HooksHandle::reached`.
    pub async fn reached(&self, revision: Revision) {
        let mut seen = self.seen.subscribe();
        let _ = tokio::time::timeout(IN_FORCE, seen.wait_for(|seen| *seen >= revision)).await;
    }

    /// OpenAPI v2 of everything.
    pub fn v2(&self, catalog: &Arc<Catalog>) -> Document {
        let remotes = self.remotes.load_full();
        let generation = remotes.generation();
        if remotes.is_empty() {
            return catalog.v2().clone();
        }
        if let Some(made) = &*self.v2.load()
            && Arc::ptr_eq(&made.catalog, catalog)
            && Arc::ptr_eq(&made.remotes, &remotes)
            && made.generation == generation
        {
            return made.document.clone();
        }
        let document = catalog.v2_with(remotes.definitions());
        let made = Merged { catalog: catalog.clone(), remotes, generation, document: document.clone() };
        self.v2.store(Some(Arc::new(made)));
        document
    }
}

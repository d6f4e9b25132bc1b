//! What all requests together do to this server: how many may be in work, what they were, who asked.
//!
//! Owns: the levels of priority and their queues, the metrics, the audit log. May not know: what a request means.

pub mod annotations;
pub mod audit;
pub mod levels;
pub mod metrics;
pub mod schema;
mod seats;
mod upkeep;
pub mod watches;

use std::sync::Arc;
use std::time::Duration;

use api::kinds::Kind;
use api::status::Status;
use arc_swap::ArcSwap;
use store::Store;

use crate::config::ApiServerConfig;
use crate::identity::UserInfo;
use crate::object::facets::ObjectFacets;
use annotations::Annotations;
use audit::{Arrived, AuditLog};
use levels::{Levels, Seat};
use metrics::{InFlight, Metrics};
use schema::Asked;
use watches::Watches;

/// Shared by all requests.
pub struct Traffic {
    pub levels: Arc<ArcSwap<Levels>>,
    pub metrics: Metrics,
    pub watches: Arc<Watches>,
    audit: Option<AuditLog>,
}

/// The right to be worked on.
pub struct Admitted {
    _seat: Seat,
    _in_flight: InFlight,
}

impl Traffic {
    /// Starts what keeps the levels in step with the store.
    pub fn open(store: Store<ObjectFacets>, config: &ApiServerConfig) -> Self {
        Self {
            levels: upkeep::spawn_upkeep(store, config.shutdown.clone()),
            metrics: Metrics::default(),
            watches: Arc::default(),
            audit: config.audit.clone(),
        }
    }

    /// Waits for a seat, or says that there is none: 429.
    pub async fn admit(&self, asked: &Asked<'_>) -> Result<Admitted, Status> {
        let levels = self.levels.load_full();
        let place = levels.place(asked);
        let (schema, level) = levels.names(place);
        match levels.seat(place).await {
            Ok(seat) => {
                self.metrics.dispatched(schema, level);
                let is_write = !matches!(asked.verb, "get" | "list" | "watch");
                Ok(Admitted { _seat: seat, _in_flight: self.metrics.in_flight(is_write) })
            }
            Err(no_seat) => {
                self.metrics.rejected(schema, level, no_seat.reason());
                Err(Status::too_many_requests("too many requests, please try again later", 1))
            }
        }
    }

    /// Counts a request that was answered, and logs it.
    pub async fn answered(&self, arrived: Option<Arrived>, record: &Record, outcome: Outcome) {
        let is_long_running = record.is_long_running && outcome.code < 400;
        self.metrics.answered(record, outcome, is_long_running);
        if let (Some(audit), Some(arrived)) = (&self.audit, arrived)
            && let Some(was_taken) = audit.log(arrived, record, outcome, is_long_running).await
        {
            self.metrics.audited(was_taken);
        }
    }

    pub fn is_audited(&self) -> bool {
        self.audit.is_some()
    }
}

/// What is known of a request at its end. It is filled on the way.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// As authenticated.
    pub user: Option<UserInfo>,
    /// Whom the user acts as.
    pub impersonated: Option<UserInfo>,
    /// `get` … of a resource, the method of anything else.
    pub verb: &'static str,
    /// None for paths that are no resources, and for resources that there are not.
    pub kind: Option<&'static Kind>,
    pub subresource: &'static str,
    /// Of the path, and what it names; empty for what it leaves out.
    pub group: String,
    pub version: String,
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub is_allowed: bool,
    pub annotations: Annotations,
    /// A watch or a connection: it is told of when its answer begins.
    pub is_long_running: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub code: u16,

    pub took: Duration,
}

/// Subresources by name, so that what a client writes into a path is never a label.
pub fn known_subresource(name: &str) -> &'static str {
    const KNOWN: [&str; 20] = [
        "approval",
        "attach",
        "binding",
        "entries",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "finalize",
        "invoke",
        "log",
        "portforward",
        "proxy",
        "resize",
        "scale",
        "status",
        "token",
        "usage",
        "watch",
        "",
        "approve",
    ];
    KNOWN.into_iter().find(|known| *known == name).unwrap_or("other")
}

//! What every control loop shares: a cache fed by a watch (`reflector`), a keyed queue with backoff
//! (`work_queue`), a plan as a value (`action`), one executor of plans (`execute`), Events that count instead of
//! flooding (`events`), and the loop which joins them (`controller`).
//!
//! A loop is `observe → plan → execute`: observing reads caches, planning is pure, executing makes no choice.
//! This crate knows the Kubernetes API as a client sees it; it knows no controller, no store and no node.

pub mod action;
pub mod backoff;
pub mod clock;
pub mod controller;
pub mod events;
pub mod execute;
pub mod head;
pub mod pod;
pub mod reflector;
pub mod work_queue;

pub use action::{ApiAction, Narration, PatchBody, Plan, Propagation, Target};
pub use backoff::{Backoff, BackoffLimits};
pub use clock::{Clock, ManualClock, SystemClock};
pub use controller::{Controller, ObserveError, spawn_controller};
pub use events::{EventType, Note, Recorder};
pub use execute::{ActionError, Applied, Executor, Outcome};
pub use reflector::{Cache, Change, Freshness, ObjectKey, Reflector, Snapshot};
pub use work_queue::WorkQueue;

/// The cancellation token every spawned loop of Knarr takes; re-exported so that callers agree on its version.
pub use tokio_util::sync::CancellationToken;
pub use tokio_util::task::TaskTracker;

//! The states that a write is decided on, one after another.
//!
//! Owns: how often, and how new each has to be. A member that does not lead may lack what others have
//! acknowledged. A decision that becomes a transaction may rest on that all the same, because its guards are
//! checked where it is applied. An answer that writes nothing (a refusal, "unchanged", a dry run) has no guards,
//! so it counts only on a state that is at least as new as the request.
//! May not know: what is decided.

use api::status::Status;

use crate::core::{Core, Request, Snapshot};

/// How often a write is decided anew because something it was based on changed meanwhile.
const ATTEMPTS_MAX: usize = 16;
/// From here on a status says what happened to the request, and not what the request met.
const FIRST_SERVER_CODE: u16 = 500;

pub struct Attempts<'a> {
    core: &'a Core,
    left: usize,
    /// The states are at least as new as the request.
    fresh: bool,
}

impl<'a> Attempts<'a> {
    pub fn new(core: &'a Core) -> Self {
        Self { core, left: ATTEMPTS_MAX, fresh: false }
    }

    /// The state to decide on now; `None` when it was tried often enough.
    pub fn next(&mut self) -> Option<Snapshot> {
        self.left = self.left.checked_sub(1)?;
        Some(self.core.store.view())
    }

    /// Whether the last state was new enough for an answer that writes nothing. If not, the next one is.
    pub async fn suffices(&mut self) -> Result<bool, Status> {
        let sufficed = self.fresh;
        if !sufficed {
            self.core.fresh().await?;
            self.fresh = true;
        }
        Ok(sufficed)
    }

    /// The last decision was a refusal: given as an error when it is final.
    pub async fn refused(&mut self, status: Status) -> Result<(), Status> {
        // A transaction whose fate is not known is never tried again.
        if status.code >= FIRST_SERVER_CODE || self.suffices().await? { Err(status) } else { Ok(()) }
    }
}

/// The object is written faster by others than this request can follow.
pub fn busy(request: &Request) -> Status {
    let subject = request.subject();
    tracing::warn!(resource = subject.resource, name = subject.name, "gave up after {ATTEMPTS_MAX} lost races");
    Status::stale(&subject)
}

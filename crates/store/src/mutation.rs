//! Bugs on demand, to see whether the simulation finds them. Without the feature `mutations`, which only the
//! simulation asks for, nothing can switch one on and nothing of it is compiled.

use crate::types::MemberId;

/// A bug of a kind that consensus libraries and their users had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// An append is reported before it is durable, as if a quorum had it.
    AppendReportedEarly,
    /// A snapshot is installed and the membership that came with it is not.
    SnapshotWithoutMembership,
    /// This member applies some transactions otherwise than the others.
    ApplyDiverges(MemberId),
}

#[cfg(feature = "mutations")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// From here on members on this thread have this bug, or none.
#[cfg(feature = "mutations")]
pub fn mutate(mutation: Option<Mutation>) {
    ACTIVE.set(mutation);
}

#[cfg(feature = "mutations")]
pub(crate) fn is_active(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}

#[cfg(not(feature = "mutations"))]
pub(crate) fn is_active(_: Mutation) -> bool {
    false
}

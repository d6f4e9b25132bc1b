//! Which member ids were ever given out: part of the replicated state, and pure. An id is used once. Two disks
//! under one id could form two majorities, so that an emptied disk comes back under a new one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Ids given to members that have not joined yet. Beyond that the oldest is given up, and never used.
const RESERVED_MAX: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registry {
    /// Every id up to here was reserved or was in a membership.
    newest: u64,
    reserved: BTreeSet<u64>,
}

/// What may be done with an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdState {
    /// Given out, and no member yet.
    Reserved,
    /// A member, or once one, or given up.
    Used,
    /// Never given out.
    Unknown,
}

impl Registry {
    pub fn reserve(&mut self) -> u64 {
        self.newest += 1;
        self.reserved.insert(self.newest);
        if self.reserved.len() > RESERVED_MAX {
            self.reserved.pop_first();
        }
        self.newest
    }

    /// These ids are in a membership.
    pub fn saw(&mut self, members: impl IntoIterator<Item = u64>) {
        for id in members {
            self.newest = self.newest.max(id);
            self.reserved.remove(&id);
        }
    }

    /// Every id up to here was given out or seen.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    pub fn state_of(&self, id: u64) -> IdState {
        match id {
            id if self.reserved.contains(&id) => IdState::Reserved,
            id if id <= self.newest => IdState::Used,
            _ => IdState::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_used_once() {
        let mut registry = Registry::default();
        registry.saw([1]);
        assert_eq!([registry.reserve(), registry.reserve()], [2, 3]);
        assert_eq!([0, 1, 2, 3, 4].map(|id| registry.state_of(id)), {
            use IdState::{Reserved, Unknown, Used};
            [Used, Used, Reserved, Reserved, Unknown]
        });
        registry.saw([1, 3]);
        registry.saw([1]);
        assert_eq!(registry.state_of(3), IdState::Used, "a member that was removed");
        assert_eq!(registry.reserve(), 4);
        registry.saw([9]);
        assert_eq!(registry.reserve(), 10, "also after ids that came from elsewhere");
    }

    #[test]
    fn reservations_are_limited_and_those_given_up_stay_used() {
        let mut registry = Registry::default();
        for id in 1..=RESERVED_MAX as u64 + 2 {
            assert_eq!(registry.reserve(), id);
        }
        assert_eq!([1, 2, 3].map(|id| registry.state_of(id)), [IdState::Used, IdState::Used, IdState::Reserved]);
    }
}

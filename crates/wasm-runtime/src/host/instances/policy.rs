//! Which instance takes a request, and when one has had enough. Pure.

use crate::protocol::Reuse;

/// An instance that holds more memory than it began with takes no more requests when the difference is this part of
/// its container's limit. A fresh one begins small again.
const GROWTH_PART: u64 = 4;
/// Instances that wait for requests on one thread for one container.
pub const IDLE_MAX: usize = 8;

/// What is known of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests it was ever given.
    pub begun: usize,
    /// Those that have no answer yet.
    pub running: usize,
    /// Memory beyond what it held after its first request.
    pub grown_bytes: u64,
    /// It computes and would not come to another request, or it has said that it takes none now.
    pub is_busy: bool,
    /// A request ran out of time in it, or it ends.
    pub is_retired: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    Yes,
    /// Not now.
    Later,
    /// Not any more.
    Never,
}

pub fn take(reuse: &Reuse, memory_limit_bytes: u64, load: &Load) -> Take {
    if load.is_retired || load.begun >= reuse.requests || load.grown_bytes > memory_limit_bytes / GROWTH_PART {
        Take::Never
    } else if load.is_busy || load.running >= reuse.at_once {
        Take::Later
    } else {
        Take::Yes
    }
}

/// The one with the most to do of those that take more: so that few are needed, and the others run out of time.
pub fn choose(reuse: &Reuse, memory_limit_bytes: u64, loads: impl Iterator<Item = Load>) -> Option<usize> {
    let willing = loads.enumerate().filter(|(_, load)| take(reuse, memory_limit_bytes, load) == Take::Yes);
    willing.max_by_key(|(_, load)| (load.running, load.begun)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 400;

    fn reuse() -> Reuse {
        Reuse { requests: 10, at_once: 2, idle_ms: 1000 }
    }

    fn load(begun: usize, running: usize) -> Load {
        Load { begun, running, ..Load::default() }
    }

    #[test]
    fn an_instance_takes_requests_until_it_has_had_enough() {
        let check = |load: Load, expect: Take| assert_eq!(take(&reuse(), LIMIT, &load), expect, "{load:?}");
        check(load(0, 0), Take::Yes);
        check(load(9, 1), Take::Yes);
        check(load(9, 2), Take::Later);
        check(load(10, 0), Take::Never);
        check(Load { is_busy: true, ..load(1, 1) }, Take::Later);
        check(Load { is_retired: true, ..load(1, 1) }, Take::Never);
        check(Load { grown_bytes: 100, ..load(1, 0) }, Take::Yes);
        check(Load { grown_bytes: 101, ..load(1, 0) }, Take::Never);
        let fresh = Reuse { requests: 1, at_once: 1, idle_ms: 0 };
        assert_eq!(take(&fresh, LIMIT, &load(1, 1)), Take::Never);
    }

    #[test]
    fn the_fullest_that_has_room_is_chosen() {
        let check = |loads: &[Load], expect: Option<usize>| {
            assert_eq!(choose(&reuse(), LIMIT, loads.iter().copied()), expect, "{loads:?}");
        };
        check(&[], None);
        check(&[load(0, 0), load(3, 1), load(5, 2)], Some(1));
        check(&[load(2, 0), load(4, 0), load(10, 0)], Some(1));
        check(&[load(5, 2), Load { is_busy: true, ..load(1, 1) }], None);
    }
}

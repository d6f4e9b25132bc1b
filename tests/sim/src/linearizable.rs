//! Is there one order of all operations on a register that respects who had ended before whom and explains every
//! answer? The search of Wing and Gong with the memory of Lowe: operations are tried as the next one, and a set of
//! done operations with a value is never tried twice.

use std::collections::HashSet;

/// Values are numbers, each written once. 0 is the absence of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Write(u32),
    Read(u32),
    /// `swapped`: `None` when the answer was lost.
    Swap {
        from: u32,
        to: u32,
        swapped: Option<bool>,
    },
}

/// Moments are counted over all operations, so no two are the same.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub action: Action,
    pub invoked: u64,
    /// `None`: nobody knows whether it was done; it may be, at any time or never.
    pub returned: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    NotLinearizable,
    /// The search was given up.
    Undecided,
}

/// Sets of done operations that are looked at.
const STATES_MAX: usize = 500_000;

/// The value after the action, if it can have been the next one.
fn next(action: Action, value: u32) -> Option<u32> {
    match action {
        Action::Write(to) => Some(to),
        Action::Read(seen) => (seen == value).then_some(value),
        Action::Swap { from, to, swapped: Some(true) } => (from == value).then_some(to),
        Action::Swap { from, swapped: Some(false), .. } => (from != value).then_some(value),
        Action::Swap { from, to, swapped: None } => Some(if from == value { to } else { value }),
    }
}

type Done = Vec<u64>;

fn has(done: &Done, at: usize) -> bool {
    done[at / 64] & (1 << (at % 64)) != 0
}

pub fn check(operations: &[Operation]) -> Verdict {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| operation.invoked);
    let known = operations.iter().filter(|operation| operation.returned.is_some()).count();
    let mut seen: HashSet<(Done, u32)> = HashSet::new();
    let mut open = vec![(vec![0; operations.len().div_ceil(64)], 0, 0)];
    while let Some((done, value, count)) = open.pop() {
        if count == known {
            return Verdict::Linearizable;
        }
        // Whoever was invoked before the first end of those not done can be the next.
        let waiting = operations.iter().enumerate().filter(|(at, _)| !has(&done, *at));
        let first_end = waiting.clone().filter_map(|(_, operation)| operation.returned).min().unwrap_or(u64::MAX);
        let candidates = waiting.take_while(|(_, operation)| operation.invoked < first_end);
        for (at, operation) in candidates {
            let Some(value) = next(operation.action, value) else { continue };
            let mut done = done.clone();
            done[at / 64] |= 1 << (at % 64);
            if seen.insert((done.clone(), value)) {
                open.push((done, value, count + usize::from(operation.returned.is_some())));
            }
        }
        if seen.len() > STATES_MAX {
            return Verdict::Undecided;
        }
    }
    Verdict::NotLinearizable
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What, its call and its answer.
    type Given = (Action, u64, u64);

    fn verdict(given: &[Given]) -> Verdict {
        let operations = given.iter().map(|&(action, invoked, returned)| Operation {
            action,
            invoked,
            returned: (returned > 0).then_some(returned),
        });
        check(&operations.collect::<Vec<_>>())
    }

    #[test]
    fn histories() {
        use Action::{Read, Swap, Write};
        let (yes, no) = (Verdict::Linearizable, Verdict::NotLinearizable);
        let cases: &[(&[Given], Verdict)] = &[
            (&[], yes),
            (&[(Read(0), 1, 2), (Write(1), 3, 4), (Read(1), 5, 6)], yes),
            // A lost write.
            (&[(Write(1), 1, 2), (Read(0), 3, 4)], no),
            // A stale read after a newer one.
            (&[(Write(1), 1, 2), (Write(2), 3, 8), (Read(2), 4, 5), (Read(1), 6, 7)], no),
            // Two reads during a write may see both.
            (&[(Write(1), 1, 8), (Read(0), 2, 3), (Read(1), 4, 5)], yes),
            (&[(Write(1), 1, 8), (Read(1), 2, 3), (Read(0), 4, 5)], no),
            // What nobody knows may happen late, early or never.
            (&[(Write(1), 1, 0), (Read(0), 2, 3), (Read(1), 4, 5)], yes),
            (&[(Write(1), 1, 0), (Read(0), 2, 3), (Read(0), 4, 5)], yes),
            (&[(Write(1), 1, 0), (Write(2), 2, 3), (Read(1), 4, 5), (Read(2), 6, 7)], no),
            // A swap that succeeded twice from the same value.
            (
                &[
                    (Write(1), 1, 2),
                    (Swap { from: 1, to: 2, swapped: Some(true) }, 3, 6),
                    (Swap { from: 1, to: 3, swapped: Some(true) }, 4, 5),
                ],
                no,
            ),
            (&[(Write(1), 1, 2), (Swap { from: 1, to: 2, swapped: Some(false) }, 3, 4)], no),
            (&[(Write(1), 1, 2), (Swap { from: 1, to: 2, swapped: None }, 3, 0), (Read(2), 4, 5)], yes),
            // Read out of nowhere.
            (&[(Read(7), 1, 2)], no),
        ];
        for (given, expect) in cases {
            assert_eq!(verdict(given), *expect, "{given:?}");
        }
    }

    #[test]
    fn many_at_once_are_decided() {
        let mut given = Vec::new();
        for at in 0..200u64 {
            given.push((Action::Write(at as u32 + 1), at * 4 + 1, at * 4 + 12));
            given.push((Action::Read(at as u32 + 1), at * 4 + 2, at * 4 + 13));
        }
        assert_eq!(verdict(&given), Verdict::Linearizable);
    }
}

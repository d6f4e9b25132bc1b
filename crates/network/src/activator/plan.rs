//! Awake or asleep: the states of one Deployment at one node, and what each asks for. Pure; time comes in as a value.
//!
//! ```text
//! Asleep ─ a connection ─► Waking ─ replicas ─► Awake ─ quiet, and marked ─► Leaving ─ nobody for a while ─► Alone
//!                                                 ▲───────── somebody ─────────┘                              │
//!                                                 └───────────────────── no mark any more ────────────────────┘
//! ```
//!
//! An awake Deployment is quiet when nobody came for the time given; we say so, and when all nodes do, it is marked (by
//! the control loop). In `Leaving` new connections come through here and are passed on, so that from the moment that
//! the kernel's rules say so, nobody connects unseen. `Alone` is said too, and holds who comes until the mark is gone,
//! or the replicas are: what the others say is not known here.

use std::time::{Duration, Instant};

use api::idle::{Mark, Says};

/// How long nobody may be seen after the rules lead here, before we say that we are alone: long enough to look at what
/// connections there are once more.
pub(super) const SETTLE: Duration = Duration::from_secs(6);
/// Until a change that has shown no effect is asked for again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Until one that was refused is: somebody else changed the Deployment, most likely.
pub(super) const ASK_AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// The replicas of a Deployment that wakes.
pub(super) const REPLICAS_AWAKE: i32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Asleep,
    /// Somebody waits.
    Waking {
        /// When to ask again, if nothing came of it.
        again: Instant,
    },
    Awake {
        used: Instant,
    },
    Leaving {
        used: Instant,
        mark: Mark,
        /// Since when all connections come through here.
        alone: Option<Instant>,
    },
    /// It may have no replicas at any moment, and it is not seen yet that it has none.
    Alone {
        used: Instant,
        mark: Mark,
    },
}

/// What is known at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) replicas: i32,
    pub(super) idle_after: Option<Duration>,
    /// The attempt to bring it to zero that goes on.
    pub(super) mark: Option<Mark>,
    /// Connections that are held or passed on here.
    pub(super) here: usize,
    /// A connection past us is open, or came since the last look.
    pub(super) elsewhere: bool,
    /// The kernel's rules bring every new connection here.
    pub(super) is_captured: bool,
}

impl Facts {
    fn nobody(&self) -> bool {
        self.here == 0 && !self.elsewhere
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Nothing,
    Wake,
}

pub(super) fn next(now: Instant, state: State, facts: &Facts) -> (State, Ask) {
    if facts.replicas == 0 {
        return match state {
            _ if facts.here == 0 => (State::Asleep, Ask::Nothing),
            State::Waking { again } if now < again => (state, Ask::Nothing),
            _ => (State::Waking { again: now + ASK_AGAIN }, Ask::Wake),
        };
    }
    (awake(now, state, facts), Ask::Nothing)
}

/// It has replicas.
fn awake(now: Instant, state: State, facts: &Facts) -> State {
    let (used, marked, alone) = match state {
        // Whoever came, and whatever was asked for since: he waits for what becomes of the mark.
        State::Alone { mark, .. } if facts.mark == Some(mark) => return state,
        State::Asleep | State::Waking { .. } => return State::Awake { used: now },
        State::Awake { used } | State::Alone { used, .. } => (used, None, None),
        State::Leaving { used, mark, alone } => (used, Some(mark), alone),
    };
    if !facts.nobody() {
        return State::Awake { used: now };
    }
    let (Some(idle), Some(mark)) = (facts.idle_after, facts.mark) else { return State::Awake { used } };
    if now < used + idle {
        return State::Awake { used };
    }
    match alone.filter(|_| facts.is_captured && marked == Some(mark)) {
        Some(since) if now >= since + SETTLE => State::Alone { used, mark },
        Some(since) => State::Leaving { used, mark, alone: Some(since) },
        None => {
            // Those that the rules bring here for another reason would be too few.
            let is_alone = facts.is_captured && marked == Some(mark);
            State::Leaving { used, mark, alone: is_alone.then_some(now) }
        }
    }
}

/// What others are told. `None`: it is used, or may be.
pub(super) fn says(now: Instant, state: State, facts: &Facts) -> Option<Says> {
    let idle = facts.idle_after.filter(|_| facts.replicas > 0 && facts.nobody())?;
    match state {
        State::Asleep | State::Waking { .. } => None,
        State::Awake { used } | State::Leaving { used, .. } => (now >= used + idle).then_some(Says::Quiet),
        State::Alone { mark, .. } => Some(Says::Alone(mark)),
    }
}

/// Whether the time alone may change something.
pub(super) fn is_watched(state: State, facts: &Facts) -> bool {
    match state {
        State::Asleep => false,
        State::Waking { .. } => true,
        State::Awake { .. } | State::Leaving { .. } | State::Alone { .. } => facts.idle_after.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Facts = Facts {
        replicas: 1,
        idle_after: Some(Duration::from_secs(60)),
        mark: None,
        here: 0,
        elsewhere: false,
        is_captured: false,
    };
    const NONE: Facts = Facts { replicas: 0, is_captured: true, ..QUIET };
    const MARKED: Facts = Facts { mark: Some(7), is_captured: true, ..QUIET };

    fn check(state: State, seconds: u64, facts: Facts, expect: (State, Ask), start: Instant) {
        let now = start + Duration::from_secs(seconds);
        assert_eq!(next(now, state, &facts), expect, "{state:?} after {seconds} s with {facts:?}");
    }

    #[test]
    fn a_connection_wakes_and_is_not_asked_for_twice() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let held = Facts { here: 3, ..NONE };
        check(State::Asleep, 0, NONE, (State::Asleep, Ask::Nothing), start);
        check(State::Asleep, 0, held, (State::Waking { again: at(5) }, Ask::Wake), start);
        let waking = State::Waking { again: at(5) };
        check(waking, 1, held, (waking, Ask::Nothing), start);
        check(waking, 5, held, (State::Waking { again: at(10) }, Ask::Wake), start);
        check(waking, 1, NONE, (State::Asleep, Ask::Nothing), start);
        check(waking, 2, Facts { replicas: 1, ..held }, (State::Awake { used: at(2) }, Ask::Nothing), start);
    }

    #[test]
    fn a_marked_one_that_nobody_uses_is_left_alone() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let awake = State::Awake { used: at(0) };
        let goes = |state: State, seconds, facts: Facts, expect: State| {
            check(state, seconds, facts, (expect, Ask::Nothing), start);
        };
        // Without a mark nothing happens, however long nobody comes.
        goes(awake, 600, QUIET, awake);
        goes(awake, 60, Facts { elsewhere: true, ..MARKED }, State::Awake { used: at(60) });
        goes(awake, 59, MARKED, awake);
        goes(awake, 60, Facts { idle_after: None, ..MARKED }, awake);
        let leaving = |alone| State::Leaving { used: at(0), mark: 7, alone };
        // What the rules were before does not count.
        goes(awake, 60, MARKED, leaving(None));
        goes(leaving(None), 60, Facts { is_captured: false, ..MARKED }, leaving(None));
        goes(leaving(None), 61, MARKED, leaving(Some(at(61))));
        goes(leaving(Some(at(61))), 66, MARKED, leaving(Some(at(61))));
        let alone = State::Alone { used: at(0), mark: 7 };
        goes(leaving(Some(at(61))), 67, MARKED, alone);
        goes(leaving(Some(at(61))), 67, Facts { is_captured: false, ..MARKED }, leaving(None));
        goes(leaving(Some(at(61))), 67, Facts { here: 1, ..MARKED }, State::Awake { used: at(67) });
        goes(leaving(Some(at(61))), 67, Facts { elsewhere: true, ..MARKED }, State::Awake { used: at(67) });
        goes(leaving(Some(at(61))), 67, QUIET, awake);
        // Of another attempt it counts from the beginning.
        let again = Facts { mark: Some(8), ..MARKED };
        let from_new = State::Leaving { used: at(0), mark: 8, alone: None };
        goes(leaving(Some(at(61))), 67, again, from_new);
        goes(alone, 67, again, from_new);
    }

    #[test]
    fn who_comes_to_one_that_is_alone_waits() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let alone = State::Alone { used: start, mark: 7 };
        let held = Facts { here: 1, ..MARKED };
        check(alone, 70, held, (alone, Ask::Nothing), start);
        check(alone, 70, NONE, (State::Asleep, Ask::Nothing), start);
        check(alone, 70, Facts { here: 1, ..NONE }, (State::Waking { again: at(75) }, Ask::Wake), start);
        // The mark is taken away: he is passed on.
        check(alone, 70, Facts { mark: None, ..held }, (State::Awake { used: at(70) }, Ask::Nothing), start);
        check(alone, 70, QUIET, (State::Awake { used: start }, Ask::Nothing), start);
    }

    #[test]
    fn others_are_told() {
        let start = Instant::now();
        let told = |state: State, seconds: u64, facts: Facts, expect: Option<Says>| {
            assert_eq!(says(start + Duration::from_secs(seconds), state, &facts), expect, "{state:?} {facts:?}");
        };
        let awake = State::Awake { used: start };
        told(awake, 59, QUIET, None);
        told(awake, 60, QUIET, Some(Says::Quiet));
        told(awake, 60, Facts { elsewhere: true, ..QUIET }, None);
        told(awake, 60, Facts { idle_after: None, ..QUIET }, None);
        told(State::Leaving { used: start, mark: 7, alone: Some(start) }, 60, MARKED, Some(Says::Quiet));
        let alone = State::Alone { used: start, mark: 7 };
        told(alone, 70, MARKED, Some(Says::Alone(7)));
        // Somebody is held: the control loop has to hear of it.
        told(alone, 70, Facts { here: 1, ..MARKED }, None);
        told(alone, 70, NONE, None);
        told(State::Asleep, 70, NONE, None);
        told(State::Waking { again: start }, 70, QUIET, None);
    }

    #[test]
    fn a_deployment_that_others_scale_is_followed() {
        let start = Instant::now();
        check(State::Asleep, 3, QUIET, (State::Awake { used: start + Duration::from_secs(3) }, Ask::Nothing), start);
        check(State::Awake { used: start }, 3, NONE, (State::Asleep, Ask::Nothing), start);
        let leaving = State::Leaving { used: start, mark: 7, alone: Some(start) };
        check(leaving, 3, NONE, (State::Asleep, Ask::Nothing), start);
    }
}

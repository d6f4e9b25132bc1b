//! Awake or asleep: the states of one Deployment and what each asks for. Pure; time comes in as a value.
//!
//! ```text
//! Asleep ─ a connection ─► Waking ─ replicas ─► Awake ─ nobody for a while ─► Leaving ─ still nobody ─► Falling ─► Asleep
//!                                                 ▲─────────── somebody ──────────┘                       │ refused
//!                                                 └───────────────────────────────────────────────────────┘
//! ```
//!
//! In `Leaving` new connections come through here and are passed on, so that from the moment that the kernel's rules
//! say so, nobody connects unseen. `Falling` holds them, since the endpoints are about to go.

use std::time::{Duration, Instant};

/// How long nobody may be seen after the rules lead here, before replicas go: long enough to look at what connections
/// there are once more.
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
        /// Since when all connections come through here.
        alone: Option<Instant>,
    },
    /// It is to have no replicas, and it is not seen yet that it has none.
    Falling,
}

/// What is known at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) replicas: i32,
    pub(super) idle_after: Option<Duration>,
    /// Connections that are held or passed on here.
    pub(super) here: usize,
    /// A connection past us is open, or came since the last look.
    pub(super) elsewhere: bool,
    /// The kernel's rules bring every new connection here.
    pub(super) is_captured: bool,
    /// The Deployment is not as it was when it was last asked to change.
    pub(super) is_newer: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Nothing,
    Wake,
    Sleep,
}

pub(super) fn next(now: Instant, state: State, facts: &Facts) -> (State, Ask) {
    let nobody = facts.here == 0 && !facts.elsewhere;
    match state {
        State::Falling if !facts.is_newer => (State::Falling, Ask::Nothing),
        State::Waking { again } if facts.replicas == 0 && facts.here > 0 && now < again => {
            (State::Waking { again }, Ask::Nothing)
        }
        _ if facts.replicas == 0 && facts.here > 0 => (State::Waking { again: now + ASK_AGAIN }, Ask::Wake),
        _ if facts.replicas == 0 => (State::Asleep, Ask::Nothing),
        State::Awake { used } if nobody => match facts.idle_after {
            Some(idle) if now >= used + idle => (State::Leaving { alone: None }, Ask::Nothing),
            _ => (State::Awake { used }, Ask::Nothing),
        },
        State::Leaving { alone } if nobody && facts.idle_after.is_some() => match alone.filter(|_| facts.is_captured) {
            Some(since) if now >= since + SETTLE => (State::Falling, Ask::Sleep),
            Some(since) => (State::Leaving { alone: Some(since) }, Ask::Nothing),
            None => (State::Leaving { alone: facts.is_captured.then_some(now) }, Ask::Nothing),
        },
        State::Asleep | State::Waking { .. } | State::Awake { .. } | State::Leaving { .. } | State::Falling => {
            (State::Awake { used: now }, Ask::Nothing)
        }
    }
}

/// Whether the time alone may change something.
pub(super) fn is_watched(state: State, facts: &Facts) -> bool {
    match state {
        State::Asleep | State::Falling => false,
        State::Waking { .. } => true,
        State::Awake { .. } | State::Leaving { .. } => facts.idle_after.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Facts = Facts {
        replicas: 1,
        idle_after: Some(Duration::from_secs(60)),
        here: 0,
        elsewhere: false,
        is_captured: false,
        is_newer: false,
    };
    const NONE: Facts = Facts { replicas: 0, is_captured: true, ..QUIET };

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
    fn nobody_for_a_while_and_replicas_go() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let awake = State::Awake { used: at(0) };
        check(awake, 59, QUIET, (awake, Ask::Nothing), start);
        check(awake, 59, Facts { elsewhere: true, ..QUIET }, (State::Awake { used: at(59) }, Ask::Nothing), start);
        check(awake, 60, QUIET, (State::Leaving { alone: None }, Ask::Nothing), start);
        check(awake, 60, Facts { idle_after: None, ..QUIET }, (awake, Ask::Nothing), start);
        check(awake, 60, Facts { here: 1, ..QUIET }, (State::Awake { used: at(60) }, Ask::Nothing), start);

        let leaving = State::Leaving { alone: None };
        check(leaving, 60, QUIET, (leaving, Ask::Nothing), start);
        let captured = Facts { is_captured: true, ..QUIET };
        let alone = State::Leaving { alone: Some(at(61)) };
        check(leaving, 61, captured, (alone, Ask::Nothing), start);
        check(alone, 66, captured, (alone, Ask::Nothing), start);
        check(alone, 67, captured, (State::Falling, Ask::Sleep), start);
        check(alone, 67, QUIET, (State::Leaving { alone: None }, Ask::Nothing), start);
        check(alone, 67, Facts { here: 1, ..captured }, (State::Awake { used: at(67) }, Ask::Nothing), start);
        check(alone, 67, Facts { elsewhere: true, ..captured }, (State::Awake { used: at(67) }, Ask::Nothing), start);
    }

    #[test]
    fn somebody_who_comes_while_it_falls_waits() {
        let start = Instant::now();
        let held = Facts { here: 1, ..QUIET };
        check(State::Falling, 0, held, (State::Falling, Ask::Nothing), start);
        let fallen = Facts { is_newer: true, ..NONE };
        check(State::Falling, 0, fallen, (State::Asleep, Ask::Nothing), start);
        check(
            State::Falling,
            0,
            Facts { here: 1, ..fallen },
            (State::Waking { again: start + ASK_AGAIN }, Ask::Wake),
            start,
        );
        let others = Facts { is_newer: true, replicas: 4, ..QUIET };
        check(State::Falling, 0, others, (State::Awake { used: start }, Ask::Nothing), start);
    }

    #[test]
    fn a_deployment_that_others_scale_is_followed() {
        let start = Instant::now();
        check(State::Asleep, 3, QUIET, (State::Awake { used: start + Duration::from_secs(3) }, Ask::Nothing), start);
        check(State::Awake { used: start }, 3, NONE, (State::Asleep, Ask::Nothing), start);
        check(State::Leaving { alone: Some(start) }, 3, NONE, (State::Asleep, Ask::Nothing), start);
    }
}

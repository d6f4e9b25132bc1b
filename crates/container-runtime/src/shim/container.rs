//! One container's life in the shim, as an enum and pure transitions. The worker feeds it what
//! happened and does what comes back.
//!
//! ```text
//! Preparing ─prepared─► Created ─start─► Starting ─line closed─► Running ─┐
//!     └─failed─► (forgotten)  └───────────┴─failed, killed────────────────┴─► Ended
//! ```
//! `Ended` needs three things, in any order: the process reaped, its line closed, its pipes drained.

use std::time::SystemTime;

use cri::{ContainerState, ExitReason};

use crate::protocol::{Answer, ContainerReport, InitFailure};

/// 128 + SIGKILL.
const EXIT_KILLED: i32 = 137;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Preparing,
    Created,
    Starting,
    Running { started_at: SystemTime },
    Ended,
}

/// How the first process of a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEnd {
    Code(i32),
    Signal(i32),
}

impl ProcessEnd {
    /// As a shell would say it.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Code(code) => code & 0xff,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Everything the shim knows about where a container is in its life.
#[derive(Debug)]
pub struct Life {
    pub phase: Phase,
    /// container-init's last words.
    failure: Option<InitFailure>,
    line_open: bool,
    streams_open: u8,
    end: Option<ProcessEnd>,
}

/// What the worker has to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Answer the pending create or start; the report has changed.
    Answer(AnswerKind),
    /// The container never came to be: answer and forget it.
    Forget {
        why: String,
    },
    /// It has ended: record it. A pending start is answered with `failed` when it is there.
    Finish {
        end: ProcessEnd,
        failed: Option<InitFailure>,
        started_at: Option<SystemTime>,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub enum AnswerKind {
    Created,
    Started,
}

impl Life {
    /// `streams`: how many carry its output.
    pub fn new(streams: u8) -> Self {
        Self { phase: Phase::Preparing, failure: None, line_open: true, streams_open: streams, end: None }
    }

    pub fn on_prepared(&mut self) -> Step {
        self.phase = Phase::Created;
        Step::Answer(AnswerKind::Created)
    }

    pub fn on_failure(&mut self, failure: InitFailure) {
        self.failure = Some(failure);
    }

    /// The start was sent to container-init.
    pub fn on_start(&mut self) {
        self.phase = Phase::Starting;
    }

    /// The line closed: executed, or failed, or killed.
    pub fn on_line_closed(&mut self, now: SystemTime) -> Step {
        self.line_open = false;
        if self.phase == Phase::Starting && self.failure.is_none() {
            self.phase = Phase::Running { started_at: now };
            return Step::Answer(AnswerKind::Started);
        }
        self.settle()
    }

    pub fn on_reaped(&mut self, end: ProcessEnd) -> Step {
        self.end = Some(end);
        self.settle()
    }

    pub fn on_stream_closed(&mut self) -> Step {
        self.streams_open = self.streams_open.saturating_sub(1);
        self.settle()
    }

    /// Somebody outside holds the pipes: do not wait for them any longer.
    pub fn on_drain_deadline(&mut self) -> Step {
        self.streams_open = 0;
        self.settle()
    }

    /// Whether the process is gone and only its output is waited for.
    pub fn is_draining(&self) -> bool {
        self.end.is_some() && self.phase != Phase::Ended
    }

    /// What to do once everything has come in.
    pub fn settle(&mut self) -> Step {
        let (Some(end), false, 0) = (self.end, self.line_open, self.streams_open) else {
            return Step::Nothing;
        };
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Ended => Step::Nothing,
            Phase::Preparing => Step::Forget {
                why: match self.failure.take() {
                    Some(failure) => failure.message,
                    None => format!("its preparation ended early ({end:?})"),
                },
            },
            Phase::Created | Phase::Starting => Step::Finish { end, failed: self.failure.take(), started_at: None },
            Phase::Running { started_at } => Step::Finish { end, failed: None, started_at: Some(started_at) },
        }
    }
}

/// The end as CRI shows it.
pub fn exited(
    end: ProcessEnd,
    failed: Option<&InitFailure>,
    oom_killed: bool,
    times: (SystemTime, SystemTime),
) -> ContainerState {
    let (exit_code, reason, message) = match failed {
        Some(failure) => (failure.exit_code, ExitReason::ContainerCannotRun, failure.message.clone()),
        None => match (end.exit_code(), oom_killed) {
            (0, _) => (0, ExitReason::Completed, String::new()),
            (code, true) => (code, ExitReason::OomKilled, String::new()),
            (code, false) => (code, ExitReason::Error, String::new()),
        },
    };
    ContainerState::Exited { started_at: times.0, finished_at: times.1, exit_code, reason, message }
}

/// What became of a container whose shim is gone.
pub fn lost(report: &mut ContainerReport, now: SystemTime) {
    let started_at = match report.state {
        ContainerState::Exited { .. } => return,
        ContainerState::Running { started_at } => started_at,
        ContainerState::Created => report.about.created_at,
    };
    report.pid = None;
    report.state = ContainerState::Exited {
        started_at,
        finished_at: now,
        exit_code: EXIT_KILLED,
        reason: ExitReason::SandboxLost,
        message: "the pod's shim process went away; its containers were killed".to_owned(),
    };
}

/// The answer to a start that failed.
pub fn start_failed(failure: Option<InitFailure>) -> Answer {
    let why = failure.map_or_else(|| "it was killed before it ran".to_owned(), |failure| failure.message);
    Answer::Failed { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: SystemTime = SystemTime::UNIX_EPOCH;

    fn started() -> Life {
        let mut life = Life::new(2);
        assert_eq!(life.on_prepared(), Step::Answer(AnswerKind::Created));
        life.on_start();
        life
    }

    fn failure() -> InitFailure {
        InitFailure { exit_code: 127, message: "exec".to_owned() }
    }

    #[test]
    fn a_program_runs_and_ends() {
        let mut life = started();
        assert_eq!(life.on_line_closed(T), Step::Answer(AnswerKind::Started));
        assert_eq!(life.on_stream_closed(), Step::Nothing);
        assert_eq!(life.on_reaped(ProcessEnd::Code(3)), Step::Nothing);
        assert!(life.is_draining());
        let end = Step::Finish { end: ProcessEnd::Code(3), failed: None, started_at: Some(T) };
        assert_eq!(life.on_stream_closed(), end);
        assert_eq!(life.settle(), Step::Nothing);
    }

    #[test]
    fn a_quick_program_has_still_run() {
        let mut life = started();
        life.on_stream_closed();
        life.on_stream_closed();
        assert_eq!(life.on_reaped(ProcessEnd::Code(0)), Step::Nothing);
        assert_eq!(life.on_line_closed(T), Step::Answer(AnswerKind::Started));
        assert!(matches!(life.settle(), Step::Finish { failed: None, started_at: Some(_), .. }));
    }

    #[test]
    fn failures_before_and_at_the_start() {
        let mut life = Life::new(2);
        life.on_failure(failure());
        life.on_line_closed(T);
        life.on_drain_deadline();
        assert_eq!(life.on_reaped(ProcessEnd::Code(128)), Step::Forget { why: "exec".to_owned() });

        let mut life = started();
        life.on_failure(failure());
        assert_eq!(life.on_line_closed(T), Step::Nothing);
        life.on_drain_deadline();
        let end = Step::Finish { end: ProcessEnd::Code(127), failed: Some(failure()), started_at: None };
        assert_eq!(life.on_reaped(ProcessEnd::Code(127)), end);
    }

    #[test]
    fn killed_before_the_start() {
        let mut life = Life::new(2);
        life.on_prepared();
        life.on_line_closed(T);
        life.on_drain_deadline();
        let end = Step::Finish { end: ProcessEnd::Signal(9), failed: None, started_at: None };
        assert_eq!(life.on_reaped(ProcessEnd::Signal(9)), end);
    }

    #[test]
    fn reasons_and_codes() {
        for (end, failed, oom, code, reason) in [
            (ProcessEnd::Code(0), None, false, 0, ExitReason::Completed),
            (ProcessEnd::Code(0), None, true, 0, ExitReason::Completed),
            (ProcessEnd::Code(7), None, false, 7, ExitReason::Error),
            (ProcessEnd::Signal(15), None, false, 143, ExitReason::Error),
            (ProcessEnd::Signal(9), None, true, 137, ExitReason::OomKilled),
            (ProcessEnd::Code(127), Some(failure()), false, 127, ExitReason::ContainerCannotRun),
        ] {
            let ContainerState::Exited { exit_code, reason: got, .. } = exited(end, failed.as_ref(), oom, (T, T))
            else {
                panic!("not exited");
            };
            assert_eq!((exit_code, got), (code, reason), "{end:?}");
        }
    }
}

//! The life of a pod on this node, as a state and a step function. Pure.
//!
//! ```text
//! Active ──all containers ended──► Ended ──────────────────────────┐
//!   │ ──deadline──► Failing ──all stopped──► Ended(Failed) ────────┤
//!   └──────────────── deletionTimestamp ───────────────────────────┴─► Terminating ─► (object deleted)
//!                     object vanished, in any state ─────────────────► Gone ────────► (nothing left)
//! ```

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::backoff::later;
use super::spec::{PodView, RestartPolicy, Role};
use super::state::{ContainerRecord, PodState};

/// Containers of a pod that vanished from the API get this long to end.
pub const GONE_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lifecycle {
    /// Its containers shall run.
    Active,
    /// The pod failed as a whole; its containers are being stopped.
    Failing { reason: String, message: String },
    /// Every container ended for good.
    Ended { phase: EndPhase, cause: Option<(String, String)> },
    /// The API wants it gone; containers may run until `by`.
    Terminating { by: Timestamp },
    /// There is no object any more; what is left must go.
    Gone { by: Timestamp },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndPhase {
    Succeeded,
    Failed,
}

impl EndPhase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

impl Lifecycle {
    /// Of a pod the agent has not seen before.
    pub fn first(pod: Option<&Pod>, now: Timestamp) -> Self {
        let Some(pod) = pod else { return Self::Gone { by: later(now, GONE_GRACE) } };
        if let Some(deletion) = &pod.metadata.deletion_timestamp {
            return Self::Terminating { by: deletion.0 };
        }
        match PodView::new(pod).ended_phase() {
            Some("Succeeded") => Self::Ended { phase: EndPhase::Succeeded, cause: None },
            Some(_) => Self::Ended { phase: EndPhase::Failed, cause: None },
            None => Self::Active,
        }
    }

    /// The state after looking at everything again.
    #[must_use]
    pub fn next(&self, pod: Option<&Pod>, state: &PodState, now: Timestamp) -> Self {
        if let Self::Gone { .. } = self {
            return self.clone();
        }
        let Some(pod) = pod else { return Self::Gone { by: later(now, GONE_GRACE) } };
        if let Some(deletion) = &pod.metadata.deletion_timestamp {
            return Self::Terminating { by: deletion.0 };
        }
        match self {
            Self::Active => active_next(pod, state, now),
            Self::Failing { reason, message } if all_collected(state) => {
                Self::Ended { phase: EndPhase::Failed, cause: Some((reason.clone(), message.clone())) }
            }
            Self::Failing { .. } | Self::Ended { .. } | Self::Terminating { .. } | Self::Gone { .. } => self.clone(),
        }
    }
}

fn active_next(pod: &Pod, state: &PodState, now: Timestamp) -> Lifecycle {
    if deadline(pod, state).is_some_and(|deadline| now >= deadline) {
        return Lifecycle::Failing {
            reason: "DeadlineExceeded".into(),
            message: "Pod was active on the node longer than the specified deadline".into(),
        };
    }
    let ended_elsewhere = PodView::new(pod).ended_phase().is_some();
    if ended_elsewhere {
        let status = pod.status.clone().unwrap_or_default();
        let (reason, message) = (status.reason.unwrap_or_default(), status.message.unwrap_or_default());
        return Lifecycle::Failing { reason, message };
    }
    match end_phase(PodView::new(pod), state) {
        Some(phase) => Lifecycle::Ended { phase, cause: None },
        None => Lifecycle::Active,
    }
}

/// When `activeDeadlineSeconds` is over.
pub fn deadline(pod: &Pod, state: &PodState) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    Some(later(state.seen_at, Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
}

/// Nothing runs, and every end is on record.
pub fn all_collected(state: &PodState) -> bool {
    state.containers.values().all(|record| record.running().is_none() && record.uncollected().is_none())
}

/// Whether a container that ended with `code` starts again.
pub fn restarts(policy: RestartPolicy, code: i32) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => code != 0,
        RestartPolicy::Never => false,
    }
}

/// The code a container ended with for good.
pub fn final_code(record: &ContainerRecord, policy: RestartPolicy) -> Option<i32> {
    if record.uncollected().is_some() {
        return None;
    }
    record.exit().map(|exit| exit.code).filter(|code| !restarts(policy, *code))
}

/// The last phase, once no main container will ever run again and nothing beside them still does.
fn end_phase(pod: PodView<'_>, state: &PodState) -> Option<EndPhase> {
    let code = |name: &str, role| final_code(state.containers.get(name)?, pod.restart_policy_of(role));
    for (container, role) in pod.containers().filter(|(_, role)| *role == Role::Init) {
        if code(&container.name, role).is_some_and(|code| code != 0) {
            return others_stopped(pod, state).then_some(EndPhase::Failed);
        }
    }
    let codes: Option<Vec<i32>> = pod.main_containers().iter().map(|c| code(&c.name, Role::Main)).collect();
    let failed = codes?.iter().any(|code| *code != 0);
    others_stopped(pod, state).then_some(if failed { EndPhase::Failed } else { EndPhase::Succeeded })
}

fn others_stopped(pod: PodView<'_>, state: &PodState) -> bool {
    beside_mains(pod).into_iter().all(|name| {
        let record = state.containers.get(name);
        record.is_none_or(|record| record.running().is_none() && record.uncollected().is_none())
    })
}

/// Sidecars and ephemeral containers: they end with the main containers.
pub fn beside_mains(pod: PodView<'_>) -> Vec<&str> {
    let sidecars = pod.containers().filter(|(_, role)| *role == Role::Sidecar).map(|(container, _)| &container.name);
    sidecars.chain(pod.ephemeral_containers().iter().map(|container| &container.name)).map(String::as_str).collect()
}

/// The main containers are through, whatever the sidecars do.
pub fn mains_ended(pod: PodView<'_>, state: &PodState) -> bool {
    let policy = pod.restart_policy_of(Role::Main);
    let ended = |name: &str| state.containers.get(name).is_some_and(|record| final_code(record, policy).is_some());
    pod.main_containers().iter().all(|container| ended(&container.name))
}

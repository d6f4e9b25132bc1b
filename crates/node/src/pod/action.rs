//! What a plan may ask for, and what comes back. Values only: no behaviour but their names.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cri::{
    ContainerId, ContainerStatus, Isolation, NetworkAttachment, NetworkKind, PlatformPreference, ResolvedImage,
    ResourceUpdate, Resources, SandboxId,
};
use k8s_openapi::api::core::v1::ResourceRequirements;

use super::backoff::{Failure, Waits};
use super::event::{PodEvent, go_duration};
use super::resize::{Amounts, Grants};
use super::spec::PullPolicy;
use crate::config::Handler;

/// The key of [`PodAction::AdmitResize`]: what holds it back is the pod's, not a container's.
pub const ADMIT_RESIZE: &str = "admit-resize";

/// One step for one pod. The text (`Display`) is its key: two actions with the same text are never
/// under way together, and a failed one is held back under that text.
#[derive(Debug, Clone, PartialEq)]
pub enum PodAction {
    PrepareVolumes,
    PullImage {
        container: String,
        reference: String,
        policy: PullPolicy,
        preference: PlatformPreference,
    },
    PrepareImage {
        container: String,
        handler: Handler,
        image: Arc<ResolvedImage>,
    },
    AttachNetwork {
        kind: NetworkKind,
    },
    /// A namespace for Linux containers of a pod whose own address is not in one.
    AttachLinuxNetwork,
    RunSandbox {
        handler: Handler,
        isolation: Isolation,
        attachment: NetworkAttachment,
    },
    CreateContainer(Box<CreateContainer>),
    StartContainer {
        container: String,
        handler: Handler,
        id: ContainerId,
    },
    /// Asks the node for other resources than the pod was granted.
    AdmitResize {
        wanted: Grants,
        asks: Amounts,
    },
    /// Gives a running container what it was granted.
    ResizeContainer(Box<ResizeContainer>),
    /// Asks what can be called in a running container.
    ReadExports {
        container: String,
        handler: Handler,
        id: ContainerId,
    },
    /// Reads the termination message of an ended container.
    CollectTermination {
        container: String,
        handler: Handler,
        id: ContainerId,
    },
    StopContainer {
        container: String,
        handler: Handler,
        id: ContainerId,
        grace: Duration,
        why: String,
    },
    RemoveContainer {
        container: String,
        handler: Handler,
        id: ContainerId,
    },
    RemoveSandbox {
        handler: Handler,
        id: SandboxId,
    },
    DetachNetwork,
    DetachLinuxNetwork,
    RemovePodFiles,
    DeletePodObject,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateContainer {
    pub container: String,
    pub handler: Handler,
    pub sandbox: SandboxId,
    pub attempt: u32,
    pub image: Arc<ResolvedImage>,
    pub attachment: NetworkAttachment,
    /// The running container whose processes it shall see.
    pub process_namespace_of: Option<ContainerId>,
    pub granted: ResourceRequirements,
    /// Limits for the whole pod from now on, where they may have changed since its sandbox was made.
    pub pod: Option<Resources>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ResizeContainer {
    pub container: String,
    pub handler: Handler,
    pub update: ResourceUpdate,
    pub granted: ResourceRequirements,
}

impl fmt::Display for PodAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrepareVolumes => f.write_str("prepare-volumes"),
            Self::PullImage { container, .. } => write!(f, "pull {container}"),
            Self::PrepareImage { container, .. } => write!(f, "prepare-image {container}"),
            Self::AttachNetwork { .. } => f.write_str("attach-network"),
            Self::AttachLinuxNetwork => f.write_str("attach-linux-network"),
            Self::RunSandbox { handler, .. } => write!(f, "run-sandbox {}", handler.as_str()),
            Self::CreateContainer(create) => write!(f, "create {}", create.container),
            Self::StartContainer { container, .. } => write!(f, "start {container}"),
            Self::AdmitResize { .. } => f.write_str(ADMIT_RESIZE),
            Self::ResizeContainer(resize) => write!(f, "resize {}", resize.container),
            Self::ReadExports { container, .. } => write!(f, "exports {container}"),
            Self::CollectTermination { container, .. } => write!(f, "collect {container}"),
            Self::StopContainer { container, .. } => write!(f, "stop {container}"),
            Self::RemoveContainer { container, id, .. } => write!(f, "remove {container} {id}"),
            Self::RemoveSandbox { handler, id } => write!(f, "remove-sandbox {} {id}", handler.as_str()),
            Self::DetachNetwork => f.write_str("detach-network"),
            Self::DetachLinuxNetwork => f.write_str("detach-linux-network"),
            Self::RemovePodFiles => f.write_str("remove-files"),
            Self::DeletePodObject => f.write_str("delete-object"),
        }
    }
}

impl PodAction {
    pub fn key(&self) -> String {
        self.to_string()
    }

    /// The Event that says it begins.
    pub fn announcement(&self) -> Option<PodEvent> {
        match self {
            Self::StopContainer { container, why, .. } => Some(PodEvent::normal("Killing", why).of(container)),
            _ => None,
        }
    }

    /// How long to wait after it failed.
    pub fn waits(&self) -> Waits {
        match self {
            Self::PullImage { .. } | Self::PrepareImage { .. } => Waits::PULL,
            Self::PrepareVolumes
            | Self::AttachNetwork { .. }
            | Self::AttachLinuxNetwork
            | Self::RunSandbox { .. }
            | Self::CreateContainer(_)
            | Self::StartContainer { .. }
            | Self::AdmitResize { .. }
            | Self::ResizeContainer(_)
            | Self::ReadExports { .. } => Waits::SETUP,
            Self::CollectTermination { .. }
            | Self::StopContainer { .. }
            | Self::RemoveContainer { .. }
            | Self::RemoveSandbox { .. }
            | Self::DetachNetwork
            | Self::DetachLinuxNetwork
            | Self::RemovePodFiles
            | Self::DeletePodObject => Waits::CLEANUP,
        }
    }
}

/// How an action ended.
#[derive(Debug)]
pub struct Outcome {
    pub action: PodAction,
    pub result: Result<Done, ActionError>,
}

/// What an action brought.
#[derive(Debug)]
pub enum Done {
    /// It happened; there is nothing more to say.
    Yes,
    Pulled {
        image: Arc<ResolvedImage>,
        from_registry: Option<Duration>,
    },
    Attached(NetworkAttachment),
    SandboxRunning(SandboxId),
    /// The container as the runtime sees it after the action.
    Container(Box<ContainerStatus>),
    /// What can be called, as JSON.
    Exports(String),
    /// The container ended; this is its termination message.
    Terminated {
        message: String,
    },
}

/// Why an action failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionError {
    /// Try again later.
    Retry(Failure),
    /// No manifest of the wanted platform.
    NoPlatform(Failure),
    /// The runtime cannot run this image at all.
    Unsupported(Failure),
}

impl ActionError {
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Retry(failure) | Self::NoPlatform(failure) | Self::Unsupported(failure) => failure,
        }
    }
}

/// `Successfully pulled image …`, or that it was there already.
pub fn pulled_message(image: &ResolvedImage, from_registry: Option<Duration>) -> String {
    let reference = &image.reference;
    match from_registry {
        None => format!("Container image {reference:?} already present on machine"),
        Some(took) => {
            let took = go_duration(took);
            let size = image.size_bytes;
            format!(
                "Successfully pulled image {reference:?} in {took} ({took} including waiting). Image size: {size} bytes."
            )
        }
    }
}

//! `postStart` and `preStop` of a container.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri::{ContainerId, RuntimeService};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::action::ActionError;
use super::backoff::Failure;
use super::event::PodEvent;
use super::execute::{NodeContext, Subject};
use super::spec::PodView;
use crate::probe::check::{self, HttpCheck};

/// A `postStart` hook may take this long.
const POST_START_MAX: Duration = Duration::from_secs(60);
/// What is left for the container after its `preStop` hook used up the grace.
const GRACE_AFTER_HOOK_MIN: Duration = Duration::from_secs(2);

/// A container and the runtime that has it.
pub type Target<'a> = (&'a Arc<dyn RuntimeService>, &'a ContainerId);

/// Runs `preStop` within the grace; answers the grace that is left.
pub async fn pre_stop(
    context: &NodeContext,
    subject: &Subject,
    container: &str,
    target: Target<'_>,
    grace: Duration,
) -> Duration {
    let Some((pod, hook)) = hook(subject, container, |lifecycle| lifecycle.pre_stop.as_ref()) else { return grace };
    let begin = Instant::now();
    let result = tokio::time::timeout(grace, run(context, subject, hook, target, grace)).await;
    let failure = match result {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(_) => Some(format!("it did not end within {} s", grace.as_secs())),
    };
    if let Some(why) = failure {
        context.tell(pod, PodEvent::warning("FailedPreStopHook", format!("PreStopHook failed: {why}")).of(container));
    }
    grace.saturating_sub(begin.elapsed()).max(GRACE_AFTER_HOOK_MIN.min(grace))
}

/// Runs `postStart`; when it fails the container is stopped and the failure is that of the start.
pub async fn post_start(
    context: &NodeContext,
    subject: &Subject,
    container: &str,
    target: Target<'_>,
) -> Result<(), ActionError> {
    let Some((pod, hook)) = hook(subject, container, |lifecycle| lifecycle.post_start.as_ref()) else {
        return Ok(());
    };
    let Err(why) = run(context, subject, hook, target, POST_START_MAX).await else { return Ok(()) };
    let text = format!("PostStartHook failed: {why}");
    context.tell(pod, PodEvent::warning("FailedPostStartHook", text.clone()).of(container));
    let grace = Duration::from_secs(PodView::new(pod).grace_seconds());
    // The exit that follows is what the restart policy acts on; a failed stop shows up there too.
    let _ = target.0.stop_container(target.1, grace).await;
    Err(ActionError::Retry(Failure::new("PostStartHookError", text)))
}

type Lifecycle = k8s_openapi::api::core::v1::Lifecycle;
type Hook<'a> = (&'a k8s_openapi::api::core::v1::Pod, (&'a Container, &'a LifecycleHandler));

fn hook<'a>(
    subject: &'a Subject,
    container: &str,
    pick: impl Fn(&'a Lifecycle) -> Option<&'a LifecycleHandler>,
) -> Option<Hook<'a>> {
    let pod = subject.pod.as_deref()?;
    let (container, _) = PodView::new(pod).container(container)?;
    Some((pod, (container, container.lifecycle.as_ref().and_then(pick)?)))
}

async fn run(
    context: &NodeContext,
    subject: &Subject,
    (container, hook): (&Container, &LifecycleHandler),
    (runtime, id): Target<'_>,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let outcome = runtime.exec_sync(id, &command, limit).await.map_err(|error| error.to_string())?;
        return match outcome.exit_code {
            0 => Ok(()),
            code => Err(format!("command ended with {code}: {}", String::from_utf8_lossy(&outcome.stderr).trim())),
        };
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    if let Some(get) = &hook.http_get {
        let ip = pod_ip(context, subject).await.ok_or("the pod has no address")?;
        let http = HttpCheck::new(get, container, ip)?;
        return check::http(&http, limit).await;
    }
    Ok(())
}

async fn pod_ip(context: &NodeContext, subject: &Subject) -> Option<IpAddr> {
    let attached = context.network.list().await.ok()?;
    attached.into_iter().find(|row| row.pod_uid == subject.uid).map(|row| row.attachment.ip())
}

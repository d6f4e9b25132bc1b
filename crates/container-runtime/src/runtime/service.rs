//! `RuntimeService`: each call finds the sandbox's handle, asks it, and words the answer.

use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use cri::{
    ContainerConfig, ContainerEvent, ContainerId, ContainerState, ContainerStats, ContainerStatus, ExecOptions,
    ExecOutcome, ExecStream, PodSandboxConfig, ResolvedImage, ResourceUpdate, RuntimeError, RuntimeService, SandboxId,
    SandboxStatus, Streams,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio_stream::wrappers::BroadcastStream;

use super::adopt::remove_in_background;
use super::sandbox::SandboxHandle;
use super::{ContainerRuntime, image, streams, unknown_container, unknown_sandbox};
use crate::RUNTIME;
use crate::plan::{Place, plan_container, wants_seccomp};
use crate::protocol::{Answer, ContainerReport, Request};

const SIGKILL: i32 = 9;
/// After SIGKILL: only a process stuck in the kernel takes longer.
const KILL: Duration = Duration::from_secs(30);
/// A command's own timeout, and what the shim may add to it.
const EXEC_MARGIN: Duration = Duration::from_secs(5);
/// "No timeout" of a probe that has none.
const EXEC_MAX: Duration = Duration::from_secs(24 * 3600);

#[async_trait]
impl RuntimeService for ContainerRuntime {
    fn handler(&self) -> &'static str {
        "container"
    }

    async fn prepare_image(&self, image: &ResolvedImage, _namespace: &str) -> Result<(), RuntimeError> {
        image::check(image)
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId, RuntimeError> {
        let id = SandboxId(config.pod_uid.clone());
        if let Some(known) = self.sandbox(&id) {
            if known.view().alive {
                return Ok(id);
            }
            self.remove_pod_sandbox(&id).await?;
        }
        self.start_sandbox(config).await.map(|handle| handle.id())
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let Some(handle) = self.sandbox(id) else { return Ok(()) };
        stop_sandbox(&handle).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let Some(handle) = self.sandbox(id) else { return Ok(()) };
        stop_sandbox(&handle).await?;
        self.remove_traces(&handle).await?;
        self.sandboxes().remove(id);
        Ok(())
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        Ok(self.handles().iter().map(SandboxHandle::status).collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let handle = self.sandbox(sandbox).ok_or_else(|| unknown_sandbox(sandbox))?;
        let name = config.name.clone();
        let refused = |why: String| RuntimeError::CreateContainer { container: name.clone(), why };
        let writable = self.config.state_dir.join(&sandbox.0).join(format!("{}-{}", config.name, config.attempt));
        let place =
            Place { sandbox_dir: handle.dir.clone(), writable: writable.clone(), created_at: SystemTime::now() };
        let (about, mut spec) = plan_container(&handle.record.config, &config, &place).map_err(refused)?;
        if wants_seccomp(&config.security) {
            spec.process.seccomp = Some(self.filter(spec.process.capabilities)?);
        }
        let id = about.id.clone();
        match handle.ask(Request::Create { about, spec: Box::new(spec) }).await? {
            Answer::Created(_) => Ok(id),
            Answer::Failed { why } => {
                if !handle.view().containers.contains_key(&id) {
                    remove_in_background(writable).await?;
                }
                Err(refused(why))
            }
            other => Err(strange("create the container", &other)),
        }
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let handle = self.sandbox_of(id).ok_or_else(|| unknown_container(id))?;
        match handle.ask(Request::Start { container: id.clone() }).await? {
            Answer::Done => Ok(()),
            Answer::NotFound => Err(unknown_container(id)),
            Answer::Failed { why } => Err(RuntimeError::StartContainer { container: name_of(&handle, id), why }),
            other => Err(strange("start the container", &other)),
        }
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let Some((handle, report)) = self.find(id) else { return Ok(()) };
        let signal = match report.state {
            ContainerState::Exited { .. } => return Ok(()),
            ContainerState::Created => SIGKILL,
            ContainerState::Running { .. } => report.about.stop_signal,
        };
        if signal != SIGKILL && !grace.is_zero() {
            handle.ask(Request::Signal { container: id.clone(), signal }).await?;
            if handle.wait_ended(id, grace).await {
                return Ok(());
            }
        }
        handle.ask(Request::Signal { container: id.clone(), signal: SIGKILL }).await?;
        if handle.wait_ended(id, KILL).await {
            return Ok(());
        }
        Err(RuntimeError::Helper {
            helper: "the pod's shim",
            attempt: format!("end container {}", report.about.name),
            why: format!("its process did not end within {} s after SIGKILL", KILL.as_secs()),
        })
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let Some((handle, report)) = self.find(id) else { return Ok(()) };
        self.stop_container(id, Duration::ZERO).await?;
        match handle.ask(Request::Remove { container: id.clone() }).await? {
            Answer::Done | Answer::NotFound => remove_in_background(report.about.writable).await,
            Answer::Failed { why } => Err(RuntimeError::Helper {
                helper: "the pod's shim",
                attempt: format!("remove container {}", report.about.name),
                why,
            }),
            other => Err(strange("remove the container", &other)),
        }
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let of_handle = |handle: &SandboxHandle| -> Vec<ContainerStatus> {
            handle.view().containers.values().map(|report| status(handle, report)).collect()
        };
        Ok(self.handles().iter().flat_map(of_handle).collect())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        self.find(id).map(|(handle, report)| status(&handle, &report)).ok_or_else(|| unknown_container(id))
    }

    async fn update_resources(&self, update: ResourceUpdate) -> Result<(), RuntimeError> {
        self.change_limits(update).await
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        let handle = self.sandbox_of(id).ok_or_else(|| unknown_container(id))?;
        let limit = if timeout.is_zero() { EXEC_MAX } else { timeout.min(EXEC_MAX) };
        let timeout_millis = u64::try_from(limit.as_millis()).expect("EXEC_MAX is a day");
        let request = Request::Exec { container: id.clone(), command: command.to_vec(), timeout_millis };
        match handle.ask_within(request, limit + EXEC_MARGIN).await? {
            Answer::Exec { exit_code, stdout, stderr } => Ok(ExecOutcome { exit_code, stdout, stderr }),
            Answer::ExecTimeout => Err(RuntimeError::ExecTimeout {
                container: name_of(&handle, id),
                timeout_seconds: timeout.as_secs().max(1),
            }),
            Answer::NotFound => Err(unknown_container(id)),
            Answer::Failed { why } => Err(RuntimeError::Helper {
                helper: "the pod's shim",
                attempt: format!("run {command:?} in container {}", name_of(&handle, id)),
                why,
            }),
            other => Err(strange("run the command", &other)),
        }
    }

    async fn exec(&self, id: &ContainerId, options: ExecOptions) -> Result<ExecStream, RuntimeError> {
        let handle = self.sandbox_of(id).ok_or_else(|| unknown_container(id))?;
        streams::exec(&handle, id, options).await
    }

    async fn attach(&self, id: &ContainerId, wanted: Streams) -> Result<ExecStream, RuntimeError> {
        let handle = self.sandbox_of(id).ok_or_else(|| unknown_container(id))?;
        streams::attach(&handle, id, wanted).await
    }

    async fn connect_in_pod(&self, id: &SandboxId, port: u16) -> Result<TcpStream, RuntimeError> {
        let handle = self.sandbox(id).ok_or_else(|| unknown_sandbox(id))?;
        streams::connect(&handle, port).await
    }

    fn events(&self) -> BoxStream<'static, ContainerEvent> {
        // A receiver that lagged lost events; it lists again from time to time.
        BroadcastStream::new(self.events.subscribe()).filter_map(|event| async { event.ok() }).boxed()
    }

    async fn list_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        let mut stats = Vec::new();
        for handle in self.handles() {
            for report in handle.view().containers.values() {
                if matches!(report.state, ContainerState::Running { .. }) {
                    let group = self.layout.group(&report.about.cgroup);
                    stats.push(ContainerStats {
                        id: report.about.id.clone(),
                        pod_uid: handle.record.config.pod_uid.clone(),
                        name: report.about.name.clone(),
                        cpu_usage_nanos: group.cpu_usage_nanos(),
                        memory_working_set_bytes: group.working_set_bytes(),
                        memory_peak_bytes: None,
                        calls: None,
                    });
                }
            }
        }
        Ok(stats)
    }
}

impl ContainerRuntime {
    fn find(&self, id: &ContainerId) -> Option<(SandboxHandle, ContainerReport)> {
        let handle = self.sandbox_of(id)?;
        let report = handle.view().containers.get(id).cloned()?;
        Some((handle, report))
    }
}

/// Ends the shim with all its containers; returns when it is gone.
async fn stop_sandbox(handle: &SandboxHandle) -> Result<(), RuntimeError> {
    if handle.view().alive {
        // A shim that dies before it answers has stopped as well.
        let asked = handle.ask_within(Request::Shutdown, KILL).await;
        let mut view = handle.view.clone();
        let gone = tokio::time::timeout(KILL, view.wait_for(|view| !view.alive)).await;
        if gone.is_err() {
            return asked.map(drop).and(Err(RuntimeError::Helper {
                helper: "the pod's shim",
                attempt: "end".to_owned(),
                why: format!("it still runs after {} s", KILL.as_secs()),
            }));
        }
    }
    Ok(())
}

fn status(handle: &SandboxHandle, report: &ContainerReport) -> ContainerStatus {
    let about = &report.about;
    ContainerStatus {
        id: about.id.clone(),
        sandbox: handle.id(),
        pod_uid: handle.record.config.pod_uid.clone(),
        name: about.name.clone(),
        attempt: about.attempt,
        image: about.image.clone(),
        image_id: about.image_id.clone(),
        created_at: about.created_at,
        state: report.state.clone(),
        log_path: about.log_path.clone(),
    }
}

fn name_of(handle: &SandboxHandle, id: &ContainerId) -> String {
    handle.view().containers.get(id).map_or_else(|| id.0.clone(), |report| report.about.name.clone())
}

fn strange(attempt: &str, answer: &Answer) -> RuntimeError {
    RuntimeError::Helper {
        helper: "the pod's shim",
        attempt: attempt.to_owned(),
        why: format!("its answer was {answer:?} (runtime {RUNTIME})"),
    }
}

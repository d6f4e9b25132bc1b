//! Does what a plan says, one action at a time, and makes no choice. Every action is idempotent.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use api::function::HTTP_ROUTES;
use cri::{
    ContainerId, ContainerState, ImageError, Mount, PlatformPreference, PullRequest, ResolvedImage, ResourceUpdate,
    RuntimeError, RuntimeService,
};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use reconcile::{EventType, Note, Recorder};

use super::action::{ActionError, CreateContainer, Done, Outcome, PodAction};
use super::backoff::Failure;
use super::container_config::{
    ClusterDns, Inputs, container_config, dns_config, hostname, hosts_file, parse_resolv_conf, sandbox_config,
};
use super::event::{PodEvent, Severity};
use super::lifecycle_hook;
use super::resize::{Amounts, DEFERRED, INFEASIBLE};
use super::spec::{PodView, PullPolicy};
use crate::config::{Handler, NodeConfig, Paths, Runtimes};
use crate::downward::Place;
use crate::ledger::{Ledger, Refusal};
use crate::machine::Machine;
use crate::objects::ObjectWatches;
use crate::pull_secret;
use crate::tokens::{TokenError, Tokens};
use crate::{env, objects, volume};

/// Longest termination message, as Kubernetes has it, and longest tail of a log in place of it.
const TERMINATION_BYTES_MAX: usize = 4096;
const TERMINATION_LOG_LINES: usize = 80;

/// What every pod and its actions may use. Shared.
pub struct NodeContext {
    pub config: NodeConfig,
    pub paths: Paths,
    pub runtimes: Runtimes,
    pub images: Arc<dyn cri::ImageService>,
    pub network: Arc<dyn cri::PodNetwork>,
    pub client: Client,
    pub objects: ObjectWatches,
    pub tokens: Tokens,
    pub ledger: Ledger,
    pub recorder: Recorder,
    pub machine: Machine,
}

impl NodeContext {
    pub fn tell(&self, pod: &Pod, event: PodEvent) {
        let event_type = match event.severity {
            Severity::Normal => EventType::Normal,
            Severity::Warning => EventType::Warning,
        };
        let mut note = Note { event_type, ..Note::normal(pod, event.reason, event.message) };
        note.regarding.field_path = event.container.map(|name| {
            let view = PodView::new(pod);
            let init = view.init_containers().iter().any(|container| container.name == name);
            let added = view.ephemeral_containers().iter().any(|container| container.name == name);
            let list = match (init, added) {
                (true, _) => "initContainers",
                (false, true) => "ephemeralContainers",
                (false, false) => "containers",
            };
            format!("spec.{list}{{{name}}}")
        });
        self.recorder.record(note);
    }

    pub fn place<'a>(&self, pod: &'a Pod, pod_ip: Option<IpAddr>) -> Place<'a> {
        Place {
            pod: PodView::new(pod),
            pod_ip,
            host_ip: self.config.node_ip,
            node_cpu_millis: self.machine.cpu_millis,
            node_memory_bytes: self.machine.memory_bytes,
        }
    }

    pub fn log_path(&self, pod: PodView<'_>, container: &str, attempt: u32) -> PathBuf {
        let dir = self.paths.pod_logs(pod.namespace(), pod.name(), pod.uid());
        dir.join(container).join(format!("{attempt}.log"))
    }
}

/// The pod an action is for.
#[derive(Clone)]
pub struct Subject {
    pub uid: String,
    pub pod: Option<Arc<Pod>>,
}

/// Runs one action to its end.
pub async fn execute(context: Arc<NodeContext>, subject: Subject, action: PodAction) -> Outcome {
    let execution = Execution { context: &context, subject: &subject };
    let result = execution.run(&action).await;
    if let Err(error) = &result {
        let Failure { reason, message } = error.failure();
        tracing::debug!(pod_uid = subject.uid, %action, reason, message, "a step failed");
    }
    Outcome { action, result }
}

struct Execution<'a> {
    context: &'a NodeContext,
    subject: &'a Subject,
}

type Attempt = Result<Done, ActionError>;

fn retry(reason: &str, message: impl Into<String>) -> ActionError {
    ActionError::Retry(Failure::new(reason, message))
}

/// An error with its causes, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

fn runtime_error(error: RuntimeError) -> ActionError {
    let failure = Failure::new(error.reason(), chain(&error));
    match error {
        RuntimeError::Unsupported { .. } => ActionError::Unsupported(failure),
        _ => ActionError::Retry(failure),
    }
}

fn image_error(error: ImageError) -> ActionError {
    let failure = Failure::new(error.reason(), chain(&error));
    match error {
        ImageError::NoPlatform { .. } => ActionError::NoPlatform(failure),
        _ => ActionError::Retry(failure),
    }
}

impl Execution<'_> {
    async fn run(&self, action: &PodAction) -> Attempt {
        match action {
            PodAction::PrepareVolumes => self.prepare_volumes().await,
            PodAction::PullImage { container, reference, policy, preference } => {
                self.pull(container, reference, *policy, *preference).await
            }
            PodAction::PrepareImage { handler, image, .. } => self.prepare_image(*handler, image).await,
            PodAction::AttachNetwork { kind } => {
                let request = cri::AttachRequest { pod_uid: self.subject.uid.clone(), kind: *kind };
                let attached = self.context.network.attach(request).await;
                attached.map(Done::Attached).map_err(|error| retry("FailedCreatePodSandBox", chain(&error)))
            }
            PodAction::AttachLinuxNetwork => {
                let pod_uid = cri::linux_address_of(&self.subject.uid);
                let request = cri::AttachRequest { pod_uid, kind: cri::NetworkKind::Namespace };
                let attached = self.context.network.attach(request).await;
                attached.map(Done::Attached).map_err(|error| retry("FailedCreatePodSandBox", chain(&error)))
            }
            PodAction::RunSandbox { handler, isolation, attachment } => {
                let pod = self.pod()?;
                let dns = self.dns(PodView::new(pod));
                let config = sandbox_config(PodView::new(pod), attachment.clone(), dns, *isolation);
                let id = self.runtime(*handler)?.run_pod_sandbox(config).await.map_err(runtime_error)?;
                Ok(Done::SandboxRunning(id))
            }
            PodAction::CreateContainer(create) => self.create_container(create).await,
            PodAction::StartContainer { container, handler, id } => self.start_container(container, *handler, id).await,
            PodAction::AdmitResize { asks, .. } => self.admit(*asks),
            PodAction::ResizeContainer(resize) => {
                let updated = self.runtime(resize.handler)?.update_resources(resize.update.clone()).await;
                updated.map(|()| Done::Yes).map_err(|error| retry("Error", chain(&error)))
            }
            PodAction::ReadExports { handler, id, .. } => self.read_exports(*handler, id).await,
            PodAction::CollectTermination { container, handler, id } => self.collect(container, *handler, id).await,
            PodAction::StopContainer { container, handler, id, grace, .. } => {
                let runtime = self.runtime(*handler)?;
                let left = lifecycle_hook::pre_stop(self.context, self.subject, container, (runtime, id), *grace).await;
                runtime.stop_container(id, left).await.map_err(runtime_error)?;
                match runtime.container_status(id).await {
                    Ok(status) => Ok(Done::Container(Box::new(status))),
                    Err(RuntimeError::NotFound { .. }) => Ok(Done::Yes),
                    Err(error) => Err(runtime_error(error)),
                }
            }
            PodAction::RemoveContainer { handler, id, .. } => {
                self.runtime(*handler)?.remove_container(id).await.map(|()| Done::Yes).map_err(runtime_error)
            }
            PodAction::RemoveSandbox { handler, id } => {
                let runtime = self.runtime(*handler)?;
                runtime.stop_pod_sandbox(id).await.map_err(runtime_error)?;
                runtime.remove_pod_sandbox(id).await.map(|()| Done::Yes).map_err(runtime_error)
            }
            PodAction::DetachNetwork => self.detach(&self.subject.uid).await,
            PodAction::DetachLinuxNetwork => self.detach(&cri::linux_address_of(&self.subject.uid)).await,
            PodAction::RemovePodFiles => self.remove_files().await,
            PodAction::DeletePodObject => self.delete_object().await,
        }
    }

    fn pod(&self) -> Result<&Pod, ActionError> {
        self.subject.pod.as_deref().ok_or_else(|| retry("PodGone", "the pod object is gone"))
    }

    fn admit(&self, asks: Amounts) -> Attempt {
        match self.context.ledger.admit(&self.subject.uid, asks) {
            Ok(()) => Ok(Done::Yes),
            Err(Refusal::Deferred(why)) => Err(retry(DEFERRED, why)),
            Err(Refusal::Infeasible(why)) => Err(retry(INFEASIBLE, why)),
        }
    }

    async fn detach(&self, uid: &str) -> Attempt {
        let detached = self.context.network.detach(uid).await;
        detached.map(|()| Done::Yes).map_err(|error| retry("FailedKillPod", chain(&error)))
    }

    fn container(&self, name: &str) -> Result<Cow<'_, Container>, ActionError> {
        let found = PodView::new(self.pod()?).any_container(name);
        found.ok_or_else(|| retry("PodGone", format!("the pod has no container {name} any more")))
    }

    fn runtime(&self, handler: Handler) -> Result<&Arc<dyn RuntimeService>, ActionError> {
        let name = handler.as_str();
        let absent = || retry("CreateContainerError", format!("this node has no {name} runtime"));
        self.context.runtimes.get(handler).ok_or_else(absent)
    }

    fn dns(&self, pod: PodView<'_>) -> cri::DnsConfig {
        let config = &self.context.config;
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let cluster = ClusterDns {
            server: config.cluster_dns.to_string(),
            domain: &config.cluster_domain,
            host: parse_resolv_conf(&host),
        };
        dns_config(pod, cluster)
    }

    // ---- images ----

    async fn pull(
        &self,
        container: &str,
        reference: &str,
        policy: PullPolicy,
        preference: PlatformPreference,
    ) -> Attempt {
        let mut request = PullRequest { reference: reference.to_owned(), preference, auth: None };
        let images = &self.context.images;
        if policy != PullPolicy::Always {
            if let Some(image) = images.resolve_local(&request).await.map_err(image_error)? {
                return Ok(Done::Pulled { image: Arc::new(image), from_registry: None });
            }
            if policy == PullPolicy::Never {
                return Err(image_error(ImageError::NeverPull { reference: reference.to_owned() }));
            }
        }
        let pod = self.pod()?;
        request.auth = pull_secret::find(&self.context.client, PodView::new(pod), reference).await;
        self.context.tell(pod, PodEvent::normal("Pulling", format!("Pulling image {reference:?}")).of(container));
        let begin = Instant::now();
        let image = images.pull(request).await.map_err(image_error)?;
        Ok(Done::Pulled { image: Arc::new(image), from_registry: Some(begin.elapsed()) })
    }

    async fn prepare_image(&self, handler: Handler, image: &ResolvedImage) -> Attempt {
        let Some(runtime) = self.context.runtimes.get(handler) else {
            let (name, reference) = (handler.as_str(), &image.reference);
            let why = format!("image {reference} needs the {name} runtime, which this node does not have");
            return Err(ActionError::Unsupported(Failure::new("ImageNotSupported", why)));
        };
        let namespace = PodView::new(self.pod()?).namespace();
        runtime.prepare_image(image, namespace).await.map(|()| Done::Yes).map_err(runtime_error)
    }

    // ---- files ----

    async fn prepare_volumes(&self) -> Attempt {
        let pod = self.pod()?;
        let references = volume::all_references(PodView::new(pod));
        let objects = self.objects(&references, volume::REASON).await?;
        let kinds = volume::all_tokens(PodView::new(pod));
        let tokens = self.context.tokens.of_pod(pod, &kinds).await;
        let no_token = |error: TokenError| retry(volume::REASON, chain(&error));
        let contents = volume::Contents { objects: &objects, tokens: &tokens.map_err(no_token)? };
        let dir = self.context.paths.pod(&self.subject.uid);
        let place = self.context.place(pod, None);
        // Secrets and tokens are below it. Whoever runs without rights is given open directories, not paths.
        volume::make_dir(&dir, 0o700).map_err(ActionError::Retry)?;
        volume::write_all(&dir.join("volumes"), place, contents).map_err(ActionError::Retry)?;
        Ok(Done::Yes)
    }

    async fn objects(&self, references: &[objects::ObjectRef], reason: &str) -> Result<env::Objects, ActionError> {
        let fetched = objects::fetch(&self.context.client, references).await;
        fetched.map_err(|error| retry(reason, format!("cannot read ConfigMaps and Secrets: {}", chain(&error))))
    }

    async fn remove_files(&self) -> Attempt {
        let uid = &self.subject.uid;
        if uid.is_empty() || uid.contains('/') || uid.contains("..") {
            return Err(retry("FailedKillPod", format!("{uid:?} is no pod uid")));
        }
        self.context.tokens.forget(uid);
        remove_dir(&self.context.paths.pod(uid)).await?;
        let suffix = format!("_{uid}");
        let mut logs = match tokio::fs::read_dir(self.context.paths.logs()).await {
            Ok(logs) => logs,
            Err(_) => return Ok(Done::Yes),
        };
        while let Ok(Some(entry)) = logs.next_entry().await {
            if entry.file_name().to_string_lossy().ends_with(&suffix) {
                remove_dir(&entry.path()).await?;
            }
        }
        Ok(Done::Yes)
    }

    // ---- containers ----

    async fn create_container(&self, create: &CreateContainer) -> Attempt {
        let pod = self.pod()?;
        let view = PodView::new(pod);
        let container = &*self.container(&create.container)?;
        let references = env::references(view.namespace(), container);
        let objects = self.objects(&references, "CreateContainerConfigError").await?;
        let place = self.context.place(pod, Some(create.attachment.ip()));
        let env = env::resolve(place, container, &self.base_env(view), &objects).map_err(ActionError::Retry)?;
        let mounts = self.mounts(view, container, create, &env).map_err(ActionError::Retry)?;
        let log_path = self.context.log_path(view, &container.name, create.attempt);
        let io = |error: std::io::Error| retry("CreateContainerError", format!("cannot make container files: {error}"));
        if let Some(dir) = log_path.parent() {
            tokio::fs::create_dir_all(dir).await.map_err(io)?;
        }
        let termination = self.termination_path(&container.name);
        if let Some(dir) = termination.parent() {
            tokio::fs::create_dir_all(dir).await.map_err(io)?;
        }
        tokio::fs::write(&termination, b"").await.map_err(io)?;
        let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        tokio::fs::set_permissions(&termination, open_to_all).await.map_err(io)?;
        let path = container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".into());
        let termination_message = Mount { host_path: termination, container_path: path, read_only: false };
        let inputs = Inputs { env, mounts, log_path, termination_message };
        let config = container_config(view, container, create, inputs).map_err(ActionError::Retry)?;
        let runtime = self.runtime(create.handler)?;
        if let Some(pod) = create.pod.clone() {
            let update = ResourceUpdate { sandbox: create.sandbox.clone(), pod, container: None };
            runtime.update_resources(update).await.map_err(runtime_error)?;
        }
        let id = runtime.create_container(&create.sandbox, config).await.map_err(runtime_error)?;
        runtime.container_status(&id).await.map(Box::new).map(Done::Container).map_err(runtime_error)
    }

    fn termination_path(&self, container: &str) -> PathBuf {
        self.context.paths.pod(&self.subject.uid).join("containers").join(container).join("termination-log")
    }

    fn base_env(&self, pod: PodView<'_>) -> Vec<(String, String)> {
        let api = self.context.config.kubernetes_service;
        let (host, port) = (api.ip().to_string(), api.port().to_string());
        vec![
            ("HOSTNAME".into(), hostname(pod)),
            ("KUBERNETES_SERVICE_HOST".into(), host.clone()),
            ("KUBERNETES_SERVICE_PORT".into(), port.clone()),
            ("KUBERNETES_SERVICE_PORT_HTTPS".into(), port.clone()),
            ("KUBERNETES_PORT".into(), format!("tcp://{host}:{port}")),
        ]
    }

    fn mounts(
        &self,
        pod: PodView<'_>,
        container: &Container,
        create: &CreateContainer,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, Failure> {
        let dir = self.context.paths.pod(&self.subject.uid);
        let volumes = pod.spec().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let unknown =
                || Failure::new("CreateContainerConfigError", format!("the pod has no volume {:?}", mount.name));
            let found = volumes.iter().find(|volume| volume.name == mount.name).ok_or_else(unknown)?;
            let mut host_path = volume::host_path(&dir.join("volumes"), found);
            let value_of = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            let expr = mount.sub_path_expr.as_ref().map(|text| env::expand(text, value_of));
            if let Some(sub_path) = mount.sub_path.clone().or(expr).filter(|path| !path.is_empty()) {
                host_path = volume::resolve_sub_path(&host_path, &sub_path)?;
            }
            let container_path = mount.mount_path.clone();
            mounts.push(Mount { host_path, container_path, read_only: mount.read_only.unwrap_or(false) });
        }
        if create.handler == Handler::Container && !pod.host_network() {
            self.managed_files(pod, create, &dir, &mut mounts)?;
        }
        Ok(mounts)
    }

    /// `/etc/hosts` and `/etc/hostname`, unless the pod mounts its own.
    fn managed_files(
        &self,
        pod: PodView<'_>,
        create: &CreateContainer,
        dir: &Path,
        mounts: &mut Vec<Mount>,
    ) -> Result<(), Failure> {
        let hosts = hosts_file(pod, create.attachment.ip(), &self.context.config.cluster_domain);
        let files = [("etc-hosts", "/etc/hosts", hosts), ("hostname", "/etc/hostname", hostname(pod) + "\n")];
        for (file, path, text) in files {
            if mounts.iter().any(|mount| mount.container_path == path) {
                continue;
            }
            let host_path = dir.join(file);
            std::fs::write(&host_path, text).map_err(|error| {
                Failure::new("CreateContainerError", format!("cannot write {}: {error}", host_path.display()))
            })?;
            mounts.push(Mount { host_path, container_path: path.to_owned(), read_only: false });
        }
        Ok(())
    }

    async fn start_container(&self, container: &str, handler: Handler, id: &ContainerId) -> Attempt {
        let runtime = self.runtime(handler)?;
        let started = runtime.start_container(id).await;
        let status = runtime.container_status(id).await;
        match (started, status) {
            (Ok(()), Ok(status)) => {
                lifecycle_hook::post_start(self.context, self.subject, container, (runtime, id)).await?;
                Ok(Done::Container(Box::new(status)))
            }
            (Ok(()), Err(error)) => Err(runtime_error(error)),
            // The runtime counts the failed start as a run that ended: the restart policy decides.
            (Err(error), Ok(status)) if matches!(status.state, ContainerState::Exited { .. }) => {
                let text = format!("Error: {}", chain(&error));
                self.context.tell(self.pod()?, PodEvent::warning("Failed", text).of(container));
                Ok(Done::Container(Box::new(status)))
            }
            (Err(error), _) => Err(runtime_error(error)),
        }
    }

    async fn read_exports(&self, handler: Handler, id: &ContainerId) -> Attempt {
        let exports = self.runtime(handler)?.exports(id).await;
        let exports = exports.map_err(|error| retry("NoExports", chain(&error)))?;
        // Its own HTTP handler may be all that is wanted of it.
        if exports.is_empty() && PodView::new(self.pod()?).annotation(HTTP_ROUTES).is_none() {
            return Err(retry("NoExports", "the component exports no function that can be called"));
        }
        let text = serde_json::to_string(&exports).expect("exports are plain data");
        Ok(Done::Exports(text))
    }

    async fn collect(&self, container: &str, handler: Handler, id: &ContainerId) -> Attempt {
        let status = match self.runtime(handler)?.container_status(id).await {
            Ok(status) => status,
            Err(RuntimeError::NotFound { .. }) => return Ok(Done::Terminated { message: String::new() }),
            Err(error) => return Err(runtime_error(error)),
        };
        let file = tokio::fs::read(self.termination_path(container)).await.unwrap_or_default();
        let mut message = String::from_utf8_lossy(&file[..file.len().min(TERMINATION_BYTES_MAX)]).into_owned();
        let ContainerState::Exited { exit_code, message: of_runtime, .. } = &status.state else {
            return Ok(Done::Terminated { message });
        };
        if message.is_empty() {
            message.clone_from(of_runtime);
        }
        let policy = self.container(container).ok().and_then(|c| c.termination_message_policy.clone());
        let from_log = policy.as_deref() == Some("FallbackToLogsOnError") && *exit_code != 0;
        if message.is_empty() && from_log {
            message = crate::logs::tail(&status.log_path, TERMINATION_LOG_LINES, TERMINATION_BYTES_MAX).await;
        }
        Ok(Done::Terminated { message })
    }

    async fn delete_object(&self) -> Attempt {
        let pod = self.pod()?;
        let view = PodView::new(pod);
        let api = Api::<reconcile::pod::Pod>::namespaced(self.context.client.clone(), view.namespace());
        let preconditions = Preconditions { uid: Some(view.uid().to_owned()), ..Default::default() };
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match api.delete(view.name(), &parameters).await {
            Ok(_) => Ok(Done::Yes),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Done::Yes),
            Err(error) => Err(retry("FailedDelete", chain(&error))),
        }
    }
}

async fn remove_dir(dir: &Path) -> Result<(), ActionError> {
    match tokio::fs::remove_dir_all(dir).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(retry("FailedKillPod", format!("cannot remove {}: {error}", dir.display()))),
    }
}

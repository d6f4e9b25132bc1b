//! The calls of the seam, step by step.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use cri::{
    Answers, CallCounts, ContainerConfig, ContainerEvent, ContainerId, ContainerState, ContainerStats, ContainerStatus,
    ExecOptions, ExecOutcome, ExecStream, ExportedFunction, ImageKind, PodSandboxConfig, ResolvedImage, ResourceUpdate,
    RuntimeError, RuntimeService, SandboxId, SandboxStatus, Streams,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::broadcast::error::RecvError;

use crate::native::compile::CompileError;
use crate::native::{NativeCode, PrepareError, WasmFile};
use crate::protocol::{FILES_MAX, Request, Response, StartContainer};
use crate::runtime::record::{ContainerRecord, SandboxRecord};
use crate::runtime::{WasmRuntime, chain, hosts, open, plan, streams};

const RUNTIME: &str = "wasm";
/// What `exec_sync` keeps of each stream.
const EXEC_OUTPUT_BYTES_MAX: usize = 64 << 10;

#[async_trait]
impl RuntimeService for WasmRuntime {
    fn handler(&self) -> &'static str {
        RUNTIME
    }

    async fn prepare_image(&self, image: &ResolvedImage, namespace: &str) -> Result<(), RuntimeError> {
        self.native_code(image, namespace).await.map(drop)
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId, RuntimeError> {
        let id = SandboxId(format!("{RUNTIME}-{}", config.pod_uid));
        let (key, created_at) = (id.clone(), SystemTime::now());
        let put = self.state.with(move |state| {
            let known = state.records.sandboxes().get(&key.0);
            if known.is_some_and(|known| !known.stopped) {
                return Ok(());
            }
            // What it ran before may be in its host still.
            let host_number =
                known.map_or_else(|| state.records.host_for(&config.namespace), |known| known.host_number);
            state.records.put_sandbox(SandboxRecord { id: key, config, created_at, stopped: false, host_number })
        });
        put.await.map_err(|source| RuntimeError::Io { attempt: format!("record sandbox {id}"), source })?;
        self.hosts.pod_came();
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let key = id.0.clone();
        let found = self.state.with(move |state| {
            let sandbox = state.records.sandboxes().get(&key)?.clone();
            Some((sandbox, state.records.containers_of(&key)))
        });
        let Some((sandbox, containers)) = found.await else { return Ok(()) };
        for container in containers.iter().filter(|one| one.is_running()) {
            self.stop_container(&container.id, Duration::ZERO).await?;
        }
        let stopped = SandboxRecord { stopped: true, ..sandbox };
        let put = self.state.with(move |state| state.records.put_sandbox(stopped)).await;
        put.map_err(|source| RuntimeError::Io { attempt: format!("record that sandbox {id} stopped"), source })
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.stop_pod_sandbox(id).await?;
        let key = id.0.clone();
        let containers = self.state.with(move |state| state.records.containers_of(&key)).await;
        for container in containers {
            self.remove_container(&container.id).await?;
        }
        let key = id.0.clone();
        if let Some((sandbox, true)) = self.state.with(move |state| state.records.remove_sandbox(&key)).await {
            self.hosts.end(&sandbox).await;
        }
        Ok(())
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        Ok(self.state.with(|state| state.records.sandboxes().values().map(SandboxRecord::status).collect()).await)
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        if let Some(mount) = config.mounts.iter().find(|mount| !mount.host_path.exists()) {
            let why = format!("mount {}: {} does not exist", mount.container_path, mount.host_path.display());
            return Err(RuntimeError::CreateContainer { container: config.name, why });
        }
        let id = ContainerId(format!("{}.{}.{}", sandbox.0, config.name, config.attempt));
        let record = ContainerRecord {
            id: id.clone(),
            sandbox: sandbox.clone(),
            config,
            created_at: SystemTime::now(),
            state: ContainerState::Created,
        };
        self.state
            .with(move |state| {
                let known = state.records.sandboxes().get(&record.sandbox.0).filter(|sandbox| !sandbox.stopped);
                if known.is_none() {
                    return Err(not_found("sandbox", &record.sandbox.0));
                }
                if state.records.containers.get(&record.id.0).is_some_and(ContainerRecord::is_running) {
                    let why = "a container of that name and attempt runs".to_owned();
                    return Err(RuntimeError::CreateContainer { container: record.config.name, why });
                }
                let attempt = format!("record container {}", record.id);
                state.records.put_container(record).map_err(|source| RuntimeError::Io { attempt, source })
            })
            .await?;
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let (container, sandbox) = self.lookup(id).await?;
        if !matches!(container.state, ContainerState::Created) {
            return Ok(());
        }
        let code = self.native_code(&container.config.image, &sandbox.config.namespace).await?;
        let refused = plan::refused_imports(&sandbox.config, &container.config, &code.description.imports);
        if !refused.is_empty() {
            let why = format!("it imports {}, which it was not granted", refused.join(", "));
            return Err(RuntimeError::StartContainer { container: container.config.name, why });
        }
        let is_file = |path: &std::path::Path| path.is_file();
        let mut start = plan::start(&id.0, &sandbox.config, &container.config, &code.description, is_file);
        if self.config.key_value.is_none() {
            // Nobody would answer: opening one is refused at once.
            start.spec.grants.stores.clear();
        }
        start.spec.egress.judged = self.config.policies.as_ref().is_some_and(|table| table.borrow().is_enforced);
        let failed = |why: String| RuntimeError::StartContainer { container: container.config.name.clone(), why };
        start.spec.chain =
            chain::chain(&sandbox.config, &sandbox.id.0, &container.config.name, &code.description).map_err(failed)?;
        if start.spec.chain.next.is_some() {
            // Its requests come from its pod.
            start.spec.listen = None;
        }
        if start.sources.len() + 2 > FILES_MAX {
            return Err(failed(format!("{} mounts, the limit is {}", start.sources.len(), FILES_MAX - 2)));
        }
        let log = open::log(&container.config.log_path)
            .map_err(|error| failed(format!("log {}: {error}", container.config.log_path.display())))?;
        let staging = open::staging_dir(&self.config.run_dir, &id.0);
        let mut files = vec![log, code.file];
        for (number, (source, preopen)) in start.sources.iter().zip(&start.spec.preopens).enumerate() {
            let opened = open::source(source, &staging, number, self.config.host_uid_gid);
            files.push(opened.map_err(|error| failed(format!("mount {}: {error}", preopen.guest_path)))?);
        }
        match self.start_in_a_host(sandbox, start.spec, &files).await? {
            Response::Done => {}
            Response::Failed { why } => return Err(failed(why)),
            other => return Err(failed(format!("the sandbox host answered {other:?}"))),
        }
        let (key, started_at) = (id.0.clone(), SystemTime::now());
        let marked = self.state.with(move |state| {
            state.records.update(&key, |before| match before {
                ContainerState::Created => ContainerState::Running { started_at },
                // Its end was reported before we got here.
                ContainerState::Running { .. } | ContainerState::Exited { .. } => before.clone(),
            })
        });
        if marked.await {
            hosts::tell(&self.state, &self.events, id.0.clone()).await;
        }
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let Ok((container, sandbox)) = self.lookup(id).await else { return Ok(()) };
        if !container.is_running() {
            return Ok(());
        }
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let host = sandbox.host();
        self.hosts.call(&host, &Request::Stop { id: id.0.clone(), grace_ms }).await?;
        // Its end may still be on its way to us as an event; ask, so that the caller sees it now.
        if let Some(Response::Containers(list)) = self.hosts.call(&host, &Request::Status { id: id.0.clone() }).await? {
            for report in list {
                if self.state.with(move |state| state.records.report(&report)).await {
                    hosts::tell(&self.state, &self.events, id.0.clone()).await;
                }
            }
        }
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let Ok((container, sandbox)) = self.lookup(id).await else { return Ok(()) };
        if container.is_running() {
            self.stop_container(id, Duration::ZERO).await?;
        }
        self.hosts.call(&sandbox.host(), &Request::Forget { id: id.0.clone() }).await?;
        let _ = std::fs::remove_dir_all(open::staging_dir(&self.config.run_dir, &id.0));
        let key = id.0.clone();
        self.state.with(move |state| state.records.remove_container(&key)).await;
        Ok(())
    }

    async fn forget_prepared(&self, unused_for: Duration) -> Result<u64, RuntimeError> {
        let in_use = self.state.with(|state| -> BTreeSet<String> {
            let images = state.records.containers.values().map(|container| &container.config.image.kind);
            let digests = images.filter_map(|kind| match kind {
                ImageKind::Wasm { digest, .. } => Some(digest.clone()),
                ImageKind::Rootfs { .. } => None,
            });
            digests.collect()
        });
        let (in_use, cache) = (in_use.await, Arc::clone(&self.cache));
        let failed = |source| RuntimeError::Io { attempt: "remove native code".to_owned(), source };
        let expired = tokio::task::spawn_blocking(move || cache.expire(&in_use, unused_for)).await;
        expired.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let list = self.state.with(|state| {
            let records = &state.records;
            records.containers.values().map(|one| one.status(&records.pod_uid(one))).collect()
        });
        Ok(list.await)
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let (container, sandbox) = self.lookup(id).await?;
        Ok(container.status(&sandbox.config.pod_uid))
    }

    async fn update_resources(&self, update: ResourceUpdate) -> Result<(), RuntimeError> {
        // A pod as a whole has no limits here, unless a container has none of its own.
        let Some((id, resources)) = update.container else { return Ok(()) };
        let (container, sandbox) = self.lookup(&id).await?;
        let memory_bytes = plan::memory_limit(&resources, &update.pod);
        let cpu_millis = plan::cpu_limit(&resources, &update.pod);
        let request = Request::Limit { id: id.0.clone(), memory_bytes, cpu_millis };
        let failed = |why: String| RuntimeError::Resize { container: container.config.name, why };
        match self.hosts.call(&sandbox.host(), &request).await? {
            Some(Response::Done) => Ok(()),
            Some(Response::Failed { why }) => Err(failed(why)),
            Some(Response::Unknown) | None => Err(failed("it is not running".to_owned())),
            Some(other) => Err(failed(format!("the sandbox host answered {other:?}"))),
        }
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        let (container, sandbox) = self.lookup(id).await?;
        let failed =
            |why: String| RuntimeError::Helper { helper: "sandbox host", attempt: format!("exec in {id}"), why };
        let Some((export, args)) = command.split_first() else { return Err(failed("no command given".to_owned())) };
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Invoke { id: id.0.clone(), export: export.clone(), args: args.to_vec(), timeout_ms };
        let cut = |text: String| {
            let mut bytes = text.into_bytes();
            bytes.truncate(EXEC_OUTPUT_BYTES_MAX);
            bytes
        };
        match self.hosts.call(&sandbox.host(), &request).await? {
            Some(Response::Invoked { exit_code, stdout, stderr }) => {
                Ok(ExecOutcome { exit_code, stdout: cut(stdout), stderr: cut(stderr) })
            }
            Some(Response::TimedOut) => {
                let timeout_seconds = timeout.as_secs();
                Err(RuntimeError::ExecTimeout { container: container.config.name, timeout_seconds })
            }
            Some(Response::Failed { why }) => Err(failed(why)),
            Some(Response::Unknown) | None => Err(failed("the container is not running".to_owned())),
            Some(other) => Err(failed(format!("unexpected answer {other:?}"))),
        }
    }

    async fn exports(&self, id: &ContainerId) -> Result<Vec<ExportedFunction>, RuntimeError> {
        let (_, sandbox) = self.lookup(id).await?;
        let failed = |why: String| RuntimeError::Helper {
            helper: "sandbox host",
            attempt: format!("describe the exports of {id}"),
            why,
        };
        match self.hosts.call(&sandbox.host(), &Request::Exports { id: id.0.clone() }).await? {
            Some(Response::Exports(exports)) => Ok(exports),
            Some(Response::Failed { why }) => Err(failed(why)),
            Some(Response::Unknown) | None => Err(failed("the container is not running".to_owned())),
            Some(other) => Err(failed(format!("unexpected answer {other:?}"))),
        }
    }

    async fn invoke(&self, id: &ContainerId, calls: BoxStream<'static, Bytes>) -> Result<Answers, RuntimeError> {
        let (_, sandbox) = self.lookup(id).await?;
        match self.hosts.calls(&sandbox.host(), id, calls).await? {
            Some(answers) => Ok(answers),
            None => Err(not_found("container", &id.0)),
        }
    }

    async fn exec(&self, id: &ContainerId, options: ExecOptions) -> Result<ExecStream, RuntimeError> {
        streams::exec(self, id, options).await
    }

    async fn attach(&self, id: &ContainerId, wanted: Streams) -> Result<ExecStream, RuntimeError> {
        streams::attach(self, id, wanted).await
    }

    async fn connect_in_pod(&self, id: &SandboxId, port: u16) -> Result<TcpStream, RuntimeError> {
        streams::connect(self, id, port).await
    }

    fn events(&self) -> BoxStream<'static, ContainerEvent> {
        let stream = futures::stream::unfold(self.events.subscribe(), |mut events| async move {
            loop {
                match events.recv().await {
                    Ok(event) => return Some((event, events)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        stream.boxed()
    }

    async fn list_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        let hosts = self.state.with(|state| state.links.keys().cloned().collect::<Vec<_>>()).await;
        let mut stats = Vec::new();
        for host in hosts {
            if let Some(Response::Stats(list)) = self.hosts.call(&host, &Request::Stats).await? {
                stats.extend(list);
            }
        }
        let joined = self.state.with(move |state| {
            let named = stats.into_iter().filter_map(|one| {
                let record = state.records.containers.get(&one.id)?;
                Some(ContainerStats {
                    id: record.id.clone(),
                    pod_uid: state.records.pod_uid(record),
                    name: record.config.name.clone(),
                    cpu_usage_nanos: one.cpu_nanos,
                    memory_working_set_bytes: one.memory_bytes,
                    memory_peak_bytes: Some(one.memory_peak_bytes),
                    calls: Some(CallCounts {
                        begun: one.requests.saturating_sub(one.refusals),
                        trapped: one.traps,
                        timed_out: one.timeouts,
                        out_of_memory: one.out_of_memory,
                        failed: one.errors,
                        refused: one.refusals,
                        in_process: one.in_process,
                    }),
                })
            });
            named.collect()
        });
        Ok(joined.await)
    }
}

impl WasmRuntime {
    async fn lookup(&self, id: &ContainerId) -> Result<(ContainerRecord, SandboxRecord), RuntimeError> {
        let key = id.0.clone();
        let found = self.state.with(move |state| {
            let container = state.records.containers.get(&key)?.clone();
            let sandbox = state.records.sandboxes().get(&container.sandbox.0)?.clone();
            Some((container, sandbox))
        });
        found.await.ok_or_else(|| not_found("container", &id.0))
    }

    /// A sandbox that nothing was started of moves on from hosts that are full.
    async fn start_in_a_host(
        &self,
        mut sandbox: SandboxRecord,
        mut spec: StartContainer,
        files: &[File],
    ) -> Result<Response, RuntimeError> {
        let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let key = sandbox.id.0.clone();
        spec.stays = self.state.with(move |state| state.records.has_started(&key)).await;
        let request = Request::Start(Box::new(spec));
        let mut full = BTreeSet::new();
        loop {
            let answered = self.hosts.call_started(&sandbox, &request, &descriptors).await?;
            let Response::Full { open_files_max } = answered else { return Ok(answered) };
            full.insert(sandbox.host_number);
            let (key, full) = (sandbox.id.0.clone(), full.clone());
            let moved = self.state.with(move |state| state.records.move_on(&key, &full)).await;
            let attempt = || format!("record that sandbox {} goes to another host", sandbox.id);
            match moved.map_err(|source| RuntimeError::Io { attempt: attempt(), source })? {
                Some(moved) => sandbox = moved,
                None => {
                    let why = format!(
                        "the pods of its sandbox host have as many files open as it may ({open_files_max}): allow \
                         more (LimitNOFILE=)"
                    );
                    return Ok(Response::Failed { why });
                }
            }
        }
    }

    async fn native_code(&self, image: &ResolvedImage, namespace: &str) -> Result<NativeCode, RuntimeError> {
        let unsupported =
            |why: String| RuntimeError::Unsupported { runtime: RUNTIME, image: image.reference.clone(), why };
        let ImageKind::Wasm { file, digest, .. } = &image.kind else {
            return Err(unsupported("it is a Linux root file system, no WebAssembly".to_owned()));
        };
        let wasm = WasmFile { path: file, digest, manifest: &image.manifest_digest, namespace };
        self.cache.prepare(wasm, self.config.code_source.as_deref()).await.map_err(|error| match error {
            PrepareError::Io { attempt, source } => RuntimeError::Io { attempt, source },
            PrepareError::Compile(error @ CompileError::Spawn { .. }) => {
                RuntimeError::Helper { helper: "compiler", attempt: "start".to_owned(), why: error.to_string() }
            }
            // Anything but `Unsupported` is tried again.
            PrepareError::Compile(error @ CompileError::TooSlow) => {
                RuntimeError::Helper { helper: "compiler", attempt: "compile".to_owned(), why: error.to_string() }
            }
            other => unsupported(other.to_string()),
        })
    }
}

pub(super) fn not_found(what: &'static str, id: &str) -> RuntimeError {
    RuntimeError::NotFound { runtime: RUNTIME, what, id: id.to_owned() }
}

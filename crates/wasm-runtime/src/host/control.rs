//! The host's door: a unix socket, one request per connection.
//!
//! Owns: the containers of this host (through its worker) and who may ask. Only root, or the user
//! that started the host, is answered.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::broadcast;

use crate::host::agent::AgentHandle;
use crate::host::container::{Container, ContainerFiles, Process};
use crate::host::executor::Executor;
use crate::host::outgoing::Neighbours;
use crate::host::program::Programs;
use crate::host::{calls, invoke, run};
use crate::owned::Owned;
use crate::protocol::{HostEvent, Request, Response, StartContainer};
use crate::wire::{self, Receiver};

/// Events a slow subscriber may lag behind before it loses some (it lists again then).
const EVENTS: usize = 1024;
/// Files that a host keeps for connections, and to be spoken to. Without any left it would look dead to the agent.
const SPARE_FILES: u64 = 512;
/// What it keeps beyond those for more containers of the pods that it has.
const FILES_FOR_KNOWN_PODS: u64 = 512;

/// What the host's worker owns.
struct Containers {
    programs: Programs,
    running: BTreeMap<String, Arc<Container>>,
    /// Since when there was nothing here.
    idle_since: Option<Instant>,
}

#[derive(Clone)]
pub struct Host {
    containers: Owned<Containers>,
    events: broadcast::Sender<HostEvent>,
    executor: Executor,
    process: Process,
}

impl Host {
    pub fn new(programs: Programs, executor: Executor) -> Self {
        let containers = Containers { programs, running: BTreeMap::new(), idle_since: Some(Instant::now()) };
        let events = broadcast::Sender::new(EVENTS);
        let process = Process { agent: AgentHandle::spawn(), neighbours: Neighbours::default() };
        Self { containers: Owned::spawn(containers), events, executor, process }
    }

    /// Answers requests until the host was idle for `idle_exit`.
    pub async fn serve(self, listener: UnixListener, controller_uid: u32, idle_exit: Duration) {
        let mut check_idle = tokio::time::interval(idle_exit / 2);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) if may_ask(&stream, controller_uid) => {
                        let host = self.clone();
                        tokio::spawn(async move {
                            if let Err(error) = host.converse(stream).await {
                                tracing::debug!(%error, "a control connection broke");
                            }
                        });
                    }
                    Ok(_) => tracing::warn!("refused a control connection of another user"),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a control connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                _ = check_idle.tick() => {
                    let idle = self.containers.with(|all| all.idle_since).await;
                    if idle.is_some_and(|since| since.elapsed() >= idle_exit) {
                        return;
                    }
                }
            }
        }
    }

    async fn converse(self, mut stream: UnixStream) -> io::Result<()> {
        let mut receiver = Receiver::new();
        let Some((request, files)) = receiver.next::<Request>(&stream).await? else { return Ok(()) };
        let response = match request {
            Request::Subscribe => return self.publish(stream).await,
            Request::Calls { id } => match self.find(id).await {
                Some(container) => return self.calls(container, stream, receiver).await,
                None => Response::Unknown,
            },
            Request::Exports { id } => match self.find(id).await {
                Some(container) => {
                    container.exports().describe().map_or_else(|why| Response::Failed { why }, Response::Exports)
                }
                None => Response::Unknown,
            },
            Request::Start(spec) => match self.start(*spec, files).await {
                Ok(()) => Response::Done,
                Err(Refused::Full { open_files_max }) => Response::Full { open_files_max },
                Err(Refused::Failed { why }) => Response::Failed { why },
            },
            Request::TakeCalls => match files.into_iter().next() {
                Some(channel) => match self.process.agent.attach(channel.into()).await {
                    Ok(()) => Response::Done,
                    Err(error) => Response::Failed { why: format!("cannot take the channel: {error}") },
                },
                None => Response::Failed { why: "the request came without its file".to_owned() },
            },
            Request::Services(table) => {
                self.process.neighbours.services().set(table);
                Response::Done
            }
            Request::Policies(table) => {
                self.process.neighbours.policies().set(table);
                Response::Done
            }
            Request::Stop { id, grace_ms } => match self.find(id).await {
                Some(container) => stop(&container, Duration::from_millis(grace_ms)).await,
                None => Response::Unknown,
            },
            Request::Limit { id, memory_bytes, cpu_millis } => match self.find(id).await {
                Some(container) => match container.usage.limit(memory_bytes) {
                    Ok(()) => {
                        container.usage.cpu.limit(cpu_millis);
                        Response::Done
                    }
                    Err(used) => Response::Failed {
                        why: format!("a memory limit of {memory_bytes} bytes is below the {used} bytes in use"),
                    },
                },
                None => Response::Unknown,
            },
            Request::Status { id } => match self.find(id).await {
                Some(container) => Response::Containers(vec![container.describe()]),
                None => Response::Unknown,
            },
            Request::List => Response::Containers(self.all().await.iter().map(|one| one.describe()).collect()),
            Request::Stats => Response::Stats(self.all().await.iter().map(|one| one.stats()).collect()),
            Request::Forget { id } => self.forget(id).await,
            Request::Invoke { id, export, args, timeout_ms } => match self.find(id).await {
                Some(container) if container.is_running() => {
                    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
                    invoke::invoke(container, &self.executor, export, args, deadline).await
                }
                Some(_) => Response::Failed { why: "it is not running".to_owned() },
                None => Response::Unknown,
            },
        };
        wire::send(&mut stream, &response, &[]).await
    }

    /// Hands the connection to a thread for guests.
    async fn calls(&self, container: Arc<Container>, mut stream: UnixStream, receiver: Receiver) -> io::Result<()> {
        // First the token, then the look: a container that stops later waits for this stream.
        let token = container.callers.token();
        if container.stop.drain.is_cancelled() {
            return wire::send(&mut stream, &Response::Unknown, &[]).await;
        }
        wire::send(&mut stream, &Response::Done, &[]).await?;
        let (stream, rest) = (stream.into_std()?, receiver.into_rest().into());
        let served = calls::serve(container, self.executor.clone(), stream, rest);
        self.executor.spawn(async move {
            let _token = token;
            served.await;
        });
        Ok(())
    }

    async fn publish(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut events = self.events.subscribe();
        wire::send(&mut stream, &Response::Done, &[]).await?;
        loop {
            match events.recv().await {
                Ok(event) => wire::send(&mut stream, &event, &[]).await?,
                // The subscriber lists when its connection ends, so ending it loses nothing.
                Err(_) => return Ok(()),
            }
        }
    }

    async fn find(&self, id: String) -> Option<Arc<Container>> {
        self.containers.with(move |all| all.running.get(&id).cloned()).await
    }

    async fn all(&self) -> Vec<Arc<Container>> {
        self.containers.with(|all| all.running.values().cloned().collect()).await
    }

    async fn forget(&self, id: String) -> Response {
        self.containers
            .with(move |all| match all.running.get(&id) {
                Some(container) if container.is_running() => Response::Failed { why: "it is still running".to_owned() },
                _ => {
                    all.running.remove(&id);
                    if all.running.is_empty() {
                        all.idle_since = Some(Instant::now());
                    }
                    Response::Done
                }
            })
            .await
    }

    async fn start(&self, spec: StartContainer, files: Vec<OwnedFd>) -> Result<(), Refused> {
        let mut files = files.into_iter();
        let (Some(log), Some(code)) = (files.next(), files.next()) else {
            return Err("the request came without its files".to_owned().into());
        };
        has_room_beside(log.as_fd(), spec.stays)?;
        let files = ContainerFiles { log: File::from(log), preopens: files.collect() };
        if files.preopens.len() != spec.preopens.len() {
            return Err(format!("{} directories for {} mounts", files.preopens.len(), spec.preopens.len()).into());
        }
        let listener = match spec.listen {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|error| format!("cannot listen on {address}: {error}"))?)
            }
            None => None,
        };
        let process = self.process.clone();
        let container = self
            .containers
            .with(move |all| {
                if all.running.contains_key(&spec.id) {
                    return Err("it was started before".to_owned());
                }
                let program = all
                    .programs
                    .load(&spec.digest, &spec.description, File::from(code))
                    .map_err(|error| format!("cannot load its native code: {error:#}"))?;
                let container = Container::new(spec, program, files, &process)
                    .map_err(|error| format!("cannot keep its configuration open: {error}"))?;
                all.running.insert(container.spec.id.clone(), Arc::clone(&container));
                all.idle_since = None;
                Ok(container)
            })
            .await?;
        let (events, executor) = (self.events.clone(), self.executor.clone());
        tokio::spawn(async move {
            run::run(Arc::clone(&container), listener, executor).await;
            // Nobody listening is fine: the agent lists when it comes back.
            let _ = events.send(HostEvent { container: container.describe() });
        });
        Ok(())
    }
}

fn may_ask(stream: &UnixStream, controller_uid: u32) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == controller_uid)
}

async fn stop(container: &Container, grace: Duration) -> Response {
    container.stop.drain.cancel();
    if tokio::time::timeout(grace, container.wait_ended()).await.is_err() {
        container.stop.kill.cancel();
        container.wait_ended().await;
    }
    Response::Done
}

/// Why a container does not start.
enum Refused {
    /// Another host has room for it.
    Full {
        open_files_max: u64,
    },
    Failed {
        why: String,
    },
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self::Failed { why }
    }
}

/// The lowest free number is given to a new file, so the number says how many are open.
fn has_room_beside(newest: BorrowedFd<'_>, stays: bool) -> Result<(), Refused> {
    let limits = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| format!("cannot read limits: {error}"))?;
    let open = u64::try_from(newest.as_raw_fd()).unwrap_or(0);
    if room(open, limits.0, stays) { Ok(()) } else { Err(Refused::Full { open_files_max: limits.0 }) }
}

fn room(open: u64, open_files_max: u64, stays: bool) -> bool {
    let small = open_files_max / 8;
    let kept = SPARE_FILES.min(small) + if stays { 0 } else { FILES_FOR_KNOWN_PODS.min(small) };
    open + kept < open_files_max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_files_for_connections_and_for_the_pods_it_has() {
        let check = |open: u64, most: u64, stays: bool, expect: bool| {
            assert_eq!(room(open, most, stays), expect, "{open} of {most}, stays: {stays}");
        };
        check(18_975, 20_000, false, true);
        check(18_976, 20_000, false, false);
        check(18_976, 20_000, true, true);
        check(19_488, 20_000, true, false);
        check(10, 256, false, true);
        check(192, 256, false, false);
        check(192, 256, true, true);
    }
}

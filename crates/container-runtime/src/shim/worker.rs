//! The only writer of the shim's state: requests, reports of container-init, ends of processes and
//! of streams arrive as messages, one after the other.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use cri::{ContainerId, ContainerState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, wait};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::clients::{self, ContainerStreams, Wiring};
use super::connection::{self, AgentSender};
use super::container::{AnswerKind, Life, Phase, ProcessEnd, Step, exited, start_failed};
use super::launch::{Handed, Started, open_log, send};
use super::{SOCKET_FILE, STATE_FILE, Sandbox, exec};
use crate::cgroup::Group;
use crate::files::{self, Durability};
use crate::plan::with_term;
use crate::process::Identity;
use crate::protocol::{
    Answer, ContainerAbout, ContainerReport, InitGo, InitReport, InitRequest, PROTOCOL_VERSION, Request, RequestLine,
    ShimLine, ShimState,
};
use crate::spec::{ContainerSpec, ProcessSpec};

/// Messages that wait for the worker.
const MESSAGES_MAX: usize = 256;
/// Commands that run at once in all containers of the pod.
const EXECS_MAX: usize = 64;
/// Output later than this after the end of a container is lost.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the last answer may take to reach the agent.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the worker hears.
pub enum Message {
    /// With the files that came along.
    Request(RequestLine, Vec<OwnedFd>, AgentSender),
    Init(ContainerId, InitReport),
    LineClosed(ContainerId),
    StreamClosed(ContainerId),
    /// A container's terminal was made: what is written to it is its input.
    Terminal(ContainerId, OwnedFd),
    DrainDeadline(ContainerId),
}

/// Whom to answer.
pub(super) struct Pending {
    pub id: u64,
    pub agent: AgentSender,
}

pub(super) struct Container {
    report: ContainerReport,
    pub process: ProcessSpec,
    pub life: Life,
    pub group: Group,
    pub pidfd: OwnedFd,
    /// Its first process is not the first of a pid namespace: the kernel does not end the others with it.
    shares_pids: bool,
    line: UnixStream,
    pending: Option<Pending>,
    pub streams: ContainerStreams,
}

pub struct Worker {
    pub(super) sandbox: Sandbox,
    pub(super) containers: BTreeMap<ContainerId, Container>,
    /// By process id: whoever waits for the end of a command.
    pub(super) execs: BTreeMap<i32, oneshot::Sender<i32>>,
    agents: Vec<AgentSender>,
    inbox: mpsc::Receiver<Message>,
    /// For the tasks that watch lines and streams.
    own: mpsc::Sender<Message>,
    stopping: Option<Option<Pending>>,
}

impl Worker {
    pub fn bind(sandbox: Sandbox) -> io::Result<Self> {
        let listener = connection::bind(&sandbox.dir, SOCKET_FILE)?;
        let (own, inbox) = mpsc::channel(MESSAGES_MAX);
        tokio::spawn(connection::accept(listener, own.clone()));
        Ok(Self {
            sandbox,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            agents: Vec::new(),
            inbox,
            own,
            stopping: None,
        })
    }

    /// Until it is told to shut down and every container has ended.
    pub async fn run(mut self) {
        let mut children = signal(SignalKind::child()).expect("a handler for SIGCHLD can be installed");
        let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM can be installed");
        while !self.is_finished() {
            tokio::select! {
                Some(message) = self.inbox.recv() => self.on_message(message),
                _ = children.recv() => self.reap(),
                _ = terminate.recv() => self.stop(None),
            }
        }
        self.save(Durability::PowerCut);
        if let Some(Some(pending)) = self.stopping.take() {
            answer(pending, Answer::Done);
        }
        // The last answer has left when the queues are empty: writers write what they take at once.
        let emptied = async {
            while self.agents.iter().any(|agent| agent.capacity() < agent.max_capacity()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, emptied).await;
    }

    fn is_finished(&self) -> bool {
        self.stopping.is_some() && self.containers.values().all(|container| container.life.phase == Phase::Ended)
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Request(line, files, agent) => {
                self.on_request(line.request, files, Pending { id: line.id, agent });
            }
            Message::Terminal(id, terminal) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.streams.input = Some(terminal);
                }
            }
            Message::Init(id, InitReport::Prepared) => self.step(&id, Life::on_prepared),
            Message::Init(id, InitReport::Failed(failure)) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.life.on_failure(failure);
                }
            }
            Message::LineClosed(id) => {
                self.step(&id, |life| life.on_line_closed(SystemTime::now()));
                self.step(&id, Life::settle);
            }
            Message::StreamClosed(id) => self.step(&id, Life::on_stream_closed),
            Message::DrainDeadline(id) => self.step(&id, Life::on_drain_deadline),
        }
    }

    fn on_request(&mut self, request: Request, files: Vec<OwnedFd>, pending: Pending) {
        match request {
            Request::Hello => {
                self.agents.retain(|known| !known.is_closed());
                self.agents.push(pending.agent.clone());
                let containers = self.containers.values().map(|container| container.report.clone()).collect();
                answer(pending, Answer::Hello { protocol: PROTOCOL_VERSION, containers });
            }
            Request::Create { about, spec } => self.create(about, *spec, pending),
            Request::Start { container } => self.start(&container, pending),
            Request::Signal { container, signal } => answer(pending, self.signal(&container, signal)),
            Request::Exec { container, command, timeout_millis } => {
                self.exec(&container, command, Duration::from_millis(timeout_millis), pending);
            }
            Request::ExecStreams { container, command, tty, stdin } => {
                self.exec_streams(&container, command, Wiring { tty, stdin, files }, pending);
            }
            Request::Attach { container, wanted } => {
                let outcome = self.attach(&container, wanted, files);
                answer(pending, outcome);
            }
            Request::Connect { address, port } => clients::connect(address, port, files, pending),
            Request::Remove { container } => {
                let outcome = self.remove(&container);
                answer(pending, outcome);
            }
            Request::Shutdown => self.stop(Some(pending)),
        }
    }

    fn create(&mut self, about: ContainerAbout, spec: ContainerSpec, pending: Pending) {
        let id = about.id.clone();
        if let Some(known) = self.containers.get(&id) {
            let same = known.life.phase == Phase::Created;
            let report = Box::new(known.report.clone());
            let why = format!("container {id} exists already");
            return answer(pending, if same { Answer::Created(report) } else { Answer::Failed { why } });
        }
        if self.stopping.is_some() {
            return answer(pending, Answer::Failed { why: "the sandbox is being stopped".to_owned() });
        }
        let group = self.sandbox.layout.group(&about.cgroup);
        match self.launch(&about, &spec, &group) {
            Ok((Started { pid, pidfd, line }, streams)) => {
                let report = ContainerReport { about, state: ContainerState::Created, pid: Some(pid) };
                let (process, life) = (spec.process, Life::new(streams.outputs()));
                let shares_pids =
                    self.sandbox.record.config.share_process_namespace || spec.process_namespace_of.is_some();
                let pending = Some(pending);
                let container = Container { report, process, life, group, pidfd, shares_pids, line, pending, streams };
                self.containers.insert(id, container);
            }
            Err(error) => {
                group.kill_all();
                let _ = group.remove();
                answer(pending, Answer::Failed { why: error.to_string() });
            }
        }
    }

    /// Starts container-init and tells it what to prepare.
    fn launch(
        &self,
        about: &ContainerAbout,
        spec: &ContainerSpec,
        group: &Group,
    ) -> io::Result<(Started, ContainerStreams)> {
        let context = |what: String| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
        group.create(&spec.limits).map_err(context(format!("cannot make cgroup {}", about.cgroup)))?;
        let log = || open_log(&about.log_path).map_err(context(format!("cannot open {}", about.log_path.display())));
        let logs = [log()?, log()?];
        let beside = self.beside(spec)?;
        let (handed, far) = clients::wire(spec.stdio).map_err(context("cannot make its streams".to_owned()))?;
        let started = self
            .sandbox
            .launcher
            .start_container(group, beside, handed)
            .map_err(context("cannot start container-init".to_owned()))?;
        let streams = far.pump(&about.id, logs, &self.own)?;
        if let Err(error) = self.hand_over(about, spec, group, &started.line) {
            let _ = kill(Pid::from_raw(started.pid), Signal::SIGKILL);
            return Err(context(format!("cannot prepare container-init in cgroup {}", about.cgroup))(error));
        }
        Ok((started, streams))
    }

    /// The process whose pid namespace a container enters. In a shared one it is there already.
    fn beside(&self, spec: &ContainerSpec) -> io::Result<Option<&OwnedFd>> {
        let wanted = spec.process_namespace_of.as_ref().filter(|_| !self.sandbox.record.config.share_process_namespace);
        let Some(id) = wanted else { return Ok(None) };
        let running = |one: &&Container| matches!(one.life.phase, Phase::Running { .. }) && !one.life.is_draining();
        let target = self.containers.get(id).filter(running);
        let absent = || io::Error::other(format!("container {id}, whose processes it was to see, is not running"));
        target.map(|one| Some(&one.pidfd)).ok_or_else(absent)
    }

    fn hand_over(
        &self,
        about: &ContainerAbout,
        spec: &ContainerSpec,
        group: &Group,
        line: &UnixStream,
    ) -> io::Result<()> {
        send(line, &InitRequest::Container { spec: Box::new(spec.clone()), cgroups: group.enter_paths() })?;
        line.set_nonblocking(true)?;
        self.watch_line(&about.id, line.try_clone()?)
    }

    fn watch_line(&self, id: &ContainerId, line: UnixStream) -> io::Result<()> {
        let mut lines = BufReader::new(tokio::net::UnixStream::from_std(line)?).lines();
        let (own, id) = (self.own.clone(), id.clone());
        tokio::spawn(async move {
            while let Ok(Some(text)) = lines.next_line().await {
                if let Ok(report) = serde_json::from_str(&text) {
                    let _ = own.send(Message::Init(id.clone(), report)).await;
                }
            }
            let _ = own.send(Message::LineClosed(id)).await;
        });
        Ok(())
    }

    fn start(&mut self, id: &ContainerId, pending: Pending) {
        let Some(container) = self.containers.get_mut(id) else {
            return answer(pending, Answer::NotFound);
        };
        match container.life.phase {
            Phase::Created => {
                container.life.on_start();
                container.pending = Some(pending);
                // A broken line means it is dying: the answer follows from its end.
                let _ = send(&container.line, &InitGo::Start);
            }
            Phase::Running { .. } => answer(pending, Answer::Done),
            Phase::Preparing | Phase::Starting | Phase::Ended => {
                let why = format!("it is {:?}, not created", container.life.phase);
                answer(pending, Answer::Failed { why });
            }
        }
    }

    fn signal(&self, id: &ContainerId, number: i32) -> Answer {
        let Some(container) = self.containers.get(id) else {
            return Answer::NotFound;
        };
        let (Some(pid), false) = (container.report.pid, container.life.is_draining()) else {
            return Answer::Done;
        };
        // The pid is ours until we reap it. A raw number, because nix does not know real-time signals.
        match crate::sys::send_signal(pid, number) {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed { why: error.to_string() },
        }
    }

    fn exec(&mut self, id: &ContainerId, command: Vec<String>, limit: Duration, pending: Pending) {
        let launched = Handed::piped().map_err(|error| Answer::Failed { why: error.to_string() });
        let launched = launched
            .and_then(|(handed, output)| self.launch_exec(id, command, handed).map(|started| (started, output)));
        match launched {
            Ok(((started, exited), output)) => {
                tokio::spawn(async move { answer(pending, exec::run(started, output, exited, limit).await) });
            }
            Err(refusal) => answer(pending, refusal),
        }
    }

    /// Starts a command beside the container's first process.
    pub(super) fn launch_exec(
        &mut self,
        id: &ContainerId,
        command: Vec<String>,
        handed: Handed,
    ) -> Result<(Started, oneshot::Receiver<i32>), Answer> {
        let container = self.containers.get(id).ok_or(Answer::NotFound)?;
        let refusal = match container.life.phase {
            Phase::Running { .. } if container.life.is_draining() => Some("the container has ended".to_owned()),
            Phase::Running { .. } if command.is_empty() => Some("the command is empty".to_owned()),
            Phase::Running { .. } if self.execs.len() >= EXECS_MAX => {
                Some(format!("{EXECS_MAX} commands run in this pod already"))
            }
            Phase::Running { .. } => None,
            _ => Some("the container is not running".to_owned()),
        };
        if let Some(why) = refusal {
            return Err(Answer::Failed { why });
        }
        let tty = handed.console.is_some();
        let mut process = ProcessSpec { args: command, ..container.process.clone() };
        if tty {
            process.env = with_term(process.env);
        }
        let launch = || -> io::Result<Started> {
            let started = self.sandbox.launcher.start_exec(&container.group, &container.pidfd, handed)?;
            let cgroups = container.group.enter_paths();
            send(&started.line, &InitRequest::Exec { process: Box::new(process), cgroups, tty })?;
            Ok(started)
        };
        let started = launch().map_err(|error| Answer::Failed { why: error.to_string() })?;
        let (exit, exited) = oneshot::channel();
        self.execs.insert(started.pid, exit);
        Ok((started, exited))
    }

    fn remove(&mut self, id: &ContainerId) -> Answer {
        let Some(container) = self.containers.get(id) else {
            return Answer::NotFound;
        };
        if container.life.phase != Phase::Ended {
            return Answer::Failed { why: "it is still running".to_owned() };
        }
        if let Err(error) = container.group.remove() {
            return Answer::Failed { why: format!("cannot remove its cgroup: {error}") };
        }
        self.containers.remove(id);
        self.save(Durability::Process);
        Answer::Done
    }

    /// Collects every child that ended.
    fn reap(&mut self) {
        loop {
            // rustix's: nix loses a child that a real-time signal ended.
            let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) else { return };
            let pid = pid.as_raw_nonzero().get();
            let end = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ProcessEnd::Code(code),
                (None, Some(signal)) => ProcessEnd::Signal(signal),
                (None, None) => continue,
            };
            if let Some(exit) = self.execs.remove(&pid) {
                let _ = exit.send(end.exit_code());
                continue;
            }
            let of_pid = |container: &&Container| container.report.pid == Some(pid);
            let Some(id) = self.containers.values().find(of_pid).map(|container| container.report.about.id.clone())
            else {
                continue;
            };
            // In a shared pid namespace the rest of the container survives its first process.
            if self.containers[&id].shares_pids {
                self.containers[&id].group.kill_all();
            }
            self.step(&id, |life| life.on_reaped(end));
            let (own, still) = (self.own.clone(), id.clone());
            if self.containers.get(&id).is_some_and(|container| container.life.is_draining()) {
                tokio::spawn(async move {
                    tokio::time::sleep(DRAIN).await;
                    let _ = own.send(Message::DrainDeadline(still)).await;
                });
            }
        }
    }

    /// Lets something happen to a container and does what follows from it.
    fn step(&mut self, id: &ContainerId, happened: impl FnOnce(&mut Life) -> Step) {
        let Some(container) = self.containers.get_mut(id) else { return };
        match happened(&mut container.life) {
            Step::Nothing => {}
            Step::Answer(AnswerKind::Created) => {
                let report = Box::new(container.report.clone());
                if let Some(pending) = container.pending.take() {
                    answer(pending, Answer::Created(report));
                }
                self.save(Durability::Process);
            }
            Step::Answer(AnswerKind::Started) => {
                if let Phase::Running { started_at } = container.life.phase {
                    container.report.state = ContainerState::Running { started_at };
                }
                let (report, pending) = (container.report.clone(), container.pending.take());
                self.publish(report);
                if let Some(pending) = pending {
                    answer(pending, Answer::Done);
                }
                self.save(Durability::Process);
            }
            Step::Forget { why } => {
                if let Some(container) = self.containers.remove(id) {
                    let _ = container.group.remove();
                    if let Some(pending) = container.pending {
                        answer(pending, Answer::Failed { why });
                    }
                }
            }
            Step::Finish { end, failed, started_at } => {
                let now = SystemTime::now();
                let oom_killed = container.group.oom_kills() > 0;
                let times = (started_at.unwrap_or(now), now);
                container.report.state = exited(end, failed.as_ref(), oom_killed, times);
                container.report.pid = None;
                container.streams.input = None;
                let (report, pending) = (container.report.clone(), container.pending.take());
                self.save(Durability::PowerCut);
                self.publish(report);
                if let Some(pending) = pending {
                    answer(pending, start_failed(failed));
                }
            }
        }
    }

    fn stop(&mut self, pending: Option<Pending>) {
        self.stopping = Some(pending);
        for container in self.containers.values() {
            if let (Some(pid), false) = (container.report.pid, container.life.is_draining()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    fn publish(&mut self, report: ContainerReport) {
        let line = ShimLine::Changed(Box::new(report));
        // An agent that does not keep up loses its connection and lists again.
        self.agents.retain(|agent| agent.try_send(line.clone()).is_ok());
    }

    /// A failed write loses the record of a container only if this process dies as well.
    fn save(&self, durability: Durability) {
        let state = ShimState {
            protocol: PROTOCOL_VERSION,
            shim: Identity::of(std::process::id() as i32).expect("a running process has a start time"),
            containers: self.containers.values().map(|container| container.report.clone()).collect(),
        };
        if let Err(error) = files::write_json(&self.sandbox.dir.join(STATE_FILE), &state, durability) {
            eprintln!("shim: cannot write the state file: {error}");
        }
    }
}

pub(super) fn answer(pending: Pending, answer: Answer) {
    // A full queue or a closed one: that agent is gone and asks again when it is back.
    let _ = pending.agent.try_send(ShimLine::Answer { id: pending.id, answer });
}

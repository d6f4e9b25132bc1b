//! The task that owns one sandbox in the agent: the connection to its shim, and the view that
//! everybody else reads. When the shim is gone it ends what the shim left, and answers for it.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cri::{ContainerEvent, ContainerId};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::sandbox::{Question, SandboxHandle, View};
use crate::cgroup::Layout;
use crate::files::{self, Durability};
use crate::process::Identity;
use crate::protocol::{
    Answer, ContainerReport, PROTOCOL_VERSION, Request, RequestLine, SandboxRecord, ShimLine, ShimState,
};
use crate::shim::{SHIM_GROUP, SOCKET_FILE, STATE_FILE, lost};

/// Questions that wait for the worker.
const QUESTIONS_MAX: usize = 256;
/// How long a shim may take for its first answer.
const GREETING: Duration = Duration::from_secs(10);
/// How long a shim whose socket closed may take to be really gone.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// What a worker is made of.
pub struct Parts {
    pub dir: PathBuf,
    pub record: Arc<SandboxRecord>,
    pub layout: Layout,
    pub events: broadcast::Sender<ContainerEvent>,
}

struct Connection {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

/// A question on its way, and what its answer changes.
struct Asked {
    reply: oneshot::Sender<Answer>,
    removes: Option<ContainerId>,
}

pub struct SandboxWorker {
    parts: Parts,
    shim: Option<Identity>,
    connection: Option<Connection>,
    questions: mpsc::Receiver<Question>,
    asked: HashMap<u64, Asked>,
    next_id: u64,
    view: watch::Sender<Arc<View>>,
}

/// Connects to the shim in `parts.dir` (or finds that it is gone) and starts the worker.
pub async fn spawn_sandbox_worker(parts: Parts) -> SandboxHandle {
    let (sender, questions) = mpsc::channel(QUESTIONS_MAX);
    let left: Option<ShimState> = files::read_json(&parts.dir.join(STATE_FILE)).ok();
    let shim = left.as_ref().map(|state| state.shim);
    let mut containers = left.map(|state| state.containers).unwrap_or_default();
    let mut connection = None;
    if shim.is_some_and(|shim| shim.is_alive())
        && let Ok(Ok((greeted, reports))) = timeout(GREETING, connect(&parts)).await
    {
        connection = Some(greeted);
        containers = reports;
    }
    let by_id = containers.into_iter().map(|report| (report.about.id.clone(), report)).collect();
    let (view, seen) = watch::channel(Arc::new(View { alive: connection.is_some(), containers: by_id }));
    let handle = SandboxHandle { dir: parts.dir.clone(), record: parts.record.clone(), questions: sender, view: seen };
    let mut worker = SandboxWorker { parts, shim, connection, questions, asked: HashMap::new(), next_id: 1, view };
    if worker.connection.is_none() {
        worker.shim_lost().await;
    }
    tokio::spawn(worker.run());
    handle
}

async fn connect(parts: &Parts) -> io::Result<(Connection, Vec<ContainerReport>)> {
    let stream = files::with_short_path(&parts.dir, SOCKET_FILE, |path| std::os::unix::net::UnixStream::connect(path))?;
    stream.set_nonblocking(true)?;
    let (reader, mut writer) = UnixStream::from_std(stream)?.into_split();
    let mut lines = BufReader::new(reader).lines();
    write_line(&mut writer, &RequestLine { id: 0, request: Request::Hello }).await?;
    while let Some(text) = lines.next_line().await? {
        // Events may come before the answer; the answer is newer.
        if let ShimLine::Answer { answer: Answer::Hello { protocol, containers }, .. } = serde_json::from_str(&text)? {
            if protocol > PROTOCOL_VERSION {
                return Err(io::Error::other(format!("the shim speaks protocol {protocol}")));
            }
            return Ok((Connection { lines, writer }, containers));
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

async fn write_line(writer: &mut OwnedWriteHalf, line: &RequestLine) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

/// What woke the worker.
enum Woken {
    Asked(Option<Question>),
    Line(io::Result<Option<String>>),
}

impl SandboxWorker {
    /// Until the last handle is gone. The shim lives on.
    async fn run(mut self) {
        loop {
            let woken = match &mut self.connection {
                Some(connection) => tokio::select! {
                    question = self.questions.recv() => Woken::Asked(question),
                    line = connection.lines.next_line() => Woken::Line(line),
                },
                None => Woken::Asked(self.questions.recv().await),
            };
            match woken {
                Woken::Asked(None) => return,
                Woken::Asked(Some((request, reply))) => self.on_question(request, reply).await,
                Woken::Line(Ok(Some(text))) => self.on_line(&text),
                Woken::Line(Ok(None) | Err(_)) => self.disconnected().await,
            }
        }
    }

    async fn on_question(&mut self, request: Request, reply: oneshot::Sender<Answer>) {
        let removes = match &request {
            Request::Remove { container } => Some(container.clone()),
            _ => None,
        };
        let Some(connection) = &mut self.connection else {
            let answer = self.answer_without_shim(&request);
            let _ = reply.send(answer);
            return;
        };
        let id = self.next_id;
        self.next_id += 1;
        self.asked.insert(id, Asked { reply, removes });
        if write_line(&mut connection.writer, &RequestLine { id, request }).await.is_err() {
            self.disconnected().await;
        }
    }

    fn on_line(&mut self, text: &str) {
        match serde_json::from_str(text) {
            Ok(ShimLine::Answer { id, answer }) => {
                let Some(asked) = self.asked.remove(&id) else { return };
                match (&answer, asked.removes) {
                    (Answer::Created(report), _) => self.show((**report).clone()),
                    (Answer::Done | Answer::NotFound, Some(container)) => self.hide(&container),
                    _ => {}
                }
                let _ = asked.reply.send(answer);
            }
            Ok(ShimLine::Changed(report)) => self.show(*report),
            Err(error) => {
                tracing::warn!(%error, pod = %self.parts.record.config.pod_uid, "the shim sent a strange line")
            }
        }
    }

    fn show(&mut self, report: ContainerReport) {
        let event =
            ContainerEvent { pod_uid: self.parts.record.config.pod_uid.clone(), container: report.about.id.clone() };
        self.change(|view| {
            view.containers.insert(report.about.id.clone(), report);
        });
        // Nobody may be listening.
        let _ = self.parts.events.send(event);
    }

    fn hide(&mut self, id: &ContainerId) {
        self.change(|view| {
            view.containers.remove(id);
        });
    }

    fn change(&mut self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| change(Arc::make_mut(view)));
    }

    /// The socket closed: the shim died, finished, or cut off an agent that was too slow.
    async fn disconnected(&mut self) {
        self.connection = None;
        self.asked.clear();
        let gone = async {
            while self.shim.is_some_and(|shim| shim.is_alive()) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        if timeout(LAST_BREATH, gone).await.is_err()
            && let Ok(Ok((connection, reports))) = timeout(GREETING, connect(&self.parts)).await
        {
            self.connection = Some(connection);
            for report in reports {
                self.show(report);
            }
            return;
        }
        self.shim_lost().await;
    }

    /// Ends everything the shim left behind and says so.
    async fn shim_lost(&mut self) {
        if let Some(shim) = self.shim {
            // Ours if this agent started it; another one's child is no error.
            let reap = Some(nix::sys::wait::WaitPidFlag::WNOHANG);
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(shim.pid), reap);
        }
        let view = self.view.borrow().clone();
        let parent = self.parts.record.config.cgroup_parent.clone();
        let mut paths = vec![format!("{parent}/{SHIM_GROUP}")];
        paths.extend(view.containers.values().map(|report| report.about.cgroup.clone()));
        let layout = self.parts.layout.clone();
        let killing = tokio::task::spawn_blocking(move || {
            paths.iter().for_each(|path| layout.group(path).kill_all());
        });
        if let Err(error) = killing.await {
            tracing::error!(%error, pod = %self.parts.record.config.pod_uid, "killing what a shim left was interrupted");
        }
        let now = SystemTime::now();
        self.change(|view| view.alive = false);
        for mut report in view.containers.values().cloned() {
            let before = report.state.clone();
            lost(&mut report, now);
            if report.state != before {
                self.show(report);
            }
        }
        self.save();
    }

    fn answer_without_shim(&mut self, request: &Request) -> Answer {
        match request {
            Request::Remove { container } => {
                let Some(report) = self.view.borrow().containers.get(container).cloned() else {
                    return Answer::NotFound;
                };
                if let Err(error) = self.parts.layout.group(&report.about.cgroup).remove() {
                    return Answer::Failed { why: format!("cannot remove its cgroup: {error}") };
                }
                self.hide(container);
                self.save();
                Answer::Done
            }
            Request::Signal { .. } | Request::Shutdown => Answer::Done,
            Request::Hello
            | Request::Create { .. }
            | Request::Start { .. }
            | Request::Exec { .. }
            | Request::ExecStreams { .. }
            | Request::Attach { .. }
            | Request::Connect { .. } => Answer::Failed { why: "the pod's sandbox is not running".to_owned() },
        }
    }

    /// Only once the shim is gone: until then the file is its own.
    fn save(&self) {
        let Some(shim) = self.shim else { return };
        let containers = self.view.borrow().containers.values().cloned().collect();
        let state = ShimState { protocol: PROTOCOL_VERSION, shim, containers };
        let written = files::write_json(&self.parts.dir.join(STATE_FILE), &state, Durability::PowerCut);
        // A directory that is gone was removed with its sandbox: there is nothing left to record.
        if let Err(error) = written.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) }) {
            tracing::error!(%error, pod = %self.parts.record.config.pod_uid, "cannot record the end of a sandbox");
        }
    }
}

//! A `knarr` process with a data directory, ports and a kubeconfig of its own.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::eventually::{PATIENCE, eventually, try_within, within};
use crate::http::{self, Answer, NoAnswer};
use crate::kubectl::{Background, Said, read};
use crate::needs::{Machine, binary, machine};

/// How long a cluster may take until it is up.
const UP_WITHIN: Duration = Duration::from_secs(240);
/// How long it may take until it has stopped.
const STOPPED_WITHIN: Duration = Duration::from_secs(120);
/// What `up` and `demo` say when they are ready.
const UP: [(&str, &str); 2] = [("up", "The cluster is up"), ("demo", "The cluster stays up")];
/// How much of a log a failed test shows.
const SHOWN_LINES: usize = 60;

/// How to start one.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// `up` or `demo`.
    pub command: &'a str,
    pub args: &'a [&'a str],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { command: "up", args: &[] }
    }
}

/// A running cluster; dropping it stops it.
pub struct Cluster {
    folder: tempfile::TempDir,
    listen: String,
    node_listen: String,
    process: Option<Child>,
    /// Each start has a log of its own.
    starts: usize,
    /// It ended without stopping its workloads.
    left_workloads: bool,
    _machine: Machine,
}

impl Cluster {
    /// `knarr up` on an empty data directory. None when the test cannot run here.
    pub fn up() -> Option<Self> {
        Self::start(Options::default())
    }

    /// A cluster that is up.
    pub fn start(options: Options<'_>) -> Option<Self> {
        let mut cluster = Self::prepare()?;
        cluster.start_again(options);
        Some(cluster)
    }

    /// Everything but the process.
    pub fn prepare() -> Option<Self> {
        let machine = machine()?;
        let folder = tempfile::Builder::new().prefix("knarr-e2e-").tempdir().expect("a temporary folder");
        let [listen, node_listen] = free_addresses();
        Some(Self { folder, listen, node_listen, process: None, starts: 0, left_workloads: false, _machine: machine })
    }

    /// Starts the process, on what is in the data directory.
    pub fn start_again(&mut self, options: Options<'_>) {
        let marker = UP.iter().find(|(command, _)| *command == options.command).expect("a command that stays").1;
        let began = Instant::now();
        self.spawn(options);
        let said = within(UP_WITHIN, "the cluster is up", || {
            let said = self.output();
            let ended = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            match (said.contains(marker), ended) {
                (true, _) => Ok(Ok(said)),
                (false, Some(status)) => Ok(Err(format!("it ended with {status}"))),
                (false, None) => Err(format!("it said {said}")),
            }
        });
        if let Err(ended) = said {
            panic!("the cluster did not start: {ended}");
        }
        println!("`knarr {}` took {:?}", options.command, began.elapsed());
    }

    /// Starts the process and does not wait until it is up.
    pub fn spawn(&mut self, options: Options<'_>) {
        assert!(self.process.is_none(), "one process at a time");
        self.starts += 1;
        let output = File::create(self.output_path()).expect("a new file");
        let errors = File::create(self.log_path()).expect("a new file");
        let mut command = self.command(options);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        self.process = Some(command.spawn().expect("the built knarr can be started"));
        self.left_workloads = false;
    }

    /// The command line of `knarr up` or `knarr demo` for this cluster.
    pub fn command(&self, options: Options<'_>) -> Command {
        let mut command = Command::new(binary());
        command.arg("-v").arg(options.command).arg("--data-dir").arg(self.data_dir());
        command.args(["--listen", &self.listen, "--node-listen", &self.node_listen, "--node-name", "node-1"]);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(options.args);
        command
    }

    /// Asks it to stop and waits; the workloads stop too.
    pub fn stop(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("the cluster runs");
        assert!(terminate(process), "the cluster ended before it was stopped");
        let status = within(STOPPED_WITHIN, "the cluster stops", || match process.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it still runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        self.process = None;
        status
    }

    /// The same for a cluster that was told to keep its workloads.
    pub fn stop_and_keep(&mut self) -> ExitStatus {
        let status = self.stop();
        self.left_workloads = true;
        status
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the cluster runs");
        process.kill().expect("a child can be killed");
        let status = process.wait().expect("a child can be waited for");
        self.left_workloads = true;
        assert_eq!(status.signal(), Some(9), "it ended before it was killed: {status}");
    }

    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("the cluster runs").id()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// IP:port of the API server and registry.
    pub fn listen(&self) -> &str {
        &self.listen
    }

    fn output_path(&self) -> PathBuf {
        self.folder.path().join(format!("output-{}", self.starts))
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join(format!("log-{}", self.starts))
    }

    /// Standard output of the process.
    pub fn output(&self) -> String {
        read(&self.output_path())
    }

    /// Standard error of the process.
    pub fn log(&self) -> String {
        read(&self.log_path())
    }
}

/// Talking to it.
impl Cluster {
    /// A client program with this cluster's kubeconfig and a home of its own.
    pub fn client(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.folder.path());
        command
    }

    /// kubectl with words separated by spaces.
    pub fn kubectl(&self, words: &str) -> Said {
        self.kubectl_with(words, "")
    }

    /// The same with standard input.
    pub fn kubectl_with(&self, words: &str, stdin: &str) -> Said {
        self.kubectl_args(&words.split_whitespace().collect::<Vec<_>>(), stdin)
    }

    /// kubectl with arguments that hold spaces.
    pub fn kubectl_args(&self, args: &[&str], stdin: &str) -> Said {
        Said::by(self.client("kubectl").args(args), stdin)
    }

    pub fn kubectl_in_background(&self, words: &str) -> Background {
        Background::start(self.client("kubectl").args(words.split_whitespace()))
    }

    /// `kubectl apply` of a manifest.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        self.kubectl_with("apply -f -", manifest).ok()
    }

    /// One value of an object, empty when it is not there.
    pub fn value(&self, object: &str, path: &str) -> String {
        self.kubectl_args(&["get", object, "-o", &format!("jsonpath={{{path}}}")], "").stdout
    }

    /// Waits until a value is as expected.
    #[track_caller]
    pub fn wait_value(&self, object: &str, path: &str, expected: &str) {
        let found = try_within(PATIENCE, || {
            let value = self.value(object, path);
            if value == expected { Ok(()) } else { Err(value) }
        });
        if let Err(value) = found {
            panic!("{object} {path} is {value:?}, not {expected:?}: {}", self.why(object));
        }
    }

    /// Waits until a pod has ended and answers its phase.
    #[track_caller]
    pub fn wait_ended(&self, pod: &str) -> String {
        let pod = format!("pod/{pod}");
        let ended = try_within(PATIENCE, || {
            let phase = self.value(&pod, ".status.phase");
            if ["Succeeded", "Failed"].contains(&phase.as_str()) { Ok(phase) } else { Err(phase) }
        });
        ended.unwrap_or_else(|phase| panic!("{pod} is {phase}: {}", self.why(&pod)))
    }

    #[track_caller]
    pub fn wait_rollout(&self, deployment: &str) {
        let said = self.kubectl(&format!("rollout status deployment/{deployment} --timeout=120s"));
        if !said.success {
            panic!("deployment {deployment} did not roll out: {}{}\n{}", said.stdout, said.stderr, self.why("pods"));
        }
    }

    /// Waits until an Event's message about an object holds a text.
    #[track_caller]
    pub fn wait_event(&self, object: &str, text: &str) -> String {
        eventually(&format!("an Event about {object} says {text:?}"), || {
            let events = self.kubectl(&format!("get events --field-selector involvedObject.name={object}"));
            let found = events.stdout.lines().find(|line| line.contains(text)).map(str::to_owned);
            found.ok_or(events.stdout + &events.stderr)
        })
    }

    /// What there is to know of an object that is not as it should be.
    pub fn why(&self, object: &str) -> String {
        let status = self.kubectl_args(&["get", object, "-o", "jsonpath={.status}{.items[*].status}"], "");
        let events =
            self.kubectl_args(&["get", "events", "-o", "custom-columns=O:.involvedObject.name,M:.message"], "");
        format!("{}{}\n{}", status.stdout, status.stderr, events.stdout)
    }

    /// A client command of the binary.
    pub fn knarr(&self, args: &[&str]) -> Said {
        Said::by(self.client(binary()).args(args), "")
    }

    /// `knarr image build`.
    pub fn build_image(&self, path: &Path, tag: &str, more: &[&str]) -> Said {
        let path = path.display().to_string();
        let mut args = vec!["image", "build", &path, "--tag", tag];
        args.extend(more);
        self.knarr(&args)
    }

    /// GET through a Service's cluster address, from the host.
    pub fn ask(&self, service: &str, port: u16, path: &str) -> Result<Answer, NoAnswer> {
        http::get(&format!("{}:{port}", self.value(&format!("service/{service}"), ".spec.clusterIP")), path)
    }

    /// Waits until a Service answers with a text.
    #[track_caller]
    pub fn wait_answer(&self, service: &str, port: u16, path: &str, text: &str) -> String {
        eventually(&format!("{service}:{port}{path} answers {text:?}"), || match self.ask(service, port, path) {
            Ok(answer) if answer.status == 200 && answer.body.contains(text) => Ok(answer.body),
            Ok(answer) => Err(format!("it answered {answer:?}")),
            Err(error) => Err(error.to_string()),
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- output of knarr\n{}\n--- end of its log\n{}", self.output(), tail(&self.log()));
        }
        if self.left_workloads && self.process.is_none() {
            self.spawn(Options::default());
            let _ = try_within(UP_WITHIN, || if self.output().contains(UP[0].1) { Ok(()) } else { Err(()) });
        }
        let Some(mut process) = self.process.take() else { return };
        terminate(&process);
        if try_within(STOPPED_WITHIN, || process.try_wait().ok().flatten().ok_or(())).is_err() {
            println!("knarr did not stop and is killed");
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// Asks a child to stop, with the shell's own `kill`; false when it is no more.
fn terminate(process: &Child) -> bool {
    let kill = format!("kill -TERM {}", process.id());
    let status = Command::new("/bin/sh").args(["-c", &kill]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Two loopback addresses that nobody listens on.
fn free_addresses() -> [String; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound socket has an address").to_string())
}

/// Names in a folder, sorted; none when it is not there.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

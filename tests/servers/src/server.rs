//! One `knarr server` process on a machine of its own.
//!
//! Owns: its command line, its data directory, its life and death.
//! May not know: the other servers, what clients do.

use std::fs::{File, create_dir_all, remove_dir_all};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use e2e::Said;
use e2e::eventually::{try_within, within};
use e2e::kubectl::read;
use e2e::needs::binary;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::disk::Disk;
use crate::host::Host;

pub const PORT: u16 = 6443;
pub const PEER_PORT: u16 = 6444;
/// What a server says when it is ready.
const UP: &str = "The server is up";
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// How much of a log a failed test shows.
const SHOWN_LINES: usize = 40;

/// Where a server keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    Folder,
    /// A disk of its own, whose power can be cut.
    Disk,
}

pub struct Server {
    // Ends first: the machine kills what runs on it.
    pub host: Host,
    pub address: Ipv4Addr,
    /// Name of the node that it runs; most run none.
    pub node: Option<&'static str>,
    folder: PathBuf,
    disk: Option<Disk>,
    process: Option<Child>,
    /// Each start has a log of its own.
    starts: usize,
}

impl Server {
    /// A machine without a process; its files are in `folder`.
    pub fn new(folder: PathBuf, address: Ipv4Addr, storage: Storage) -> Self {
        create_dir_all(&folder).expect("a new folder");
        let host = Host::new(&format!("server {address}"));
        let disk = (storage == Storage::Disk).then(|| Disk::new(&host, &folder));
        Self { host, address, node: None, folder, disk, process: None, starts: 0 }
    }

    pub fn url(&self) -> String {
        format!("https://{}:{PORT}", self.address)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.disk.as_ref().map_or(self.folder.as_path(), Disk::path).join("data")
    }

    /// Beside the data directory, which clients cannot see when it is on a disk of the machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// `knarr server` on this machine.
    fn command(&self, args: &[String]) -> Command {
        // The process ends with the thread of the machine, whatever happens to the test.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary()).arg("-v").arg("server");
        command.arg("--data-dir").arg(self.data_dir()).arg("--listen").arg(format!("{}:{PORT}", self.address));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(args);
        command
    }

    /// Starts the process and does not wait until it is up.
    pub fn spawn(&mut self, args: &[String]) {
        assert!(self.process.is_none(), "one process at a time");
        self.starts += 1;
        let output = File::create(self.output_path()).expect("a new file");
        let errors = File::create(self.log_path()).expect("a new file");
        let mut command = self.command(args);
        match self.node {
            Some(name) => command.args(["--node-name", name]),
            None => command.arg("--no-node"),
        };
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        self.process = Some(self.host.run(move || command.spawn().expect("the built knarr can be started")));
    }

    /// Waits until the started process says that it is up.
    pub fn wait_up(&mut self, limit: Duration) {
        let began = Instant::now();
        let what = format!("server {} is up", self.address);
        within(limit, &what, || match (read(&self.output_path()).contains(UP), self.ended()) {
            (true, _) => Ok(()),
            (false, Some(status)) => panic!("{what}: it ended with {status}: {}", read(&self.log_path())),
            (false, None) => Err(format!("it said {}", read(&self.log_path()))),
        });
        println!("server {} was up after {:?}", self.address, began.elapsed());
    }

    /// Runs `knarr server` on this machine to its end, which must be a refusal of one line.
    pub fn refused(&self, args: &[&str]) -> String {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut command = self.command(&args);
        let said = self.host.run(move || Said::by(&mut command, ""));
        assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
        let complaints: Vec<&str> = said.stderr.lines().filter(|line| line.starts_with("knarr: ")).collect();
        assert_eq!(complaints.len(), 1, "one line says why: {}", said.stderr);
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
        complaints[0].to_owned()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(|process| process.try_wait().ok().flatten())
    }

    pub fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        let id = i32::try_from(process.id()).expect("process ids are small");
        kill(Pid::from_raw(id), signal).expect("a child can be signalled");
    }

    /// `kill -9`
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.reap();
    }

    fn reap(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.wait().expect("a child can be waited for");
        }
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = within(STOPPED_WITHIN, "the server stops", || self.ended().ok_or("it runs"));
        assert!(status.success(), "{status}: {}", self.log());
        self.process = None;
    }

    /// Nothing reaches its disk any more; a process that runs on is not told.
    pub fn cut_power(&self) {
        self.disk.as_ref().expect("only a disk of its own can lose its power").cut(&self.host);
    }

    /// After its power was cut: the process is gone, and what was synced is there.
    pub fn restore_power(&mut self) {
        if self.runs() {
            self.kill();
        }
        self.disk.as_ref().expect("only a disk of its own can lose its power").restore(&self.host);
    }

    /// The machine is new.
    pub fn wipe(&self) {
        let data_dir = self.data_dir();
        self.host.run(move || remove_dir_all(data_dir).expect("a data directory can be removed"));
    }

    /// Waits for a while until the process ends by itself; whether it did.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let ended = try_within(limit, || self.ended().ok_or(())).is_ok();
        if ended {
            self.process = None;
        }
        ended
    }

    fn output_path(&self) -> PathBuf {
        self.folder.join(format!("output-{}", self.starts))
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join(format!("log-{}", self.starts))
    }

    /// Standard error of the last process.
    pub fn log(&self) -> String {
        read(&self.log_path())
    }

    /// For a failed test.
    pub fn show(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        println!("--- server {}, start {}, runs: {}\n{shown}", self.address, self.starts, self.runs());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

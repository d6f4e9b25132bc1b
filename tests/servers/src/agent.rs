//! One `knarr agent` process on a machine of its own.
//!
//! Owns: its command line, its data directory, its life and death. May not know: servers, what runs on it.

use std::fs::{File, create_dir_all};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use e2e::eventually::{try_within, within};
use e2e::kubectl::read;
use e2e::needs::binary;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fabric;
use crate::host::Host;

/// What an agent says when it is ready.
const UP: &str = "The node is up";
const UP_WITHIN: Duration = Duration::from_secs(90);
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// How much of a log a failed test shows.
const SHOWN_LINES: usize = 60;

pub struct Agent {
    pub name: String,
    pub address: Ipv4Addr,
    folder: PathBuf,
    process: Option<Child>,
    starts: usize,
    // Ends last: the machine is there as long as something may run on it.
    pub host: Host,
}

impl Agent {
    /// A machine without a process; its files are in `folder`.
    pub fn new(folder: PathBuf, name: &str, address: Ipv4Addr) -> Self {
        create_dir_all(&folder).expect("a new folder");
        Self { name: name.to_owned(), address, folder, process: None, starts: 0, host: Host::new(name) }
    }

    fn command(&self, args: &[&str]) -> Command {
        // The process ends with the thread of the machine, whatever happens to the test.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary());
        command.args(["-v", "agent", "--node-name", &self.name]).arg("--data-dir").arg(self.data_dir());
        command.args(args);
        command
    }

    /// Starts the process and waits until it is up.
    pub fn start(&mut self, args: &[&str]) {
        assert!(self.process.is_none(), "one process at a time");
        self.starts += 1;
        let (began, mut command) = (Instant::now(), self.command(args));
        command.stdin(Stdio::null()).stdout(File::create(self.path("output")).expect("a new file"));
        command.stderr(File::create(self.path("log")).expect("a new file"));
        self.process = Some(self.host.run(move || command.spawn().expect("the built knarr can be started")));
        let what = format!("node {} is up", self.name);
        within(UP_WITHIN, &what, || match (read(&self.path("output")).contains(UP), self.ended()) {
            (true, _) => Ok(()),
            (false, Some(status)) => panic!("{what}: it ended with {status}: {}", self.log()),
            (false, None) => Err(format!("it said {}{}", read(&self.path("output")), self.log())),
        });
        println!("node {} was up after {:?}", self.name, began.elapsed());
    }

    /// Runs `knarr agent` on this machine to its end, which must be a refusal of one line.
    pub fn refused(&self, args: &[&str]) -> String {
        let mut command = self.command(args);
        let said = self.host.run(move || e2e::Said::by(&mut command, ""));
        assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
        let complaints: Vec<&str> = said.stderr.lines().filter(|line| line.starts_with("knarr: ")).collect();
        assert_eq!(complaints.len(), 1, "one line says why: {}", said.stderr);
        complaints[0].to_owned()
    }

    /// The machine gets another address.
    pub fn move_to(&mut self, address: Ipv4Addr) {
        fabric::move_to(&self.host, address);
        self.address = address;
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Standard error of the last process.
    pub fn log(&self) -> String {
        read(&self.path("log"))
    }

    fn path(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{what}-{}", self.starts))
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(|process| process.try_wait().ok().flatten())
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the agent runs");
        let id = i32::try_from(process.id()).expect("process ids are small");
        kill(Pid::from_raw(id), signal).expect("a child can be signalled");
    }

    /// `kill -9`; what it ran goes on.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(mut process) = self.process.take() {
            process.wait().expect("a child can be waited for");
        }
    }

    /// Asks it to end with everything that it runs, and waits. Whether it did.
    fn stop(&mut self) -> bool {
        self.signal(Signal::SIGTERM);
        let ended = try_within(STOPPED_WITHIN, || self.ended().ok_or(()));
        ended.is_ok_and(|status| status.success())
    }

    /// Asks it to end with everything that it runs.
    pub fn end(mut self) {
        assert!(self.stop(), "it stops: {}", self.log());
        self.process = None;
    }

    fn show(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        println!("--- node {}, start {}\n{shown}", self.name, self.starts);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        // What it runs would stay on the real machine.
        if self.process.is_some() && !self.stop() {
            println!("node {} did not stop, something of it may be left", self.name);
        }
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

//! A machine made of Linux namespaces: one thread with a network and mounts of its own.
//!
//! Owns: the thread. What shall happen on the machine is run by it; what it starts inherits its
//! namespaces and ends with it, even if this process is killed. Nothing has a name on the real machine, so
//! nothing can be left behind or clash. May not know: addresses, servers.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

type Job = Box<dyn FnOnce() + Send>;

/// Dropping it ends the machine with everything that runs on it.
pub struct Host {
    /// None while it ends.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    thread_id: i32,
}

impl Host {
    /// A machine with a loopback device and no other.
    pub fn new(name: &str) -> Self {
        let (jobs, todo) = channel::<Job>();
        let (started, start) = channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || live(&todo, &started))
            .expect("a thread can be started");
        let thread_id = start.recv().expect("a machine of namespaces needs root");
        let host = Self { jobs: Some(jobs), thread: Some(thread), thread_id };
        host.ip("link set lo up");
        host
    }

    /// By which the kernel finds its namespaces.
    pub fn thread_id(&self) -> i32 {
        self.thread_id
    }

    /// Runs a job on the machine and answers what it answers; a panic goes on here.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = channel::<Result<T, Box<dyn Any + Send>>>();
        let job: Job = Box::new(move || {
            let _ = answer.send(catch_unwind(AssertUnwindSafe(job)));
        });
        self.jobs.as_ref().expect("only a dropped machine has none").send(job).expect("its thread lives as long");
        match answered.recv().expect("its thread answers every job") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs iproute2's `ip` on the machine.
    pub fn ip(&self, words: &str) {
        let words = words.to_owned();
        self.run(move || ip(&words));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn live(todo: &Receiver<Job>, started: &Sender<i32>) {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("new namespaces");
    // Otherwise what is mounted here is mounted on the real machine as well.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("mounts can be kept apart");
    started.send(gettid().as_raw()).expect("somebody waits for the machine");
    while let Ok(job) = todo.recv() {
        job();
    }
}

/// Runs iproute2's `ip` in the namespaces of this thread; it must succeed.
pub fn ip(words: &str) {
    run(Command::new("ip").args(words.split_whitespace()), words);
}

/// Runs a short command that must succeed.
pub fn run(command: &mut Command, what: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?} ({what}): {}", String::from_utf8_lossy(&output.stderr));
}

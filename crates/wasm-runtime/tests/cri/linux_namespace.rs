//! A network namespace of the test's own: a thread lives in it and does what it is told there.

use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;

use nix::sched::{CloneFlags, unshare};

type Task = Box<dyn FnOnce() + Send>;

pub struct LinuxNamespace {
    tasks: mpsc::Sender<Task>,
    pub path: PathBuf,
}

impl LinuxNamespace {
    /// `None`, with a line that says why, where this machine does not allow it. The namespace has
    /// its loopback up, with `address` on it, and ends with the last process in it.
    pub fn with_address(address: &str) -> Option<Self> {
        let address = format!("{address}/32");
        let (ready, is_ready) = mpsc::channel();
        let (tasks, queue) = mpsc::channel::<Task>();
        std::thread::spawn(move || {
            let ip = |args: &[&str]| Command::new("ip").args(args).status().is_ok_and(|status| status.success());
            let made = unshare(CloneFlags::CLONE_NEWNET).is_ok()
                && ip(&["link", "set", "lo", "up"])
                && ip(&["address", "add", &address, "dev", "lo"]);
            ready.send(made.then(nix::unistd::gettid)).unwrap();
            queue.into_iter().for_each(|task| task());
        });
        match is_ready.recv().unwrap() {
            Some(thread) => {
                let path = format!("/proc/{}/task/{thread}/ns/net", std::process::id());
                Some(Self { tasks, path: path.into() })
            }
            None => {
                println!("skipped: needs root and the `ip` command for a network namespace");
                None
            }
        }
    }

    /// Runs `task` in the namespace; threads that it starts are there too.
    pub async fn run<R: Send + 'static>(&self, task: impl FnOnce() -> R + Send + 'static) -> R {
        let (done, result) = tokio::sync::oneshot::channel();
        self.tasks
            .send(Box::new(move || {
                let _ = done.send(task());
            }))
            .unwrap();
        result.await.unwrap()
    }
}

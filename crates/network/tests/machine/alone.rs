//! A machine of one's own: each test runs in a thread with fresh namespaces.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use cri::{AttachRequest, NetworkAttachment, NetworkKind, PodNetwork};
use network::{Network, NetworkConfig};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::runtime::Runtime;

pub const PATIENCE: Duration = Duration::from_secs(5);

/// What a test has: a runtime whose threads are in the test's namespaces, and a directory.
pub struct Machine {
    pub runtime: Runtime,
    pub dir: tempfile::TempDir,
}

/// Runs `test` in fresh namespaces, or says that it cannot.
pub fn alone(test: impl FnOnce(&Machine) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root for network and mount namespaces");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let machine = Machine { runtime, dir: tempfile::tempdir().unwrap() };
        test(&machine);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Machine {
    pub fn config(&self) -> NetworkConfig {
        let dir = self.dir.path();
        NetworkConfig::new(dir.join("network"), dir.join("netns"), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)))
    }

    pub fn open(&self) -> Arc<Network> {
        let _inside = self.runtime.enter();
        Network::open(self.config()).unwrap()
    }

    pub fn attach(&self, network: &Network, uid: &str, kind: NetworkKind) -> NetworkAttachment {
        let request = AttachRequest { pod_uid: uid.to_owned(), kind };
        self.runtime.block_on(network.attach(request)).unwrap()
    }

    /// A pod with a namespace: its address and the namespace's file.
    pub fn linux_pod(&self, network: &Network, uid: &str) -> LinuxPod {
        match self.attach(network, uid, NetworkKind::Namespace) {
            NetworkAttachment::Namespace { ip, path } => LinuxPod { ip, path },
            other => panic!("a namespace was asked for: {other:?}"),
        }
    }
}

pub struct LinuxPod {
    pub ip: IpAddr,
    pub path: PathBuf,
}

impl LinuxPod {
    /// Runs `inside` in the pod's network namespace.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(|| enter(&self.path, inside)).join().unwrap())
    }

    /// Starts a TCP server in the pod.
    pub fn serve_tcp(&self, port: u16, greeting: &'static str) {
        let address = SocketAddr::new(self.ip, port);
        let listener = self.run(|| TcpListener::bind(address).unwrap());
        greet(listener, greeting);
    }
}

fn enter<T>(path: &Path, inside: impl FnOnce() -> T) -> T {
    let file = fs::File::open(path).unwrap();
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
    inside()
}

/// Answers every connection with the greeting and the client's address, until the process ends.
pub fn greet(listener: TcpListener, greeting: &'static str) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let client = stream.peer_addr().unwrap().ip();
            write!(stream, "{greeting} {client}").ok();
        }
    })
}

/// Answers every datagram with the greeting and the client's address, until the process ends.
pub fn greet_udp(socket: UdpSocket, greeting: &'static str) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            socket.send_to(format!("{greeting} {}", client.ip()).as_bytes(), client).ok();
        }
    })
}

/// What a TCP server says, or the error.
pub fn ask_tcp(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// What a UDP server says, or the error.
pub fn ask_udp(address: SocketAddr) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(address)?;
    socket.send(b"hello")?;
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Everything teardown must leave as it was: links, IPv4 routes, sysctls, mounts, files, rules.
pub fn traces(machine: &Machine) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| format!("{path}: {error}\n"));
    let links: Vec<String> = read("/proc/thread-self/net/dev")
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next().map(|name| name.trim().to_owned()))
        .collect();
    // Not the inner nodes of the trie: their shape depends on what was there meanwhile.
    let trie = read("/proc/thread-self/net/fib_trie");
    let addresses: String = trie.split_inclusive('\n').filter(|line| !line.contains("+--")).collect();
    let mut files = Vec::new();
    list_files(machine.dir.path(), &mut files);
    format!(
        "links {links:?}\n{}{}forward {}redirects {}mounts {}\nfiles {files:?}\nrules {}",
        read("/proc/thread-self/net/route"),
        addresses,
        read("/proc/sys/net/ipv4/ip_forward"),
        read("/proc/sys/net/ipv4/conf/all/send_redirects"),
        read("/proc/thread-self/mountinfo").lines().count(),
        rules(),
    )
}

fn list_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list_files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The ruleset as Debian's `nft` lists it; empty where that is not installed.
pub fn rules() -> String {
    match std::process::Command::new("nft").args(["list", "ruleset"]).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(_) => String::new(),
    }
}

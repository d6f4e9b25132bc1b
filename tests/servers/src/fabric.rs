//! The network between machines: a bridge in a namespace of the test's own thread.
//!
//! Owns: addresses, cables, and what cuts machines off from each other. The thread that made it is on the
//! network, and so is what it starts from then on: clients reach every machine.
//! May not know: what runs on a machine.

use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

use crate::host::{Host, ip};

/// Where clients are.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// The table of a machine that drops what shall not arrive.
const TABLE: &str = "cut";

/// Dropping it brings the thread back to where it was.
pub struct Fabric {
    before: File,
}

impl Fabric {
    /// Moves this thread into a network of its own with a bridge.
    pub fn enter() -> Self {
        let before = File::open("/proc/thread-self/ns/net").expect("a thread has a network");
        unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own needs root");
        ip("link set lo up");
        ip("link add bridge type bridge");
        ip(&format!("addr add {CLIENTS}/24 dev bridge"));
        ip("link set bridge up");
        Self { before }
    }

    /// Connects a machine. `port` names its cable here.
    pub fn plug(&self, port: usize, host: &Host, address: Ipv4Addr) {
        ip(&format!("link add port{port} type veth peer name eth0 netns {}", host.thread_id()));
        ip(&format!("link set port{port} master bridge up"));
        host.ip(&format!("addr add {address}/24 dev eth0"));
        host.ip("link set eth0 up");
    }

    /// Nothing passes a machine's cable, in either direction.
    pub fn set_cable(&self, port: usize, up: bool) {
        ip(&format!("link set port{port} {}", if up { "up" } else { "down" }));
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        let _ = setns(&self.before, CloneFlags::CLONE_NEWNET);
    }
}

/// Gives a machine another address.
pub fn move_to(host: &Host, address: Ipv4Addr) {
    host.ip("addr flush dev eth0");
    host.ip(&format!("addr add {address}/24 dev eth0"));
}

/// From now on a machine gets nothing from these addresses, and with `both` sends them nothing either.
pub fn cut(host: &Host, from: &[Ipv4Addr], both: bool) {
    let list: Vec<String> = from.iter().map(ToString::to_string).collect();
    let list = list.join(", ");
    let mut rules = format!("table ip {TABLE} {{\n");
    rules += &format!(" chain in {{ type filter hook input priority 0\n ip saddr {{ {list} }} drop\n }}\n");
    if both {
        rules += &format!(" chain out {{ type filter hook output priority 0\n ip daddr {{ {list} }} drop\n }}\n");
    }
    nft(host, rules + "}\n");
}

/// The end of what [`cut`] began; also where nothing was cut.
pub fn heal(host: &Host) {
    nft(host, format!("table ip {TABLE}\ndelete table ip {TABLE}\n"));
}

fn nft(host: &Host, rules: String) {
    host.run(move || {
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft can be started");
        nft.stdin.take().expect("stdin is a pipe").write_all(rules.as_bytes()).expect("nft reads its rules");
        assert!(nft.wait().expect("nft can be waited for").success(), "nft refused {rules}");
    });
}

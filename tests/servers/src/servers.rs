//! A cluster of several servers on a network of their own.
//!
//! Owns: how it comes up, who leads, when all is well. May not know: load and faults.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::eventually::{try_within, within};
use e2e::needs::{binary, missing, skip};
use e2e::{Said, eventually};
use kube::Client;
use tokio::runtime::Runtime;

use crate::agent::Agent;
use crate::client::{Membership, connect, membership};
use crate::fabric::{self, Fabric};
use crate::server::{PEER_PORT, Server, Storage};

/// How long a server may take until it is up: an unoptimised binary on a busy machine.
const UP_WITHIN: Duration = Duration::from_secs(90);
const WELL_WITHIN: Duration = Duration::from_secs(60);
/// Cables of nodes begin here.
const NODE_PORTS: usize = 100;
/// Programs that make machines, networks and disks.
const PROGRAMS: [&str; 5] = ["ip", "nft", "setpriv", "mount", "mkfs.ext4"];

pub struct Servers {
    pub servers: Vec<Server>,
    pub runtime: Runtime,
    fabric: Fabric,
    folder: tempfile::TempDir,
    storage: Storage,
}

impl Servers {
    /// A network without machines. None, after a line that says why, when the test cannot run here.
    pub fn none(storage: Storage) -> Option<Self> {
        if let Some(missing) = missing(&PROGRAMS) {
            return skip(&missing);
        }
        let fabric = Fabric::enter();
        // Its threads are on the network, because the thread that starts them is.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime for the clients");
        let folder = tempfile::Builder::new().prefix("knarr-servers-").tempdir().expect("a temporary folder");
        Some(Self { servers: Vec::new(), runtime, fabric, folder, storage })
    }

    /// A cluster of so many servers, all of them well.
    pub fn start(count: usize, storage: Storage) -> Option<Self> {
        let mut servers = Self::none(storage)?;
        let founder = servers.add();
        servers.start_server(founder, &[]);
        for _ in 1..count {
            let newcomer = servers.add();
            servers.join(newcomer, &[]);
        }
        servers.wait_well();
        Some(servers)
    }

    /// One more machine, without a process.
    pub fn add(&mut self) -> usize {
        let index = self.servers.len();
        let address = Ipv4Addr::new(10, 77, 0, 1 + u8::try_from(index).expect("a handful of servers"));
        let server = Server::new(self.folder.path().join(index.to_string()), address, self.storage);
        self.fabric.plug(index, &server.host, address);
        self.servers.push(server);
        index
    }

    /// A machine for a node, without a process. Its cable is that of `port`, counted apart from those of servers.
    pub fn add_node(&self, name: &str, port: usize) -> Agent {
        let address = Ipv4Addr::new(10, 77, 0, 101 + u8::try_from(port).expect("a handful of nodes"));
        let agent = Agent::new(self.folder.path().join(format!("node-{port}")), name, address);
        self.fabric.plug(NODE_PORTS + port, &agent.host, address);
        agent
    }

    /// Pulls a node's cable.
    pub fn unplug_node(&self, port: usize) {
        self.fabric.set_cable(NODE_PORTS + port, false);
    }

    pub fn plug_node(&self, port: usize) {
        self.fabric.set_cable(NODE_PORTS + port, true);
    }

    /// Starts a server and waits until it is up.
    pub fn start_server(&mut self, index: usize, args: &[&str]) {
        self.spawn(index, args);
        self.wait_up(index);
    }

    pub fn spawn(&mut self, index: usize, args: &[&str]) {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.servers[index].spawn(&args);
    }

    pub fn wait_up(&mut self, index: usize) {
        self.servers[index].wait_up(UP_WITHIN);
    }

    /// Lets a new machine join by way of the first server that runs.
    pub fn join(&mut self, index: usize, args: &[&str]) {
        let through = self.running().into_iter().find(|other| *other != index).expect("some server runs");
        let token = self.servers[index].folder().join("token");
        self.token_into(through, &token, "1h");
        let (url, token) = (self.servers[through].url(), token.display().to_string());
        let mut all = vec!["--join", &url, "--token-file", &token];
        all.extend(args);
        self.start_server(index, &all);
    }

    /// Makes a join token and keeps it in a file.
    pub fn token_into(&self, through: usize, file: &Path, ttl: &str) {
        let token = self.knarr(through, &["token", "create", "--ttl", ttl]).ok();
        std::fs::write(file, token).expect("a new file");
    }

    /// A client command of the binary, by way of one server.
    pub fn knarr(&self, through: usize, args: &[&str]) -> Said {
        Said::by(Command::new(binary()).args(args).env("KUBECONFIG", self.servers[through].kubeconfig()), "")
    }

    /// Servers with a process.
    pub fn running(&self) -> Vec<usize> {
        (0..self.servers.len()).filter(|index| self.servers[*index].runs()).collect()
    }

    /// All servers but these.
    pub fn others(&self, but: &[usize]) -> Vec<usize> {
        (0..self.servers.len()).filter(|index| !but.contains(index)).collect()
    }

    pub fn addresses(&self, of: &[usize]) -> Vec<Ipv4Addr> {
        of.iter().map(|index| self.servers[*index].address).collect()
    }

    pub fn client(&self, index: usize) -> Client {
        self.runtime.block_on(connect(&self.servers[index].kubeconfig()))
    }

    /// One client for each server that was ever up.
    pub fn clients(&self) -> Vec<Client> {
        (0..self.servers.len()).map(|index| self.client(index)).collect()
    }

    /// What a server says about the members.
    pub fn membership(&self, index: usize) -> Option<Membership> {
        let client = self.client(index);
        self.runtime.block_on(membership(&client))
    }

    /// The running server that leads. Of several that believe so, the last elected.
    pub fn leader(&self) -> usize {
        eventually("a server leads", || self.leader_among(&self.running()).ok_or("none says that it leads"))
    }

    /// The same, seen by some servers only.
    pub fn leader_among(&self, indices: &[usize]) -> Option<usize> {
        let seen = indices.iter().filter_map(|index| Some((*index, self.membership(*index)?)));
        let leads = seen.filter(|(_, seen)| seen.leader == Some(seen.me));
        leads.max_by_key(|(_, seen)| seen.term).map(|(index, _)| index)
    }

    /// Waits until every server runs, and all agree on one leader, on the members, and that they vote.
    pub fn wait_well(&self) {
        within(WELL_WITHIN, "all servers are well", || self.well());
    }

    fn well(&self) -> Result<(), String> {
        let mut first: Option<Membership> = None;
        for index in self.running() {
            let seen = self.membership(index).ok_or(format!("server {index} does not answer"))?;
            if !seen.alarm.is_empty() {
                panic!("server {index} raises an alarm: {}", seen.alarm);
            }
            let first = first.get_or_insert_with(|| seen.clone());
            if seen.leader.is_none() || (first.leader, first.term) != (seen.leader, seen.term) {
                return Err(format!("server {index} sees {seen:?}, another sees {first:?}"));
            }
            if first.members != seen.members || seen.members.iter().any(|(_, role)| role != "voter") {
                return Err(format!("server {index} sees {seen:?}, another sees {first:?}"));
            }
        }
        Ok(())
    }

    /// Cuts every connection between two groups; clients reach both.
    pub fn part(&self, one: &[usize], other: &[usize]) {
        for index in one {
            fabric::cut(&self.servers[*index].host, &self.addresses(other), true);
        }
    }

    /// These get nothing from those any more, but what they send arrives.
    pub fn deafen(&self, deaf: &[usize], unheard: &[usize]) {
        for index in deaf {
            fabric::cut(&self.servers[*index].host, &self.addresses(unheard), false);
        }
    }

    pub fn heal(&self) {
        for (index, server) in self.servers.iter().enumerate() {
            fabric::heal(&server.host);
            self.fabric.set_cable(index, true);
        }
    }

    /// Pulls a server's cable: not even clients reach it.
    pub fn unplug(&self, index: usize) {
        self.fabric.set_cable(index, false);
    }

    /// A stopped server gets another address.
    pub fn move_server(&mut self, index: usize, address: Ipv4Addr) {
        let server = &mut self.servers[index];
        fabric::move_to(&server.host, address);
        server.address = address;
    }

    /// `ID=IP:PORT` of a member, as `--peer` takes it.
    pub fn peer(&self, index: usize, id: u64) -> String {
        format!("{id}={}:{PEER_PORT}", self.servers[index].address)
    }

    /// A server's own id.
    pub fn id(&self, index: usize) -> u64 {
        let asked = try_within(WELL_WITHIN, || self.membership(index).ok_or(()));
        asked.expect("a server that is up knows its id").me
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.servers.iter().for_each(Server::show);
            // What a person looks at afterwards.
            if std::env::var_os("KNARR_FAULT_KEEP").is_some() {
                self.folder.disable_cleanup(true);
                println!("kept: {}", self.folder.path().display());
            }
        }
    }
}

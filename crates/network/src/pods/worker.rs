//! Owns the pods' addresses and namespaces: decides with [`AddressPool`], records in the journal
//! before it builds, so that a crash in between is repaired by the next `attach` or `detach`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use cri::{AttachRequest, Attached, NetworkAttachment, NetworkError, NetworkKind};

use super::addresses::AddressPool;
use super::journal::{Journal, Record};
use super::linux_namespace;
use crate::cidr::Ipv4Cidr;
use crate::config::NetworkConfig;
use crate::error::{Attempt, SetupError};
use crate::netlink::route::{LOOPBACK_INDEX, Target, Veth};
use crate::netlink::{NetlinkError, NetlinkSocket};
use crate::setup::{NodeLinks, POD_LINK_PREFIX};
use crate::sysctl;

/// The network address and the gateway.
const RESERVED_NAMESPACE: u64 = 2;
/// The network address.
const RESERVED_LOCAL: u64 = 1;

pub(super) struct PodsWorker {
    node_ip: IpAddr,
    gateway: Ipv4Addr,
    netns_dir: PathBuf,
    links: NodeLinks,
    socket: NetlinkSocket,
    journal: Journal,
    pods: BTreeMap<String, Record>,
    namespace_pool: AddressPool,
    shared_pool: AddressPool,
}

impl PodsWorker {
    pub(super) fn load(config: &NetworkConfig, links: NodeLinks) -> Result<Self, SetupError> {
        let failed = |source| SetupError::File {
            attempt: "read the pods' addresses in",
            path: config.state_dir.clone(),
            source,
        };
        let journal = Journal::open(&config.state_dir).map_err(failed)?;
        let pods: BTreeMap<String, Record> = journal.load().map_err(failed)?.into_iter().collect();
        let mut namespace_pool = AddressPool::new(config.namespace_cidr(), RESERVED_NAMESPACE);
        let mut shared_pool = AddressPool::new(config.local_cidr(), RESERVED_LOCAL);
        for record in pods.values() {
            let pool = if record.namespace { &mut namespace_pool } else { &mut shared_pool };
            pool.adopt(record.ip);
        }
        let cursors = journal.cursors();
        cursors.namespace.into_iter().for_each(|ip| namespace_pool.resume_after(ip));
        cursors.shared.into_iter().for_each(|ip| shared_pool.resume_after(ip));
        let socket = NetlinkSocket::route().attempt(|| "open a netlink socket".to_owned())?;
        let (node_ip, gateway, netns_dir) = (config.node_ip, config.gateway(), config.netns_dir.clone());
        Ok(Self { node_ip, gateway, netns_dir, links, socket, journal, pods, namespace_pool, shared_pool })
    }

    pub(super) fn attach(&mut self, request: &AttachRequest) -> Result<NetworkAttachment, NetworkError> {
        let namespace = match request.kind {
            NetworkKind::Host => return Ok(NetworkAttachment::Host { ip: self.node_ip }),
            NetworkKind::Shared => false,
            NetworkKind::Namespace => true,
        };
        let uid = &request.pod_uid;
        check_uid(uid)?;
        if self.pods.get(uid).is_some_and(|record| record.namespace != namespace) {
            self.detach(uid)?;
        }
        let record = match self.pods.get(uid) {
            Some(record) => record.clone(),
            None => self.allocate(uid, namespace)?,
        };
        // After a reboot the record is there and the namespace is not.
        if namespace && !linux_namespace::exists(&self.netns_path(uid)) {
            self.build_namespace(uid, record.ip)?;
        }
        Ok(self.attachment(uid, &record))
    }

    pub(super) fn detach(&mut self, uid: &str) -> Result<(), NetworkError> {
        let Some(record) = self.pods.get(uid).cloned() else {
            return Ok(());
        };
        if record.namespace {
            let path = self.netns_path(uid);
            linux_namespace::remove(&path)
                .map_err(|source| NetworkError::Io { attempt: format!("remove {}", path.display()), source })?;
        }
        self.journal.remove(uid).map_err(journal_failed)?;
        self.pods.remove(uid);
        self.pool(record.namespace).release(record.ip);
        Ok(())
    }

    pub(super) fn detach_all(&mut self) -> Result<(), NetworkError> {
        for uid in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.detach(&uid)?;
        }
        self.journal.remove_all().map_err(journal_failed)
    }

    pub(super) fn list(&self) -> Vec<Attached> {
        let row = |(uid, record): (&String, &Record)| Attached {
            pod_uid: uid.clone(),
            attachment: self.attachment(uid, record),
        };
        self.pods.iter().map(row).collect()
    }

    fn allocate(&mut self, uid: &str, namespace: bool) -> Result<Record, NetworkError> {
        let pool = self.pool(namespace);
        let ip = pool
            .take()
            .ok_or_else(|| NetworkError::Exhausted { range: pool.range().to_string(), in_use: pool.in_use() })?;
        let record = Record { ip, namespace };
        let mut cursors = self.journal.cursors();
        *(if namespace { &mut cursors.namespace } else { &mut cursors.shared }) = Some(ip);
        let saved = self.journal.save(uid, &record).and_then(|()| self.journal.save_cursors(&cursors));
        if let Err(source) = saved {
            self.pool(namespace).release(ip);
            self.journal.remove(uid).ok();
            return Err(journal_failed(source));
        }
        self.pods.insert(uid.to_owned(), record.clone());
        Ok(record)
    }

    fn build_namespace(&mut self, uid: &str, ip: Ipv4Addr) -> Result<(), NetworkError> {
        let path = self.netns_path(uid);
        let mut created = linux_namespace::create(&path).map_err(|error| NetworkError::Kernel {
            attempt: format!("make the network namespace {}", path.display()),
            why: error.to_string(),
        })?;
        let outcome = self.connect(&mut created, ip);
        if outcome.is_err() {
            linux_namespace::remove(&path).ok();
        }
        outcome
    }

    /// The node's end: up since it was made; here it gets its settings and the route to the pod.
    fn configure_outside(&mut self, name: &str, ip: Ipv4Addr) -> Result<(), NetworkError> {
        let failed = |attempt, why: &dyn std::fmt::Display| NetworkError::Kernel { attempt, why: why.to_string() };
        for (setting, value) in sysctl::of_pod_link(name) {
            sysctl::set(&setting, value).map_err(|error| failed(format!("set {setting}"), &error))?;
        }
        sysctl::disable_ipv6(name).map_err(|error| failed(format!("keep {name} to IPv4"), &error))?;
        let target = Target::Link { index: link_index(&mut self.socket, name)?, source: self.gateway };
        self.socket
            .set_route(Ipv4Cidr::host(ip), target)
            .map_err(|error| failed(format!("route {ip} to {name}"), &error))
    }

    fn connect(&mut self, created: &mut linux_namespace::Created, ip: Ipv4Addr) -> Result<(), NetworkError> {
        let refused =
            |attempt: String| move |error: NetlinkError| NetworkError::Kernel { attempt, why: error.to_string() };
        let name = host_link_name(ip);
        // Made of the address, so that no neighbour table on the node ever holds a stale one.
        let [a, b, c, d] = ip.octets();
        let peer_mac = [0x0a, 0x6c, a, b, c, d];
        let veth = Veth { name: &name, mtu: self.links.mtu, peer_mac, peer_linux_namespace: created.fd() };
        match self.socket.add_veth(&veth) {
            // Of an earlier pod with this address, whose namespace is just being destroyed.
            Err(error) if error.is(nix::errno::Errno::EEXIST) => {
                self.socket.delete_link(&name).map_err(refused(format!("remove the stale link {name}")))?;
                self.socket.add_veth(&veth)
            }
            other => other,
        }
        .map_err(refused(format!("connect a pod by {name}")))?;
        self.configure_outside(&name, ip)?;
        let inside = &mut created.socket;
        inside.set_up(LOOPBACK_INDEX).map_err(refused("bring a pod's loopback device up".to_owned()))?;
        let index = link_index(inside, "eth0")?;
        inside.set_up(index).map_err(refused("bring a pod's eth0 up".to_owned()))?;
        // A single address: all other pods are reached by the gateway, so that every packet passes
        // the node's connection tracking.
        inside.add_address(index, ip, 32).map_err(refused(format!("give a pod the address {ip}")))?;
        let everything = Ipv4Cidr::new(Ipv4Addr::UNSPECIFIED, 0).expect("0 is a prefix length");
        let target = Target::Gateway { index, gateway: self.gateway };
        inside.set_route(everything, target).map_err(refused("give a pod its default route".to_owned()))
    }

    fn pool(&mut self, namespace: bool) -> &mut AddressPool {
        if namespace { &mut self.namespace_pool } else { &mut self.shared_pool }
    }

    fn attachment(&self, uid: &str, record: &Record) -> NetworkAttachment {
        let ip = IpAddr::V4(record.ip);
        if record.namespace {
            NetworkAttachment::Namespace { ip, path: self.netns_path(uid) }
        } else {
            NetworkAttachment::Shared { ip }
        }
    }

    fn netns_path(&self, uid: &str) -> PathBuf {
        self.netns_dir.join(uid)
    }
}

/// A uid becomes a file name.
fn check_uid(uid: &str) -> Result<(), NetworkError> {
    let fits = (1..=63).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits {
        return Ok(());
    }
    Err(NetworkError::Kernel {
        attempt: format!("attach pod {uid:?}"),
        why: "its uid is not 1 to 63 letters, digits or dashes".to_owned(),
    })
}

/// Unique on the node, because the address is.
fn host_link_name(ip: Ipv4Addr) -> String {
    format!("{POD_LINK_PREFIX}{:08x}", u32::from(ip))
}

fn link_index(socket: &mut NetlinkSocket, name: &str) -> Result<u32, NetworkError> {
    let failed = |why| NetworkError::Kernel { attempt: format!("find the link {name} just made"), why };
    let found = socket.link(name).map_err(|error| failed(error.to_string()))?;
    found.map(|link| link.index).ok_or_else(|| failed("it is not there".to_owned()))
}

fn journal_failed(source: std::io::Error) -> NetworkError {
    NetworkError::Io { attempt: "record a pod's address".to_owned(), source }
}

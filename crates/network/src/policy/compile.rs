//! Policies, pods and namespaces into [`Tables`] for one node. Pure and total.
//!
//! ```text
//! pods ──► kinds: pods that no rule can tell apart        (namespace, the labels that selectors ask for, named ports)
//! kinds ─► the rules' peers that match ─► peer groups
//!       └► the policies that select it ─► target groups   (only of kinds with pods on this node)
//! blocks ─► the intervals between all their borders ─► peer groups
//! policies × target groups × peer groups ─► grants
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use api::selector::{LabelSelector, Requirement};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::facts::PodFacts;
use super::ports::Ports;
use super::rules::{self, Namespaces, Peer, Policy, Rule, Rules, Warning};
use super::tables::{ANYONE, Block, Direction, ELEMENTS_MAX, Tables};
use crate::service_proxy::IpProtocol;

type NamedPorts = BTreeMap<(String, IpProtocol), u16>;
type NamespaceLabels<'a> = BTreeMap<&'a str, &'a BTreeMap<String, String>>;

/// Tables for the node whose pods are here, and what they leave out.
pub fn compile(
    policies: &[Arc<NetworkPolicy>],
    namespaces: &[Arc<Namespace>],
    pods: &[PodFacts],
) -> (Tables, Vec<Warning>) {
    let (rules, mut warnings) = rules::read(policies);
    let namespaces: NamespaceLabels<'_> = namespaces
        .iter()
        .filter_map(|one| Some((one.metadata.name.as_deref()?, one.metadata.labels.as_ref()?)))
        .collect();
    let kinds = kinds(&rules, pods);
    let mut groups = Groups::default();
    let mut tables = Tables { blocks: groups.blocks(&rules), ..Tables::default() };
    for (kind, members) in &kinds {
        let matched = kind.peers(&rules, &namespaces);
        for address in members.iter().flat_map(|pod| pod.addresses()) {
            let blocks = rules.blocks().filter(|(_, block)| block.contains(address)).map(|(at, _)| at);
            let peers: BTreeSet<usize> = matched.iter().copied().chain(blocks).collect();
            if let Some(group) = groups.of(Signature { peers, ports: kind.ports.clone() }) {
                tables.peers.insert(address, group);
            }
        }
    }
    let twofold = pods.iter().filter_map(|pod| Some((pod.address, pod.linux_address?)));
    tables.same_pod = twofold.flat_map(|(one, other)| [(one, other), (other, one)]).collect();
    let mut ingress = Targets::default();
    let mut egress = Targets::default();
    for (kind, members) in kinds.iter().filter(|(_, members)| members.iter().any(|pod| pod.is_here)) {
        let selecting = kind.policies(&rules);
        let here = || members.iter().filter(|pod| pod.is_here).flat_map(|pod| pod.addresses());
        // A port of a rule of egress is the peer's, so the target's own ports tell nothing.
        ingress.add(&selecting, &kind.ports, |policy| policy.ingress.is_some(), here());
        egress.add(&selecting, &NamedPorts::new(), |policy| policy.egress.is_some(), here());
    }
    tables.ingress = ingress.direction(|targets| {
        let of = |policy: &'_ Policy| policy.ingress.clone().unwrap_or_default();
        targets.grants(&rules, of, |rule, ports| groups.ingress(rule, ports))
    });
    tables.egress = egress.direction(|targets| {
        let of = |policy: &'_ Policy| policy.egress.clone().unwrap_or_default();
        targets.grants(&rules, of, |rule, _| groups.egress(rule))
    });
    for direction in [&mut tables.ingress, &mut tables.egress] {
        let left_out = bound(direction);
        if left_out > 0 {
            let message = format!("{left_out} grants are left out: more than {ELEMENTS_MAX} in one direction");
            warnings.push(Warning { namespace: String::new(), policy: String::new(), message });
        }
    }
    (tables, warnings)
}

/// Drops grants beyond the limit, and says how many. What is dropped is denied.
fn bound(direction: &mut Direction) -> usize {
    let mut elements = 0;
    let before = direction.grants.len();
    direction.grants.retain(|_, ports| {
        elements += match ports {
            Ports::Any => 1,
            Ports::Of(ranges) => ranges.values().map(Vec::len).sum(),
        };
        elements <= ELEMENTS_MAX
    });
    before - direction.grants.len()
}

/// Pods that no rule can tell apart but by their addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    namespace: String,
    /// Those that some selector asks for.
    labels: BTreeMap<String, String>,
    /// Those that some rule names.
    ports: NamedPorts,
}

fn kinds<'a>(rules: &Rules, pods: &'a [PodFacts]) -> BTreeMap<Kind, Vec<&'a PodFacts>> {
    let (keys, names) = (rules.label_keys(), rules.port_names());
    let mut kinds: BTreeMap<Kind, Vec<&PodFacts>> = BTreeMap::new();
    for pod in pods {
        let labels = pod.labels.iter().filter(|(key, _)| keys.contains(key.as_str()));
        let ports = pod.ports.iter().filter(|(name, _)| names.contains(*name));
        let kind = Kind {
            namespace: pod.namespace.clone(),
            labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
            ports: ports.map(|(name, port)| (name.clone(), *port)).collect(),
        };
        kinds.entry(kind).or_default().push(pod);
    }
    kinds
}

impl Rules {
    fn blocks(&self) -> impl Iterator<Item = (usize, &rules::AddressBlock)> {
        self.peers.iter().enumerate().filter_map(|(at, peer)| match peer {
            Peer::Block(block) => Some((at, block)),
            Peer::Pods { .. } => None,
        })
    }

    fn label_keys(&self) -> BTreeSet<&str> {
        let of_peers = self.peers.iter().filter_map(|peer| match peer {
            Peer::Pods { selector, .. } => Some(selector),
            Peer::Block(_) => None,
        });
        let selectors = self.policies.iter().map(|policy| &policy.selector).chain(of_peers);
        selectors.flat_map(|selector| &selector.requirements).map(Requirement::key).collect()
    }

    fn port_names(&self) -> BTreeSet<(String, IpProtocol)> {
        let rules =
            |policy: &'_ Policy| policy.ingress.iter().chain(&policy.egress).flatten().cloned().collect::<Vec<_>>();
        self.policies.iter().flat_map(rules).flat_map(|rule| rule.named).collect()
    }
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.matches(|key| labels.get(key).map(String::as_str))
}

impl Kind {
    /// Which of the rules' peers its pods are, apart from blocks.
    fn peers(&self, rules: &Rules, namespaces: &NamespaceLabels<'_>) -> BTreeSet<usize> {
        let is_one = |peer: &Peer| match peer {
            Peer::Block(_) => false,
            Peer::Pods { namespaces: Namespaces::Named(name), selector } => {
                *name == self.namespace && selects(selector, &self.labels)
            }
            Peer::Pods { namespaces: Namespaces::Selected(wanted), selector } => {
                let labels = namespaces.get(self.namespace.as_str());
                labels.is_some_and(|labels| selects(wanted, labels)) && selects(selector, &self.labels)
            }
        };
        (0..rules.peers.len()).filter(|at| is_one(&rules.peers[*at])).collect()
    }

    /// The policies that select its pods, with their places.
    fn policies<'a>(&self, rules: &'a Rules) -> Vec<(usize, &'a Policy)> {
        let all = rules.policies.iter().enumerate();
        all.filter(|(_, one)| one.namespace == self.namespace && selects(&one.selector, &self.labels)).collect()
    }
}

/// What rules can tell of a peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Signature {
    peers: BTreeSet<usize>,
    ports: NamedPorts,
}

/// Peer groups, numbered from one.
#[derive(Default)]
struct Groups {
    numbers: BTreeMap<Signature, u32>,
}

impl Groups {
    /// `None` for what rules cannot tell from anybody else.
    fn of(&mut self, signature: Signature) -> Option<u32> {
        if signature.peers.is_empty() && signature.ports.is_empty() {
            return None;
        }
        let next = u32::try_from(self.numbers.len() + 1).expect("there are fewer groups than addresses");
        Some(*self.numbers.entry(signature).or_insert(next))
    }

    /// The address space cut at every border of a block.
    fn blocks(&mut self, rules: &Rules) -> Vec<Block> {
        let cidrs =
            rules.blocks().flat_map(|(_, block)| std::iter::once(block.cidr).chain(block.except.iter().copied()));
        let mut borders = BTreeSet::new();
        for cidr in cidrs {
            let first = u64::from(u32::from(cidr.network()));
            borders.extend([first, first + cidr.size()]);
        }
        let borders: Vec<u64> = borders.into_iter().collect();
        let mut blocks: Vec<Block> = Vec::new();
        for pair in borders.windows(2) {
            let address = |number: u64| {
                Ipv4Addr::from(u32::try_from(number).expect("the last border is not in a pair's beginning"))
            };
            let (first, last) = (address(pair[0]), address(pair[1] - 1));
            let peers = rules.blocks().filter(|(_, block)| block.contains(first)).map(|(at, _)| at).collect();
            let Some(group) = self.of(Signature { peers, ports: NamedPorts::new() }) else { continue };
            match blocks.last_mut() {
                Some(before) if before.group == group && u64::from(u32::from(before.last)) + 1 == pair[0] => {
                    before.last = last;
                }
                _ => blocks.push(Block { first, last, group }),
            }
        }
        blocks
    }

    fn named(&self, peers: Option<&Vec<usize>>) -> impl Iterator<Item = (&Signature, u32)> {
        let wanted = peers.cloned();
        self.numbers.iter().filter_map(move |(signature, number)| {
            let is_wanted = wanted.as_ref().is_none_or(|peers| peers.iter().any(|peer| signature.peers.contains(peer)));
            is_wanted.then_some((signature, *number))
        })
    }

    /// Whom a rule of ingress lets in, to a pod with these ports.
    fn ingress(&self, rule: &Rule, own: &NamedPorts) -> Vec<(u32, Ports)> {
        let ports = resolve(rule, own);
        match &rule.peers {
            None => vec![(ANYONE, ports)],
            peers => self.named(peers.as_ref()).map(|(_, group)| (group, ports.clone())).collect(),
        }
    }

    /// Whom a rule of egress lets out to. The ports are the peer's.
    fn egress(&self, rule: &Rule) -> Vec<(u32, Ports)> {
        let to_all = rule.peers.is_none().then(|| (ANYONE, rule.ports.clone()));
        let is_needed = rule.peers.is_some() || !rule.named.is_empty();
        let groups = self.named(rule.peers.as_ref()).filter(|_| is_needed);
        to_all.into_iter().chain(groups.map(|(signature, group)| (group, resolve(rule, &signature.ports)))).collect()
    }
}

fn resolve(rule: &Rule, named: &NamedPorts) -> Ports {
    let mut ports = rule.ports.clone();
    for name in &rule.named {
        if let Some(port) = named.get(name) {
            ports.add(name.1, (*port, *port));
        }
    }
    ports
}

/// Target groups of one direction, numbered from one: the policies that isolate a pod, by their places, and the ports
/// that their rules may name.
#[derive(Default)]
struct Targets {
    numbers: BTreeMap<(Vec<usize>, NamedPorts), u32>,
    isolated: BTreeMap<Ipv4Addr, u32>,
}

impl Targets {
    fn add(
        &mut self,
        selecting: &[(usize, &Policy)],
        ports: &NamedPorts,
        isolates: impl Fn(&Policy) -> bool,
        addresses: impl Iterator<Item = Ipv4Addr>,
    ) {
        let places: Vec<usize> = selecting.iter().filter(|(_, one)| isolates(one)).map(|(at, _)| *at).collect();
        if places.is_empty() {
            return;
        }
        let next = u32::try_from(self.numbers.len() + 1).expect("there are fewer groups than addresses");
        let number = *self.numbers.entry((places, ports.clone())).or_insert(next);
        self.isolated.extend(addresses.map(|address| (address, number)));
    }

    fn direction(self, grants: impl FnOnce(&Self) -> BTreeMap<(u32, u32), Ports>) -> Direction {
        let grants = grants(&self);
        Direction { isolated: self.isolated, grants }
    }

    /// What the rules of all policies grant together.
    fn grants(
        &self,
        rules: &Rules,
        of: impl Fn(&Policy) -> Vec<Rule>,
        peers: impl Fn(&Rule, &NamedPorts) -> Vec<(u32, Ports)>,
    ) -> BTreeMap<(u32, u32), Ports> {
        let mut grants: BTreeMap<(u32, u32), Ports> = BTreeMap::new();
        for ((places, own), target) in &self.numbers {
            for rule in places.iter().flat_map(|at| of(&rules.policies[*at])) {
                for (peer, ports) in peers(&rule, own).into_iter().filter(|(_, ports)| !ports.is_none()) {
                    grants.entry((*target, peer)).or_default().join(&ports);
                }
            }
        }
        grants
    }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;

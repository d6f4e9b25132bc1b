//! NetworkPolicies as read: selectors parsed, equal peers found once, defaults filled in. Pure and total: what cannot be
//! read grants nothing, and is said in a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use api::selector::LabelSelector;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as SelectorObject;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::ports::{PortRange, Ports};
use crate::cidr::Ipv4Cidr;
use crate::service_proxy::IpProtocol;

/// A part of a policy that is not enforced as written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    pub namespace: String,
    pub policy: String,
    pub message: String,
}

/// All policies.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) policies: Vec<Policy>,
    /// Distinct ones; rules name them by their place here.
    pub(super) peers: Vec<Peer>,
}

#[derive(Debug)]
pub(super) struct Policy {
    pub(super) namespace: String,
    pub(super) selector: LabelSelector,
    /// `None`: it says nothing of this direction.
    pub(super) ingress: Option<Vec<Rule>>,
    pub(super) egress: Option<Vec<Rule>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Places in [`Rules::peers`]; `None` is everybody.
    pub(super) peers: Option<Vec<usize>>,
    pub(super) ports: Ports,
    /// Whatever port has that name in the pod that is connected to.
    pub(super) named: BTreeSet<(String, IpProtocol)>,
}

#[derive(Debug)]
pub(super) enum Peer {
    Pods { namespaces: Namespaces, selector: LabelSelector },
    Block(AddressBlock),
}

#[derive(Debug)]
pub(super) enum Namespaces {
    Named(String),
    Selected(LabelSelector),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddressBlock {
    pub(super) cidr: Ipv4Cidr,
    pub(super) except: Vec<Ipv4Cidr>,
}

impl AddressBlock {
    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        self.cidr.contains(address) && !self.except.iter().any(|cidr| cidr.contains(address))
    }
}

/// Reads policies one after the other.
#[derive(Default)]
struct Reader {
    rules: Rules,
    known: BTreeMap<String, usize>,
    warnings: Vec<Warning>,
}

pub(super) fn read(policies: &[Arc<NetworkPolicy>]) -> (Rules, Vec<Warning>) {
    let mut reader = Reader::default();
    for policy in policies {
        reader.policy(policy);
    }
    (reader.rules, reader.warnings)
}

/// Where a problem is.
struct Place<'a> {
    namespace: &'a str,
    policy: &'a str,
}

impl Reader {
    fn policy(&mut self, policy: &NetworkPolicy) {
        let (Some(namespace), Some(name)) = (policy.metadata.namespace.as_deref(), policy.metadata.name.as_deref())
        else {
            return;
        };
        let place = Place { namespace, policy: name };
        let Some(spec) = &policy.spec else { return };
        let everything = SelectorObject::default();
        let Some(selector) = self.selector(&place, spec.pod_selector.as_ref().unwrap_or(&everything)) else { return };
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let (ingress_rules, egress_rules) = (spec.ingress.iter().flatten(), spec.egress.iter().flatten());
        let has = |wanted: &str| types.iter().any(|kind| kind == wanted);
        let is_ingress = types.is_empty() || has("Ingress");
        let is_egress =
            has("Egress") || (types.is_empty() && spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()));
        let ingress = is_ingress.then(|| {
            let read = ingress_rules.map(|rule| self.rule(&place, rule.from.as_deref(), rule.ports.as_deref()));
            read.collect()
        });
        let egress = is_egress.then(|| {
            let read = egress_rules.map(|rule| self.rule(&place, rule.to.as_deref(), rule.ports.as_deref()));
            read.collect()
        });
        self.rules.policies.push(Policy { namespace: namespace.to_owned(), selector, ingress, egress });
    }

    /// No peers and no ports are all of them.
    fn rule(
        &mut self,
        place: &Place<'_>,
        peers: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
    ) -> Rule {
        let peers = peers.filter(|peers| !peers.is_empty());
        let peers = peers.map(|peers| peers.iter().filter_map(|peer| self.peer(place, peer)).collect());
        let Some(list) = ports.filter(|ports| !ports.is_empty()) else {
            return Rule { peers, ports: Ports::Any, named: BTreeSet::new() };
        };
        let (mut ports, mut named) = (Ports::default(), BTreeSet::new());
        for port in list {
            let Some(protocol) = IpProtocol::parse(port.protocol.as_deref()) else {
                self.warn(place, format!("the protocol {:?} is unknown", port.protocol));
                continue;
            };
            match &port.port {
                None => ports.add(protocol, (0, u16::MAX)),
                Some(IntOrString::String(name)) => drop(named.insert((name.clone(), protocol))),
                Some(IntOrString::Int(first)) => match range(*first, port.end_port) {
                    Some(range) => ports.add(protocol, range),
                    None => self.warn(place, format!("{first} to {:?} are no ports", port.end_port)),
                },
            }
        }
        Rule { peers, ports, named }
    }

    fn peer(&mut self, place: &Place<'_>, peer: &NetworkPolicyPeer) -> Option<usize> {
        let key = format!(
            "{:?} {:?} {:?} {:?}",
            peer.namespace_selector.is_none().then_some(place.namespace),
            peer.pod_selector,
            peer.namespace_selector,
            peer.ip_block
        );
        if let Some(known) = self.known.get(&key) {
            return Some(*known);
        }
        let read = match peer {
            NetworkPolicyPeer { ip_block: Some(block), .. } => Peer::Block(self.block(place, block)?),
            NetworkPolicyPeer { pod_selector: None, namespace_selector: None, .. } => {
                self.warn(place, "a peer says nothing".to_owned());
                return None;
            }
            NetworkPolicyPeer { pod_selector, namespace_selector, .. } => {
                let everything = SelectorObject::default();
                let selector = self.selector(place, pod_selector.as_ref().unwrap_or(&everything))?;
                let namespaces = match namespace_selector {
                    None => Namespaces::Named(place.namespace.to_owned()),
                    Some(selector) => Namespaces::Selected(self.selector(place, selector)?),
                };
                Peer::Pods { namespaces, selector }
            }
        };
        let at = self.rules.peers.len();
        self.rules.peers.push(read);
        self.known.insert(key, at);
        Some(at)
    }

    fn block(&mut self, place: &Place<'_>, block: &IPBlock) -> Option<AddressBlock> {
        let Ok(cidr) = block.cidr.parse() else {
            self.warn(place, format!("{} is no IPv4 block, and pods have no other addresses", block.cidr));
            return None;
        };
        let mut except = Vec::new();
        for text in block.except.iter().flatten() {
            match text.parse() {
                Ok(cidr) => except.push(cidr),
                Err(_) => {
                    // To leave an exception out would grant more than is written.
                    self.warn(place, format!("the block {} is left out: {text} is no IPv4 block", block.cidr));
                    return None;
                }
            }
        }
        Some(AddressBlock { cidr, except })
    }

    fn selector(&mut self, place: &Place<'_>, selector: &SelectorObject) -> Option<LabelSelector> {
        let object = serde_json::to_value(selector).expect("a selector is JSON");
        match LabelSelector::from_object(&object) {
            Ok(selector) => Some(selector),
            Err(error) => {
                self.warn(place, error.to_string());
                None
            }
        }
    }

    fn warn(&mut self, place: &Place<'_>, message: String) {
        let (namespace, policy) = (place.namespace.to_owned(), place.policy.to_owned());
        self.warnings.push(Warning { namespace, policy, message });
    }
}

fn range(first: i32, end: Option<i32>) -> Option<PortRange> {
    let first = u16::try_from(first).ok()?;
    let last = end.map_or(Some(first), |end| u16::try_from(end).ok())?;
    (first <= last).then_some((first, last))
}

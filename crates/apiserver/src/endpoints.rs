//! Where the API servers are, as every client of the cluster sees it: the EndpointSlices and the Endpoints of
//! Service `default/kubernetes`.
//!
//! Owns: one slice per server, written by that server when it starts; the leader removes those of servers that are
//! no member any more and keeps the older kind, Endpoints, in step.
//! May not know: how members reach each other; these are the API's addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::kinds::Kind;
use api::meta;
use api::status::Status;
use serde_json::{Value, json};
use store::MemberId;

use crate::config::ApiServerConfig;
use crate::core::{Core, Request, Snapshot, core_kind, prefix};
use crate::housekeeping::spawn_while_leading;
use crate::object::encode::decode;
use crate::registry::delete::{DeleteOptions, delete};
use crate::registry::write::{Part, create, update};

const NAMESPACE: &str = "default";
const SERVICE: &str = "kubernetes";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MEMBER_LABEL: &str = "knarr.dev/member";
const EVERY: Duration = Duration::from_secs(10);

fn slice_kind() -> &'static Kind {
    api::kinds::lookup("discovery.k8s.io", "v1", "endpointslices").expect("a built-in kind")
}

/// The slice of one server.
fn slice(member: MemberId, config: &ApiServerConfig) -> Value {
    json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": format!("{SERVICE}-{member}"), "namespace": NAMESPACE,
            "labels": { SERVICE_LABEL: SERVICE, MEMBER_LABEL: member.to_string() } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [config.advertise_address.to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": config.advertise_port, "protocol": "TCP" }] })
}

/// Makes this server's address known.
pub async fn publish(core: &Arc<Core>) -> Result<(), Status> {
    write(core, slice_kind(), slice(core.store.members().me, &core.config), false).await
}

pub fn spawn_upkeep(core: Arc<Core>) {
    spawn_while_leading(core, EVERY, |core| async move {
        if let Err(error) = tidy(&core).await {
            tracing::warn!(%error, "the API servers' endpoints are not up to date");
        }
    });
}

async fn tidy(core: &Arc<Core>) -> Result<(), Status> {
    let members: Vec<MemberId> = core.store.members().members.iter().map(|member| member.id).collect();
    let view = core.store.view();
    let slices = slices(&view);
    let endpoints_kind = core_kind("endpoints");
    let present = view.get(&crate::core::key(endpoints_kind, NAMESPACE, SERVICE)).map(|entry| decode(&entry.value));
    let plan = plan(&slices, present.as_ref(), &members);
    for name in plan.obsolete {
        let request = as_leader(core, slice_kind(), &name);
        match delete(&request, &DeleteOptions::default()).await {
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    match plan.endpoints {
        Some(endpoints) => write(core, endpoints_kind, endpoints, true).await,
        None => Ok(()),
    }
}

fn slices(view: &Snapshot) -> Vec<Value> {
    let of_service = |entry: &&crate::core::Entry| entry.facets.label(SERVICE_LABEL) == Some(SERVICE);
    view.range(&prefix(slice_kind(), NAMESPACE), None).filter(of_service).map(|entry| decode(&entry.value)).collect()
}

#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// Names of slices whose server is no more.
    obsolete: Vec<String>,
    /// What Endpoints should be, if they are not.
    endpoints: Option<Value>,
}

fn plan(slices: &[Value], present: Option<&Value>, members: &[MemberId]) -> Plan {
    let kept: Vec<String> = members.iter().map(ToString::to_string).collect();
    let is_kept =
        |slice: &&Value| meta::labels(slice).any(|(key, id)| key == MEMBER_LABEL && kept.iter().any(|k| k == id));
    let obsolete = slices.iter().filter(|slice| !is_kept(slice)).map(|slice| meta::name(slice).to_owned()).collect();
    // Servers on one port share a subset.
    let mut by_port: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for slice in slices.iter().filter(is_kept) {
        let Some(port) = slice.pointer("/ports/0/port").and_then(Value::as_u64) else { continue };
        let addresses = slice.pointer("/endpoints/0/addresses").and_then(Value::as_array).into_iter().flatten();
        // Validation of Endpoints refuses loopback addresses, as in Kubernetes.
        let shown = addresses.filter_map(Value::as_str).filter(|a| a.parse().is_ok_and(|ip: IpAddr| !ip.is_loopback()));
        by_port.entry(port).or_default().extend(shown);
    }
    by_port.retain(|_, addresses| !addresses.is_empty());
    let subset = |(port, mut addresses): (u64, Vec<&str>)| {
        addresses.sort_unstable();
        let addresses: Vec<Value> = addresses.into_iter().map(|ip| json!({ "ip": ip })).collect();
        json!({ "addresses": addresses, "ports": [{ "name": "https", "port": port, "protocol": "TCP" }] })
    };
    let subsets: Vec<Value> = by_port.into_iter().map(subset).collect();
    let is_there = present.is_some_and(|present| present["subsets"] == json!(subsets));
    let endpoints = (!subsets.is_empty() && !is_there).then(|| {
        json!({ "apiVersion": "v1", "kind": "Endpoints",
            "metadata": { "name": SERVICE, "namespace": NAMESPACE,
                "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
            "subsets": subsets })
    });
    Plan { obsolete, endpoints }
}

fn as_leader(core: &Arc<Core>, kind: &'static Kind, name: &str) -> Request {
    Request { as_leader: true, ..Request::by_server(core, kind, NAMESPACE, name) }
}

/// Creates the object, or makes the present one have its content.
async fn write(core: &Arc<Core>, kind: &'static Kind, object: Value, leads: bool) -> Result<(), Status> {
    let request = Request { as_leader: leads, ..Request::by_server(core, kind, NAMESPACE, meta::name(&object)) };
    match create(&request, object.clone(), Vec::new()).await {
        Err(status) if status.reason == "AlreadyExists" => {
            let change = |present: &Value| {
                let mut new = object.clone();
                new["metadata"] = present["metadata"].clone();
                new["metadata"]["labels"] = object["metadata"]["labels"].clone();
                Ok(new)
            };
            update(&request, Part::Main, Vec::new(), change).await.map(drop)
        }
        created => created.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(member: u64, address: &str, port: u16) -> Value {
        slice(MemberId(member), &ApiServerConfig::new(address.parse().unwrap(), port))
    }

    fn check(slices: &[Value], present: Option<&Value>, members: &[u64], obsolete: &[&str], endpoints: Option<Value>) {
        let members: Vec<MemberId> = members.iter().copied().map(MemberId).collect();
        let found = plan(slices, present, &members);
        assert_eq!(found.obsolete, obsolete);
        assert_eq!(found.endpoints.map(|mut endpoints| endpoints["subsets"].take()), endpoints);
    }

    #[test]
    fn endpoints_follow_the_members() {
        let port = |port: u16| json!([{ "name": "https", "port": port, "protocol": "TCP" }]);
        let subset = |ips: &[&str], at: u16| {
            let addresses: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
            json!({ "addresses": addresses, "ports": port(at) })
        };
        let (one, two) = (server(1, "10.0.0.1", 6443), server(2, "10.0.0.2", 6443));
        let both = json!([subset(&["10.0.0.1", "10.0.0.2"], 6443)]);
        check(&[two.clone(), one.clone()], None, &[1, 2], &[], Some(both.clone()));
        check(&[one.clone(), two.clone()], Some(&json!({ "subsets": both })), &[1, 2], &[], None);
        let first = Some(json!([subset(&["10.0.0.1"], 6443)]));
        check(&[one.clone(), two], Some(&json!({ "subsets": both })), &[1], &["kubernetes-2"], first);
        let apart = Some(json!([subset(&["10.0.0.1"], 6443), subset(&["10.0.0.1"], 7443)]));
        check(&[one, server(3, "10.0.0.1", 7443)], None, &[1, 3], &[], apart);
        // A slice of nobody's, and a server that only its own machine reaches.
        let mut nobodys = server(1, "10.0.0.9", 6443);
        nobodys["metadata"] = json!({ "name": "kubernetes", "labels": { SERVICE_LABEL: SERVICE } });
        check(&[nobodys, server(1, "127.0.0.1", 6443)], None, &[1], &["kubernetes"], None);
    }
}

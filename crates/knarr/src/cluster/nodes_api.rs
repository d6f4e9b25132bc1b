//! The cluster's side of nodes on machines of their own: who may be one, and its certificates.
//!
//! Owns: the handler of `wire::NODES`. A machine comes with a join token, with a bootstrap token whose user may `post`
//! here (role `knarr:node-joiner`), or as the node that it is already, for new certificates. What is certified is found
//! out and not believed: the address is where the request came from, and a name that is taken is not given again.
//! May not know: how certificates are made.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use api::status::Status;
use apiserver::{PeerAddress, UserInfo};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use http::{HeaderMap, Method};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;

use super::members_api::{MembersApi, Refusal, bearer, one_line, parsed};
use super::wire::{NODES, NodeEnrolment, NodeRequest};
use crate::join_token::{JoinToken, Usage};
use crate::pki::PkiError;

/// EndpointSlices of the Service of the API servers.
const SERVERS: &str = "kubernetes.io/service-name=kubernetes";

/// How somebody came to be let in.
#[derive(Debug, PartialEq, Eq)]
enum Caller {
    /// With a token.
    Newcomer,
    /// As the node of this name.
    Node(String),
}

pub async fn enrol(
    State(members): State<Arc<MembersApi>>,
    Extension(PeerAddress(peer)): Extension<PeerAddress>,
    user: Option<Extension<UserInfo>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<NodeEnrolment>, Refusal> {
    let caller = caller(&members, user.map(|Extension(user)| user), &headers).await?;
    let request: NodeRequest = parsed(&body)?;
    let servers = server_addresses(&members).await?;
    judge(&caller, &request, peer.ip(), &servers).map_err(Status::bad_request)?;
    if caller == Caller::Newcomer {
        check_name_is_free(&members, &request.name).await?;
    }
    let refused = |error: PkiError| Status::bad_request(one_line(error));
    let authority = &members.cluster_authority;
    Ok(Json(NodeEnrolment {
        authority: authority.certificate_pem().to_owned(),
        client_certificate: authority.node_client(&request.client_request, &request.name).map_err(refused)?,
        server_certificate: authority
            .node_server(&request.server_request, &request.name, request.address)
            .map_err(refused)?,
    }))
}

async fn caller(members: &MembersApi, certified: Option<UserInfo>, headers: &HeaderMap) -> Result<Caller, Status> {
    if certified.is_none() && bearer(headers).parse::<JoinToken>().is_ok() {
        members.check_token(headers, Usage::Node).await?;
        return Ok(Caller::Newcomer);
    }
    let user = members.api_server.user_of(certified, headers).await?;
    if user.is_anonymous() {
        let message = "a machine becomes a node with a token: see `knarr token create --node`".to_owned();
        return Err(Status { message, ..Status::unauthorized() });
    }
    if let Some(node) = user.node_name() {
        return Ok(Caller::Node(node.to_owned()));
    }
    members.api_server.authorize_path(&user, &Method::POST.as_str().to_lowercase(), NODES)?;
    Ok(Caller::Newcomer)
}

/// What is wrong with a request. Pure.
fn judge(caller: &Caller, request: &NodeRequest, peer: IpAddr, servers: &[IpAddr]) -> Result<(), String> {
    let NodeRequest { name, address, .. } = request;
    match caller {
        Caller::Node(node) if node != name => {
            return Err(format!("node {node:?} cannot have certificates of {name:?}"));
        }
        Caller::Newcomer if !api::meta::is_dns_subdomain(name) => {
            return Err(format!("{name:?} is no name for a node: lower case letters, digits, '-' and '.'"));
        }
        Caller::Node(_) | Caller::Newcomer => {}
    }
    if *address != peer {
        return Err(format!("the node says that it is at {address}, and its request came from {peer}: see --address"));
    }
    match address {
        IpAddr::V4(ip) if !is_reachable(*ip) => Err(format!("no other machine reaches a node at {address}")),
        IpAddr::V4(_) if servers.contains(address) => {
            Err(format!("{address} is a server of this cluster, which runs a node itself unless it has --no-node"))
        }
        IpAddr::V4(_) => Ok(()),
        IpAddr::V6(_) => Err(format!("{address}: only IPv4 addresses are supported")),
    }
}

fn is_reachable(ip: Ipv4Addr) -> bool {
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_link_local())
}

/// A certificate for the address of a server would make its holder that server.
async fn server_addresses(members: &MembersApi) -> Result<Vec<IpAddr>, Status> {
    let slices: Api<EndpointSlice> = Api::namespaced(members.client.clone(), "default");
    let unavailable = |error: kube::Error| Status::unavailable(format!("the servers cannot be looked up: {error}"));
    let slices = slices.list(&ListParams::default().labels(SERVERS)).await.map_err(unavailable)?;
    let endpoints = slices.items.into_iter().flat_map(|slice| slice.endpoints.into_iter().flatten());
    Ok(endpoints.flat_map(|endpoint| endpoint.addresses).filter_map(|text| text.parse().ok()).collect())
}

async fn check_name_is_free(members: &MembersApi, name: &str) -> Result<(), Status> {
    let nodes: Api<Node> = Api::all(members.client.clone());
    let unavailable = |error: kube::Error| Status::unavailable(format!("the nodes cannot be looked up: {error}"));
    match nodes.get_opt(name).await.map_err(unavailable)? {
        None => Ok(()),
        Some(_) => Err(Status::bad_request(format!(
            "there is a node {name:?} already: choose another --node-name, or delete that one if its machine is no more"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_certified_is_not_believed() {
        let check = |caller: Caller, name: &str, (says, comes_from): (&str, &str), expect: &str| {
            let request = NodeRequest {
                name: name.to_owned(),
                address: says.parse().unwrap(),
                client_request: String::new(),
                server_request: String::new(),
            };
            let servers = ["192.0.2.1".parse().unwrap()];
            let judged = judge(&caller, &request, comes_from.parse().unwrap(), &servers);
            match judged {
                Ok(()) => assert_eq!(expect, "", "{caller:?} {name}"),
                Err(why) => assert!(!expect.is_empty() && why.contains(expect), "{why}"),
            }
        };
        let node = |name: &str| Caller::Node(name.to_owned());
        let there = ("192.0.2.7", "192.0.2.7");
        check(Caller::Newcomer, "n1", there, "");
        check(node("n1"), "n1", there, "");
        check(node("n1"), "n2", there, "cannot have certificates of");
        check(Caller::Newcomer, "N 1", there, "is no name for a node");
        check(Caller::Newcomer, "n1", ("192.0.2.8", "192.0.2.7"), "its request came from 192.0.2.7");
        check(Caller::Newcomer, "n1", ("192.0.2.1", "192.0.2.1"), "is a server of this cluster");
        check(Caller::Newcomer, "n1", ("127.0.0.1", "127.0.0.1"), "no other machine reaches");
        check(Caller::Newcomer, "n1", ("fd00::1", "fd00::1"), "only IPv4");
    }
}

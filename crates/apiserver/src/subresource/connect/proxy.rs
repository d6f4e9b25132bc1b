//! `pods/proxy`, `services/proxy`, `nodes/proxy`: any request, to what runs there.
//!
//! Pods are reached through their node, as plain bytes, so that a server needs no way of its own into the pods'
//! network, and a pod's localhost counts.

use api::status::Status;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::proxied_name::{self, Proxied};
use super::service::{self, Backend};
use super::{Connect, relay, untrusting};
use crate::core::{Core, Request, Snapshot, core_kind, key, prefix};
use crate::object::encode::decode;
use crate::subresource::node_connector::{NodeAddress, address_of};

const SERVICE_LABEL: &str = "/metadata/labels/kubernetes.io~1service-name";
/// Port of a pod that names none.
const PORT_DEFAULT: u16 = 80;

/// Headers that are about one connection (RFC 9110, section 7.6.1), and those that say who the client is here.
const DROPPED: [&str; 13] = [
    "authorization",
    "connection",
    "host",
    "impersonate-group",
    "impersonate-uid",
    "impersonate-user",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const IMPERSONATE: &str = "impersonate-";

/// Where a request goes.
enum Destination {
    Pod(PodPort),
    Node(NodeAddress),
}

struct PodPort {
    node: NodeAddress,
    namespace: String,
    name: String,
    port: u16,
    https: bool,
}

pub async fn proxy(connect: Connect, slot: OwnedSemaphorePermit) -> Result<Response, Status> {
    let rest = proxied_name::rest(connect.uri.path(), connect.request.kind.namespaced).to_owned();
    if rest.is_empty() && matches!(connect.method.as_str(), "GET" | "HEAD") {
        return redirect(&connect.uri);
    }
    let destination = destination(&connect.request).await?;
    let upgrades = relay::wants_upgrade(&connect.headers);
    let query = connect.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = if rest.is_empty() { "/" } else { &rest };
    let uri: Uri = format!("{path}{query}").parse().map_err(|_| Status::bad_request("the path is no path"))?;
    let mut upstream = http::Request::new(if upgrades { Body::empty() } else { connect.body });
    *upstream.method_mut() = connect.method;
    *upstream.headers_mut() = forwarded(&connect.headers, &connect.uri, upgrades);
    *upstream.uri_mut() = uri;
    let core = &connect.request.core;
    let answer = match &destination {
        Destination::Node(address) => relay::send(core, address, upstream).await?,
        Destination::Pod(pod) => to_pod(core, pod, upstream).await?,
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let client = connect.upgrade.ok_or_else(|| Status::bad_request("this connection cannot be upgraded"))?;
        return relay::join(core, client, answer, slot).await;
    }
    Ok(streamed(answer, slot))
}

/// What is relative in an answer is relative to a folder.
fn redirect(uri: &Uri) -> Result<Response, Status> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::try_from(format!("{}/{query}", uri.path())).map_err(Status::internal)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn is_dropped(name: &HeaderName) -> bool {
    DROPPED.contains(&name.as_str()) || name.as_str().starts_with(IMPERSONATE)
}

/// Names of further headers that are about the client's connection.
fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// Headers without those about one connection and about who the client is here.
pub fn without_hops(headers: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(headers);
    let kept = headers.iter().filter(|(name, _)| !is_dropped(name) && !named.iter().any(|one| one == name.as_str()));
    let mut all = HeaderMap::new();
    for (name, value) in kept {
        all.append(name, value.clone());
    }
    all
}

fn forwarded(headers: &HeaderMap, uri: &Uri, upgrades: bool) -> HeaderMap {
    let mut all = without_hops(headers);
    if upgrades {
        for name in [header::CONNECTION, header::UPGRADE] {
            all.extend(headers.get(&name).map(|value| (name.clone(), value.clone())));
        }
    }
    let mut tell = |name: &'static str, value: Option<HeaderValue>| {
        if let Some(value) = value {
            all.insert(name, value);
        }
    };
    tell("x-forwarded-proto", Some(HeaderValue::from_static("https")));
    tell("x-forwarded-host", headers.get(header::HOST).cloned());
    tell("x-forwarded-uri", HeaderValue::from_str(uri.path()).ok());
    all
}

/// An answer whose body goes through as it comes; the slot is taken as long as that lasts.
pub fn streamed(answer: http::Response<Body>, slot: OwnedSemaphorePermit) -> Response {
    let (mut parts, body) = answer.into_parts();
    parts.headers = without_hops(&parts.headers);
    parts.extensions = http::Extensions::new();
    // The slot is free when the body is through.
    let body = http_body_util::BodyExt::map_frame(body, move |frame| {
        let _ = &slot;
        frame
    });
    Response::from_parts(parts, Body::new(body))
}

async fn destination(request: &Request) -> Result<Destination, Status> {
    let named = proxied_name::parse(&request.name);
    let named = named.ok_or_else(|| Status::bad_request(format!("invalid proxy request {:?}", request.name)))?;
    let view = request.core.fresh().await?;
    match request.kind.resource {
        "pods" => pod(request, &view, &named),
        "services" => behind_service(request, &view, &named),
        "nodes" => {
            let address = address_of(&request.core, named.name)?;
            if !named.port.is_empty() && named.port != address.port.to_string() {
                let why = format!("of a node only its own endpoint is proxied, at port {}", address.port);
                return Err(Status::bad_request(why));
            }
            Ok(Destination::Node(address))
        }
        other => Err(Status::internal(format!("{other} cannot be proxied"))),
    }
}

fn pod(request: &Request, view: &Snapshot, named: &Proxied<'_>) -> Result<Destination, Status> {
    let named_request = Request { name: named.name.to_owned(), ..request.clone() };
    let pod = decode(&named_request.find(view)?.value);
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|node| !node.is_empty());
    let node = node.ok_or_else(|| Status::bad_request(format!("pod {} does not have a host assigned", named.name)))?;
    let port = match named.port {
        "" => first_port(&pod).unwrap_or(PORT_DEFAULT),
        text => text.parse().map_err(|_| Status::bad_request(format!("invalid port {text:?}")))?,
    };
    Ok(Destination::Pod(PodPort {
        node: address_of(&request.core, node)?,
        namespace: request.namespace.clone(),
        name: named.name.to_owned(),
        port,
        https: named.https,
    }))
}

fn first_port(pod: &Value) -> Option<u16> {
    let containers = pod.pointer("/spec/containers")?.as_array()?;
    let port = containers.iter().find_map(|container| container.pointer("/ports/0/containerPort"))?;
    u16::try_from(port.as_u64()?).ok()
}

fn behind_service(request: &Request, view: &Snapshot, named: &Proxied<'_>) -> Result<Destination, Status> {
    let (core, namespace) = (&request.core, &request.namespace);
    let found = view.get(&key(core_kind("services"), namespace, named.name));
    let subject = api::status::Subject { group: "", resource: "services", name: named.name };
    let service = decode(&found.ok_or_else(|| Status::not_found(&subject))?.value);
    let port = service::port_name(&service, named.name, named.port).map_err(Status::unavailable)?;
    let kind =
        api::kinds::lookup("discovery.k8s.io", "v1", "endpointslices").expect("EndpointSlices are in the kinds table");
    let folder = prefix(kind, namespace);
    let slices = view.range(&folder, None).map(|entry| decode(&entry.value));
    let of_service = |slice: &Value| slice.pointer(SERVICE_LABEL).and_then(Value::as_str) == Some(named.name);
    let backends = service::backends(&slices.filter(of_service).collect::<Vec<_>>(), &port);
    if backends.is_empty() {
        return Err(Status::unavailable(format!("no endpoints available for service {:?}", named.name)));
    }
    let Backend { pod, node, port } = backends[rand::random_range(0..backends.len())].clone();
    let (node, https) = (address_of(core, &node)?, named.https);
    Ok(Destination::Pod(PodPort { node, namespace: namespace.clone(), name: pod, port, https }))
}

async fn to_pod(core: &Core, pod: &PodPort, mut request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
    let PodPort { node, namespace, name, port, https } = pod;
    let dial = http::Request::get(format!("/dial/{namespace}/{name}/{port}"))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp")
        .body(Body::empty())
        .map_err(Status::internal)?;
    let mut answer = relay::send(core, node, dial).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(relay::refusal(answer).await);
    }
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Status::unavailable(format!("error trying to reach service: {what} {name}:{port}: {error}"))
    };
    let io = hyper::upgrade::on(&mut answer).await.map_err(|error| failed("connect to", &error))?;
    let host = HeaderValue::try_from(format!("{name}:{port}")).map_err(Status::internal)?;
    request.headers_mut().insert(header::HOST, host);
    let sent = if *https {
        let config = untrusting::config().map_err(Status::internal)?;
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let server = rustls::pki_types::ServerName::try_from(name.clone()).map_err(Status::internal)?;
        let tls = connector.connect(server, TokioIo::new(io)).await;
        speak(TokioIo::new(tls.map_err(|error| failed("speak TLS with", &error))?), request).await
    } else {
        speak(io, request).await
    };
    sent.map_err(|error| failed("ask", &error))
}

/// One request over a connection made for it.
async fn speak<T>(io: T, request: http::Request<Body>) -> hyper::Result<http::Response<Body>>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection broke off");
        }
    });
    Ok(sender.send_request(request).await?.map(Body::new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn headers_of_the_hop_and_of_the_client_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("impersonate-extra-team", "a"),
            ("connection", "keep-alive, X-Secret"),
            ("x-secret", "s"),
            ("te", "trailers"),
            ("host", "api:6443"),
            ("accept", "text/html"),
            ("upgrade", "websocket"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let names = |upgrades: bool| {
            let all = forwarded(&headers, &"/api/v1/x?y=z".parse().unwrap(), upgrades);
            let mut names: Vec<String> = all.keys().map(ToString::to_string).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(names(false), "accept x-forwarded-host x-forwarded-proto x-forwarded-uri");
        assert_eq!(names(true), "accept connection upgrade x-forwarded-host x-forwarded-proto x-forwarded-uri");
    }

    #[test]
    fn a_folder_ends_with_a_slash() {
        let response = redirect(&"/api/v1/namespaces/a/pods/p/proxy?x=1".parse().unwrap()).unwrap();
        assert_eq!(response.headers()[header::LOCATION], "/api/v1/namespaces/a/pods/p/proxy/?x=1");
    }

    #[test]
    fn a_pods_first_port() {
        assert_eq!(
            first_port(&json!({ "spec": { "containers": [{}, { "ports": [{ "containerPort": 8080 }] }] } })),
            Some(8080)
        );
        assert_eq!(first_port(&json!({ "spec": { "containers": [{}] } })), None);
    }
}

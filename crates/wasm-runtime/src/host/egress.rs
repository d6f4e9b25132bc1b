//! Outgoing HTTP: who may be called, and the call.
//!
//! Owns: the policy of [`Egress`] for `wasi:http`. The name is judged before it is resolved, the
//! address after, so that a name cannot smuggle in an address that the name's rule would not allow.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::uri::{Scheme, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::host::dns::{self, Lookup};
use crate::protocol::Egress;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);
const HTTP_PORT: u16 = 80;

type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Driver), Error>;

/// The hooks of one instance.
pub struct OutgoingHttp {
    egress: Arc<Egress>,
}

impl OutgoingHttp {
    pub fn new(egress: Arc<Egress>) -> Self {
        Self { egress }
    }
}

impl WasiHttpHooks for OutgoingHttp {
    fn default_scheme(&mut self) -> Option<Scheme> {
        Some(Scheme::HTTP)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _body_read: Driver,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let egress = Arc::clone(&self.egress);
        Box::new(async move { send(&egress, request, options.unwrap_or_default()).await })
    }
}

async fn send(egress: &Egress, request: Request<WasiBody>, options: RequestOptions) -> Sent {
    let (mut parts, body) = request.into_parts();
    let (mut sender, connection) = match open(egress, &parts.uri, options.connect_timeout).await {
        Ok(opened) => opened,
        Err(error) => {
            discard(body);
            return Err(error);
        }
    };
    parts.uri = origin_form(&parts.uri);
    let request = Request::from_parts(parts, body);
    let first_byte_timeout = options.first_byte_timeout.unwrap_or(FIRST_BYTE_TIMEOUT);
    let response = tokio::time::timeout(first_byte_timeout, sender.send_request(request))
        .await
        .map_err(|_| Error::ConnectionReadTimeout)??;
    let driver = async move {
        match connection.await {
            Ok(ended) => ended.map_err(Error::from),
            Err(_) => Ok(()),
        }
    };
    Ok((response.map(|body| body.map_err(Error::from).boxed_unsync()), Box::new(driver)))
}

type Connection = AbortOnDropHandle<Result<(), hyper::Error>>;

/// A connection to whom the policy lets the guest call, and its driver.
async fn open(
    egress: &Egress,
    uri: &Uri,
    connect_timeout: Option<Duration>,
) -> Result<(SendRequest<WasiBody>, Connection), Error> {
    if uri.scheme() == Some(&Scheme::HTTPS) {
        return Err(Error::InternalError(Some(
            "outgoing https is not offered yet; use http inside the cluster".to_owned(),
        )));
    }
    let host = uri.host().ok_or(Error::HttpRequestUriInvalid)?;
    let port = uri.port_u16().unwrap_or(HTTP_PORT);
    let rule = judge_host(egress, host).ok_or(Error::HttpRequestDenied)?;
    let addresses = resolve(egress, host, rule).await?;
    let stream = tokio::time::timeout(connect_timeout.unwrap_or(CONNECT_TIMEOUT), connect(&addresses, port))
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    Ok((sender, AbortOnDropHandle::new(tokio::spawn(connection))))
}

/// Takes what the guest still writes into a request that is not sent. A body that is simply dropped
/// fails the guest's next write with "closed", and most guests then report that instead of the
/// reason. It ends with the guest at the latest, since the guest holds the other end.
fn discard(mut body: WasiBody) {
    tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
}

/// Only a proxy wants scheme and authority in the request line.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::builder().path_and_query(path).build().expect("it was part of a valid URI")
}

async fn connect(addresses: &[IpAddr], port: u16) -> Result<TcpStream, Error> {
    let mut last = Error::DestinationNotFound;
    for address in addresses {
        match TcpStream::connect(SocketAddr::new(*address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Error::Connect(error),
        }
    }
    Err(last)
}

/// Why a host name is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The pod's own localhost.
    Localhost,
    /// If it is a Service or pod name of this cluster.
    Cluster,
    /// The annotation names it.
    Listed,
}

/// The rule that lets a guest name `host`, if any.
fn judge_host(egress: &Egress, host: &str) -> Option<Rule> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = dns::literal(&host);
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return egress.own_localhost.then_some(Rule::Localhost);
    }
    if egress.allowed_hosts.iter().any(|pattern| matches_host(pattern, &host)) {
        return Some(Rule::Listed);
    }
    if address.is_some() {
        return None;
    }
    // Any other name may be a Service's short name (`backend`, `backend.other-namespace`): it is
    // looked up below the cluster domain and nowhere else.
    Some(Rule::Cluster)
}

fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        _ if pattern == "*" => true,
        Some(domain) => dns::is_within(host, domain),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

async fn resolve(egress: &Egress, host: &str, rule: Rule) -> Result<Vec<IpAddr>, Error> {
    if rule == Rule::Localhost {
        return Ok(vec![dns::literal(host).unwrap_or(IpAddr::from([127, 0, 0, 1]))]);
    }
    let within = (rule == Rule::Cluster).then_some(egress.cluster_domain.as_str());
    let found: Vec<IpAddr> = match dns::literal(host) {
        Some(address) => vec![address],
        None => match dns::lookup(egress, host, within).await {
            Lookup::Addresses(found) => found.into_iter().map(IpAddr::V4).collect(),
            // It is no name of the cluster, and the pod may call no other.
            Lookup::NotFound if rule == Rule::Cluster && host.contains('.') => return Err(Error::HttpRequestDenied),
            Lookup::NotFound => return Err(Error::DnsError { rcode: Some("NXDOMAIN".to_owned()), info_code: None }),
            Lookup::TimedOut => return Err(Error::DnsTimeout),
            Lookup::Unreachable => return Err(Error::DnsError { rcode: Some("SERVFAIL".to_owned()), info_code: None }),
        },
    };
    let allowed: Vec<IpAddr> = found.into_iter().filter(|address| judge_address(*address)).collect();
    if allowed.is_empty() { Err(Error::DestinationIpProhibited) } else { Ok(allowed) }
}

/// The machine itself and what only the machine may ask (cloud metadata) is nobody's Service.
fn judge_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => judge_address(IpAddr::V4(v4)),
            None => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast()),
        },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::SinkExt;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    fn policy(allowed: &[&str], own_localhost: bool) -> Egress {
        Egress {
            cluster_domain: "cluster.local".to_owned(),
            allowed_hosts: allowed.iter().map(|host| (*host).to_owned()).collect(),
            own_localhost,
            ..Egress::default()
        }
    }

    #[test]
    fn names_are_judged_before_they_are_resolved() {
        let check = |allowed: &[&str], own: bool, host: &str, expect: Option<Rule>| {
            assert_eq!(judge_host(&policy(allowed, own), host), expect, "{host} with {allowed:?}");
        };
        check(&[], false, "backend", Some(Rule::Cluster));
        check(&[], false, "backend.default.svc.cluster.local", Some(Rule::Cluster));
        check(&[], false, "backend.default.svc.cluster.local.", Some(Rule::Cluster));
        check(&[], false, "backend.default.svc", Some(Rule::Cluster));
        check(&[], false, "example.org", Some(Rule::Cluster));
        check(&["example.org"], false, "EXAMPLE.org", Some(Rule::Listed));
        check(&["*.example.org"], false, "a.example.org", Some(Rule::Listed));
        check(&["*.example.org"], false, "badexample.org", Some(Rule::Cluster));
        check(&["*"], false, "93.184.216.34", Some(Rule::Listed));
        check(&[], false, "10.96.0.1", None);
        check(&["*"], false, "localhost", None);
        check(&["*"], false, "127.0.0.1", None);
        check(&[], true, "localhost", Some(Rule::Localhost));
        check(&[], true, "127.0.0.1", Some(Rule::Localhost));
    }

    #[tokio::test]
    async fn other_names_are_denied() {
        let check = async |host: &str| {
            let error = resolve(&policy(&[], false), host, Rule::Cluster).await.unwrap_err();
            assert!(matches!(error, Error::HttpRequestDenied), "{host}: {error}");
        };
        check("example.org").await;
        check("evilcluster.local").await;
    }

    #[tokio::test]
    async fn a_refused_request_still_takes_its_body() {
        let (mut written, frames) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, Error>>(0);
        let body = StreamBody::new(frames).boxed_unsync();
        let request = Request::get("http://127.0.0.1/").body(body).unwrap();
        let error = send(&policy(&[], false), request, RequestOptions::default()).await.err().unwrap();
        assert!(matches!(error, Error::HttpRequestDenied), "{error}");
        for _ in 0..3 {
            written.send(Ok(Frame::data(Bytes::from_static(b"more")))).await.expect("somebody still reads");
        }
    }

    #[test]
    fn addresses_are_judged_after() {
        let check =
            |address: &str, expect: bool| assert_eq!(judge_address(address.parse().unwrap()), expect, "{address}");
        check("10.96.0.1", true);
        check("127.0.0.1", false);
        check("169.254.169.254", false);
        check("0.0.0.0", false);
        check("::ffff:127.0.0.1", false);
        check("fe80::1", false);
        check("2001:db8::1", true);
    }

    #[test]
    fn the_request_line_has_no_authority() {
        let check = |uri: &str, expect: &str| assert_eq!(origin_form(&uri.parse().unwrap()).to_string(), expect);
        check("http://backend:8080/a?b=c", "/a?b=c");
        check("http://backend", "/");
    }
}

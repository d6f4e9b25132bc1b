//! The DNS server of a node: answers from the zone, or asks the node's own name servers.
//!
//! Holds the zone as an immutable value that is swapped when objects change; a question is answered
//! from one zone as a whole.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::rdata::{A, CNAME, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::upstream::Upstream;
use super::zone::{Lookup, Records, Zone};
use crate::error::SetupError;

/// Kubernetes' own: pods come and go.
const TTL_SECONDS: u32 = 5;
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_RESPONSES_QUEUED_MAX: usize = 32;
/// Aliases followed within the zone for one question.
const ALIASES_MAX: usize = 8;
const UDP_PAYLOAD: u16 = 1232;

/// Sockets that are bound, before anything is served.
#[derive(Debug)]
pub(crate) struct DnsSockets {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl DnsSockets {
    /// `address` must be local to this node.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self, SetupError> {
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AddrInUse => SetupError::DnsPortInUse { address },
            _ => SetupError::DnsListen { address, source },
        };
        let udp = std::net::UdpSocket::bind(address).map_err(failed)?;
        udp.set_nonblocking(true).map_err(failed)?;
        let tcp = std::net::TcpListener::bind(address).map_err(failed)?;
        tcp.set_nonblocking(true).map_err(failed)?;
        Ok(Self { udp, tcp })
    }
}

/// Serves until `shutdown`.
pub(crate) async fn serve(
    sockets: DnsSockets,
    zone: Arc<ArcSwap<Zone>>,
    upstream: Vec<SocketAddr>,
    shutdown: CancellationToken,
) {
    let registered = (UdpSocket::from_std(sockets.udp), TcpListener::from_std(sockets.tcp));
    let (Ok(udp), Ok(tcp)) = registered else {
        tracing::error!("the DNS server's sockets cannot be used");
        return;
    };
    let handler = Handler { zone, upstream: Upstream::new(&upstream), turn: AtomicUsize::new(0) };
    let mut server = Server::new(handler);
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_RESPONSES_QUEUED_MAX);
    tokio::select! {
        () = shutdown.cancelled() => {}
        outcome = server.block_until_done() => tracing::error!(?outcome, "the DNS server has ended"),
    }
    if let Err(error) = server.shutdown_gracefully().await {
        tracing::debug!(%error, "the DNS server did not end cleanly");
    }
}

struct Handler {
    zone: Arc<ArcSwap<Zone>>,
    upstream: Upstream,
    /// Rotates the addresses of headless Services: most clients take the first.
    turn: AtomicUsize,
}

/// A response before it is encoded.
#[derive(Debug, Default)]
struct Answer {
    code: ResponseCode,
    authoritative: bool,
    truncated: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Answer {
    fn failed(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut respond: R) -> ResponseInfo {
        let answer = self.answer(request).await;
        let mut edns = Edns::new();
        if let Some(asked) = &request.edns {
            edns.set_max_payload(asked.max_payload().clamp(512, UDP_PAYLOAD));
        }
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = answer.code;
        metadata.authoritative = answer.authoritative;
        metadata.truncation = answer.truncated;
        metadata.recursion_available = true;
        let Answer { answers, authorities, additionals, .. } = &answer;
        let response = builder.build(metadata, answers, authorities, [], additionals);
        match respond.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, client = %request.src(), "cannot send a DNS response");
                ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
            }
        }
    }
}

impl Handler {
    async fn answer(&self, request: &Request) -> Answer {
        let is_query = request.metadata.message_type == MessageType::Query && request.metadata.op_code == OpCode::Query;
        if !is_query {
            return Answer::failed(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else {
            return Answer::failed(ResponseCode::FormErr);
        };
        if info.query.query_class() != DNSClass::IN {
            return Answer::failed(ResponseCode::Refused);
        }
        let by_tcp = request.protocol() != Protocol::Udp;
        self.resolve(info.query.original(), by_tcp).await
    }

    async fn resolve(&self, query: &Query, by_tcp: bool) -> Answer {
        let zone = self.zone.load();
        let mut answer = Answer { authoritative: true, ..Answer::default() };
        let (mut owner, mut name) = (query.name().clone(), plain(query.name()));
        for _ in 0..ALIASES_MAX {
            match zone.lookup(&name) {
                Lookup::NotOurs => return self.forward(answer, owner, query, by_tcp).await,
                Lookup::NoSuchName => {
                    answer.code = ResponseCode::NXDomain;
                    answer.authorities.push(start_of_authority(zone.domain()));
                    return answer;
                }
                Lookup::Found(records) => {
                    let Some(alias) = records.alias.as_deref().filter(|_| query.query_type() != RecordType::CNAME)
                    else {
                        let own = self.records(&mut answer.additionals, &zone, query.query_type(), &records);
                        answer.answers.extend(own.into_iter().map(|data| record(owner.clone(), data)));
                        if query.query_type() == RecordType::SOA && name == zone.domain() {
                            answer.answers.push(start_of_authority(zone.domain()));
                        }
                        if answer.answers.is_empty() {
                            answer.authorities.push(start_of_authority(zone.domain()));
                        }
                        return answer;
                    };
                    let Ok(target) = Name::from_ascii(format!("{alias}.")) else {
                        return Answer::failed(ResponseCode::ServFail);
                    };
                    answer.answers.push(record(owner, RData::CNAME(CNAME(target.clone()))));
                    (owner, name) = (target, alias.to_owned());
                }
            }
        }
        Answer::failed(ResponseCode::ServFail)
    }

    /// The records of the type asked for; addresses of SRV targets go to `additionals`.
    fn records(&self, additionals: &mut Vec<Record>, zone: &Zone, kind: RecordType, records: &Records) -> Vec<RData> {
        let any = kind == RecordType::ANY;
        let mut found = Vec::new();
        if any || kind == RecordType::A {
            found.extend(self.addresses(records).map(|address| RData::A(A(address))));
        }
        if any || kind == RecordType::SRV {
            for service in &records.services {
                let Ok(target) = Name::from_ascii(format!("{}.", service.target)) else { continue };
                if let Lookup::Found(records) = zone.lookup(&service.target) {
                    let addresses = records.addresses.iter().map(|address| RData::A(A(*address)));
                    additionals.extend(addresses.map(|data| record(target.clone(), data)));
                }
                found.push(RData::SRV(SRV::new(0, 100, service.port, target)));
            }
        }
        if any || kind == RecordType::PTR {
            let names = records.pointers.iter().filter_map(|name| Name::from_ascii(format!("{name}.")).ok());
            found.extend(names.map(|name| RData::PTR(PTR(name))));
        }
        if any || kind == RecordType::TXT {
            found.extend(records.texts.iter().map(|text| RData::TXT(TXT::new(vec![text.clone()]))));
        }
        if let Some(name) = records.alias.as_deref().and_then(|name| Name::from_ascii(format!("{name}.")).ok()) {
            found.push(RData::CNAME(CNAME(name)));
        }
        found
    }

    fn addresses(&self, records: &Records) -> impl Iterator<Item = Ipv4Addr> {
        let mut addresses = records.addresses.clone();
        if addresses.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len();
            addresses.rotate_left(turn);
        }
        addresses.into_iter()
    }

    /// Asks upstream for `owner` and appends what it says to the aliases found so far.
    async fn forward(&self, mut answer: Answer, owner: Name, query: &Query, by_tcp: bool) -> Answer {
        let mut question = Query::query(owner, query.query_type());
        question.set_query_class(DNSClass::IN);
        match self.upstream.ask(&question, by_tcp).await {
            Ok(message) => {
                answer.code = message.metadata.response_code;
                answer.authoritative = false;
                answer.truncated = message.metadata.truncation;
                answer.answers.extend(message.answers);
                answer.authorities = message.authorities;
                answer.additionals = message.additionals;
                answer
            }
            Err(error) => {
                tracing::debug!(%error, name = %question.name(), "a name could not be resolved");
                Answer::failed(ResponseCode::ServFail)
            }
        }
    }
}

/// Lower case, without the closing dot: as the zone has it.
fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_lowercase()
}

fn record(owner: Name, data: RData) -> Record {
    Record::from_rdata(owner, TTL_SECONDS, data)
}

/// Goes with "no such name" and "no such record": its last number is how long to remember that.
fn start_of_authority(domain: &str) -> Record {
    let name = |text: String| Name::from_ascii(text).unwrap_or_default();
    let zone = name(format!("{domain}."));
    let (server, mailbox) = (name(format!("ns.dns.{domain}.")), name(format!("hostmaster.{domain}.")));
    // Nobody transfers this zone: serial and timers carry no meaning.
    let data = SOA::new(server, mailbox, 1, 7200, 1800, 86400, TTL_SECONDS);
    record(zone, RData::SOA(data))
}

//! Asking the node's own name servers for names outside the cluster.
//!
//! Each question goes out from a fresh socket with a random id, to one server after another. A
//! server that does not answer is left alone for a while, so that with a dead upstream clients get
//! SERVFAIL at once and not after their own timeout.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, MessageType, Query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

const TRY_TIMEOUT: Duration = Duration::from_millis(1500);
const TRIES_PER_SERVER: u32 = 2;
/// How long a server that failed is not asked.
const PENALTY: Duration = Duration::from_secs(5);
const QUESTIONS_MAX: usize = 512;
/// What we say we can take by UDP; the value of DNS flag day 2020.
const UDP_PAYLOAD: u16 = 1232;
const UDP_BUFFER_BYTES: usize = 4096;

/// Why there is no answer. The client gets SERVFAIL in each case.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("no upstream name server is configured")]
    None,
    #[error("{QUESTIONS_MAX} questions to upstream name servers are under way")]
    Busy,
    #[error("no upstream name server answered")]
    Dead,
}

pub(super) struct Upstream {
    servers: Vec<Server>,
    questions: Semaphore,
    started: Instant,
}

struct Server {
    address: SocketAddr,
    /// Milliseconds after `started` until which it is not asked.
    penalty_until: AtomicU64,
}

impl Upstream {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        let server = |address: &SocketAddr| Server { address: *address, penalty_until: AtomicU64::new(0) };
        Self {
            servers: servers.iter().map(server).collect(),
            questions: Semaphore::new(QUESTIONS_MAX),
            started: Instant::now(),
        }
    }

    /// The first answer of any server. `by_tcp`: the client can take one of any size.
    pub(super) async fn ask(&self, query: &Query, by_tcp: bool) -> Result<Message, UpstreamError> {
        if self.servers.is_empty() {
            return Err(UpstreamError::None);
        }
        let _permit = self.questions.try_acquire().map_err(|_| UpstreamError::Busy)?;
        for server in self.servers.iter().filter(|server| self.now() >= server.penalty_until.load(Ordering::Relaxed)) {
            for _ in 0..TRIES_PER_SERVER {
                let asking = async {
                    if by_tcp { ask_tcp(server.address, query).await } else { ask_udp(server.address, query).await }
                };
                match timeout(TRY_TIMEOUT, asking).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) => {
                        tracing::debug!(server = %server.address, %error, "an upstream name server failed");
                        break;
                    }
                    Err(_) => tracing::debug!(server = %server.address, "an upstream name server is silent"),
                }
            }
            let penalty = u64::try_from(PENALTY.as_millis()).expect("a few seconds");
            server.penalty_until.store(self.now() + penalty, Ordering::Relaxed);
        }
        Err(UpstreamError::Dead)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn ask_udp(server: SocketAddr, query: &Query) -> std::io::Result<Message> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let (id, question) = encode(query)?;
    socket.send(&question).await?;
    let mut buffer = vec![0; UDP_BUFFER_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // A late or forged datagram does not end the wait.
        if let Some(answer) = decode(&buffer[..length], id, query) {
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &Query) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let (id, question) = encode(query)?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    decode(&answer, id, query).ok_or_else(|| std::io::Error::other("the answer is not to this question"))
}

fn encode(query: &Query) -> std::io::Result<(u16, Vec<u8>)> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(std::io::Error::other)?;
    Ok((message.metadata.id, bytes))
}

fn decode(bytes: &[u8], id: u16, query: &Query) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let same = message.metadata.id == id
        && message.metadata.message_type == MessageType::Response
        && message
            .queries
            .first()
            .is_some_and(|asked| asked.name().eq_ignore_root(query.name()) && asked.query_type() == query.query_type());
    same.then_some(message)
}

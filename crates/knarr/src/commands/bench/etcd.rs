//! An etcd to compare with: the processes, and puts to its leader over gRPC.
//!
//! Owns: just enough of etcd's protocol (`etcdserverpb.KV/Put` of rpc.proto, gRPC over HTTP/2) to write
//! as a client of its own would. May not know: what is compared.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::Settings;
use super::load;
use super::own_cluster::{data_dir, free_port};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Messages on a gRPC stream begin with a flag and a length.
const PREFIX_BYTES: usize = 5;

pub struct Etcd {
    /// Where the leader's clients connect.
    pub leader: SocketAddr,
    children: Vec<Child>,
    dir: TempDir,
}

struct Ports {
    client: SocketAddr,
    peer: SocketAddr,
}

impl Etcd {
    pub async fn start(program: &PathBuf, members: usize, settings: &Settings) -> Result<Self> {
        let dir = data_dir(&settings.dir)?;
        let ports: Vec<Ports> =
            (0..members).map(|_| Ok(Ports { client: free_port()?, peer: free_port()? })).collect::<Result<_>>()?;
        let cluster: Vec<String> =
            ports.iter().enumerate().map(|(at, ports)| format!("e{at}=http://{}", ports.peer)).collect();
        let mut children = Vec::new();
        for (at, Ports { client, peer }) in ports.iter().enumerate() {
            let mut command = Command::new(program);
            command.arg("--name").arg(format!("e{at}")).arg("--data-dir").arg(dir.path().join(format!("e{at}")));
            for (flag, address) in [
                ("listen-client-urls", client),
                ("advertise-client-urls", client),
                ("listen-peer-urls", peer),
                ("initial-advertise-peer-urls", peer),
            ] {
                command.arg(format!("--{flag}")).arg(format!("http://{address}"));
            }
            command.args(["--initial-cluster", &cluster.join(","), "--log-level", "error"]).kill_on_drop(true);
            children.push(command.spawn().with_context(|| format!("cannot start {}", program.display()))?);
        }
        let leader = tokio::time::timeout(READY_TIMEOUT, until_led(&ports)).await.context("etcd elected no leader")?;
        Ok(Self { leader, children, dir })
    }

    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.children.iter().filter_map(Child::id)
    }

    pub async fn stop(self) -> Result<()> {
        for mut child in self.children {
            child.kill().await.context("cannot stop etcd")?;
        }
        self.dir.close().context("cannot remove etcd's data")
    }
}

async fn until_led(ports: &[Ports]) -> SocketAddr {
    loop {
        for Ports { client, .. } in ports {
            if let Ok(true) = leads(*client).await {
                return *client;
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// By etcd's JSON gateway.
async fn leads(address: SocketAddr) -> Result<bool> {
    let mut sender = load::connect(address).await?;
    let request = Request::post("/v3/maintenance/status").header(header::HOST, address.to_string());
    let response = sender.send_request(request.body(Full::from("{}"))?).await?;
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let status: Value = serde_json::from_slice(&body.map_err(|e| anyhow::anyhow!("{e}"))?.to_bytes())?;
    let leader = &status["leader"];
    Ok(leader.is_string() && *leader == status["header"]["member_id"])
}

/// One client with a connection of its own.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        let opened = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = opened.context("cannot begin HTTP/2")?;
        // Its errors show in the requests.
        tokio::spawn(connection);
        Ok(Self { sender, host: address.to_string() })
    }

    /// True when the put was done.
    pub async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<bool> {
        let uri = format!("http://{}/etcdserverpb.KV/Put", self.host);
        let request = Request::builder().method(Method::POST).uri(uri);
        let request = request.header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
        let request = request.body(Full::new(put_request(key, value))).context("a put is no request")?;
        self.sender.ready().await.context("the connection is closed")?;
        let response = self.sender.send_request(request).await.context("the put failed")?;
        if response.status() != StatusCode::OK {
            bail!("etcd answered {}", response.status());
        }
        // A call that fails at once has its status among the headers.
        let refused = grpc_status(response.headers()).is_some_and(|status| status != "0");
        let body = response.into_body().collect().await.context("the answer broke off")?;
        Ok(!refused && body.trailers().and_then(grpc_status) == Some("0"))
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<&str> {
    headers.get("grpc-status")?.to_str().ok()
}

/// A framed `PutRequest { bytes key = 1; bytes value = 2 }`.
fn put_request(key: &[u8], value: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    for (field, bytes) in [(1_u8, key), (2, value)] {
        message.put_u8(field << 3 | 2);
        let mut length = bytes.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(bytes);
    }
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("puts of the benchmark are small"));
    framed.put_slice(&message);
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_what_the_protocol_says() {
        assert_eq!(put_request(b"k", b"vv").as_ref(), b"\0\0\0\0\x07\x0a\x01k\x12\x02vv");
        let long = put_request(b"k", &[7; 300]);
        assert_eq!(&long[..10], b"\0\0\0\x01\x32\x0a\x01k\x12\xac");
        assert_eq!(long.len(), 5 + 3 + 3 + 300);
    }
}

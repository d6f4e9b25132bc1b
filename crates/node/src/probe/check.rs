//! Looks once: HTTP, TCP, exec. Failures are worded as the kubelet words them.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use cri::{ContainerId, RuntimeService};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

/// Output of an exec probe that is kept in the Event.
const OUTPUT_BYTES_MAX: usize = 1024;

/// Where to look with HTTP.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpCheck {
    pub host: String,
    pub port: u16,
    pub path: String,
    pub https: bool,
    pub headers: Vec<(String, String)>,
}

/// Where to connect to.
#[derive(Debug, PartialEq, Eq)]
pub struct TcpCheck {
    pub host: String,
    pub port: u16,
}

impl HttpCheck {
    pub fn new(get: &HTTPGetAction, container: &Container, pod_ip: IpAddr) -> Result<Self, String> {
        let header = |h: &k8s_openapi::api::core::v1::HTTPHeader| (h.name.clone(), h.value.clone());
        let path = get.path.as_deref().unwrap_or("/");
        Ok(Self {
            host: get.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod_ip.to_string()),
            port: port(&get.port, container)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            https: get.scheme.as_deref() == Some("HTTPS"),
            headers: get.http_headers.iter().flatten().map(header).collect(),
        })
    }

    fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

impl TcpCheck {
    pub fn new(socket: &TCPSocketAction, container: &Container, pod_ip: IpAddr) -> Result<Self, String> {
        let host = socket.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod_ip.to_string());
        Ok(Self { host, port: port(&socket.port, container)? })
    }
}

/// A number, or the name of one of the container's ports.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            match named.map(|port| port.container_port).or_else(|| name.parse().ok()) {
                Some(number) => number,
                None => return Err(format!("container {} has no port named {name:?}", container.name)),
            }
        }
    };
    u16::try_from(number).ok().filter(|port| *port != 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// Passes on a status of 200 to 399.
pub async fn http(check: &HttpCheck, timeout: Duration) -> Result<(), String> {
    let url = check.url();
    let answer = tokio::time::timeout(timeout, get(check)).await;
    match answer {
        Ok(Ok(status)) if (200..400).contains(&status) => Ok(()),
        Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(why)) => Err(format!("Get {url:?}: {why}")),
        Err(_) => {
            Err(format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
        }
    }
}

async fn get(check: &HttpCheck) -> Result<u16, String> {
    let stream = connect(&check.host, check.port).await?;
    if check.https {
        let stream = super::check_tls::connect(stream, &check.host).await?;
        return request(stream, check).await;
    }
    request(stream, check).await
}

async fn request<S>(stream: S, check: &HttpCheck) -> Result<u16, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let driver = tokio::spawn(connection);
    let mut request = http::Request::get(&check.path).header("connection", "close").header("accept", "*/*");
    let named = |name: &str| check.headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
    if !named("host") {
        request = request.header("host", format!("{}:{}", check.host, check.port));
    }
    if !named("user-agent") {
        request = request.header("user-agent", "kube-probe/1.36");
    }
    for (name, value) in &check.headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let status = sender.send_request(request).await.map(|response| response.status().as_u16()).map_err(text);
    driver.abort();
    status
}

/// Passes when a connection is accepted.
pub async fn tcp(check: &TcpCheck, timeout: Duration) -> Result<(), String> {
    let connected = tokio::time::timeout(timeout, connect(&check.host, check.port)).await;
    match connected {
        Ok(result) => result.map(drop),
        Err(_) => Err(format!("dial tcp {}:{}: i/o timeout", check.host, check.port)),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {host}:{port}: connect: {why}")
    })
}

/// Passes when the command ends with 0.
pub async fn exec(
    runtime: &dyn RuntimeService,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
) -> Result<(), String> {
    let outcome = runtime.exec_sync(id, command, timeout).await.map_err(|error| error.to_string())?;
    if outcome.exit_code == 0 {
        return Ok(());
    }
    let all = [outcome.stdout, outcome.stderr].concat();
    let shown = &all[..all.len().min(OUTPUT_BYTES_MAX)];
    Err(String::from_utf8_lossy(shown).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);

    /// Serves one connection: reads a request, writes the answer (nothing when empty).
    async fn serve(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            if answer.is_empty() {
                tokio::time::sleep(LIMIT * 4).await;
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        port
    }

    fn http_check(port: u16) -> HttpCheck {
        let get = serde_json::from_value(json!({"path": "healthz", "port": port})).unwrap();
        HttpCheck::new(&get, &Container::default(), IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap()
    }

    #[tokio::test]
    async fn http_passes_from_200_to_399() {
        for (line, expect) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Ok(())),
            ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", Ok(())),
            ("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", Err("HTTP probe failed with statuscode: 503".to_owned())),
        ] {
            let port = serve(line).await;
            assert_eq!(http(&http_check(port), LIMIT).await, expect);
        }
    }

    #[tokio::test]
    async fn refusals_and_timeouts_read_like_the_kubelet() {
        let port = serve("").await;
        let slow = http(&http_check(port), LIMIT).await.unwrap_err();
        assert!(slow.starts_with(&format!("Get \"http://127.0.0.1:{port}/healthz\": context deadline exceeded")));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let refused = http(&http_check(closed), LIMIT).await.unwrap_err();
        let expect = format!(
            "Get \"http://127.0.0.1:{closed}/healthz\": dial tcp 127.0.0.1:{closed}: connect: connection refused"
        );
        assert_eq!(refused, expect);
    }

    #[test]
    fn ports_may_be_named() {
        let container: Container =
            serde_json::from_value(json!({"name": "web", "ports": [{"name": "http", "containerPort": 8080}]})).unwrap();
        assert_eq!(port(&IntOrString::String("http".into()), &container), Ok(8080));
        assert_eq!(port(&IntOrString::Int(70_000), &container), Err("invalid port number: 70000".into()));
        assert!(port(&IntOrString::String("x".into()), &container).is_err());
    }
}

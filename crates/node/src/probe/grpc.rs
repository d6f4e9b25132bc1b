//! Looks once with `grpc.health.v1.Health/Check`: HTTP/2 without TLS, one message there and one back.
//!
//! Owns: that exchange, and the two fields of its messages. May not know: other services, streams, TLS (a gRPC probe
//! has none in Kubernetes either).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::GRPCAction;
use tokio::net::TcpStream;

/// More than this is no answer of a health service.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// A byte that says whether the message is compressed, and four of its length.
const FRAME_HEAD_BYTES: usize = 5;
/// `grpc-status` of a server without this service.
const UNIMPLEMENTED: &str = "12";
/// `HealthCheckResponse.ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;

/// Where to ask, and for which service; the empty name is the server as a whole.
#[derive(Debug, PartialEq, Eq)]
pub struct GrpcCheck {
    pub address: SocketAddr,
    pub service: String,
}

impl GrpcCheck {
    pub fn new(action: &GRPCAction, pod_ip: IpAddr) -> Result<Self, String> {
        let port = u16::try_from(action.port).ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| format!("invalid port number: {}", action.port))?;
        Ok(Self { address: SocketAddr::new(pod_ip, port), service: action.service.clone().unwrap_or_default() })
    }
}

/// Passes when the answer is `SERVING`.
pub async fn grpc(check: &GrpcCheck, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, ask(check)).await {
        Ok(Ok(SERVING)) => Ok(()),
        Ok(Ok(status)) => {
            let name = usize::try_from(status).ok().and_then(|status| STATUSES.get(status));
            let name = name.map_or_else(|| status.to_string(), |name| (*name).to_owned());
            Err(format!("service unhealthy (responded with {name:?})"))
        }
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("timeout: health rpc did not complete within {} s", timeout.as_secs_f64())),
    }
}

async fn ask(check: &GrpcCheck) -> Result<u64, String> {
    let address = check.address;
    let unreachable = |why: String| format!("error: failed to connect to {address}: {why}");
    let stream = TcpStream::connect(address).await.map_err(|error| unreachable(error.to_string()))?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unreachable(error.to_string()))?;
    let driver = Driver(tokio::spawn(async move {
        // What becomes of the connection shows in the answer.
        let _ = connection.await;
    }));
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(request_message(&check.service)))
        .map_err(|error| failed(&error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error.to_string()))?;
    let status = answer(response).await;
    drop(driver);
    status
}

/// Ends with the question, however that ends.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn failed(why: &str) -> String {
    format!("error: health rpc probe failed: {why}")
}

async fn answer(response: Response<Incoming>) -> Result<u64, String> {
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        return Err(failed(&format!("HTTP status {}", head.status.as_u16())));
    }
    // An error without a message has its code among the headers.
    grpc_status(&head.headers).unwrap_or(Ok(()))?;
    let collected = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| failed(&error.to_string()))?;
    match collected.trailers().and_then(grpc_status) {
        Some(outcome) => outcome?,
        None => return Err(failed("the answer ends without grpc-status")),
    }
    serving_status(&collected.to_bytes()).map_err(|why| failed(&why))
}

/// What the headers or trailers say of the call, if they do.
fn grpc_status(headers: &HeaderMap) -> Option<Result<(), String>> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let code = text("grpc-status")?;
    let message = text("grpc-message").unwrap_or_default();
    Some(match code.as_str() {
        "0" => Ok(()),
        UNIMPLEMENTED => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        code => Err(failed(&format!("code {code}: {message}"))),
    })
}

/// `HealthCheckRequest { string service = 1; }` in its frame.
fn request_message(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    let length = u32::try_from(message.len()).expect("the API server limits the length of a pod");
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// `HealthCheckResponse { ServingStatus status = 1; }` out of its frame; other fields are passed over.
fn serving_status(frame: &[u8]) -> Result<u64, String> {
    let Some((head, rest)) = frame.split_at_checked(FRAME_HEAD_BYTES) else { return Err("no message".to_owned()) };
    if head[0] != 0 {
        return Err("the message is compressed".to_owned());
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut message = rest.get(..length).ok_or("the message is cut off")?;
    let mut status = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = take_varint(&mut message)?,
            (_, 0) => {
                take_varint(&mut message)?;
            }
            (_, 1) => skip(&mut message, 8)?,
            (_, 2) => {
                let length = take_varint(&mut message)?;
                skip(&mut message, length)?;
            }
            (_, 5) => skip(&mut message, 4)?,
            (_, other) => return Err(format!("the message has wire type {other}")),
        }
    }
    Ok(status)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or("the message is cut off")?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("the message has a number that is too long".to_owned())
}

fn skip(bytes: &mut &[u8], length: u64) -> Result<(), String> {
    let length = usize::try_from(length).map_err(|error| error.to_string())?;
    *bytes = bytes.get(length..).ok_or("the message is cut off")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;

    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);

    /// Answers as a health service does: `web` serves, `slow` takes long, `down` does not serve, others are unknown.
    async fn respond(
        request: Request<Incoming>,
    ) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
        let path = request.uri().path().to_owned();
        let message = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let service = String::from_utf8_lossy(message.get(7..).unwrap_or_default()).into_owned();
        let answer = Response::builder().header("content-type", "application/grpc");
        let only_headers = |code: &str| {
            let answer = Response::builder().header("grpc-status", code).header("grpc-message", "no");
            Ok(answer.body(Full::new(Bytes::new()).boxed()).unwrap())
        };
        let status = match (path.as_str(), service.as_str()) {
            ("/grpc.health.v1.Health/Check", "" | "web") => 1,
            (_, "down") => 2,
            (_, "slow") => {
                tokio::time::sleep(LIMIT * 4).await;
                1
            }
            (_, "old") => return only_headers("12"),
            _ => return only_headers("5"),
        };
        // A field that nobody knows comes first.
        let frame = Bytes::from(vec![0, 0, 0, 0, 5, 0x12, 1, b'x', 0x08, status]);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Ok(Frame::data(frame)), Ok(Frame::trailers(trailers))];
        Ok(answer.body(StreamBody::new(futures::stream::iter(frames)).boxed()).unwrap())
    }

    async fn serve() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(respond)));
            }
        });
        port
    }

    #[tokio::test]
    async fn only_a_service_that_serves_passes() {
        let port = serve().await;
        for (service, expect) in [
            (None, ""),
            (Some("web"), ""),
            (Some("down"), "service unhealthy (responded with \"NOT_SERVING\")"),
            (Some("slow"), "timeout: health rpc did not complete within 0.5 s"),
            (Some("old"), "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no"),
            (Some("none"), "error: health rpc probe failed: code 5: no"),
        ] {
            let action = GRPCAction { port: port.into(), service: service.map(str::to_owned) };
            let check = GrpcCheck::new(&action, Ipv4Addr::LOCALHOST.into()).unwrap();
            assert_eq!(grpc(&check, LIMIT).await.err().unwrap_or_default(), expect, "{service:?}");
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let check = GrpcCheck { address: closed, service: String::new() };
        let refused = grpc(&check, LIMIT).await.unwrap_err();
        assert!(refused.starts_with(&format!("error: failed to connect to {closed}: ")), "{refused}");
    }

    #[test]
    fn strange_messages_are_refused_and_not_believed() {
        let check = |frame: &[u8], expect: Result<u64, &str>| {
            assert_eq!(serving_status(frame), expect.map_err(str::to_owned), "{frame:?}");
        };
        check(&[0, 0, 0, 0, 0], Ok(0));
        check(&[0, 0, 0, 0, 2, 0x08, 1], Ok(1));
        check(&[0, 0, 0, 0, 11, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Ok(u64::MAX));
        check(&[1, 0, 0, 0, 2, 0x08, 1], Err("the message is compressed"));
        check(&[0, 0, 0, 0, 3, 0x08, 1], Err("the message is cut off"));
        check(&[0, 0, 0, 0, 1, 0x08], Err("the message is cut off"));
        check(&[0, 0, 0, 0, 2, 0x12, 9], Err("the message is cut off"));
        check(&[0, 0, 0, 0, 1, 0x0b], Err("the message has wire type 3"));
        check(&[0, 0], Err("no message"));
    }

    #[test]
    fn long_names_have_long_lengths() {
        let message = request_message(&"x".repeat(300));
        assert_eq!(message[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    }
}

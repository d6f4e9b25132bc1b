//! A small closed-loop HTTP client: each connection sends the next request when the last is answered.
//!
//! Owns: the loop, and the process of its own in which it runs (`knarr bench --load-client URL`), so
//! that the client's work is not charged to whoever asks. May not know: what it calls.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::stats::percentile;

/// Answers before this time has passed are sent, but not counted.
const WARM_UP: Duration = Duration::from_millis(500);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// One request, one connect.
const TIMEOUT: Duration = Duration::from_secs(30);

pub type Sender = SendRequest<Full<Bytes>>;

/// When answers count, and when the loop ends.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    from: Instant,
    until: Instant,
}

impl Window {
    pub fn starting_now(length: Duration) -> Self {
        let from = Instant::now() + WARM_UP;
        Self { from, until: from + length }
    }

    pub fn seconds(self) -> f64 {
        (self.until - self.from).as_secs_f64()
    }
}

/// What one connection, or several together, saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Of answers that count.
    pub latencies_ms: Vec<f64>,
    /// Answers of any kind, warm-up included: what the server worked for.
    pub answered: u64,
    /// Unexpected statuses and broken connections.
    pub errors: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.latencies_ms.extend(other.latencies_ms);
        self.answered += other.answered;
        self.errors += other.errors;
    }
}

/// What a load process prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    pub requests_per_s: f64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub answered: u64,
    pub errors: u64,
}

impl Outcome {
    pub fn of(tally: &Tally, window: Window) -> Self {
        Self {
            requests_per_s: tally.latencies_ms.len() as f64 / window.seconds(),
            p50_ms: percentile(&tally.latencies_ms, 50.0),
            p99_ms: percentile(&tally.latencies_ms, 99.0),
            answered: tally.answered,
            errors: tally.errors,
        }
    }
}

/// Speaks HTTP/1.1 over a connected stream.
pub async fn open(stream: impl Read + Write + Send + Unpin + 'static) -> Result<Sender> {
    let (sender, connection) = handshake(stream).await.context("cannot begin HTTP")?;
    // Its errors show in the requests.
    tokio::spawn(connection);
    Ok(sender)
}

/// A plain connection.
pub async fn connect(address: SocketAddr) -> Result<Sender> {
    let stream = tokio::time::timeout(TIMEOUT, TcpStream::connect(address)).await;
    let stream = stream.context("the connection was not taken in time")?;
    let stream = stream.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    open(TokioIo::new(stream)).await
}

/// What a client does again and again.
pub trait Step: Send {
    /// Whether it went as expected. An error ends the client.
    fn step(&mut self) -> impl Future<Output = Result<bool>> + Send;
}

/// Sends requests over one connection.
pub struct Requests<N> {
    pub sender: Sender,
    pub next: N,
    pub expected: StatusCode,
}

impl<N: FnMut() -> Request<Full<Bytes>> + Send> Step for Requests<N> {
    async fn step(&mut self) -> Result<bool> {
        Ok(exchange(&mut self.sender, (self.next)()).await? == self.expected)
    }
}

/// One step after the other until the window ends.
pub async fn drive(mut client: impl Step, window: Window) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < window.until {
        let began = Instant::now();
        let Ok(as_expected) = client.step().await else {
            tally.errors += 1;
            break;
        };
        let ended = Instant::now();
        tally.answered += 1;
        if !as_expected {
            tally.errors += 1;
        } else if ended >= window.from && ended < window.until {
            tally.latencies_ms.push(super::stats::millis(ended - began));
        }
    }
    tally
}

/// One request; the whole answer is read.
pub async fn exchange(sender: &mut Sender, request: Request<Full<Bytes>>) -> Result<StatusCode> {
    let answer = async {
        sender.ready().await.context("the connection is closed")?;
        let response = sender.send_request(request).await.context("the request failed")?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
        Ok(status)
    };
    tokio::time::timeout(TIMEOUT, answer).await.context("no answer in time")?
}

pub fn get(host: &str, path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(path).header(header::HOST, host);
    request.body(Full::default()).expect("paths and hosts of the benchmark are valid")
}

/// What a load process is told.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub address: SocketAddr,
    pub connections: usize,
    pub length: Duration,
}

/// Starts a load process and waits for its figures.
pub async fn in_own_process(load: Load) -> Result<Outcome> {
    let program = std::env::current_exe().context("cannot find the own program")?;
    let output = tokio::process::Command::new(program)
        .args(["bench", "--load-client", &format!("http://{}/", load.address)])
        .args(["--connections", &load.connections.to_string()])
        .args(["--seconds", &load.length.as_secs().to_string()])
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot start the load client")?;
    if !output.status.success() {
        bail!("the load client failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("the load client did not print its figures")
}

/// The load process itself.
pub fn client_main(url: &str, connections: usize, length: Duration) -> Result<()> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    let authority = uri.authority().context("the URL names no address")?;
    let address: SocketAddr = authority.as_str().parse().with_context(|| format!("{authority} is no IP:PORT"))?;
    // One thread: the client must not take more of the machine than it needs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(address, uri.path().to_owned(), connections, length))?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

async fn run(address: SocketAddr, path: String, connections: usize, length: Duration) -> Result<Outcome> {
    let mut senders = Vec::with_capacity(connections);
    for _ in 0..connections {
        senders.push(connect(address).await?);
    }
    let window = Window::starting_now(length);
    let mut tasks = JoinSet::new();
    let host = address.to_string();
    for sender in senders {
        let (host, path) = (host.clone(), path.clone());
        let next = move || get(&host, &path);
        tasks.spawn(drive(Requests { sender, next, expected: StatusCode::OK }, window));
    }
    total(tasks, window).await
}

/// What all loops of a load saw together.
pub async fn total(mut loops: JoinSet<Tally>, window: Window) -> Result<Outcome> {
    let mut tally = Tally::default();
    while let Some(one) = loops.join_next().await {
        tally.add(one.context("a client's task failed")?);
    }
    Ok(Outcome::of(&tally, window))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;

    use super::*;

    async fn server(status: StatusCode) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(move || async move { status }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn answers_are_counted() {
        let address = server(StatusCode::OK).await;
        let outcome = run(address, "/".to_owned(), 2, Duration::from_millis(200)).await.unwrap();
        assert!(outcome.requests_per_s > 0.0 && outcome.p50_ms.is_some(), "{outcome:?}");
        assert!(outcome.answered > 2, "{outcome:?}");
        assert_eq!(outcome.errors, 0);
    }

    #[tokio::test]
    async fn other_answers_are_errors() {
        let address = server(StatusCode::SERVICE_UNAVAILABLE).await;
        let outcome = run(address, "/".to_owned(), 1, Duration::from_millis(50)).await.unwrap();
        assert_eq!(outcome.errors, outcome.answered);
        assert_eq!(outcome.p99_ms, None);
    }

    #[test]
    fn only_answers_inside_the_window_make_the_rate() {
        let window = Window::starting_now(Duration::from_secs(2));
        let tally = Tally { latencies_ms: vec![1.0, 3.0, 2.0, 2.0], answered: 9, errors: 1 };
        let outcome = Outcome::of(&tally, window);
        assert_eq!((outcome.requests_per_s, outcome.p50_ms, outcome.answered), (2.0, Some(2.0), 9));
    }
}

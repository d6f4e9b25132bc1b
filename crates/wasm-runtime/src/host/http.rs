//! Serving `wasi:http`: one listener per container, a fresh instance per request.
//!
//! Owns: connections, their limits, the request deadline, draining. A trap is this request's 500
//! and a line in the container's log; the container lives on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::AsContextMut;
use wasmtime_wasi_http::handler::Prepared;
use wasmtime_wasi_http::{Error as HttpError, WasiBody, WasiHttpView};

use crate::host::container::Container;
use crate::host::guest;
use crate::host::logs::Stream;
use crate::host::meter::{self, Metered};
use crate::host::outcome;
use crate::host::program::Program;
use crate::host::ticker::{TICK, Ticker};
use crate::protocol::Outcome;
use cri::ExitReason;

/// A client that has not sent its headers by then is cut off.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
const STREAMS_PER_CONNECTION_MAX: u32 = 200;
/// How long `accept` rests after an error such as "too many open files".
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

type HttpResult = Result<Response<WasiBody>, wasmtime::Error>;

/// Shared by the connections of one container.
struct Server {
    container: Arc<Container>,
    ticker: Ticker,
    requests: Semaphore,
}

/// Serves until the container is told to drain; then until the last request or the kill signal.
pub async fn serve(container: Arc<Container>, listener: TcpListener, ticker: Ticker) -> Outcome {
    let limits = &container.spec.limits;
    let connections = Arc::new(Semaphore::new(limits.connections));
    let server = Arc::new(Server {
        requests: Semaphore::new(limits.requests_at_once),
        container: Arc::clone(&container),
        ticker,
    });
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);

    loop {
        let permit = Arc::clone(&connections).acquire_owned().await.expect("the semaphore is never closed");
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.map(|(stream, _)| stream),
            () = container.stop.drain.cancelled() => break,
        };
        let stream: TcpStream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, container = container.spec.id, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let server = Arc::clone(&server);
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(answer(server, request).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        let kill = container.stop.kill.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // A broken connection is the client's affair.
            tokio::select! { _ = connection => {}, () = kill.cancelled() => {} }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => outcome::completed(),
        () = container.stop.kill.cancelled() => outcome::killed(),
    }
}

/// One request, from its headers to the headers of its answer.
async fn answer(server: Arc<Server>, request: Request<Incoming>) -> Response<WasiBody> {
    let container = &server.container;
    meter::count(&container.usage.requests);
    let deadline = Instant::now() + container.request_timeout();
    if tokio::time::timeout_at(deadline.into(), server.requests.acquire()).await.is_err() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once");
    }
    let (send, answered) = oneshot::channel();
    let usage = Arc::clone(&container.usage);
    let task = Metered::new(usage, call(Arc::clone(&server), prepare(request), send, deadline));
    // Dropping the handle (the client went away before the answer) ends the guest.
    let task = AbortOnDropHandle::new(tokio::spawn(task));
    match answered.await {
        Ok(Ok(response)) => {
            task.detach();
            response
        }
        Ok(Err(error)) => {
            container.log.say(Stream::Stderr, &format!("the guest answered with an error: {error}"));
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "the component answered with an error")
        }
        Err(oneshot::Canceled) => match task.await {
            Ok(Some(ended)) => refuse_ended(&ended),
            _ => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the component did not answer"),
        },
    }
}

/// Runs one instance for one request. Says how it ended if it ended badly.
async fn call(
    server: Arc<Server>,
    request: Request<WasiBody>,
    send: oneshot::Sender<HttpResult>,
    deadline: Instant,
) -> Option<Outcome> {
    let _running = server.ticker.running();
    let container = &server.container;
    let Program::Http { serve, .. } = container.program.as_ref() else { return None };
    let mut guest = match guest::component(container.program.engine(), container, Some(deadline)) {
        Ok(guest) => guest,
        Err(error) => return Some(failed(container, &error, false)),
    };
    // The error of a guest that trapped goes to the log; the client learns of it by `send` being
    // dropped, so nothing of the guest's inside leaks into an answer.
    let (relay, relayed) = oneshot::channel::<HttpResult>();
    let work = async {
        let proxy = serve.instantiate_async(&mut guest.store).await?;
        let forward = async {
            if let Ok(Ok(response)) = relayed.await {
                let _ = send.send(Ok(response));
            }
            Ok(())
        };
        let handle = guest.store.run_concurrent(async |accessor| {
            let view = <guest::ComponentState as WasiHttpView>::http;
            let prepared =
                accessor.with(|mut store| Prepared::new(store.as_context_mut(), &proxy, request, view, relay))?;
            prepared.run(accessor, std::future::pending()).await?;
            // What the guest still does after its answer (streaming the body) belongs to it.
            std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            wasmtime::error::Ok(())
        });
        let (handled, _) =
            futures::future::join(handle, futures::FutureExt::map(forward, |_: Result<(), ()>| ())).await;
        handled.and_then(|result| result)
    };
    // The guest traps itself at the deadline where it spins; this catches the one that waits.
    let result = tokio::time::timeout_at((deadline + 4 * TICK).into(), work).await;
    match result {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(failed(container, &error, guest.was_refused_memory())),
        Err(_) => {
            let timeout = container.request_timeout();
            container
                .log
                .say(Stream::Stderr, &format!("request took longer than {timeout:?}, its instance was dropped"));
            Some(outcome::deadline())
        }
    }
}

fn failed(container: &Container, error: &wasmtime::Error, refused_memory: bool) -> Outcome {
    meter::count(&container.usage.traps);
    let outcome = outcome::of_error(error, refused_memory);
    if outcome.exit_code != 0 {
        container.log.say(Stream::Stderr, &format!("request failed: {}", outcome.message));
        container.log.say(Stream::Stderr, &outcome::log_text(error));
    }
    outcome
}

fn prepare(request: Request<Incoming>) -> Request<WasiBody> {
    let (mut parts, body) = request.into_parts();
    if parts.uri.authority().is_none() && !parts.headers.contains_key(HOST) {
        // HTTP/1.0 clients (and some probes) send none; WASI wants one.
        parts.headers.insert(HOST, HeaderValue::from_static("localhost"));
    }
    Request::from_parts(parts, body.map_err(HttpError::from).boxed_unsync())
}

fn refuse_ended(ended: &Outcome) -> Response<WasiBody> {
    match ended.reason {
        ExitReason::DeadlineExceeded => refuse(StatusCode::GATEWAY_TIMEOUT, "the component took too long"),
        ExitReason::OomKilled => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the component reached its memory limit"),
        _ => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the component trapped"),
    }
}

fn refuse(status: StatusCode, why: &'static str) -> Response<WasiBody> {
    let text = format!("{why}\n");
    let mut response = Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

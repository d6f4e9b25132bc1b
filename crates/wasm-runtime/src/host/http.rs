//! Serving `wasi:http`: one listener per container, a fresh instance per request, or one for several (`instances`).
//!
//! Owns: connections, their limits, the request deadline, draining. A trap is this request's 500
//! and a line in the container's log; the container lives on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::Either;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime::AsContextMut;
use wasmtime_wasi_http::handler::{ExpirationError, Prepared};
use wasmtime_wasi_http::{Error as HttpError, WasiBody, WasiHttpView};

use crate::host::container::Container;
use crate::host::executor::Executor;
use crate::host::instances::Instances;
use crate::host::logs::Stream;
use crate::host::meter::{self, Metered};
use crate::host::program::Program;
use crate::host::ticker::TICK;
use crate::host::{body, guest, outcome, triggers};
use crate::protocol::Outcome;
use cri::ExitReason;

/// A client that has not sent its headers by then is cut off.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
const STREAMS_PER_CONNECTION_MAX: u32 = 200;
/// How long `accept` rests after an error such as "too many open files".
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

pub type HttpResult = Result<Response<WasiBody>, wasmtime::Error>;

/// Shared by the connections of one container, and by the neighbours that call it.
pub struct Server {
    container: Arc<Container>,
    executor: Executor,
    requests: Arc<Semaphore>,
    /// Requests that came without a connection.
    unconnected: TaskTracker,
    /// Those that take several requests.
    instances: Option<Instances>,
}

impl Server {
    pub fn container(&self) -> &Container {
        &self.container
    }

    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    pub fn instances(&self) -> Option<&Instances> {
        self.instances.as_ref()
    }

    /// Cancelled when its requests end, done or not.
    pub fn killed(&self) -> CancellationToken {
        self.container.stop.kill.clone()
    }

    /// A request that came without a connection: who waits for the last one waits for it too, its body included.
    pub fn track<F>(&self, answering: F) -> impl Future<Output = Response<WasiBody>> + Send + use<F>
    where
        F: Future<Output = Response<WasiBody>> + Send,
    {
        let token = self.unconnected.token();
        async move {
            let held = move |frame| {
                let _until_the_body_is_gone = &token;
                frame
            };
            answering.await.map(|body| body.map_frame(held).boxed_unsync())
        }
    }
}

/// Serves until the container is told to drain; then until the last request or the kill signal. Without a listener its
/// requests come from its pod.
pub async fn serve(container: Arc<Container>, listener: Option<TcpListener>, executor: Executor) -> Outcome {
    let (limits, threads) = (&container.spec.limits, executor.threads());
    let server = Arc::new(Server {
        // Calls of exports and requests to a plugin's own handler have one limit together.
        requests: if container.spec.invoke_only {
            Arc::clone(&container.turns)
        } else {
            Arc::new(Semaphore::new(limits.requests_at_once))
        },
        container: Arc::clone(&container),
        executor,
        unconnected: TaskTracker::new(),
        instances: limits.reuse.map(|reuse| Instances::new(reuse, Arc::clone(&container.usage), threads)),
    });
    let neighbours = container.outgoing.neighbours();
    let member = container.spec.chain.own.as_ref().map(|name| neighbours.join(name, &server));
    let entry = container.spec.listen.map(|address| neighbours.listen(address, &server));
    let graceful = GracefulShutdown::new();
    match listener {
        Some(listener) => accept(&server, listener, &graceful).await,
        None => container.stop.drain.cancelled().await,
    }
    drop(entry);
    server.unconnected.close();
    let outcome = tokio::select! {
        ((), ()) = futures::future::join(graceful.shutdown(), server.unconnected.wait()) => outcome::completed(),
        () = container.stop.kill.cancelled() => outcome::killed(),
    };
    // Requests that are in the pod already may still come to it.
    drop(member);
    outcome
}

/// Takes connections until the container is told to drain.
async fn accept(server: &Arc<Server>, listener: TcpListener, graceful: &GracefulShutdown) {
    let container = &server.container;
    let connections = Arc::new(Semaphore::new(container.spec.limits.connections));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await.expect("the semaphore is never closed");
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.and_then(|(stream, _)| stream.into_std()),
            () = container.stop.drain.cancelled() => return,
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, container = container.spec.id, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (server, builder, watcher) = (Arc::clone(server), builder.clone(), graceful.watcher());
        let executor = server.executor.clone();
        executor.spawn(async move {
            let _permit = permit;
            serve_connection(server, &builder, watcher, stream).await;
        });
    }
}

/// One connection, on the thread that it was put on. A broken one is the client's affair.
async fn serve_connection(
    server: Arc<Server>,
    builder: &auto::Builder<TokioExecutor>,
    watcher: Watcher,
    stream: std::net::TcpStream,
) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let kill = server.container.stop.kill.clone();
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(answer(server, request.map(from_client)).await) }
    });
    let connection = watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
    tokio::select! { _ = connection => {}, () = kill.cancelled() => {} }
}

/// A request from outside of the pod: what stands before the container has it first.
pub async fn answer(server: Arc<Server>, request: Request<WasiBody>) -> Response<WasiBody> {
    if server.container.spec.routes.is_empty() {
        answer_of_guest(server, request).await
    } else {
        triggers::answer(server, request).await
    }
}

/// The answer of the component's own handler.
pub async fn answer_of_guest(server: Arc<Server>, request: Request<WasiBody>) -> Response<WasiBody> {
    let container = &server.container;
    let Some(first) = &container.spec.chain.first else { return handle(server, request).await };
    let Some(first) = container.outgoing.neighbours().member(first) else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the middleware before the component does not run");
    };
    let answered = first.answer(request).await;
    answered.unwrap_or_else(|_| refuse(StatusCode::BAD_GATEWAY, "the middleware before the component ended"))
}

/// One request, from its headers to the headers of its answer.
pub async fn handle(server: Arc<Server>, request: Request<WasiBody>) -> Response<WasiBody> {
    let container = &server.container;
    meter::count(&container.usage.requests);
    let deadline = Instant::now() + container.request_timeout();
    let turn = Arc::clone(&server.requests).acquire_owned();
    let Ok(Ok(turn)) = tokio::time::timeout_at(deadline.into(), turn).await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once");
    };
    if let Some(instances) = &server.instances {
        return shared(&server, instances, prepare(request), deadline, turn).await;
    }
    let (send, mut answered) = oneshot::channel();
    let work = call(Arc::clone(&server), prepare(request), send, deadline);
    let work = async move {
        let _turn = turn;
        work.await
    };
    // Runs inside the connection's task until there is an answer: most guests have ended by then, and
    // one whose client has gone away ends with the connection.
    let mut guest = Metered::new(Arc::clone(&container.usage), work);
    let (ended, answer) = match futures::future::select(&mut guest, &mut answered).await {
        Either::Left((ended, answered)) => (ended, answered.try_recv().ok().flatten()),
        Either::Right((Ok(Ok(response)), _)) => {
            // What it still does belongs to its answer, such as streaming the body.
            tokio::spawn(guest);
            return response;
        }
        Either::Right((answer, _)) => (guest.await, answer.ok()),
    };
    match (ended, answer) {
        // It said so before any of its answer was on its way: no client takes half an answer for a whole one.
        (Some(ended), _) if ended.exit_code != 0 => refuse_ended(&ended),
        (_, Some(Ok(response))) => response,
        (_, Some(Err(error))) => refuse_error(container, &error),
        (_, None) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the component did not answer"),
    }
}

/// A request to an instance that may have others.
async fn shared(
    server: &Arc<Server>,
    instances: &Instances,
    request: Request<WasiBody>,
    deadline: Instant,
    turn: OwnedSemaphorePermit,
) -> Response<WasiBody> {
    let (answered, ended) = instances.start(server, request, deadline);
    match answered.await {
        // It has its turn until its body is gone.
        Ok(Ok(response)) => response.map(|body| {
            let held = move |frame| {
                let _until_the_body_is_gone = &turn;
                frame
            };
            body.map_frame(held).boxed_unsync()
        }),
        Ok(Err(error)) if error.is::<ExpirationError>() => refuse_ended(&outcome::deadline()),
        Ok(Err(error)) => refuse_error(&server.container, &error),
        Err(_) => match ended.get() {
            Some(ended) if ended.exit_code != 0 => refuse_ended(ended),
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
    let _running = server.executor.running();
    let container = &server.container;
    let Program::Http { serve, .. } = container.program.as_ref() else { return None };
    let mut guest = match guest::component(container.program.engine(), container, Some(deadline)) {
        Ok(guest) => guest,
        Err(error) => return Some(failed(container, &error, false)),
    };
    let work = async {
        let proxy = serve.instantiate_async(&mut guest.store).await?;
        let handle = guest.store.run_concurrent(async |accessor| {
            let view = <guest::ComponentState as WasiHttpView>::http;
            let prepared =
                accessor.with(|mut store| Prepared::new(store.as_context_mut(), &proxy, request, view, send))?;
            prepared.run(accessor, std::future::pending()).await?;
            // What the guest still does after its answer (streaming the body) belongs to it.
            std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            wasmtime::error::Ok(())
        });
        handle.await.and_then(|result| result)
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
            container.usage.count_trap(ExitReason::DeadlineExceeded);
            Some(outcome::deadline())
        }
    }
}

pub fn failed(container: &Container, error: &wasmtime::Error, refused_memory: bool) -> Outcome {
    let outcome = outcome::of_error(error, refused_memory);
    container.usage.count_trap(outcome.reason);
    if outcome.exit_code != 0 {
        container.log.say(Stream::Stderr, &format!("request failed: {}", outcome.message));
        container.log.say(Stream::Stderr, &outcome::log_text(error));
    }
    outcome
}

fn from_client(body: Incoming) -> WasiBody {
    body::read_to_the_end(body.map_err(HttpError::from).boxed_unsync(), body::FROM_CLIENT)
}

/// With the authority in its URI, where WASI 0.3 looks for it.
fn prepare(request: Request<WasiBody>) -> Request<WasiBody> {
    let (mut parts, body) = request.into_parts();
    if parts.uri.authority().is_none() {
        // HTTP/1.0 clients (and some probes) send none; WASI wants one.
        let host = parts.headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
        if let Ok(authority) = Authority::try_from(host.as_bytes()) {
            let mut whole = std::mem::take(&mut parts.uri).into_parts();
            whole.scheme.get_or_insert(Scheme::HTTP);
            whole.authority = Some(authority);
            whole.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
            parts.uri = Uri::from_parts(whole).expect("it has all its parts");
        }
    }
    Request::from_parts(parts, body)
}

fn refuse_ended(ended: &Outcome) -> Response<WasiBody> {
    match ended.reason {
        ExitReason::DeadlineExceeded => refuse(StatusCode::GATEWAY_TIMEOUT, "the component took too long"),
        ExitReason::OomKilled => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the component reached its memory limit"),
        _ => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the component trapped"),
    }
}

fn refuse_error(container: &Container, error: &wasmtime::Error) -> Response<WasiBody> {
    container.log.say(Stream::Stderr, &format!("the guest answered with an error: {error}"));
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "the component answered with an error")
}

fn refuse(status: StatusCode, why: &'static str) -> Response<WasiBody> {
    let text = format!("{why}\n");
    let mut response = Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

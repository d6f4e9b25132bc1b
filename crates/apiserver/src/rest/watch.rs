//! WATCH: the stored bytes of every change, framed as events.
//!
//! A watch is a state machine polled by the connection: first the initial events (when asked for),
//! then what the store delivers, with bookmarks between, until its time is over, the server stops, the kind is
//! defined no more, or the store says that the watcher fell behind (an ERROR event with `Expired`).

use std::convert::Infallible;
use std::time::Duration;

use api::status::Status;
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::StatusCode;
use rand::Rng;
use store::{Change, Revision, Watch, WatchClosed, WatchEvent};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::present::Presenter;
use super::selection::Selection;
use crate::core::{Entry, Request, check_seen, parse_revision};
use crate::custom::convert::Opener;
use crate::custom::form;
use crate::object::encode::with_revision;
use crate::object::facets::ObjectFacets;
use crate::traffic::watches::WatchGuard;
use crate::wire::query::RevisionMatch;
use crate::wire::respond::{self, to_bytes};
use crate::wire::{accept, event};

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` ends between one and two times this.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// Events that are ready together are sent together, up to about this size.
const CHUNK_BYTES: usize = 64 * 1024;

/// What a watch begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The present objects as ADDED, then everything later.
    Initial { end_bookmark: bool },
    /// Everything after this revision.
    After(Revision),
    /// Everything later than now.
    Now,
}

fn start(request: &Request) -> Result<Start, Status> {
    let parameters = &request.parameters;
    let not_older = parameters.revision_match == Some(RevisionMatch::NotOlderThan);
    let revision = parse_revision(&parameters.resource_version)?;
    match parameters.send_initial_events {
        Some(_) if !not_older => Err(Status::unprocessable(
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires \
             setting resourceVersionMatch to NotOlderThan",
        )),
        None if parameters.revision_match.is_some() => Err(Status::unprocessable(
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is \
             forbidden for watch unless sendInitialEvents is provided",
        )),
        Some(true) => Ok(Start::Initial { end_bookmark: parameters.allow_bookmarks }),
        Some(false) => Ok(revision.map_or(Start::Now, Start::After)),
        None => Ok(revision.map_or(Start::Initial { end_bookmark: false }, Start::After)),
    }
}

pub async fn watch(request: &Request) -> Result<Response, Status> {
    let presenter = Presenter::new(request)?;
    let selection = Selection::new(request.kind, &request.parameters)?;
    let start = start(request)?;
    let opener = form::opener(request)?;
    let guard = request.core.traffic.watches.open(&request.user.name)?;
    let view = request.core.fresh().await?;
    if let Some(asked) = parse_revision(&request.parameters.resource_version)? {
        check_seen(asked, &view)?;
    }
    let prefix = prefix(request, &selection);
    let (after, initial, end_bookmark) = match start {
        Start::Now => (view.revision(), Vec::new(), false),
        Start::After(revision) => (revision, Vec::new(), false),
        Start::Initial { end_bookmark } => {
            let mut present: Vec<Entry> = view.range(&prefix, None).cloned().collect();
            if let Some(opener) = &opener {
                present = opener.entries(present).await?;
            }
            present.retain(|entry| selection.selects(entry));
            (view.revision(), present, end_bookmark)
        }
    };
    let events = match request.core.store.watch(prefix, after) {
        Ok(events) => events,
        Err(compacted) => return refused(request.accepted.media, &expired(&compacted)),
    };
    let watching = Watching {
        events,
        presenter,
        selection,
        opener,
        initial: initial.into_iter(),
        initial_end: end_bookmark.then_some(after),
        bookmarks: request.parameters.allow_bookmarks,
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        deadline: Instant::now() + timeout(request.parameters.timeout_seconds),
        shutdown: request.core.config.shutdown.clone(),
        withdrawn: match request.custom.clone() {
            Some(custom) => request.core.catalog.clone().withdrawn(custom).boxed(),
            None => std::future::pending().boxed(),
        },
        columns_sent: false,
        state: State::Initial,
        _guard: guard,
    };
    let body = Body::from_stream(futures::stream::unfold(watching, |mut watching| async move {
        let bytes = watching.next().await?;
        Some((Ok::<Bytes, Infallible>(bytes), watching))
    }));
    Ok(respond::typed(StatusCode::OK, request.accepted.media.stream_content_type(), body))
}

/// One object when the selector pins its name, else the collection.
fn prefix(request: &Request, selection: &Selection) -> Bytes {
    match selection.single_name() {
        Some(name) if !request.namespace.is_empty() || !request.kind.namespaced => {
            crate::core::key(request.kind, &request.namespace, name)
        }
        _ => request.prefix(),
    }
}

fn timeout(seconds: Option<u64>) -> Duration {
    match seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
        Some(_) | None => TIMEOUT.mul_f64(1.0 + rand::rng().random::<f64>()),
    }
}

fn expired(compacted: &store::Compacted) -> Status {
    Status::expired(format!("too old resource version: {} ({})", compacted.requested, compacted.compacted))
}

fn fell_behind(compacted: Revision) -> Status {
    Status::expired(format!("the watch fell behind: changes up to revision {compacted} are no longer kept"))
}

/// An answer that is one ERROR event.
fn refused(media: accept::Media, status: &Status) -> Result<Response, Status> {
    let mut out = BytesMut::new();
    event::push(media, &mut out, "ERROR", &respond::encoded(media, &status.to_value())?);
    Ok(respond::typed(StatusCode::OK, media.stream_content_type(), out.freeze()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Initial,
    Live,
    Ended,
}

struct Watching {
    events: Watch<ObjectFacets>,
    presenter: Presenter,
    selection: Selection,
    /// Objects are converted by somebody else.
    opener: Option<Opener>,
    initial: std::vec::IntoIter<Entry>,
    /// The revision of the bookmark that ends the initial events, when one is wanted.
    initial_end: Option<Revision>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    shutdown: CancellationToken,
    /// Ends when the kind does.
    withdrawn: BoxFuture<'static, ()>,
    columns_sent: bool,
    state: State,
    _guard: WatchGuard,
}

impl Watching {
    /// The next piece of the answer; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        match self.state {
            State::Initial => {
                let piece = self.initial_piece();
                if piece.is_empty() { self.live().await } else { Some(piece) }
            }
            State::Live => self.live().await,
            State::Ended => None,
        }
    }

    fn initial_piece(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        while out.len() < CHUNK_BYTES
            && self.state == State::Initial
            && let Some(entry) = self.initial.next()
        {
            self.emit(&mut out, "ADDED", &entry.value);
        }
        if self.initial.len() == 0 && self.state == State::Initial {
            self.state = State::Live;
            if let Some(revision) = self.initial_end.take() {
                self.push(&mut out, "BOOKMARK", self.presenter.bookmark(revision.0, true));
            }
        }
        out.freeze()
    }

    async fn live(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        loop {
            let shutdown = self.shutdown.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.end(out),
                event = self.events.next() => self.take(&mut out, event).await,
                () = &mut self.withdrawn => return self.end(out),
                () = tokio::time::sleep_until(self.deadline) => {
                    // A last bookmark saves the client from reading again what it has.
                    self.bookmark(&mut out);
                    return self.end(out);
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => self.bookmark(&mut out),
            }
            while self.state == State::Live
                && out.len() < CHUNK_BYTES
                && let Some(event) = self.events.next().now_or_never()
            {
                self.take(&mut out, event).await;
            }
            if self.state == State::Ended || !out.is_empty() {
                return (!out.is_empty()).then(|| out.freeze());
            }
        }
    }

    fn end(&mut self, out: BytesMut) -> Option<Bytes> {
        self.state = State::Ended;
        (!out.is_empty()).then(|| out.freeze())
    }

    fn bookmark(&mut self, out: &mut BytesMut) {
        self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
        if self.bookmarks {
            self.push(out, "BOOKMARK", self.presenter.bookmark(self.events.progress().0, false));
        }
    }

    async fn take(&mut self, out: &mut BytesMut, event: Result<WatchEvent<ObjectFacets>, WatchClosed>) {
        let event = match (event, &self.opener) {
            (Ok(event), Some(opener)) => match converted(opener, event, self.selection.is_everything()).await {
                Ok(event) => Ok(event),
                Err(status) => {
                    self.fail(out, &status);
                    return;
                }
            },
            (event, _) => event,
        };
        match event {
            Ok(event) => self.event(out, &event),
            Err(WatchClosed::Shutdown) => self.state = State::Ended,
            Err(WatchClosed::Lagged(compacted)) => self.fail(out, &fell_behind(compacted)),
        }
    }

    /// A change as this watcher sees it: objects that begin or cease to match come and go.
    fn event(&mut self, out: &mut BytesMut, event: &WatchEvent<ObjectFacets>) {
        let selects = |entry: &Entry| self.selection.selects(entry);
        match &event.change {
            Change::Put { entry, previous } => {
                let before = previous.as_ref().filter(|entry| selects(entry));
                match (before, selects(entry)) {
                    (None, true) => self.emit(out, "ADDED", &entry.value.clone()),
                    (Some(_), true) => self.emit(out, "MODIFIED", &entry.value.clone()),
                    (Some(before), false) => {
                        self.emit(out, "DELETED", &with_revision(&before.value, event.revision.0));
                    }
                    (None, false) => {}
                }
            }
            Change::Delete { previous } if selects(previous) => {
                self.emit(out, "DELETED", &with_revision(&previous.value, event.revision.0));
            }
            Change::Delete { .. } => {}
        }
    }

    fn emit(&mut self, out: &mut BytesMut, event: &str, stored: &Bytes) {
        let mut object = self.presenter.object(stored);
        if self.presenter.form() == accept::Form::Table {
            if self.columns_sent {
                object = object.map(|table| without_columns(&table));
            }
            self.columns_sent = true;
        }
        self.push(out, event, object);
    }

    /// An event; what cannot be encoded ends the watch, since a client may not miss anything.
    fn push(&mut self, out: &mut BytesMut, event: &str, object: Result<Bytes, Status>) {
        match object {
            Ok(object) => event::push(self.presenter.media(), out, event, &object),
            Err(status) => self.fail(out, &status),
        }
    }

    /// The last event. A Status has a message, so that this one can always be encoded.
    fn fail(&mut self, out: &mut BytesMut, status: &Status) {
        if let Ok(object) = respond::encoded(self.presenter.media(), &status.to_value()) {
            event::push(self.presenter.media(), out, "ERROR", &object);
        }
        self.state = State::Ended;
    }
}

/// An event with its objects in the version of the watch.
async fn converted(
    opener: &Opener,
    event: WatchEvent<ObjectFacets>,
    everything: bool,
) -> Result<WatchEvent<ObjectFacets>, Status> {
    let change = match event.change {
        Change::Put { entry, previous } => {
            let previous = match previous {
                // Only that there was one matters.
                Some(previous) if !everything => Some(opener.entry(&previous).await?),
                previous => previous,
            };
            Change::Put { entry: opener.entry(&entry).await?, previous }
        }
        Change::Delete { previous } => Change::Delete { previous: opener.entry(&previous).await? },
    };
    Ok(WatchEvent { change, ..event })
}

/// Later Tables of one watch repeat no column definitions.
fn without_columns(table: &[u8]) -> Bytes {
    let mut table: serde_json::Value = serde_json::from_slice(table).expect("a Table made just before");
    table["columnDefinitions"] = serde_json::json!([]);
    to_bytes(&table)
}

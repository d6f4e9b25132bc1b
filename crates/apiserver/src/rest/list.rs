//! GET of one object, LIST of a collection: from a snapshot, streamed from the stored bytes.

use std::convert::Infallible;

use api::status::Status;
use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use store::Revision;

use super::present::{ListMeta, Presenter};
use super::selection::Selection;
use crate::core::{Entry, Request, Snapshot, parse_revision, unavailable};
use crate::custom::convert::Opener;
use crate::custom::form;
use crate::wire::query::RevisionMatch;
use crate::wire::respond;

/// Items are sent in pieces of about this size.
const CHUNK_BYTES: usize = 64 * 1024;
/// Objects that are read and converted before the next ones are.
const CONVERTED_AT_ONCE: usize = 2_000;

pub async fn get(request: &Request) -> Result<Response, Status> {
    let presenter = Presenter::new(request)?;
    let view = snapshot(request).await?;
    let entry = form::entry(request, request.find(&view)?).await?;
    presenter.answer(StatusCode::OK, &entry.value)
}

/// Where a list goes on: the revision it reads, and the last key it gave, without the collection's prefix.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Continue {
    #[serde(rename = "v")]
    format: String,
    #[serde(rename = "rv")]
    revision: u64,
    start: String,
}

const CONTINUE_FORMAT: &str = "knarr/v1";

impl Continue {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a token encodes into memory"))
    }

    fn decode(token: &str) -> Result<Self, Status> {
        let bad = || Status::bad_request("continue key is not valid: it was not made by this server");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        if token.format == CONTINUE_FORMAT { Ok(token) } else { Err(bad()) }
    }
}

/// The state a read is made from, as `resourceVersion` and `resourceVersionMatch` ask.
async fn snapshot(request: &Request) -> Result<Snapshot, Status> {
    let parameters = &request.parameters;
    if parameters.revision_match.is_some() && parameters.resource_version.is_empty() {
        return Err(Status::unprocessable(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    let core = &request.core;
    let Some(revision) = parse_revision(&parameters.resource_version)? else {
        if parameters.resource_version.is_empty() {
            core.store.linearize().await.map_err(|e| unavailable(&e))?;
        } else if parameters.revision_match == Some(RevisionMatch::Exact) {
            return Err(Status::unprocessable(
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        return Ok(core.store.view());
    };
    let view = core.not_older_than(revision).await?;
    // Without a match rule, a paged list of a given revision is exact.
    let exact = parameters.revision_match == Some(RevisionMatch::Exact)
        || (parameters.revision_match.is_none() && parameters.limit > 0 && request.name.is_empty());
    if exact { at(request, revision) } else { Ok(view) }
}

fn at(request: &Request, revision: Revision) -> Result<Snapshot, Status> {
    request.core.store.view_at(revision).map_err(|compacted| {
        Status::expired(format!("The resourceVersion for the provided list is too old: {compacted}"))
    })
}

/// The part of a collection that one answer holds.
pub struct Page {
    pub entries: Vec<Entry>,
    meta: ListMeta,
}

pub async fn list(request: &Request) -> Result<Response, Status> {
    let selection = Selection::new(request.kind, &request.parameters)?;
    let page = page(request, &selection).await?;
    answer(request, page).await
}

/// Writes a page in the form that was asked for.
pub async fn answer(request: &Request, page: Page) -> Result<Response, Status> {
    let presenter = Presenter::new(request)?;
    if presenter.is_verbatim() {
        return Ok(respond::json(StatusCode::OK, stream(&presenter, page)));
    }
    presenter.answer_list(&page.entries, &page.meta).await
}

async fn page(request: &Request, selection: &Selection) -> Result<Page, Status> {
    let parameters = &request.parameters;
    let prefix = request.prefix();
    let (view, start) = if parameters.continue_token.is_empty() {
        (snapshot(request).await?, None)
    } else {
        if !matches!(parameters.resource_version.as_str(), "" | "0") {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let token = Continue::decode(&parameters.continue_token)?;
        let view = at(request, Revision(token.revision)).map_err(|_| token_expired())?;
        let start = [prefix.as_ref(), token.start.as_bytes()].concat();
        (view, Some(start))
    };
    collect(request, selection, &view, start.as_deref()).await
}

fn token_expired() -> Status {
    Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You must start a new list \
         without the continue parameter.",
    )
}

/// The selected entries of a collection, up to the request's limit, in a form that can be presented.
pub async fn collect(
    request: &Request,
    selection: &Selection,
    view: &Snapshot,
    start: Option<&[u8]>,
) -> Result<Page, Status> {
    let opener = form::opener(request)?;
    let meta = ListMeta { revision: view.revision().0, ..ListMeta::default() };
    if let Some(name) = selection.single_name()
        && (!request.namespace.is_empty() || !request.kind.namespaced)
    {
        let key = crate::core::key(request.kind, &request.namespace, name);
        let found = match (view.get(&key).cloned(), &opener) {
            (Some(entry), Some(opener)) => Some(opener.entry(&entry).await?),
            (found, _) => found,
        };
        let entries = found.filter(|entry| selection.selects(entry)).into_iter().collect();
        return Ok(Page { entries, meta });
    }
    match opener {
        Some(opener) => collect_converted(request, selection, (view, start), &opener).await,
        None => Ok(collect_stored(request, selection, view, start)),
    }
}

fn limit(request: &Request) -> usize {
    if request.parameters.limit == 0 { usize::MAX } else { request.parameters.limit }
}

/// The token by which the next page begins after this entry.
fn token(revision: u64, prefix: &[u8], last: &Entry) -> String {
    let start = String::from_utf8_lossy(&last.key[prefix.len()..]).into_owned();
    Continue { format: CONTINUE_FORMAT.to_owned(), revision, start }.encode()
}

fn collect_stored(request: &Request, selection: &Selection, view: &Snapshot, start: Option<&[u8]>) -> Page {
    let mut meta = ListMeta { revision: view.revision().0, ..ListMeta::default() };
    let (prefix, limit) = (request.prefix(), limit(request));
    let mut rest = view.range(&prefix, start).filter(|entry| selection.selects(entry));
    let entries: Vec<Entry> = rest.by_ref().take(limit).cloned().collect();
    if let Some(last) = entries.last().filter(|_| entries.len() == limit)
        && rest.next().is_some()
    {
        meta.continue_token = token(meta.revision, &prefix, last);
        if selection.is_everything() {
            meta.remaining = Some(rest.count() + 1);
        }
    }
    Page { entries, meta }
}

/// What selectors say is about the converted objects, so that these are made first, some at a time.
async fn collect_converted(
    request: &Request,
    selection: &Selection,
    (view, start): (&Snapshot, Option<&[u8]>),
    opener: &Opener,
) -> Result<Page, Status> {
    let mut meta = ListMeta { revision: view.revision().0, ..ListMeta::default() };
    let (prefix, limit) = (request.prefix(), limit(request));
    let mut from = start.map(<[u8]>::to_vec);
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        // One more than is wanted, to see whether there is more.
        let at_once = limit.saturating_add(1).min(CONVERTED_AT_ONCE);
        let some: Vec<Entry> = view.range(&prefix, from.as_deref()).take(at_once).cloned().collect();
        let is_last = some.len() < at_once;
        from = some.last().map(|last| last.key.to_vec());
        for entry in opener.entries(some).await?.into_iter().filter(|entry| selection.selects(entry)) {
            if let Some(last) = entries.last().filter(|_| entries.len() == limit) {
                meta.continue_token = token(meta.revision, &prefix, last);
                return Ok(Page { entries, meta });
            }
            entries.push(entry);
        }
        if is_last {
            return Ok(Page { entries, meta });
        }
    }
}

/// Joins stored bytes into a list, piece by piece, as fast as the client reads.
fn stream(presenter: &Presenter, page: Page) -> Body {
    let (head, tail) = presenter.list_frame(&page.meta);
    if page.entries.iter().map(|e| e.value.len() + 1).sum::<usize>() <= CHUNK_BYTES {
        let mut all = BytesMut::from(&head[..]);
        join(&mut all, &page.entries, true);
        all.put(tail);
        return Body::from(all.freeze());
    }
    let state = (Some(head), page.entries.into_iter().peekable(), Some(tail), true);
    let pieces = futures::stream::unfold(state, |(mut head, mut entries, mut tail, mut first)| async move {
        if let Some(head) = head.take() {
            return Some((Ok::<Bytes, Infallible>(head), (None, entries, tail, first)));
        }
        if entries.peek().is_none() {
            return tail.take().map(|tail| (Ok(tail), (None, entries, None, first)));
        }
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES + 4096);
        while chunk.len() < CHUNK_BYTES
            && let Some(entry) = entries.next()
        {
            join(&mut chunk, std::slice::from_ref(&entry), first);
            first = false;
        }
        Some((Ok(chunk.freeze()), (None, entries, tail, first)))
    });
    Body::from_stream(pieces)
}

fn join(out: &mut BytesMut, entries: &[Entry], mut first: bool) {
    for entry in entries {
        if !first {
            out.put_u8(b',');
        }
        first = false;
        out.put_slice(&entry.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens() {
        let token = Continue { format: CONTINUE_FORMAT.to_owned(), revision: 7, start: "default/web".to_owned() };
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        for bad in ["x", "", "e30", "!!"] {
            assert_eq!(Continue::decode(bad).unwrap_err().code, 400, "{bad:?}");
        }
    }
}

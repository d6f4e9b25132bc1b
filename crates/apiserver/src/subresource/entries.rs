//! `buckets/NAME/entries[/KEY]`: what is in a bucket, as bytes.
//!
//! ```text
//! GET    entries?prefix=&limit=&continue=   names, sizes and revisions, in the order of the keys
//! GET    entries/KEY                        the value; `ETag` is the entry's revision
//! PUT    entries/KEY                        `If-Match: "7"` or `*`, `If-None-Match: *`
//! POST   entries/KEY?add=N                  a number in decimal digits; the answer is the sum
//! DELETE entries/KEY                        `If-Match` as above
//! ```
//!
//! Reads are linearizable. Every key is one percent-encoded segment of the path. May not know: how entries are
//! stored (see `bucket`).

use api::bucket::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use api::status::{Status, Subject};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};
use store::Revision;

use crate::authz::node_grants;
use crate::bucket::layout::{Usage, entries_prefix, entry_key, usage_key};
use crate::bucket::{Bucket, BucketName, Change, Done, Expect, Refusal, Write, WriteError};
use crate::core::{Request, Snapshot};
use crate::dispatch::Verb;
use crate::rest::write::Input;
use crate::wire::respond;

/// Entries of one page, and what a client gets who does not say.
const PAGE_MAX: usize = 1000;
const BYTES: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";

pub async fn answer(request: &Request, verb: Verb, input: Input) -> Result<Response, Status> {
    if request.rest.len() > KEY_BYTES_MAX {
        let why = format!("the key of an entry may have {KEY_BYTES_MAX} bytes, this one has {}", request.rest.len());
        return Err(Status::bad_request(why));
    }
    match verb {
        Verb::Get | Verb::List => {
            let view = request.core.fresh().await?;
            node_grants::check(request, &view)?;
            let bucket = Bucket::find(&view, &name(request)).ok_or_else(|| no_bucket(request))?;
            if verb == Verb::List { list(request, &view, &bucket) } else { get(request, &view, &bucket, &input) }
        }
        Verb::Create | Verb::Update | Verb::Delete => {
            if request.rest.is_empty() {
                return Err(Status::method_not_allowed());
            }
            may_write(request).await?;
            let change = change(request, verb, input).await?;
            if request.parameters.dry_run {
                return Err(Status::bad_request("entries of buckets have no dry run"));
            }
            let write = Write { key: request.rest.clone(), change };
            let written = request.core.buckets.write(&request.core, name(request), write).await;
            written.map(|(done, revision)| wrote(done, revision)).map_err(|error| refused(request, error))
        }
        Verb::Watch | Verb::Patch | Verb::DeleteCollection => Err(Status::method_not_allowed()),
    }
}

fn name(request: &Request) -> BucketName {
    BucketName { namespace: request.namespace.clone(), name: request.name.clone() }
}

/// A pod that this member has not heard of yet may be there all the same.
async fn may_write(request: &Request) -> Result<(), Status> {
    if node_grants::check(request, &request.core.store.view()).is_ok() {
        return Ok(());
    }
    node_grants::check(request, &request.core.fresh().await?)
}

fn get(request: &Request, view: &Snapshot, bucket: &Bucket, input: &Input) -> Result<Response, Status> {
    let entry = view.get(&entry_key(&bucket.uid, &request.rest)).ok_or_else(|| no_entry(request))?;
    let tag = tag(entry.mod_revision);
    let known = input.headers.get_all(header::IF_NONE_MATCH).iter().any(|known| *known == tag);
    let mut response = if known {
        respond::typed(StatusCode::NOT_MODIFIED, BYTES, Bytes::new())
    } else {
        respond::typed(StatusCode::OK, BYTES, entry.value.clone())
    };
    response.headers_mut().insert(header::ETAG, tag);
    // Whatever it is, no browser shall take it for a page.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn list(request: &Request, view: &Snapshot, bucket: &Bucket) -> Result<Response, Status> {
    let parameters = &request.parameters;
    let all = entries_prefix(&bucket.uid);
    let wanted = [all.as_ref(), parameters.get("prefix").unwrap_or("").as_bytes()].concat();
    let after = match parameters.continue_token.as_str() {
        "" => None,
        token => Some([all.as_ref(), &continue_after(token)?].concat()),
    };
    let limit = if parameters.limit == 0 { PAGE_MAX } else { parameters.limit.min(PAGE_MAX) };
    let mut found = view.range(&wanted, after.as_deref());
    let mut items = Vec::new();
    let mut last: &[u8] = b"";
    for entry in found.by_ref().take(limit) {
        let key = &entry.key[all.len()..];
        items.push(json!({ "key": String::from_utf8_lossy(key), "bytes": entry.value.len(),
            "revision": entry.mod_revision.to_string() }));
        last = key;
    }
    let usage = view.get(&usage_key(&bucket.uid)).map(|record| Usage::read(&record.value)).unwrap_or_default();
    let mut metadata = json!({ "resourceVersion": view.revision().to_string() });
    if found.next().is_some() {
        metadata["continue"] = URL_SAFE_NO_PAD.encode(last).into();
    }
    Ok(respond::value(&json!({ "kind": "BucketEntryList", "apiVersion": request.kind.api_version(),
        "metadata": metadata, "usage": { "bytes": usage.bytes, "entries": usage.entries }, "items": items })))
}

/// A page begins after the last key of the one before, whatever happened meanwhile.
fn continue_after(token: &str) -> Result<Vec<u8>, Status> {
    URL_SAFE_NO_PAD
        .decode(token)
        .map_err(|_| Status::bad_request("continue key is not valid: it was not made by this server"))
}

async fn change(request: &Request, verb: Verb, input: Input) -> Result<Change, Status> {
    let expect = expectation(&input.headers)?;
    match verb {
        Verb::Update => Ok(Change::Put { value: value(input).await?, expect }),
        Verb::Delete => Ok(Change::Delete { expect }),
        _ if expect != Expect::Anything => Err(Status::bad_request("an addition takes no If-Match or If-None-Match")),
        _ => {
            let delta = request.parameters.get("add").and_then(|text| text.parse().ok());
            let delta = delta.ok_or_else(|| {
                Status::bad_request("POST adds to a number: say ?add=N with a whole number that fits 64 bits")
            })?;
            Ok(Change::Add { delta })
        }
    }
}

/// What the headers want the entry to be (RFC 9110 section 13).
fn expectation(headers: &HeaderMap) -> Result<Expect, Status> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("").trim());
    match (text(&header::IF_MATCH), text(&header::IF_NONE_MATCH)) {
        (None, None) => Ok(Expect::Anything),
        (Some("*"), None) => Ok(Expect::Present),
        (None, Some("*")) => Ok(Expect::Absent),
        (Some(tag), None) => {
            let revision = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
            let revision = revision
                .ok_or_else(|| Status::bad_request(format!("If-Match: {tag} is neither * nor the ETag of an entry")))?;
            Ok(Expect::Revision(revision))
        }
        (None, Some(_)) => Err(Status::bad_request("If-None-Match of a write can only be *")),
        (Some(_), Some(_)) => Err(Status::bad_request("If-Match and If-None-Match exclude each other")),
    }
}

async fn value(input: Input) -> Result<Bytes, Status> {
    match Limited::new(input.body, VALUE_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(VALUE_BYTES_MAX)),
        Err(error) => Err(Status::bad_request(format!("reading the value: {error}"))),
    }
}

fn tag(revision: Revision) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{revision}\"")).expect("digits and quotes are a header value")
}

fn wrote(done: Done, revision: Revision) -> Response {
    match done {
        Done::Put { created } => {
            let code = if created { StatusCode::CREATED } else { StatusCode::OK };
            let mut response = respond::typed(code, TEXT, Bytes::new());
            response.headers_mut().insert(header::ETAG, tag(revision));
            response
        }
        Done::Deleted => respond::typed(StatusCode::NO_CONTENT, TEXT, Bytes::new()),
        // No ETag: others' additions may be in the same revision.
        Done::Added(sum) => respond::typed(StatusCode::OK, TEXT, sum.to_string()),
    }
}

fn entry_subject(request: &Request) -> Subject<'_> {
    Subject { group: request.kind.group, resource: "buckets/entries", name: &request.rest }
}

fn no_bucket(request: &Request) -> Status {
    Status::not_found(&request.subject())
}

fn no_entry(request: &Request) -> Status {
    Status::not_found(&entry_subject(request))
}

fn refused(request: &Request, error: WriteError) -> Status {
    let refusal = match error {
        WriteError::Failed(status) => return status,
        WriteError::Refused(refusal) => refusal,
    };
    let over_quota = |why: String| {
        let mut status = Status::forbidden(&request.subject(), &format!("exceeded quota: {why}"));
        status.details["causes"] = json!([{ "reason": "QuotaExceeded", "message": Value::from(why) }]);
        status
    };
    match refusal {
        Refusal::NoBucket => no_bucket(request),
        Refusal::NoEntry => no_entry(request),
        Refusal::Expectation => {
            let stale = Status::conflict(&entry_subject(request), "the entry is not what the request expects");
            Status { code: StatusCode::PRECONDITION_FAILED.as_u16(), ..stale }
        }
        Refusal::OverBytes(quota) => over_quota(format!("it may hold {} bytes", quota.bytes)),
        Refusal::OverEntries(quota) => over_quota(format!("it may hold {} entries", quota.entries)),
        Refusal::NotANumber => Status::unprocessable("the entry is not a whole number in decimal digits"),
        Refusal::OutOfRange => Status::unprocessable("the sum does not fit 64 bits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_read_from_headers() {
        let check = |headers: &[(HeaderName, &'static str)], expect: Result<Expect, u16>| {
            let headers: HeaderMap =
                headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
            assert_eq!(expectation(&headers).map_err(|status| status.code), expect, "{headers:?}");
        };
        check(&[], Ok(Expect::Anything));
        check(&[(header::IF_MATCH, "\"7\"")], Ok(Expect::Revision(7)));
        check(&[(header::IF_MATCH, "*")], Ok(Expect::Present));
        check(&[(header::IF_NONE_MATCH, "*")], Ok(Expect::Absent));
        check(&[(header::IF_MATCH, "7")], Err(400));
        check(&[(header::IF_NONE_MATCH, "\"7\"")], Err(400));
        check(&[(header::IF_MATCH, "*"), (header::IF_NONE_MATCH, "*")], Err(400));
    }
}

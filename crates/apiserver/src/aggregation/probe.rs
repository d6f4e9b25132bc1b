//! Asks one extension server again and again whether it is there and what it serves; one task for each.
//!
//! Owns: when, and what is kept of the answers. The leader alone writes the condition down.

use std::sync::Arc;
use std::time::Duration;

use api::openapi::content_hash;
use api::status::Status;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request as HttpRequest, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::availability::{Condition, status};
use super::documents::{resources, v2_definitions, v3_url};
use super::identity_headers::identify;
use super::remotes::{Found, OpenApiV2, OpenApiV3, Remote};
use crate::core::{Core, Request};
use crate::identity::{MASTERS, UserInfo};
use crate::reach::{behind, chain};
use crate::registry::meta::format_time;
use crate::registry::write::{Part, update};

/// Between two looks at a server that answers.
const EVERY: Duration = Duration::from_secs(30);
/// Between two looks at one that does not.
const FAILED_EVERY: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest list of resources of a group version.
const RESOURCES_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longest OpenAPI document that is taken over.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// As whom the server is asked.
const USER: &str = "system:kube-aggregator";

pub async fn run(core: Arc<Core>, remote: Arc<Remote>) {
    loop {
        let found = look(&core, &remote).await;
        let is_available = found.condition.as_ref().is_some_and(|condition| condition.available);
        if was_changed(&remote.found.load(), &found) {
            remote.publish(found.clone());
        }
        if let Some(condition) = &found.condition
            && let Err(error) = report(&core, &remote, condition).await
        {
            tracing::debug!(%error, name = remote.name, "the condition of an APIService is not written yet");
        }
        tokio::time::sleep(if is_available { EVERY } else { FAILED_EVERY }).await;
    }
}

fn was_changed(before: &Found, after: &Found) -> bool {
    let documents = |found: &Found| (found.v3.as_ref().map(Arc::as_ptr), found.v2.as_ref().map(Arc::as_ptr));
    before.condition != after.condition || before.resources != after.resources || documents(before) != documents(after)
}

async fn look(core: &Core, remote: &Remote) -> Found {
    let before = (**remote.found.load()).clone();
    let failed = |condition: Condition| Found { condition: Some(condition), ..before.clone() };
    if remote.is_built_in() {
        return failed(Condition::built_in(&remote.group, &remote.version));
    }
    if let Err(why) = &remote.client {
        return failed(Condition::misconfigured(why));
    }
    if let Err(absent) = behind(&core.store.view(), &remote.namespace, &remote.service, remote.port) {
        return failed(Condition::absent(&absent, &remote.namespace, &remote.service));
    }
    let path = format!("/apis/{}/{}", remote.group, remote.version);
    let asked = Asked { path: &path, etag: "", bytes_max: RESOURCES_BYTES_MAX, timeout: PROBE_TIMEOUT };
    let url = format!("{}{path}", remote.root());
    let list = match fetch(remote, &asked).await {
        Ok(Answer { code, bytes, .. }) if code.is_success() => bytes,
        Ok(Answer { code, .. }) => return failed(Condition::unanswered(&url, &format!("bad status: {code}"))),
        Err(why) => return failed(Condition::unanswered(&url, &why)),
    };
    let resources = match serde_json::from_slice::<Value>(&list) {
        Ok(list) => Some(Arc::new(resources(&list, &remote.group, &remote.version))),
        Err(error) => {
            tracing::warn!(%error, name = remote.name, "an extension server's list of resources is no JSON");
            None
        }
    };
    Found {
        condition: Some(Condition::passed()),
        resources: resources.or(before.resources),
        v3: v3(remote, before.v3).await,
        v2: v2(remote, before.v2).await,
    }
}

/// The OpenAPI v3 document, asked for again when its address says that it is another one.
async fn v3(remote: &Remote, before: Option<Arc<OpenApiV3>>) -> Option<Arc<OpenApiV3>> {
    let index = document(remote, "/openapi/v3", "").await?;
    let index: Value = serde_json::from_slice(&index.bytes).ok()?;
    let url = v3_url(&index, &remote.group, &remote.version)?;
    if before.as_ref().is_some_and(|before| before.url == url) {
        return before;
    }
    let bytes = document(remote, &url, "").await?.bytes;
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(&bytes) {
        tracing::warn!(%error, name = remote.name, "an extension server's OpenAPI v3 document is no JSON");
        return None;
    }
    Some(Arc::new(OpenApiV3 { url, hash: content_hash(&bytes), document: bytes }))
}

async fn v2(remote: &Remote, before: Option<Arc<OpenApiV2>>) -> Option<Arc<OpenApiV2>> {
    let etag = before.as_ref().map_or("", |before| before.etag.as_str());
    let answer = document(remote, "/openapi/v2", etag).await?;
    if answer.code == StatusCode::NOT_MODIFIED {
        return before;
    }
    let definitions = v2_definitions(serde_json::from_slice(&answer.bytes).ok()?);
    if before.as_ref().is_some_and(|before| before.definitions == definitions) {
        return before;
    }
    Some(Arc::new(OpenApiV2 { etag: answer.etag, definitions }))
}

/// A document that a server may have or not.
async fn document(remote: &Remote, path: &str, etag: &str) -> Option<Answer> {
    let asked = Asked { path, etag, bytes_max: DOCUMENT_BYTES_MAX, timeout: DOCUMENT_TIMEOUT };
    match fetch(remote, &asked).await {
        Ok(answer) if answer.code.is_success() || answer.code == StatusCode::NOT_MODIFIED => Some(answer),
        Ok(answer) => {
            tracing::debug!(name = remote.name, path, code = %answer.code, "an extension server has no such document");
            None
        }
        Err(why) => {
            tracing::warn!(name = remote.name, path, why, "a document of an extension server cannot be read");
            None
        }
    }
}

struct Asked<'a> {
    path: &'a str,
    /// Of what is known already; may be empty.
    etag: &'a str,
    bytes_max: usize,
    timeout: Duration,
}

struct Answer {
    code: StatusCode,
    etag: String,
    bytes: Bytes,
}

async fn fetch(remote: &Remote, asked: &Asked<'_>) -> Result<Answer, String> {
    let asking = tokio::time::timeout(asked.timeout, fetch_at_leisure(remote, asked)).await;
    asking.map_err(|_| format!("no answer within {:?}", asked.timeout))?
}

async fn fetch_at_leisure(remote: &Remote, asked: &Asked<'_>) -> Result<Answer, String> {
    let client = remote.client.as_ref().map_err(Clone::clone)?;
    let mut request = HttpRequest::get(format!("{}{}", remote.root(), asked.path))
        .header(header::ACCEPT, "application/json")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    if let Ok(etag) = HeaderValue::from_str(asked.etag)
        && !asked.etag.is_empty()
    {
        request.headers_mut().insert(header::IF_NONE_MATCH, etag);
    }
    identify(request.headers_mut(), &UserInfo::authenticated(USER, [MASTERS])).map_err(|status| status.message)?;
    let answer = client.request(request).await.map_err(|error| chain(&error))?;
    let code = answer.status();
    let etag = answer.headers().get(header::ETAG).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let body = Limited::new(answer.into_body(), asked.bytes_max).collect().await;
    let bytes = body.map_err(|error| format!("reading the answer: {error}"))?.to_bytes();
    Ok(Answer { code, etag, bytes })
}

/// Writes the condition down, where this server leads and it is another than was written.
async fn report(core: &Arc<Core>, remote: &Remote, condition: &Condition) -> Result<(), Status> {
    if !*core.store.leadership().borrow() {
        return Ok(());
    }
    let request = Request {
        as_leader: true,
        subresource: "status".to_owned(),
        ..Request::by_server(core, super::registrations::kind(), "", &remote.name)
    };
    let now = format_time(Timestamp::now());
    let change = |present: &Value| {
        let mut new = present.clone();
        // It may be another one by now, which has a probe of its own.
        if remote.is_of(present)
            && let Some(status) = status(present, condition, &now)
        {
            new["status"] = status;
        }
        Ok(new)
    };
    update(&request, Part::Status, Vec::new(), change).await.map(drop)
}

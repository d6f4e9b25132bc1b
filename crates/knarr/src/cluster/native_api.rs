//! Gives nodes native code, so that the cluster compiles an image once.
//!
//! Owns: the handler of `wire::NATIVE`: who may ask how much, how long an answer takes, and that nothing is compiled but
//! what an image has that some server has. Code goes from servers to nodes and never back: a node that was taken
//! over gives nobody code. May not know: how code is compiled and kept (`wasm_runtime`), which server a node asks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::status::{Status, Subject};
use apiserver::{ApiServer, UserInfo};
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::Stream;
use http::header;
use image::{Digest, ImageStore, Registry};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use wasm_runtime::{CODE_BYTES_MAX, NativeCache, NativeCode, WasmFile};

use super::front_door::permit;
use super::members_api::{Refusal, one_line};
use super::wire::{CODE_SHA256, NATIVE};

/// How long somebody waits for a compiler. It goes on without him, and he can have the code later.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);
/// Requests in progress, those that are being sent among them: of all nodes, and of one.
const ASKED_MAX: usize = 64;
const ASKED_BY_ONE_MAX: usize = 8;
/// After so long somebody who was too many may ask again.
const RETRY_AFTER_SECONDS: u32 = 5;
/// What is read from the disk at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// What the handler works with.
pub struct NativeApi {
    pub api_server: ApiServer,
    pub cache: Arc<NativeCache>,
    pub images: Arc<ImageStore>,
    /// Brings those that were pushed to another server.
    pub registry: Registry,
}

struct Served {
    api: NativeApi,
    desk: Desk,
}

/// Counts who asks.
#[derive(Clone, Default)]
struct Desk {
    asking: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// One that asks; until it is dropped.
struct Place {
    desk: Desk,
    user: String,
}

impl Desk {
    /// `None`: there are too many.
    fn take(&self, user: &str) -> Option<Place> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let own = asking.get(user).copied().unwrap_or(0);
        if own >= ASKED_BY_ONE_MAX || asking.values().sum::<usize>() >= ASKED_MAX {
            return None;
        }
        asking.insert(user.to_owned(), own + 1);
        Some(Place { desk: self.clone(), user: user.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut asking = self.desk.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = asking.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                asking.remove(&self.user);
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct Details {
    manifest: String,
    namespace: String,
}

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    file: Digest,
    manifest: Digest,
    namespace: String,
}

/// What is wrong with a request. Pure.
fn judge(own: &str, compatibility: &str, digest: &str, details: Details) -> Result<Wanted, Status> {
    if compatibility != own {
        return Err(Status::not_acceptable(format!(
            "this server's engine makes code for {own}, and {compatibility} is wanted: its version or processor differs"
        )));
    }
    let parsed = |text: &str| {
        text.parse::<Digest>().map_err(|error| Status::bad_request(format!("{text:?} is no digest: {error}")))
    };
    let Details { manifest, namespace } = details;
    if !api::meta::is_dns_subdomain(&namespace) {
        return Err(Status::bad_request(format!("{namespace:?} is no name of a namespace")));
    }
    Ok(Wanted { file: parsed(digest)?, manifest: parsed(&manifest)?, namespace })
}

pub fn routes(api: NativeApi) -> Router {
    let served = Arc::new(Served { api, desk: Desk::default() });
    Router::new()
        .route(&format!("{NATIVE}/{{compatibility}}/{{digest}}"), get(code))
        .layer(from_fn_with_state(Arc::clone(&served), authorize))
        .with_state(served)
}

async fn authorize(State(served): State<Arc<Served>>, request: Request, next: Next) -> Response {
    match permit(&served.api.api_server, &request) {
        Ok(()) => next.run(request).await,
        Err(status) => Refusal::from(status).into_response(),
    }
}

async fn code(
    State(served): State<Arc<Served>>,
    Extension(user): Extension<UserInfo>,
    Path((compatibility, digest)): Path<(String, String)>,
    Query(details): Query<Details>,
) -> Result<Response, Refusal> {
    let wanted = judge(wasm_runtime::compatibility(), &compatibility, &digest, details)?;
    let busy = || Status::too_many_requests("too many ask this server for native code", RETRY_AFTER_SECONDS);
    let place = Arc::new(served.desk.take(&user.name).ok_or_else(busy)?);
    // It goes on when the node does not wait for it: another one may, and this one may come again.
    let (work, held) = (wanted.clone(), Arc::clone(&place));
    let made = tokio::spawn(async move {
        let made = served.api.code(&work).await;
        drop(held);
        made
    });
    let made = tokio::time::timeout(ANSWER_WITHIN, made).await;
    let made = made.map_err(|_| Status::timeout(format!("it was not compiled within {ANSWER_WITHIN:?}")))?;
    let code = made.map_err(Status::internal)??;
    if code.bytes > CODE_BYTES_MAX {
        let (is, most) = (code.bytes, CODE_BYTES_MAX);
        return Err(Status::unprocessable(format!("its native code is {is} bytes, {most} are sent at most")).into());
    }
    let NativeCode { file, bytes, sha256, .. } = code;
    tracing::info!(digest = %wanted.file, to = user.name, bytes, "native code was given");
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH.as_str(), bytes.to_string()),
        (CODE_SHA256, sha256),
    ];
    Ok((headers, Body::from_stream(chunks(file, place))).into_response())
}

impl NativeApi {
    /// From the cache, or compiled now.
    async fn code(&self, wanted: &Wanted) -> Result<NativeCode, Status> {
        let (cache, digest) = (Arc::clone(&self.cache), wanted.file.to_string());
        // Its seal is looked at, which reads it whole.
        let known = tokio::task::spawn_blocking(move || cache.find(&digest)).await;
        if let Some(code) = known.map_err(Status::internal)? {
            return Ok(code);
        }
        if let Err(error) = self.registry.bring(&wanted.manifest).await {
            tracing::debug!(%error, manifest = %wanted.manifest, "an image is not brought from another server");
        }
        let found = image::wasm_file(&self.images, &wanted.manifest).await;
        let found = found.map_err(|error| Status::unavailable(one_line(error)))?;
        let name = wanted.manifest.to_string();
        let missing = || Status::not_found(&Subject { group: "", resource: "images", name: &name });
        let (path, digest) = found.ok_or_else(missing)?;
        if digest != wanted.file {
            let (is, not) = (&digest, &wanted.file);
            return Err(Status::bad_request(format!("the image of manifest {name} has the file {is}, not {not}")));
        }
        let (digest, namespace) = (digest.to_string(), &wanted.namespace);
        let wasm = WasmFile { path: &path, digest: &digest, manifest: &name, namespace };
        self.cache.prepare(wasm, None).await.map_err(|error| Status::unprocessable(one_line(error)))
    }
}

/// The file in pieces; `place` is held until they are read.
fn chunks(file: File, place: Arc<Place>) -> impl Stream<Item = io::Result<Bytes>> {
    let state = Some((tokio::fs::File::from_std(file), place));
    futures::stream::unfold(state, |state| async move {
        let (mut file, place) = state?;
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK_BYTES);
        match file.read_buf(&mut chunk).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(chunk.freeze()), Some((file, place)))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered() {
        let (a, b) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
        let check = |compatibility: &str, digest: &str, (manifest, namespace): (&str, &str), expect: &str| {
            let details = Details { manifest: manifest.to_owned(), namespace: namespace.to_owned() };
            match judge("0123", compatibility, digest, details) {
                Ok(wanted) => {
                    assert_eq!(expect, "");
                    assert_eq!((wanted.file.as_str(), wanted.manifest.as_str()), (digest, manifest));
                }
                Err(status) => {
                    let said = format!("{} {}", status.code, status.message);
                    assert!(!expect.is_empty() && said.contains(expect), "{said}");
                }
            }
        };
        check("0123", &a, (&b, "default"), "");
        check("4567", &a, (&b, "default"), "406 this server's engine makes code for 0123");
        check("0123", "../../etc/passwd", (&b, "default"), "400");
        check("0123", &a, ("latest", "default"), "is no digest");
        check("0123", &a, (&b, "no/name"), "is no name of a namespace");
    }

    #[test]
    fn nobody_takes_all_places() {
        let desk = Desk::default();
        let mut places: Vec<Place> = (0..ASKED_BY_ONE_MAX).filter_map(|_| desk.take("one")).collect();
        assert_eq!(places.len(), ASKED_BY_ONE_MAX);
        assert!(desk.take("one").is_none());
        for node in 0..ASKED_MAX {
            places.extend(desk.take(&format!("node {node}")));
        }
        assert_eq!(places.len(), ASKED_MAX);
        assert!(desk.take("another").is_none());
        places.clear();
        assert!(desk.asking.lock().expect("nobody panicked").is_empty());
        assert!(desk.take("one").is_some());
    }
}

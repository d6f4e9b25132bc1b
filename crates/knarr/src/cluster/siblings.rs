//! Content of images between the servers of a cluster: asked for, and given.
//!
//! Owns: which other servers are asked, with which identity, and the handler of `wire::BLOBS`. A server gives what is in
//! its own store and asks nobody for it, so that no question goes in a circle. May not know: names of images, and when
//! content is wanted.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use api::status::Status;
use apiserver::ApiServer;
use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use futures::stream::BoxStream;
use image::{Digest, Registry, Siblings, UpstreamError};
use rustls::ClientConfig;
use tokio::sync::Semaphore;

use super::config::ClusterConfig;
use super::front_door::permit;
use super::members_api::Refusal;
use super::wire::BLOBS;
use crate::agent::servers::{Servers, Unreached};
use crate::agent::upkeep::server_addresses;
use crate::agent::upstream::ask;
use crate::pki::{Authority, Identity};

/// As whom a server asks the others.
const USER: &str = "system:knarr-server";
/// A server that could not be reached is not asked for so long: somebody waits for the answer.
const AVOIDED_FOR: Duration = Duration::from_secs(10);
/// Blobs that are being sent at a time.
const SENT_MAX: usize = 32;
const RETRY_AFTER_SECONDS: u32 = 2;

/// The other servers, as this one reaches them.
pub struct OtherServers {
    servers: Servers,
    tls: ClientConfig,
    /// `host:port` of this one.
    here: String,
    /// Lists the servers.
    client: kube::Client,
    unreached: Unreached,
}

impl OtherServers {
    pub fn new(config: &ClusterConfig, authority: &Authority, client: kube::Client) -> Result<Self> {
        let leaf = authority.client(&Identity { user: USER, groups: &[] })?;
        let servers = Servers::new(Vec::new(), config.reachable_ip());
        let tls = authority.client_config(&leaf)?;
        Ok(Self { servers, tls, here: config.own_address(), client, unreached: Unreached::new(AVOIDED_FOR) })
    }

    async fn others(&self) -> Vec<String> {
        match server_addresses(&self.client).await {
            Ok(servers) => drop(self.servers.learn(servers)),
            Err(error) => tracing::debug!(error = format!("{error:#}"), "cannot learn who the servers are"),
        }
        self.servers.known().iter().filter(|server| **server != self.here).cloned().collect()
    }
}

#[async_trait]
impl Siblings for OtherServers {
    async fn blob(&self, digest: &Digest) -> Result<BoxStream<'static, Result<Bytes, UpstreamError>>, UpstreamError> {
        let path = format!("{BLOBS}/{digest}");
        let mut unanswered = None;
        let unreached = self.unreached.list();
        for server in self.others().await {
            if unreached.contains(&server) {
                unanswered = Some(format!("{server} did not answer a moment ago"));
                continue;
            }
            match ask(&self.servers.alone(&server), &self.tls, &path, "").await {
                Ok(fetched) => {
                    tracing::info!(%digest, from = server, "content of an image is brought");
                    return Ok(fetched.body);
                }
                Err(UpstreamError::NotFound) => {}
                Err(UpstreamError::Refused { why }) => unanswered = Some(format!("{server}: {why}")),
                Err(UpstreamError::Unreachable { why }) => {
                    self.unreached.note(&server);
                    unanswered = Some(format!("{server}: {why}"));
                }
            }
        }
        // One that could not be asked may have it.
        Err(unanswered.map_or(UpstreamError::NotFound, |why| UpstreamError::Unreachable { why }))
    }
}

struct Given {
    api_server: ApiServer,
    registry: Registry,
    sent: Arc<Semaphore>,
}

/// What this server gives others. By default only they may ask (role `system:knarr-server`).
pub fn routes(api_server: &ApiServer, registry: &Registry) -> Router {
    let sent = Arc::new(Semaphore::new(SENT_MAX));
    let given = Arc::new(Given { api_server: api_server.clone(), registry: registry.clone(), sent });
    Router::new()
        .route(&format!("{BLOBS}/{{digest}}"), get(blob))
        .layer(from_fn_with_state(Arc::clone(&given), authorize))
        .with_state(given)
}

async fn authorize(State(given): State<Arc<Given>>, request: Request, next: Next) -> Response {
    match permit(&given.api_server, &request) {
        Ok(()) => next.run(request).await,
        Err(status) => Refusal::from(status).into_response(),
    }
}

async fn blob(State(given): State<Arc<Given>>, Path(digest): Path<String>) -> Result<Response, Refusal> {
    let busy = |_| Status::too_many_requests("too much is being sent to other servers", RETRY_AFTER_SECONDS);
    let place = Arc::clone(&given.sent).try_acquire_owned().map_err(busy)?;
    let (parts, body) = given.registry.own_blob(&digest).await.into_parts();
    let held = body.into_data_stream().map(move |chunk| {
        let _until_it_is_sent = &place;
        chunk
    });
    Ok(Response::from_parts(parts, Body::from_stream(held)))
}

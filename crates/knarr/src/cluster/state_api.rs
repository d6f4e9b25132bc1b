//! What a server tells about its state as a whole: a backup, and the keys its disk needs.
//!
//! Owns: the handlers of `wire::BACKUP` and `wire::KEYS`. They are behind the same door as `members_api`, and a
//! backup holds every Secret and the authorities' keys: who may `get` it owns the cluster.
//! May not know: the backup's format.

use std::sync::Arc;

use api::status::Status;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;

use super::members_api::{MembersApi, Refusal, one_line};
use super::wire::{AuthorityPem, BackupHeader, KeyList};

/// The whole state at one revision, in pieces as fast as they are taken.
pub async fn backup(State(members): State<Arc<MembersApi>>) -> Result<Response, Refusal> {
    let header = BackupHeader {
        cluster_authority: AuthorityPem::from(members.cluster_authority.pem()),
        peer_authority: members.peer_authority.as_ref().map(|authority| AuthorityPem::from(authority.pem())),
    };
    let header = serde_json::to_vec(&header).map_err(Status::internal)?;
    let backup =
        members.store.backup(Bytes::from(header)).await.map_err(|error| Status::unavailable(one_line(error)))?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(backup)).into_response())
}

/// Which keys something on the disk needs.
pub async fn keys(State(members): State<Arc<MembersApi>>) -> Result<Json<KeyList>, Refusal> {
    let in_use = members.store.keys_in_use().await.map_err(|error| Status::unavailable(one_line(error)))?;
    Ok(Json(KeyList { in_use: in_use.keys.iter().map(|key| key.0).collect(), plain: in_use.plain }))
}

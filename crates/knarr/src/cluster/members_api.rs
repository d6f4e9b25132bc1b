//! The cluster's side of joining, and of everything else that is about its servers.
//!
//! Owns: the handlers below `wire::PREFIX`. A join token opens the one path, and that of nodes (`nodes_api`); the others are
//! non-resource URLs for RBAC (verbs `get`, `put`, `post`, `delete`), which by default only
//! `system:masters` may use. May not know: how members agree.

use std::sync::Arc;

use api::status::{Status, Subject};
use apiserver::{ApiServer, ObjectFacets};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde::de::DeserializeOwned;
use store::{Alarm, MemberError, MemberId, Role, Store};

use super::front_door::permit;
use super::wire::{
    Admission, AuthorityPem, BACKUP, Enrolment, JOIN, JoinRequest, KEYS, MEMBERS, MemberEntry, MemberList, MemberRole,
    NODES,
};
use super::{nodes_api, state_api};
use crate::join_token::{self, JoinToken, TokenError, Usage};
use crate::pki::Authority;

/// Bodies are an id and a few addresses.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// What the handlers work with.
pub struct MembersApi {
    pub api_server: ApiServer,
    pub store: Store<ObjectFacets>,
    /// Reads Secrets.
    pub client: kube::Client,
    pub cluster_authority: Arc<Authority>,
    /// `None`: this process reaches no other members, and nobody can join.
    pub peer_authority: Option<Arc<Authority>>,
}

/// A `Status` as an answer.
pub struct Refusal(Status);

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl From<MemberError> for Refusal {
    fn from(error: MemberError) -> Self {
        let status: fn(String) -> Status = match &error {
            MemberError::IdUsed { .. }
            | MemberError::IdUnknown { .. }
            | MemberError::NotALearner { .. }
            | MemberError::NotAVoter { .. }
            | MemberError::LastVoter { .. }
            | MemberError::Addresses
            | MemberError::Refused { .. } => Status::bad_request,
            MemberError::NotAMember { member } => return Self(not_a_member(member.0)),
            MemberError::Behind { .. } | MemberError::NotTakenOver { .. } => Status::timeout,
            MemberError::NotLeader { .. } | MemberError::Unknown(_) | MemberError::Failed(_) => Status::unavailable,
        };
        Self(status(one_line(error)))
    }
}

/// An error with its causes.
pub fn one_line(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.0.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, Json(self.0.to_value())).into_response()
    }
}

fn not_a_member(id: u64) -> Status {
    Status::not_found(&Subject { group: "", resource: "members", name: &id.to_string() })
}

pub fn routes(members: MembersApi) -> Router {
    let members = Arc::new(members);
    let guarded = Router::new()
        .route(BACKUP, get(state_api::backup))
        .route(KEYS, get(state_api::keys))
        .route(MEMBERS, get(list))
        .route(&format!("{MEMBERS}/{{id}}"), put(admit).delete(remove))
        .route(&format!("{MEMBERS}/{{id}}/lead"), post(lead))
        .layer(from_fn_with_state(members.clone(), authorize));
    Router::new()
        .route(JOIN, post(join))
        .route(NODES, post(nodes_api::enrol))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(members)
}

async fn authorize(State(members): State<Arc<MembersApi>>, request: Request, next: Next) -> Response {
    match permit(&members.api_server, &request) {
        Ok(()) => next.run(request).await,
        Err(status) => Refusal(status).into_response(),
    }
}

pub fn parsed<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal(Status::bad_request(format!("the body is not as expected: {error}"))))
}

async fn join(
    State(members): State<Arc<MembersApi>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Enrolment>, Refusal> {
    members.check_token(&headers, Usage::Server).await?;
    let Some(peers) = &members.peer_authority else {
        return Err(Refusal(Status::bad_request(
            "this cluster runs as `knarr up`, which is a cluster of one server: start it as `knarr server` instead",
        )));
    };
    let request: JoinRequest = parsed(&body)?;
    if let Some(replaced) = request.replaces
        && members.role_of(replaced).is_none()
    {
        return Err(Refusal(not_a_member(replaced)));
    }
    let member = members.store.reserve_member().await?;
    Ok(Json(Enrolment {
        member: member.0,
        cluster_authority: AuthorityPem::from(members.cluster_authority.pem()),
        peer_authority: AuthorityPem::from(peers.pem()),
    }))
}

async fn list(State(members): State<Arc<MembersApi>>) -> Json<MemberList> {
    let seen = members.store.members();
    let entries = seen.members.into_iter().map(|member| MemberEntry {
        id: member.id.0,
        addresses: member.addresses,
        role: match member.role {
            Role::Voter => MemberRole::Voter,
            Role::Learner => MemberRole::Learner,
        },
        log_end: member.log_end,
    });
    Json(MemberList {
        me: seen.me.0,
        leader: seen.leader.map(|leader| leader.0),
        term: seen.term,
        alarm: words(&members.store.alarms().borrow()),
        syncs: members.store.syncs(),
        members: entries.collect(),
    })
}

/// Empty when all is well.
pub fn words(alarm: &Alarm) -> String {
    match alarm {
        Alarm::None => String::new(),
        Alarm::Diverged { members, revision } => {
            let ids: Vec<String> = members.iter().map(ToString::to_string).collect();
            format!("at revision {revision} the state of member {} differs from this one's", ids.join(", "))
        }
        Alarm::Quarantined { revision } => {
            format!("at revision {revision} this member's state differs from that of the majority")
        }
    }
}

/// Idempotent: a newcomer asks again after a crash or a lost answer.
async fn admit(
    State(members): State<Arc<MembersApi>>,
    Path(id): Path<u64>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let admission: Admission = parsed(&body)?;
    let member = MemberId(id);
    match members.role_of(id) {
        Some(Role::Voter) => return Ok(StatusCode::OK),
        Some(Role::Learner) => members.store.set_addresses(member, admission.addresses).await?,
        None => members.store.add_learner(member, admission.addresses).await?,
    }
    match admission.replaces {
        // It was removed meanwhile.
        Some(dead) if members.role_of(dead).is_none() => members.store.promote(member).await?,
        Some(dead) => members.store.replace_dead(MemberId(dead), member).await?,
        None => members.store.promote(member).await?,
    }
    Ok(StatusCode::OK)
}

async fn remove(State(members): State<Arc<MembersApi>>, Path(id): Path<u64>) -> Result<StatusCode, Refusal> {
    members.store.remove_member(MemberId(id)).await?;
    Ok(StatusCode::OK)
}

async fn lead(State(members): State<Arc<MembersApi>>, Path(id): Path<u64>) -> Result<StatusCode, Refusal> {
    members.store.transfer_leadership(MemberId(id)).await?;
    Ok(StatusCode::OK)
}

impl MembersApi {
    fn role_of(&self, id: u64) -> Option<Role> {
        self.store.members().members.into_iter().find(|member| member.id.0 == id).map(|member| member.role)
    }

    /// A join token that is good for this.
    pub async fn check_token(&self, headers: &HeaderMap, wanted: Usage) -> Result<(), Status> {
        let unauthorized = |why: &dyn std::fmt::Display| Status { message: why.to_string(), ..Status::unauthorized() };
        let token: JoinToken = bearer(headers).parse().map_err(|error| unauthorized(&error))?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), join_token::NAMESPACE);
        let unavailable = |error: kube::Error| Status::unavailable(format!("the token cannot be looked up: {error}"));
        let secret = secrets.get_opt(&token.secret_name()).await.map_err(unavailable)?.unwrap_or_default();
        let data = secret.data.unwrap_or_default();
        let field = |name: &str| data.get(name).map(|value| String::from_utf8_lossy(&value.0)).unwrap_or_default();
        // A Secret that anybody may have made is no token.
        let known = secret.type_.as_deref() == Some(join_token::SECRET_TYPE);
        let hash = if known { field("secret-sha256") } else { "".into() };
        token.check(&hash, &field("expiration"), Timestamp::now()).map_err(|error| unauthorized(&error))?;
        if Usage::of(&field("usage")).is_some_and(|usage| usage.covers(wanted)) {
            return Ok(());
        }
        Err(unauthorized(&TokenError::ForNodes))
    }
}

/// Empty without one.
pub fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    value.unwrap_or("")
}

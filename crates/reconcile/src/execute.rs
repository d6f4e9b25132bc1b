//! Runs plans: the only place of the control loops that writes to the API.
//!
//! It makes no choice. Neighbouring creates (or deletes) run side by side in batches of 1, 2, 4, …: a quota or an
//! admission check that refuses the first costs one request, not a thousand. The first failure ends the plan; the
//! caller requeues and plans anew from what is then true.

use std::collections::HashMap;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use http::{Method, Request};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::action::{ApiAction, Narration, PatchBody, Plan};
use crate::events::{EventType, Note, Recorder};

/// Requests of one plan under way at a time.
pub const PARALLEL_MAX: usize = 64;

/// A request the API server refused, or which did not reach it.
#[derive(Debug, Error)]
#[error("{attempt}")]
pub struct ActionError {
    /// `create pods/web/front-*`
    pub attempt: String,
    #[source]
    pub source: Box<kube::Error>,
}

impl ActionError {
    /// Somebody else wrote (or began to delete the namespace) first: plan again, nothing is wrong.
    #[must_use]
    pub fn is_lost_race(&self) -> bool {
        matches!(self.code(), Some(404 | 409)) || self.is_namespace_terminating()
    }

    fn is_namespace_terminating(&self) -> bool {
        let kube::Error::Api(status) = self.source.as_ref() else { return false };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let caused = causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating");
        status.code == 403 && (caused || status.message.ends_with("because it is being terminated"))
    }

    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self.source.as_ref() {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        }
    }

    /// The cause as the server words it.
    #[must_use]
    pub fn cause(&self) -> String {
        match self.source.as_ref() {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        }
    }
}

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Position of the action in its plan.
    pub index: usize,
    pub resource: String,
    pub name: String,
    pub uid: String,
    /// Resource version after it; 0 when the answer names none.
    pub revision: u64,
}

/// How far a plan came.
#[derive(Debug, Default)]
pub struct Outcome {
    pub applied: Vec<Applied>,
    pub failed: Vec<ActionError>,
}

impl Outcome {
    /// Newest revision written, per kind.
    #[must_use]
    pub fn revisions(&self) -> HashMap<String, u64> {
        let mut revisions = HashMap::new();
        for applied in &self.applied {
            let newest = revisions.entry(applied.resource.clone()).or_insert(0);
            *newest = applied.revision.max(*newest);
        }
        revisions
    }
}

/// Executes plans with one client; cheap to clone.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    recorder: Recorder,
}

impl Executor {
    #[must_use]
    pub fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder }
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Runs the actions of `plan` in order until one fails.
    pub async fn run(&self, plan: &Plan) -> Outcome {
        let mut outcome = Outcome::default();
        let mut start = 0;
        while start < plan.actions.len() && outcome.failed.is_empty() {
            let group = group_length(&plan.actions[start..]);
            self.run_group(&plan.actions[start..start + group], start, &mut outcome).await;
            start += group;
        }
        outcome
    }

    async fn run_group(&self, group: &[ApiAction], first: usize, outcome: &mut Outcome) {
        let (mut begun, mut batch) = (0, 1);
        while begun < group.len() && outcome.failed.is_empty() {
            let end = group.len().min(begun + batch);
            let mut running: FuturesOrdered<_> =
                (begun..end).map(|at| async move { (at, self.perform(&group[at]).await) }).collect();
            while let Some((at, result)) = running.next().await {
                match result {
                    Ok(Some(answer)) => outcome.applied.push(answer.applied(first + at)),
                    Ok(None) => {}
                    Err(error) => outcome.failed.push(error),
                }
            }
            begun = end;
            batch = (batch * 2).min(PARALLEL_MAX);
        }
    }

    async fn perform(&self, action: &ApiAction) -> Result<Option<Answer>, ActionError> {
        let narration = match action {
            ApiAction::Event(note) => {
                self.recorder.record(note.clone());
                return Ok(None);
            }
            ApiAction::Create { narration, .. } | ApiAction::Delete { narration, .. } => narration.as_ref(),
            ApiAction::Patch { .. } | ApiAction::DeleteCollection { .. } | ApiAction::UpdateStatus { .. } => None,
        };
        match self.send(action).await {
            Ok(metadata) => {
                if let (Some(story), Some(metadata)) = (narration, &metadata) {
                    let name = metadata.name.as_deref().unwrap_or_default();
                    self.recorder.record(told(story, name));
                }
                Ok(metadata.map(|metadata| Answer { resource: resource_of(action), metadata }))
            }
            Err(source) => {
                let error = ActionError { attempt: action.summary(), source: Box::new(source) };
                if let Some(story) = narration.filter(|_| !error.is_lost_race()) {
                    self.recorder.record(told_failure(story, &error));
                }
                Err(error)
            }
        }
    }

    /// Sends one action; `None` when there was nothing left to delete.
    async fn send(&self, action: &ApiAction) -> Result<Option<ObjectMeta>, kube::Error> {
        let answer = self.client.request::<Envelope>(request(action)).await;
        match (action, answer) {
            (_, Ok(envelope)) => Ok(Some(envelope.metadata)),
            // Gone, or another incarnation under the same name: what was to be deleted is deleted.
            (ApiAction::Delete { .. } | ApiAction::DeleteCollection { .. }, Err(kube::Error::Api(status)))
                if status.code == 404 =>
            {
                Ok(None)
            }
            (ApiAction::Delete { uid: Some(_), .. }, Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
            (_, Err(error)) => Err(error),
        }
    }
}

/// The part of any answer that matters here; a bare `Status` has none of it.
#[derive(Debug, Default, Deserialize)]
struct Envelope {
    #[serde(default, deserialize_with = "crate::head::metadata")]
    metadata: ObjectMeta,
}

struct Answer {
    resource: String,
    metadata: ObjectMeta,
}

impl Answer {
    fn applied(self, index: usize) -> Applied {
        Applied {
            index,
            resource: self.resource,
            name: self.metadata.name.unwrap_or_default(),
            uid: self.metadata.uid.unwrap_or_default(),
            revision: self.metadata.resource_version.and_then(|version| version.parse().ok()).unwrap_or(0),
        }
    }
}

/// How many actions from the front may run side by side: a run of creates or of deletes of one kind.
fn group_length(actions: &[ApiAction]) -> usize {
    let class = |action: &ApiAction| match action {
        ApiAction::Create { target, .. } => Some((0, target.resource.clone())),
        ApiAction::Delete { target, .. } => Some((1, target.resource.clone())),
        ApiAction::Patch { .. }
        | ApiAction::DeleteCollection { .. }
        | ApiAction::UpdateStatus { .. }
        | ApiAction::Event(_) => None,
    };
    match actions.first().and_then(class) {
        None => 1,
        first => actions.iter().take_while(|action| class(action) == first).count(),
    }
}

fn resource_of(action: &ApiAction) -> String {
    match action {
        ApiAction::Create { target, .. }
        | ApiAction::Patch { target, .. }
        | ApiAction::Delete { target, .. }
        | ApiAction::DeleteCollection { target, .. }
        | ApiAction::UpdateStatus { target, .. } => target.resource.to_string(),
        ApiAction::Event(_) => "events".to_owned(),
    }
}

fn request(action: &ApiAction) -> Request<Vec<u8>> {
    let named = |target: &crate::Target, subresource: Option<&str>| {
        let suffix = subresource.map(|subresource| format!("/{subresource}")).unwrap_or_default();
        format!("{}/{}{suffix}", target.collection_path(), target.name)
    };
    let json = "application/json";
    match action {
        ApiAction::Create { target, subresource: None, body, .. } => {
            built(Method::POST, target.collection_path(), json, body)
        }
        ApiAction::Create { target, subresource, body, .. } => {
            built(Method::POST, named(target, *subresource), json, body)
        }
        ApiAction::Patch { target, subresource, body } => {
            let (content_type, body) = match body {
                PatchBody::Merge(body) => ("application/merge-patch+json", body),
                PatchBody::Json(body) => ("application/json-patch+json", body),
                PatchBody::Strategic(body) => ("application/strategic-merge-patch+json", body),
            };
            built(Method::PATCH, named(target, *subresource), content_type, body)
        }
        ApiAction::Delete { target, uid, propagation, grace_period_seconds, .. } => {
            let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions" });
            if let Some(uid) = uid {
                options["preconditions"] = json!({ "uid": uid });
            }
            if let Some(propagation) = propagation {
                options["propagationPolicy"] = json!(propagation);
            }
            if let Some(seconds) = grace_period_seconds {
                options["gracePeriodSeconds"] = json!(seconds);
            }
            built(Method::DELETE, named(target, None), json, &options)
        }
        ApiAction::DeleteCollection { target, propagation } => {
            let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions" });
            if let Some(propagation) = propagation {
                options["propagationPolicy"] = json!(propagation);
            }
            built(Method::DELETE, target.collection_path(), json, &options)
        }
        ApiAction::UpdateStatus { target, subresource, body } => {
            built(Method::PUT, named(target, Some(subresource)), json, body)
        }
        ApiAction::Event(_) => unreachable!("events go to the recorder, perform() took them out"),
    }
}

fn built(method: Method, path: String, content_type: &str, body: &Value) -> Request<Vec<u8>> {
    let body = serde_json::to_vec(body).expect("a JSON value can always be written");
    Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, content_type)
        .header(http::header::ACCEPT, "application/json")
        .body(body)
        .expect("object names are URL-safe: the API server accepted them")
}

fn told(story: &Narration, name: &str) -> Note {
    Note {
        regarding: story.regarding.clone(),
        event_type: EventType::Normal,
        reason: story.done_reason.to_owned(),
        message: story.done_message.replace("{name}", name),
    }
}

fn told_failure(story: &Narration, error: &ActionError) -> Note {
    Note {
        regarding: story.regarding.clone(),
        event_type: EventType::Warning,
        reason: story.failed_reason.to_owned(),
        message: story.failed_message.replace("{error}", &error.cause()),
    }
}

#[cfg(test)]
#[path = "execute_tests.rs"]
mod tests;

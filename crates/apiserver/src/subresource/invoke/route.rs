//! Which pods serve a function: those of its status' revision that are ready. Remembered until one of them changes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use api::function::{NAME_LABEL, REVISION_LABEL};
use api::status::Status;
use bytes::Bytes;
use serde_json::Value;
use store::Revision;
use tokio::sync::Semaphore;

use super::INVOKES_AT_ONCE_MAX;
use crate::core::{Entry, Request, Snapshot, core_kind, prefix};
use crate::object::encode::decode;

/// Functions remembered; all are forgotten when there are more.
const ROUTES_MAX: usize = 10_000;

/// Remembers routes; shared by all requests.
pub struct Routes {
    known: Mutex<HashMap<Bytes, Arc<Route>>>,
    pub permits: Arc<Semaphore>,
}

/// A pod that serves calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRoute {
    pub name: String,
    pub node: String,
    key: Bytes,
    revision: Revision,
}

/// The pods of one function, as one state of the store has them.
struct Route {
    function: Revision,
    pods: Vec<PodRoute>,
    turn: AtomicUsize,
}

impl Route {
    /// Nothing that it was made from has changed. A pod that became ready shows in the function's status.
    fn holds(&self, view: &Snapshot, function: &Entry) -> bool {
        let same = |pod: &PodRoute| view.get(&pod.key).is_some_and(|entry| entry.mod_revision == pod.revision);
        self.function == function.mod_revision && self.pods.iter().all(same)
    }
}

impl Route {
    fn next(&self, tried: &[String]) -> PodRoute {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..self.pods.len()).map(|offset| &self.pods[(turn + offset) % self.pods.len()]);
        let untried = in_turn().find(|pod| !tried.contains(&pod.name));
        untried.or_else(|| in_turn().next()).cloned().expect("a route has pods")
    }
}

impl Default for Routes {
    fn default() -> Self {
        Self { known: Mutex::default(), permits: Arc::new(Semaphore::new(INVOKES_AT_ONCE_MAX)) }
    }
}

impl Routes {
    /// The pod whose turn it is, not one of those that were tried already if there is another. After a try it looks
    /// past what is remembered, and past what this member has heard of.
    pub async fn pod(&self, request: &Request, tried: &[String]) -> Result<PodRoute, Status> {
        if tried.is_empty()
            && let Ok(route) = self.in_view(request, &request.core.store.view(), true)
        {
            return Ok(route.next(tried));
        }
        Ok(self.in_view(request, &request.core.fresh().await?, false)?.next(tried))
    }

    fn in_view(&self, request: &Request, view: &Snapshot, remembered: bool) -> Result<Arc<Route>, Status> {
        let function = request.find(view)?;
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known().get(&function.key).cloned();
        if let Some(route) = before.as_ref().filter(|route| remembered && route.holds(view, &function)) {
            return Ok(Arc::clone(route));
        }
        let turn = before.map_or(0, |route| route.turn.load(Ordering::Relaxed));
        let route = Arc::new(Route { turn: AtomicUsize::new(turn), ..make(request, view, &function)? });
        let mut known = known();
        if known.len() >= ROUTES_MAX {
            known.clear();
        }
        known.insert(function.key.clone(), Arc::clone(&route));
        Ok(route)
    }
}

fn make(request: &Request, view: &Snapshot, function: &Entry) -> Result<Route, Status> {
    let object = decode(&function.value);
    let revision = object.pointer("/status/revision").and_then(Value::as_str).unwrap_or("");
    let of_function = |entry: &&Entry| {
        entry.facets.label(NAME_LABEL) == Some(request.name.as_str())
            && entry.facets.label(REVISION_LABEL) == Some(revision)
    };
    let pods = prefix(core_kind("pods"), &request.namespace);
    let pods: Vec<PodRoute> = view.range(&pods, None).filter(of_function).filter_map(serving).collect();
    if pods.is_empty() {
        return Err(not_ready(request, &object));
    }
    Ok(Route { function: function.mod_revision, pods, turn: AtomicUsize::new(0) })
}

fn serving(entry: &Entry) -> Option<PodRoute> {
    let pod = decode(&entry.value);
    let node = pod.pointer("/spec/nodeName")?.as_str()?.to_owned();
    let conditions = pod.pointer("/status/conditions")?.as_array()?;
    let ready = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let stays = api::meta::deletion_timestamp(&pod).is_empty();
    let route =
        PodRoute { name: api::meta::name(&pod).to_owned(), node, key: entry.key.clone(), revision: entry.mod_revision };
    (ready && stays).then_some(route)
}

fn not_ready(request: &Request, function: &Value) -> Status {
    let conditions = function.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let why = ready.and_then(|condition| condition["message"].as_str()).unwrap_or("its pods are starting");
    let mut status = Status::unavailable(format!("function {:?} has no pod that serves calls: {why}", request.name));
    status.details = serde_json::json!({ "retryAfterSeconds": 1 });
    status
}

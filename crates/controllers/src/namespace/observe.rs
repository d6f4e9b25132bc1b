//! What is left in a namespace: a live list of the metadata of every namespaced kind, those of extension servers among
//! them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::ListParams;
use reconcile::{ApiAction, Cache, Clock, Controller, Freshness, ObserveError, Outcome, Plan};

use super::extensions;
use super::plan::{Failures, Left, Observed, Remaining, plan};
use crate::customs::KnownCustoms;
use crate::kinds::{dynamic_api, kept};
use crate::setup::Setup;

/// Objects of one kind looked at in one round.
const PAGE: u32 = 500;

/// Why the last attempt at a collection came to nothing, by its qualified name.
type Refused = BTreeMap<String, String>;

pub struct NamespaceController {
    client: Client,
    namespaces: Cache<Namespace>,
    customs: KnownCustoms,
    clock: Arc<dyn Clock>,
    /// Of namespaces that are being deleted.
    refused: Mutex<HashMap<String, Refused>>,
}

impl NamespaceController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            client: setup.client.clone(),
            namespaces: setup.watches.namespaces.cache(),
            customs: setup.customs.known(),
            clock: Arc::clone(&setup.clock),
            refused: Mutex::default(),
        }
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<String, Refused>> {
        self.refused.lock().expect("no holder of this lock can panic")
    }

    async fn remaining(&self, namespace: &str) -> Result<Vec<Remaining>, ObserveError> {
        let mut remaining = Vec::new();
        // A namespace must not go before the objects of kinds that are only just becoming known.
        self.customs.ready().await;
        for kind in kept().chain(self.customs.all()).filter(|kind| kind.namespaced) {
            let objects = dynamic_api(&self.client, kind, namespace);
            let list = objects.list_metadata(&ListParams::default().limit(PAGE)).await;
            if kind.is_custom() && list.as_ref().is_err_and(is_not_found) {
                // Its definition went meanwhile, and its objects with it.
                continue;
            }
            let list = list.map_err(|source| ObserveError {
                what: format!("{} in namespace {namespace}", kind.qualified_resource()),
                source: Box::new(source),
            })?;
            let more = list.metadata.remaining_item_count;
            let objects = list.items.into_iter().map(|object| left(object.metadata)).collect();
            remaining.extend(Remaining::of(kind.into(), objects, more));
        }
        Ok(remaining)
    }

    async fn observe(&self, namespace: Arc<Namespace>, name: &str) -> Result<Observed, ObserveError> {
        let mut remaining = self.remaining(name).await?;
        let registered = extensions::registered(&self.client).await;
        let registered =
            registered.map_err(|source| ObserveError { what: "APIServices".to_owned(), source: Box::new(source) })?;
        let (foreign, mut failures) = foreign(&self.client, name, &registered).await;
        remaining.extend(foreign);
        let refused = self.refused().get(name).cloned().unwrap_or_default();
        let why_not = |one: &Remaining| refused.get(&one.of.qualified());
        failures.content.extend(remaining.iter().filter_map(why_not).cloned());
        // A plan ends with the first request that fails. What failed last time comes last.
        remaining.sort_by_key(|one| why_not(one).is_some());
        Ok(Observed { namespace, remaining, failures, now: self.clock.now() })
    }
}

/// What extension servers keep in a namespace, and of whom that cannot be said.
async fn foreign(
    client: &Client,
    namespace: &str,
    registered: &[extensions::GroupVersion],
) -> (Vec<Remaining>, Failures) {
    let (mut remaining, mut failures, mut seen) = (Vec::new(), Failures::default(), BTreeSet::new());
    for of in registered {
        let collections = match extensions::collections(client, of, &mut seen).await {
            Ok(collections) => collections,
            Err(why) => {
                failures.discovery.push((of.text(), why));
                continue;
            }
        };
        for of in collections {
            match extensions::list(client, &of, namespace).await {
                Ok(list) => {
                    let more = list.metadata.remaining_item_count;
                    let objects = list.items.into_iter().map(|object| left(object.metadata)).collect();
                    remaining.extend(Remaining::of(of, objects, more));
                }
                Err(why) => failures.content.push(format!("{}: {why}", of.qualified())),
            }
        }
    }
    (remaining, failures)
}

fn left(metadata: ObjectMeta) -> Left {
    Left {
        name: metadata.name.unwrap_or_default(),
        deleting: metadata.deletion_timestamp.is_some(),
        finalizers: metadata.finalizers.unwrap_or_default(),
    }
}

/// The collection that an action of a plan was about.
fn collection_of(action: &ApiAction) -> Option<String> {
    let (ApiAction::Delete { target, .. } | ApiAction::DeleteCollection { target, .. }) = action else { return None };
    let group = &target.group;
    Some(if group.is_empty() { target.resource.to_string() } else { format!("{}.{group}", target.resource) })
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[async_trait]
impl Controller for NamespaceController {
    type Key = String;

    fn name(&self) -> &'static str {
        "namespace"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.namespaces.clone())]
    }

    fn keys(&self) -> Vec<String> {
        let namespaces = self.namespaces.snapshot();
        let dying = namespaces.iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_some());
        dying.filter_map(|namespace| namespace.metadata.name.clone()).collect()
    }

    fn asks_while_planning(&self) -> bool {
        true
    }

    async fn plan(&self, key: &String) -> Result<Plan, ObserveError> {
        let Some(namespace) = self.namespaces.get_in("", key) else {
            self.refused().remove(key);
            return Ok(Plan::nothing("the namespace is gone"));
        };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(Plan::nothing("the namespace is not being deleted"));
        }
        Ok(plan(&self.observe(namespace, key).await?))
    }

    fn executed(&self, key: &String, plan: &Plan, outcome: &Outcome) {
        let mut refused = self.refused();
        let of_namespace = refused.entry(key.clone()).or_default();
        for applied in &outcome.applied {
            if let Some(collection) = plan.actions.get(applied.index).and_then(collection_of) {
                of_namespace.remove(&collection);
            }
        }
        for error in outcome.failed.iter().filter(|error| !error.is_lost_race()) {
            let attempted = plan.actions.iter().find(|action| action.summary() == error.attempt);
            if let Some(collection) = attempted.and_then(collection_of) {
                of_namespace.insert(collection, error.cause());
            }
        }
        if of_namespace.is_empty() {
            refused.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::super::collection::Emptied;
    use super::*;

    /// An API server with these answers, by path.
    fn server(answers: Vec<(&'static str, u16, Value)>) -> Client {
        let answers = Arc::new(answers);
        let service = tower::service_fn(move |request: Request<Body>| {
            let answers = Arc::clone(&answers);
            async move {
                let path = request.uri().path().to_owned();
                let found = answers.iter().find(|(known, ..)| *known == path);
                let (code, body) =
                    found.map_or((404, status(404, "no such path")), |(_, code, body)| (*code, body.clone()));
                let mut response = Response::new(Body::from(body.to_string().into_bytes()));
                *response.status_mut() = StatusCode::from_u16(code).expect("a code");
                Ok::<_, Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    fn status(code: u16, message: &str) -> Value {
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "X",
            "message": message, "metadata": {} })
    }

    fn service(version: &str, group: &str) -> Value {
        json!({ "metadata": { "name": format!("{version}.{group}") }, "spec": { "group": group, "version": version,
            "groupPriorityMinimum": 1, "versionPriority": 1, "service": { "namespace": "n", "name": "s" } } })
    }

    #[tokio::test]
    async fn extension_servers_are_asked_and_those_that_do_not_answer_are_named() {
        let services = [service("v1", "g.dev"), service("v1", "silent.dev"), service("v1", "shut.dev")];
        let list = json!({ "kind": "APIServiceList", "apiVersion": "apiregistration.k8s.io/v1", "metadata": {},
            "items": services });
        let resources = |name: &str| {
            json!({ "kind": "APIResourceList", "groupVersion": "g.dev/v1", "resources": [
                { "name": name, "singularName": "", "namespaced": true, "kind": "Flunder",
                    "verbs": ["delete", "deletecollection", "list"] }] })
        };
        let flunder = |name: &str, finalizers: Value| json!({ "kind": "Flunder", "apiVersion": "g.dev/v1", "metadata": { "name": name, "finalizers": finalizers } });
        let flunders = json!({ "kind": "FlunderList", "apiVersion": "g.dev/v1",
            "metadata": { "remainingItemCount": 3 }, "items": [flunder("a", json!(["x"])), flunder("b", json!([]))] });
        let client = server(vec![
            ("/apis/apiregistration.k8s.io/v1/apiservices", 200, list),
            ("/apis/g.dev/v1", 200, resources("flunders")),
            ("/apis/g.dev/v1/namespaces/web/flunders", 200, flunders),
            ("/apis/silent.dev/v1", 503, status(503, "error trying to reach service n/s")),
            ("/apis/shut.dev/v1", 200, resources("doors")),
            ("/apis/shut.dev/v1/namespaces/web/doors", 403, status(403, "the door is shut")),
        ]);
        let registered = extensions::registered(&client).await.expect("a list");
        let (remaining, failures) = foreign(&client, "web", &registered).await;
        assert_eq!(failures.discovery, [("silent.dev/v1".to_owned(), "error trying to reach service n/s".to_owned())]);
        assert_eq!(failures.content, ["doors.shut.dev: the door is shut"]);
        let [flunders] = remaining.as_slice() else { panic!("{} collections", remaining.len()) };
        assert_eq!((flunders.of.qualified().as_str(), flunders.total), ("flunders.g.dev", 5));
        assert_eq!(
            (flunders.of.emptied, flunders.objects[0].finalizers.as_slice()),
            (Emptied::AtOnce, &["x".to_owned()][..])
        );
        let target = flunders.of.target("web", "");
        assert_eq!(target.collection_path(), "/apis/g.dev/v1/namespaces/web/flunders");
    }

    #[test]
    fn actions_are_about_collections() {
        let target = |group: &'static str| reconcile::Target {
            group: group.into(),
            version: "v1".into(),
            kind: "K".into(),
            resource: "ks".into(),
            namespace: Some("web".to_owned()),
            name: String::new(),
        };
        let check = |action: ApiAction, expect: Option<&str>| assert_eq!(collection_of(&action).as_deref(), expect);
        check(ApiAction::DeleteCollection { target: target("g.dev"), propagation: None }, Some("ks.g.dev"));
        let core = target("");
        let delete = ApiAction::Delete {
            target: core.clone(),
            uid: None,
            propagation: None,
            grace_period_seconds: None,
            narration: None,
        };
        check(delete, Some("ks"));
        check(ApiAction::UpdateStatus { target: core, subresource: "status", body: Value::Null }, None);
    }
}

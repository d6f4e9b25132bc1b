//! A Kubernetes API in memory: objects in a map, list, watch, merge patch, delete. It checks nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;

/// `resource`, namespace (empty for the cluster's), name.
type Key = (String, String, String);

#[derive(Clone)]
pub struct FakeApi {
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<Key, Value>,
    log: Vec<(u64, Key, &'static str, Value)>,
    revision: u64,
    /// Running watches, by resource and the name they select.
    watches: Vec<(String, String)>,
}

/// Counts a watch as long as its client reads.
struct RunningWatch {
    api: FakeApi,
    key: (String, String),
}

impl Drop for RunningWatch {
    fn drop(&mut self) {
        let mut inner = self.api.locked();
        let at = inner.watches.iter().position(|watch| *watch == self.key).unwrap();
        inner.watches.swap_remove(at);
    }
}

struct Route {
    resource: String,
    namespace: String,
    name: Option<String>,
}

impl FakeApi {
    pub fn new() -> Self {
        Self { inner: Arc::default(), changed: watch::channel(0).0 }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn write(&self, key: Key, kind: &'static str, object: Option<Value>) -> Value {
        let mut inner = self.locked();
        inner.revision += 1;
        let revision = inner.revision;
        let mut value = match object {
            Some(value) => value,
            None => inner.objects.get(&key).cloned().unwrap_or_default(),
        };
        value["metadata"]["resourceVersion"] = json!(revision.to_string());
        if kind == "DELETED" {
            inner.objects.remove(&key);
        } else {
            inner.objects.insert(key.clone(), value.clone());
        }
        inner.log.push((revision, key, kind, value.clone()));
        self.changed.send_replace(revision);
        value
    }

    pub fn put(&self, resource: &str, object: Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (resource.to_owned(), text("namespace"), text("name"));
        let kind = if self.locked().objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.write(key, kind, Some(object));
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.locked().objects.get(&(resource.into(), namespace.into(), name.into())).cloned()
    }

    pub fn remove(&self, resource: &str, namespace: &str, name: &str) {
        self.write((resource.into(), namespace.into(), name.into()), "DELETED", None);
    }

    /// What `kubectl delete` does to a pod.
    pub fn delete_gracefully(&self, name: &str, seconds: i64) {
        let mut pod = self.get("pods", "default", name).unwrap();
        let by = jiff::Timestamp::now() + std::time::Duration::from_secs(seconds.unsigned_abs());
        pod["metadata"]["deletionTimestamp"] = json!(by.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(seconds);
        self.put("pods", pod);
    }

    /// `reason: message` of every Event about the object.
    pub fn events(&self, name: &str) -> Vec<String> {
        let inner = self.locked();
        let about = inner
            .objects
            .iter()
            .filter(|((resource, ..), event)| resource == "events" && event["involvedObject"]["name"] == name);
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        about.map(|(_, event)| format!("{}: {}", text(event, "reason"), text(event, "message"))).collect()
    }

    /// How many watches of this one object run.
    pub fn watches(&self, resource: &str, name: &str) -> usize {
        self.locked().watches.iter().filter(|(of, selected)| of == resource && selected == name).count()
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let query: BTreeMap<String, String> = parse_query(parts.uri.query().unwrap_or_default());
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let route = route(parts.uri.path());
        match (parts.method, route.name.clone()) {
            (Method::GET, Some(name)) => match self.get(&route.resource, &route.namespace, &name) {
                Some(object) => reply(StatusCode::OK, &object),
                None => not_found(&name),
            },
            (Method::GET, None) if query.contains_key("watch") => self.watch(&route, &query),
            (Method::GET, None) => self.list(&route, &query),
            (Method::POST, None) => {
                let mut body = body;
                if !route.namespace.is_empty() {
                    body["metadata"]["namespace"] = json!(route.namespace);
                }
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let key = (route.resource, route.namespace, name);
                reply(StatusCode::CREATED, &self.write(key, "ADDED", Some(body)))
            }
            (Method::PATCH, Some(name)) => self.patch((route.resource, route.namespace, name), &body),
            (Method::DELETE, Some(name)) => match self.get(&route.resource, &route.namespace, &name) {
                Some(object) => {
                    self.write((route.resource, route.namespace, name), "DELETED", Some(object.clone()));
                    reply(StatusCode::OK, &object)
                }
                None => not_found(&name),
            },
            (method, name) => panic!("the fake API does not know {method} {name:?}"),
        }
    }

    fn patch(&self, key: Key, patch: &Value) -> Response<Body> {
        let Some(mut object) = self.get(&key.0, &key.1, &key.2) else { return not_found(&key.2) };
        let uid = patch["metadata"]["uid"].as_str();
        if uid.is_some_and(|uid| object["metadata"]["uid"] != uid) {
            return status(StatusCode::CONFLICT, "Conflict", "uid differs");
        }
        merge(&mut object, patch);
        reply(StatusCode::OK, &self.write(key, "MODIFIED", Some(object)))
    }

    fn list(&self, route: &Route, query: &BTreeMap<String, String>) -> Response<Body> {
        let inner = self.locked();
        let fits = |key: &Key, object: &Value| matches(route, query, key, object);
        let items: Vec<&Value> = inner.objects.iter().filter(|(k, v)| fits(k, v)).map(|(_, v)| v).collect();
        let revision = inner.revision.to_string();
        reply(
            StatusCode::OK,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": items}),
        )
    }

    fn watch(&self, route: &Route, query: &BTreeMap<String, String>) -> Response<Body> {
        let after: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        let (api, mut changed) = (self.clone(), self.changed.subscribe());
        let route = Route { resource: route.resource.clone(), namespace: route.namespace.clone(), name: None };
        let query = query.clone();
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(64);
        let selected = query.get("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name="));
        let key = (route.resource.clone(), selected.unwrap_or_default().to_owned());
        self.locked().watches.push(key.clone());
        let running = RunningWatch { api: self.clone(), key };
        tokio::spawn(async move {
            let _running = running;
            let mut seen = after;
            loop {
                changed.borrow_and_update();
                let fresh: Vec<(u64, String)> = {
                    let inner = api.locked();
                    let new = inner
                        .log
                        .iter()
                        .filter(|(revision, key, _, object)| *revision > seen && matches(&route, &query, key, object));
                    new.map(|(revision, _, kind, object)| {
                        // As servers send it: the type first.
                        (*revision, format!("{{\"type\":{},\"object\":{object}}}\n", json!(kind)))
                    })
                    .collect()
                };
                for (revision, line) in fresh {
                    seen = revision;
                    if sender.send(Ok(Bytes::from(line))).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = changed.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Response::new(Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)))
    }
}

fn matches(route: &Route, query: &BTreeMap<String, String>, key: &Key, object: &Value) -> bool {
    let (resource, namespace, _) = key;
    let selected = query.get("fieldSelector").is_none_or(|selector| {
        let (path, value) = selector.split_once('=').unwrap();
        object.pointer(&format!("/{}", path.replace('.', "/"))).and_then(Value::as_str) == Some(value)
    });
    *resource == route.resource && (route.namespace.is_empty() || *namespace == route.namespace) && selected
}

fn route(path: &str) -> Route {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let mut namespace = String::new();
    if parts[0] == "namespaces" && parts.len() > 2 {
        namespace = parts[1].to_owned();
        parts.drain(..2);
    }
    Route { resource: parts[0].to_owned(), namespace, name: parts.get(1).map(|name| (*name).to_owned()) }
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let decode = |text: &str| text.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/");
    pairs.map(|(key, value)| (key.trim_matches('&').to_owned(), decode(value))).collect()
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn reply(code: StatusCode, body: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_string())).unwrap()
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
                      "message": message, "code": code.as_u16()});
    reply(code, &body)
}

fn not_found(name: &str) -> Response<Body> {
    status(StatusCode::NOT_FOUND, "NotFound", &format!("{name} not found"))
}

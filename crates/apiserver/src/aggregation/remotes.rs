//! Who serves which group version in place of this server. An immutable value; what probes find out of each is
//! published beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::custom::names::compare_versions;
use api::kinds::KINDS;
use arc_swap::ArcSwap;
use axum::body::Body;
use bytes::Bytes;
use hyper_util::client::legacy::Client;
use serde_json::{Map, Value};

use super::availability::Condition;
use crate::reach::{Dialer, Identity, Place, Reach, Trust, pooled, text};

/// Port of a Service that is not named.
const PORT_DEFAULT: u16 = 443;

/// One APIService that names a Service.
pub struct Remote {
    pub name: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub service: String,
    pub port: u16,
    group_priority: i64,
    version_priority: i64,
    /// Or why nobody can be asked.
    pub client: Result<Client<Reach, Body>, String>,
    /// What all of the above was made from.
    spec: Value,
    /// Its probe writes this.
    pub found: ArcSwap<Found>,
    /// How often what it publishes has changed.
    changes: AtomicU64,
}

/// What was found out of a remote.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// `None` until it was asked.
    pub condition: Option<Condition>,
    /// Of aggregated discovery, as it was when it answered last.
    pub resources: Option<Arc<Vec<Value>>>,
    pub v3: Option<Arc<OpenApiV3>>,
    pub v2: Option<Arc<OpenApiV2>>,
}

#[derive(Debug)]
pub struct OpenApiV3 {
    /// Where it was, which changes with it.
    pub url: String,
    pub hash: String,
    pub document: Bytes,
}

#[derive(Debug)]
pub struct OpenApiV2 {
    pub etag: String,
    pub definitions: Map<String, Value>,
}

impl Remote {
    /// From an APIService; `None` for one without a Service.
    pub fn read(object: &Value, dialer: &Dialer, identity: Option<&Identity>) -> Option<Self> {
        let spec = object.get("spec")?;
        let target = spec.get("service").filter(|service| service.is_object())?;
        let (namespace, service) = (text(target, "namespace").to_owned(), text(target, "name").to_owned());
        let port = target.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        let port = port.unwrap_or(PORT_DEFAULT);
        let priority = |field: &str| spec.get(field).and_then(Value::as_i64).unwrap_or(0);
        let trust = Trust {
            bundle: text(spec, "caBundle"),
            anybody: spec.get("insecureSkipTLSVerify") == Some(&Value::Bool(true)),
            identity,
        };
        let place = Place::Service { namespace: namespace.clone(), name: service.clone(), port };
        let reach = Reach::new(place, &format!("{service}.{namespace}.svc"), &trust, dialer);
        Some(Self {
            name: api::meta::name(object).to_owned(),
            group: text(spec, "group").to_owned(),
            version: text(spec, "version").to_owned(),
            namespace,
            service,
            port,
            group_priority: priority("groupPriorityMinimum"),
            version_priority: priority("versionPriority"),
            client: reach.map(pooled),
            spec: spec.clone(),
            found: ArcSwap::default(),
            changes: AtomicU64::new(0),
        })
    }

    /// Whether reading this object would give the same again.
    pub fn is_of(&self, object: &Value) -> bool {
        Some(&self.spec) == object.get("spec")
    }

    /// Whether this server keeps objects of that group version itself. Those are not given away: a cluster would not
    /// survive it.
    pub fn is_built_in(&self) -> bool {
        KINDS.iter().any(|kind| kind.group == self.group && kind.version == self.version && kind.is_stored())
    }

    /// `https://name.namespace.svc:port`
    pub fn root(&self) -> String {
        format!("https://{}.{}.svc:{}", self.service, self.namespace, self.port)
    }

    pub fn publish(&self, found: Found) {
        self.found.store(Arc::new(found));
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    pub fn is_available(&self) -> bool {
        self.found.load().condition.as_ref().is_some_and(|condition| condition.available)
    }
}

#[derive(Default)]
pub struct Remotes {
    /// Preferred versions first.
    by_group: HashMap<String, Vec<Arc<Remote>>>,
}

impl Remotes {
    pub fn new(all: impl Iterator<Item = Arc<Remote>>) -> Self {
        let mut by_group: HashMap<String, Vec<Arc<Remote>>> = HashMap::new();
        for remote in all.filter(|remote| !remote.is_built_in()) {
            by_group.entry(remote.group.clone()).or_default().push(remote);
        }
        for versions in by_group.values_mut() {
            versions.sort_by(|a, b| {
                b.version_priority.cmp(&a.version_priority).then_with(|| compare_versions(&a.version, &b.version))
            });
        }
        Self { by_group }
    }

    pub fn is_empty(&self) -> bool {
        self.by_group.is_empty()
    }

    pub fn find(&self, group: &str, version: &str) -> Option<&Arc<Remote>> {
        self.by_group.get(group)?.iter().find(|remote| remote.version == version)
    }

    /// Of a group, preferred ones first.
    pub fn versions(&self, group: &str) -> &[Arc<Remote>] {
        self.by_group.get(group).map_or(&[], Vec::as_slice)
    }

    /// Those that should come first do.
    pub fn groups(&self) -> Vec<&str> {
        let priority = |group: &str| self.versions(group).iter().map(|remote| remote.group_priority).max();
        let mut groups: Vec<&str> = self.by_group.keys().map(String::as_str).collect();
        groups.sort_by(|a, b| priority(b).cmp(&priority(a)).then_with(|| a.cmp(b)));
        groups
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Remote>> {
        self.groups().into_iter().flat_map(|group| self.versions(group))
    }

    /// Changes whenever one of them publishes something else.
    pub fn generation(&self) -> u64 {
        self.by_group.values().flatten().map(|remote| remote.changes.load(Ordering::Acquire)).sum()
    }

    /// Schemas of OpenAPI v2 of all of them; of two with one name the first.
    pub fn definitions(&self) -> Map<String, Value> {
        let mut all = Map::new();
        for remote in self.all() {
            let Some(v2) = remote.found.load().v2.clone() else { continue };
            for (name, schema) in &v2.definitions {
                if !all.contains_key(name) {
                    all.insert(name.clone(), schema.clone());
                }
            }
        }
        all
    }

    /// `apis/<group>/<version>` and the OpenAPI v3 document of it.
    pub fn v3_documents(&self) -> Vec<(String, Arc<OpenApiV3>)> {
        let of = |remote: &Arc<Remote>| {
            let document = remote.found.load().v3.clone()?;
            Some((format!("apis/{}/{}", remote.group, remote.version), document))
        };
        self.all().filter_map(of).collect()
    }
}

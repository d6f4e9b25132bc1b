//! What all clients of a load share: the servers' clients, the record, what is known already.
//!
//! Owns: the requests and how their answers are recorded. May not know: who asks when.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};

use super::record::{Ending, Record, Version};
use crate::client::{Failure, failure, timely};

const NUMBER: &str = "number";
/// Label of every object of a load.
const RUN: &str = "run";

pub struct Shared {
    pub clients: Vec<Client>,
    run: String,
    stopped: AtomicBool,
    probing: AtomicBool,
    /// The largest number that anybody was answered.
    known: AtomicU64,
    /// Resource version of the last object; 0 while there is none.
    end: AtomicU64,
    /// Numbers the tries to make the last object.
    tries: AtomicU64,
    record: Mutex<Record>,
}

impl Shared {
    pub fn new(clients: Vec<Client>, run: &str) -> Self {
        let [known, end, tries] = [(); 3].map(|()| AtomicU64::new(0));
        let [stopped, probing] = [(); 2].map(|()| AtomicBool::new(false));
        Self { clients, run: run.to_owned(), stopped, probing, known, end, tries, record: Mutex::default() }
    }

    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Whether writes shall be tried on a beat.
    pub fn is_probing(&self) -> bool {
        self.probing.load(Ordering::SeqCst)
    }

    pub fn set_probing(&self, probing: bool) {
        self.probing.store(probing, Ordering::SeqCst);
    }

    pub fn end_at(&self, resource_version: u64) {
        self.end.store(resource_version, Ordering::SeqCst);
    }

    /// Whether a watcher that saw this has seen everything.
    pub fn is_end(&self, seen: u64) -> bool {
        let end = self.end.load(Ordering::SeqCst);
        end != 0 && seen >= end
    }

    /// No read that begins now may answer less.
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::SeqCst)
    }

    pub fn learn(&self, number: u64) {
        self.known.fetch_max(number, Ordering::SeqCst);
    }

    pub fn api(&self, server: usize) -> Api<ConfigMap> {
        Api::namespaced(self.clients[server % self.clients.len()].clone(), "default")
    }

    pub fn counter(&self) -> String {
        format!("{}-counter", self.run)
    }

    /// Makes an object with a name that was never used, and records what became of it.
    pub async fn create(&self, server: usize, name: &str) -> Ending {
        let name = format!("{}-{name}", self.run);
        let (parameters, object) = (PostParams::default(), self.config_map(&name, None));
        let ending = match timely(self.api(server).create(&parameters, &object)).await {
            Ok(made) => Ending::Acknowledged(version(&made).resource_version),
            Err(error) => match failure(error.as_ref()) {
                Failure::Refused => Ending::Refused,
                Failure::Unknown => Ending::Unknown,
                Failure::Exists | Failure::Conflict => {
                    self.record().absurd.push(format!("server {server} about the new {name}: {error:?}"));
                    Ending::Unknown
                }
            },
        };
        let mut record = self.record();
        if let Ending::Acknowledged(_) = ending {
            record.acknowledgements.push(Instant::now());
        }
        record.creations.insert(name, ending);
        ending
    }

    /// The counter at 0; answers its resource version.
    pub async fn create_counter(&self) -> Result<u64, String> {
        let name = self.counter();
        if let Ok(Some(there)) = timely(self.api(0).get_opt(&name)).await {
            return Ok(version(&there).resource_version);
        }
        let (parameters, object) = (PostParams::default(), self.config_map(&name, Some(0)));
        match timely(self.api(0).create(&parameters, &object)).await {
            Ok(made) => Ok(version(&made).resource_version),
            Err(error) => Err(format!("{error:?}")),
        }
    }

    /// The object that tells watchers the end; answers its resource version.
    pub async fn create_last(&self) -> Result<u64, String> {
        let attempt = self.tries.fetch_add(1, Ordering::SeqCst);
        let server = usize::try_from(attempt).unwrap_or_default();
        match self.create(server, &format!("last-{attempt}")).await {
            Ending::Acknowledged(resource_version) => Ok(resource_version),
            other => Err(format!("server {server}: {other:?}")),
        }
    }

    /// The counter's object has a number.
    fn config_map(&self, name: &str, number: Option<u64>) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.labels = Some(BTreeMap::from([(RUN.to_owned(), self.run.clone())]));
        object.data = number.map(|number| BTreeMap::from([(NUMBER.to_owned(), number.to_string())]));
        object
    }

    /// Every object, as one server lists them.
    pub async fn list(&self, server: usize) -> Result<BTreeMap<String, Version>, String> {
        let all = timely(self.api(server).list(&ListParams::default())).await;
        let all = all.map_err(|error| format!("server {server}: {error:?}"))?;
        Ok(all.iter().map(|object| (object.name_any(), version(object))).collect())
    }
}

/// Deletes all objects of an earlier load.
pub async fn delete(client: Client, run: &str) -> Result<(), String> {
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let objects = ListParams::default().labels(&format!("{RUN}={run}"));
    let deleted = api.delete_collection(&DeleteParams::default(), &objects).await;
    deleted.map(drop).map_err(|error| format!("objects of {run} cannot be deleted: {error}"))
}

pub fn set_number(object: &mut ConfigMap, number: u64) {
    object.data.get_or_insert_default().insert(NUMBER.to_owned(), number.to_string());
}

pub fn version(object: &ConfigMap) -> Version {
    let resource_version = object.resource_version().and_then(|text| text.parse().ok());
    let number = object.data.as_ref().and_then(|data| data.get(NUMBER)?.parse().ok());
    Version { resource_version: resource_version.expect("every object has a resource version"), number }
}

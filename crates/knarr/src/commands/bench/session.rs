//! What all measurements of a running cluster share: a client, a namespace, images, workloads.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use image::build::{self, BuildOptions, ImageFile, StartConfig};
use image::{Digest, ImageStore};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Settings;
use crate::access::Access;
use crate::cli::AccessArgs;
use crate::examples;
use crate::registry_client::RegistryClient;

/// How long workloads may take to come or to go.
pub const TIMEOUT: Duration = Duration::from_secs(300);
/// How often it is asked whether something is gone.
const POLL: Duration = Duration::from_millis(50);
/// Where the example workloads listen.
pub const PORT: u16 = 8080;

/// Which of the example images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    Wasm,
    Container,
    /// Its exports are called.
    Plugin,
}

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Container => "container",
            Self::Plugin => "plugin",
        }
    }
}

pub struct Session<'a> {
    pub settings: &'a Settings,
    pub access: Access,
    pub client: kube::Client,
    pub namespace: String,
}

impl<'a> Session<'a> {
    /// Makes a namespace in which everything happens.
    pub async fn open(settings: &'a Settings, kubeconfig: &std::path::Path) -> Result<Self> {
        let access = Access::load(&AccessArgs { kubeconfig: Some(kubeconfig.to_owned()) }).await?;
        let client = access.client()?;
        let namespace = format!("knarr-bench-{}", std::process::id());
        let session = Self { settings, access, client, namespace };
        let object = json!({ "metadata": { "name": session.namespace } });
        let namespaces: Api<Namespace> = Api::all(session.client.clone());
        create(&namespaces, object).await.context("cannot make a namespace for the benchmark")?;
        Ok(session)
    }

    pub async fn close(self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let deleted = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        deleted.map(|_| ()).with_context(|| format!("cannot delete namespace {}", self.namespace))
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Puts the image of a workload into the registry and answers its name. A second push finds
    /// everything there.
    pub async fn push(&self, workload: Workload) -> Result<String> {
        self.push_variant(workload, 0).await
    }

    /// [`Session::push`] of a program that does the same and is another one, code of its own included.
    pub async fn push_variant(&self, workload: Workload, number: usize) -> Result<String> {
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let store = ImageStore::open(dir.path())?;
        let digest = pack(&store, workload, number)?;
        let (repository, tag) = (format!("bench/{}", workload.name()), format!("v{}", number + 1));
        RegistryClient::new(&self.access)?.push(&store, &digest, &repository, &tag).await?;
        Ok(format!("registry.local/{repository}:{tag}"))
    }

    /// Deletes the Deployments of a label `app` and waits until their pods are gone.
    pub async fn remove(&self, name: &str) -> Result<()> {
        self.remove_within(name, TIMEOUT).await
    }

    /// The same for many.
    pub async fn remove_within(&self, name: &str, limit: Duration) -> Result<()> {
        let params = ListParams::default().labels(&format!("app={name}"));
        let deleted = self.deployments().delete_collection(&DeleteParams::background(), &params).await;
        deleted.context("cannot delete the Deployments")?;
        let gone = async {
            while !self.pods().list(&params.clone().limit(1)).await?.items.is_empty() {
                tokio::time::sleep(POLL).await;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(limit, gone).await {
            Ok(listed) => listed.context("cannot list pods"),
            Err(_) => bail!("pods of {name} were not gone after {limit:?}"),
        }
    }
}

fn pack(store: &ImageStore, workload: Workload, number: usize) -> Result<Digest> {
    let options = BuildOptions { repository: "bench", tag: "" };
    let wasm = |program: Vec<u8>| build::wasm_artifact(store, &variant(program, number), &options);
    Ok(match workload {
        Workload::Wasm => wasm(examples::hello_http()?)?,
        Workload::Plugin => wasm(examples::plugin_shop()?)?,
        Workload::Container => {
            let program = ImageFile { path: "/backend", mode: 0o755, content: &examples::backend()? };
            let start = StartConfig { entrypoint: vec!["/backend".to_owned()], ..StartConfig::default() };
            build::linux_files(store, &[program], &start, &options)?
        }
    })
}

/// A component with a custom section more (component binary format: id 0, size, name, content). 0 leaves it as it is.
fn variant(mut program: Vec<u8>, number: usize) -> Vec<u8> {
    if number > 0 {
        let (name, content) = (b"variant", (number as u64).to_le_bytes());
        let bytes = 1 + name.len() + content.len();
        program.extend([0, bytes as u8, name.len() as u8]);
        program.extend_from_slice(name);
        program.extend_from_slice(&content);
    }
    program
}

/// Creates an object given as JSON.
pub async fn create<K>(api: &Api<K>, object: Value) -> Result<K>
where
    K: Clone + DeserializeOwned + Serialize + Debug,
{
    let object = serde_json::from_value(object).expect("the benchmark's objects fit their types");
    Ok(api.create(&PostParams::default(), &object).await?)
}

/// A Deployment whose pods carry the label `app` with its name.
pub fn deployment(name: &str, image: &str, replicas: usize) -> Value {
    let labels = json!({ "app": name });
    json!({
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    // The example program does not listen to signals; waiting for it measures nothing.
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{ "name": "app", "image": image, "ports": [{ "containerPort": PORT }] }],
                },
            },
        },
    })
}

pub fn service(name: &str) -> Value {
    json!({ "metadata": { "name": name },
        "spec": { "selector": { "app": name }, "ports": [{ "port": 80, "targetPort": PORT }] } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_fit_their_types() {
        let parsed: Deployment = serde_json::from_value(deployment("a", "registry.local/a:v1", 3)).unwrap();
        assert_eq!(parsed.spec.unwrap().replicas, Some(3));
        let parsed: Service = serde_json::from_value(service("a")).unwrap();
        assert_eq!(parsed.spec.unwrap().selector.unwrap()["app"], "a");
    }
}

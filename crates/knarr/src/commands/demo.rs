//! `knarr demo`: a cluster, the examples, and their answers.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::discovery::Scope;
use serde::Deserialize as _;

use super::up;
use crate::cli::DemoArgs;
use crate::cluster::{Cluster, ClusterConfig};
use crate::examples;
use crate::steps::Steps;

/// How long the examples may take until all are ready.
const READY_TIMEOUT: Duration = Duration::from_secs(180);
/// How long one request may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a Service may take to answer at all, and the pause between two tries.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Largest answer that is shown.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What is asked through the Services: which one, port, path, and a word the answer must hold.
const CALLS: [(&str, u16, &str, &str); 7] = [
    ("hello", 80, "/", "Hello from hello-"),
    ("hello", 80, "/backend", "backend: a Linux container"),
    ("backend", 80, "/", "backend: a Linux container"),
    ("mixed", 80, "/backend", "backend: a Linux container"),
    ("mixed", 9090, "/call?8080", "Hello from mixed"),
    ("dual", 80, "/", "Hello from dual-"),
    ("dual-container", 80, "/", "backend: a Linux container"),
];

/// What is asked of the function, in WAVE, and what it answers.
const INVOCATIONS: [(&str, &str); 3] = [
    ("add(1, 2)", "3"),
    ("greet(\"demo\")", "\"Ahoy, demo!\""),
    (
        "orders.price({customer: \"demo\", items: [{name: \"rope\", count: 3, unit: metre}]})",
        "ok({total: 750, lines: [\"3 m of rope: 750\"]})",
    ),
];

pub async fn run(args: DemoArgs) -> Result<()> {
    let steps = Steps::new();
    let (cluster, mut stop) = up::start(ClusterConfig::new(&args.up)?, &steps).await?;
    let shown = tokio::select! {
        shown = show(&cluster, &steps) => shown,
        () = stop.wait() => Ok(()),
    };
    if shown.is_ok() && !args.exit {
        steps.say("\nThe cluster stays up. In another terminal:\n");
        steps.say(&up::next_commands(&cluster.config));
        stop.wait().await;
    }
    let stopped = up::stop(cluster, args.up.keep_workloads, &steps).await;
    shown.and(stopped)
}

async fn show(cluster: &Cluster, steps: &Steps) -> Result<()> {
    let client = cluster.admin();
    steps
        .run("example images in the registry", put_images(cluster))
        .await
        .context("cannot put the example images into the registry")?;
    for (name, text) in examples::MANIFESTS {
        steps
            .run(&format!("apply {name}"), apply(&client, text))
            .await
            .with_context(|| format!("cannot apply {name}"))?;
    }
    steps.run("examples are ready", ready(&client)).await?;
    steps.say("");
    for (service, port, path, expected) in CALLS {
        let answer = answer_of(&client, service, port, path).await?;
        steps.say(&format!(
            "  GET http://{service}:{port}{path}\n      {}",
            answer.trim_end().replace('\n', "\n      ")
        ));
        if !answer.contains(expected) {
            bail!("http://{service}:{port}{path} did not answer {expected:?}");
        }
    }
    for (call, expected) in INVOCATIONS {
        let answer = invoke(&client, call).await?;
        steps.say(&format!("  knarr invoke shop '{call}'\n      {answer}"));
        if answer != expected {
            bail!("shop answered {answer} to {call}");
        }
    }
    Ok(())
}

async fn put_images(cluster: &Cluster) -> Result<()> {
    examples::put_images(cluster.image_store())?;
    for repository in examples::REPOSITORIES {
        cluster.publish_image(repository, examples::TAG).await?;
    }
    Ok(())
}

/// Calls an export of the example's function; the first call waits until its pod is ready.
async fn invoke(client: &kube::Client, call: &str) -> Result<String> {
    let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
    loop {
        let request = Request::post("/apis/knarr.dev/v1alpha1/namespaces/default/functions/shop/invoke")
            .header(http::header::CONTENT_TYPE, "application/wave")
            .body(call.as_bytes().to_vec())?;
        match client.request_text(request).await {
            Err(kube::Error::Api(status)) if status.code == 503 && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            answered => return answered.with_context(|| format!("cannot call {call} of function shop")),
        }
    }
}

/// Creates or updates every document of a manifest.
async fn apply(client: &kube::Client, text: &str) -> Result<()> {
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = serde_json::Value::deserialize(document).context("the manifest is no YAML")?;
        let object: DynamicObject = serde_json::from_value(value.clone()).context("the manifest holds no object")?;
        let types = object.types.as_ref().context("the manifest names no kind")?;
        let gvk = kube::core::GroupVersionKind::try_from(types).context("the manifest names no kind")?;
        let (resource, capabilities) =
            kube::discovery::pinned_kind(client, &gvk).await.with_context(|| format!("no resource for {gvk:?}"))?;
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Namespaced => Api::default_namespaced_with(client.clone(), &resource),
            Scope::Cluster => Api::all_with(client.clone(), &resource),
        };
        let name = object.metadata.name.clone().context("the object has no name")?;
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {
                api.patch(&name, &PatchParams::default(), &Patch::Merge(&value)).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn ready(client: &kube::Client) -> Result<()> {
    match tokio::time::timeout(READY_TIMEOUT, all_ready(client)).await {
        Ok(result) => result,
        Err(_) => bail!("after {READY_TIMEOUT:?}: {}", what_is_missing(client).await),
    }
}

async fn all_ready(client: &kube::Client) -> Result<()> {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    for deployment in deployments.list(&ListParams::default()).await? {
        let name = deployment.metadata.name.unwrap_or_default();
        let done = |object: Option<&Deployment>| {
            object.is_some_and(|d| {
                let wanted = d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                let status = d.status.clone().unwrap_or_default();
                status.observed_generation == d.metadata.generation && status.available_replicas.unwrap_or(0) >= wanted
            })
        };
        kube::runtime::wait::await_condition(deployments.clone(), &name, done).await?;
    }
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let running = |pod: Option<&Pod>| pod.is_some_and(pod_ready);
    kube::runtime::wait::await_condition(pods, "mixed", running).await?;
    Ok(())
}

fn pod_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Which pods are not ready, and what they say.
async fn what_is_missing(client: &kube::Client) -> String {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let Ok(pods) = pods.list(&ListParams::default()).await else { return "the pods cannot be listed".to_owned() };
    let waiting: Vec<String> = pods
        .iter()
        .filter(|pod| !pod_ready(pod))
        .map(|pod| {
            let status = pod.status.clone().unwrap_or_default();
            let states = status.container_statuses.iter().flatten().filter_map(|c| c.state.clone());
            let reasons: Vec<String> = states.filter_map(|s| s.waiting.and_then(|w| w.message.or(w.reason))).collect();
            format!(
                "{}: {} {}",
                pod.metadata.name.clone().unwrap_or_default(),
                status.phase.unwrap_or_default(),
                reasons.join("; ")
            )
        })
        .collect();
    format!("not ready: {}", waiting.join(", "))
}

/// Asks until it is answered: a pod is Ready a moment before the node's packet filter knows its
/// endpoint, and a Service without endpoints refuses.
async fn answer_of(client: &kube::Client, service: &str, port: u16, path: &str) -> Result<String> {
    let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
    loop {
        match call(client, service, port, path).await {
            Err(error) if tokio::time::Instant::now() < deadline => {
                tracing::info!("asking again: {error:#}");
                tokio::time::sleep(ASK_AGAIN).await;
            }
            answered => return answered,
        }
    }
}

/// One GET through a Service's cluster address, from this machine.
async fn call(client: &kube::Client, service: &str, port: u16, path: &str) -> Result<String> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let object = services.get(service).await.with_context(|| format!("no Service {service}"))?;
    let address =
        object.spec.and_then(|s| s.cluster_ip).with_context(|| format!("Service {service} has no address"))?;
    let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let request = Request::get(format!("http://{address}:{port}{path}")).header("host", service).body(Empty::new())?;
    let answer = async {
        let response = http.request(request).await?;
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        body.map(|b| b.to_bytes()).map_err(|e| anyhow::anyhow!("the answer broke off: {e}"))
    };
    let bytes = tokio::time::timeout(CALL_TIMEOUT, answer)
        .await
        .with_context(|| format!("Service {service} did not answer in {CALL_TIMEOUT:?}"))?
        .with_context(|| format!("cannot call Service {service} at {address}:{port}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

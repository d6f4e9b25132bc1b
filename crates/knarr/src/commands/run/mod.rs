//! `knarr run`: from a file or an image to a program that answers, in one command.
//!
//! Owns: packing and pushing the file, applying what [`plan`] made of it, waiting until it runs, and saying where it
//! answers. A program that ends is followed to its end.

pub mod logs;
pub mod plan;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::time::sleep;

use self::plan::{LABEL, Shape, Wanted};
use super::image::pack_and_push;
use super::status::trouble;
use crate::access::{Access, told};
use crate::cli::{RunArgs, RunOptions};
use crate::registry_client::RegistryClient;

const MANAGER: &str = "knarr-run";
/// How long it may take until it runs: an image may have to be fetched from far away, and a large Wasm file is compiled
/// for up to four minutes.
const READY_TIMEOUT: Duration = Duration::from_secs(300);
/// After this a user wants to know what is going on.
const TELL_AFTER: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(50);
const EXIT_UNKNOWN: i32 = 1;

pub async fn run(args: RunArgs) -> Result<()> {
    let access = Access::load(&args.access).await?;
    let client = access.client()?;
    let began = Instant::now();
    let program = if looks_like_a_file(&args.program) {
        Program::of_file(&access, &args.name, Path::new(&args.program), &args.options).await?
    } else {
        Program { image: args.program.clone(), shape: plan::shape(None, args.options.port)? }
    };
    let wanted = wanted(&args.name, &program, &args.options);
    if program.shape == Shape::Once {
        return run_once(&client, &wanted).await;
    }
    apply(&client, &wanted, program.shape).await?;
    wait_until_it_runs(&client, &wanted).await?;
    println!("{} runs after {:.2} s", wanted.name, began.elapsed().as_secs_f64());
    match url(&client, &wanted).await? {
        Some(url) => println!("{url}"),
        None => println!("No port was named (--port), so there is no Service. Its output: {}", logs_command(&wanted)),
    }
    Ok(())
}

fn logs_command(wanted: &Wanted) -> String {
    format!("kubectl logs -n {} -l {LABEL}={}", wanted.namespace, wanted.name)
}

/// An image's name may have a slash too, but no file is there of that name.
fn looks_like_a_file(program: &str) -> bool {
    Path::new(program).exists() || program.starts_with("./") || program.starts_with('/') || program.ends_with(".wasm")
}

pub fn wanted(name: &str, program: &Program, options: &RunOptions) -> Wanted {
    Wanted {
        name: name.to_owned(),
        namespace: options.namespace.clone(),
        image: program.image.clone(),
        args: options.args.clone(),
        env: options.env.clone(),
        replicas: options.replicas,
        memory: options.memory.clone(),
    }
}

/// Something that can be run.
pub struct Program {
    pub image: String,
    pub shape: Shape,
}

impl Program {
    /// Packs a file and pushes it under a tag of its content, so that other content is another image.
    pub async fn of_file(access: &Access, name: &str, path: &Path, options: &RunOptions) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let shape = if bytes.starts_with(b"\x7fELF") {
            plan::shape(None, options.port)?
        } else {
            let description = wasm_runtime::describe(&bytes).map_err(|error| anyhow!("{} {error}", path.display()))?;
            refuse_missing(path, &wasm_runtime::missing_imports(&description))?;
            plan::shape(Some((description.workload(), description.exports.as_slice())), options.port)
                .with_context(|| format!("{} cannot be run", path.display()))?
        };
        let registry = RegistryClient::new(access)?;
        let image = pack_and_push(&registry, path, &format!("run/{}-{name}", options.namespace)).await?;
        Ok(Self { image, shape })
    }
}

/// Better here than in an Event of a pod.
fn refuse_missing(path: &Path, missing: &[String]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    bail!("{} imports {}, which Knarr does not offer", path.display(), missing.join(", "))
}

/// Server-side apply of all objects, as one owner of their fields.
pub async fn apply(client: &Client, wanted: &Wanted, shape: Shape) -> Result<()> {
    for object in plan::objects(wanted, shape) {
        let (api, name) = api_of(client, &wanted.namespace, &object)?;
        let applied = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await;
        applied.map_err(told).with_context(|| format!("cannot apply {} {name}", kind_of(&object)))?;
    }
    Ok(())
}

/// Deletes what [`apply`] made.
pub async fn delete(client: &Client, wanted: &Wanted, shape: Shape) -> Result<()> {
    for object in plan::objects(wanted, shape) {
        let (api, name) = api_of(client, &wanted.namespace, &object)?;
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                return Err(told(error)).with_context(|| format!("cannot delete {} {name}", kind_of(&object)));
            }
        }
    }
    Ok(())
}

fn kind_of(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

fn api_of(client: &Client, namespace: &str, object: &Value) -> Result<(Api<DynamicObject>, String)> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = kube::core::ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind_of(object)));
    let name = object["metadata"]["name"].as_str().context("an object of ours has no name")?;
    Ok((Api::namespaced_with(client.clone(), namespace, &resource), name.to_owned()))
}

/// Returns when as many pods of the newest template run as were wanted.
pub async fn wait_until_it_runs(client: &Client, wanted: &Wanted) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &wanted.namespace);
    let began = Instant::now();
    let mut is_told = false;
    loop {
        let deployment = deployments.get(&wanted.name).await.context("cannot see whether it runs")?;
        if runs(&deployment, wanted.replicas) {
            return Ok(());
        }
        if began.elapsed() > TELL_AFTER && !is_told {
            is_told = true;
            println!(
                "{} does not run yet (a large Wasm file is compiled once): {}",
                wanted.name,
                why(client, wanted).await
            );
        }
        if began.elapsed() > READY_TIMEOUT {
            bail!("{} does not run after {} s: {}", wanted.name, READY_TIMEOUT.as_secs(), why(client, wanted).await);
        }
        sleep(ASK_AGAIN).await;
    }
}

fn runs(deployment: &Deployment, replicas: u32) -> bool {
    let Some(status) = &deployment.status else { return false };
    let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
    let at_least = |count: Option<i32>| count.unwrap_or(0) >= replicas;
    status.observed_generation >= deployment.metadata.generation
        && at_least(status.updated_replicas)
        && at_least(status.available_replicas)
        && status.replicas.unwrap_or(0) == replicas
}

/// What its pods say about themselves.
async fn why(client: &Client, wanted: &Wanted) -> String {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &wanted.namespace);
    let Ok(pods) = pods.list(&ListParams::default().labels(&format!("{LABEL}={}", wanted.name))).await else {
        return "its pods cannot be listed".to_owned();
    };
    let waiting: Vec<String> = pods.iter().filter_map(trouble).map(|(pod, why)| format!("{pod}: {why}")).collect();
    if waiting.is_empty() { "it has no pods yet".to_owned() } else { waiting.join("; ") }
}

/// Where it answers from this machine.
pub async fn url(client: &Client, wanted: &Wanted) -> Result<Option<String>> {
    let services: Api<Service> = Api::namespaced(client.clone(), &wanted.namespace);
    let Some(service) = services.get_opt(&wanted.name).await.context("cannot see its Service")? else {
        return Ok(None);
    };
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone());
    Ok(address.map(|address| format!("http://{address}/")))
}

/// Runs a program that ends, shows what it says, and ends as it does.
pub async fn run_once(client: &Client, wanted: &Wanted) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &wanted.namespace);
    if let Some(present) = pods.get_opt(&wanted.name).await.context("cannot see whether it ran before")? {
        if present.labels().get(LABEL) != Some(&wanted.name) {
            bail!("there is a pod {} that `knarr run` did not make; choose another name", wanted.name);
        }
        let orderly = DeleteParams::default();
        let gone = kube::runtime::wait::delete::delete_and_finalize(pods.clone(), &wanted.name, &orderly);
        gone.await.context("cannot delete the pod of the run before")?;
    }
    apply(client, wanted, Shape::Once).await?;
    let began = Instant::now();
    loop {
        let pod = pods.get(&wanted.name).await.context("cannot see whether it runs")?;
        match phase(&pod) {
            "Running" | "Succeeded" | "Failed" => break,
            _ if began.elapsed() > READY_TIMEOUT => {
                bail!("{} does not start: {}", wanted.name, why(client, wanted).await)
            }
            _ => sleep(ASK_AGAIN).await,
        }
    }
    logs::follow(&pods, &wanted.name, "").await?;
    loop {
        let pod = pods.get(&wanted.name).await.context("cannot see how it ended")?;
        match phase(&pod) {
            "Succeeded" => return Ok(()),
            "Failed" => {
                let (code, why) = ended(&pod);
                bail!("{} ended with exit code {code}{why}", wanted.name);
            }
            _ => sleep(ASK_AGAIN).await,
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Exit code, and what is known beside it.
fn ended(pod: &Pod) -> (i32, String) {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let terminated = statuses.iter().find_map(|status| status.state.as_ref()?.terminated.as_ref());
    let Some(terminated) = terminated else { return (EXIT_UNKNOWN, String::new()) };
    let said: Vec<&str> = [&terminated.reason, &terminated.message].into_iter().flatten().map(String::as_str).collect();
    let why = if said.is_empty() { String::new() } else { format!(" ({})", said.join(": ")) };
    (terminated.exit_code, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_and_images_are_told_apart() {
        let check = |program: &str, expect| assert_eq!(looks_like_a_file(program), expect, "{program}");
        check("./app", true);
        check("/tmp/app", true);
        check("not-there.wasm", true);
        check("nginx", false);
        check("registry.local/examples/hello-http:v1", false);
    }

    #[test]
    fn a_rollout_is_done_when_only_new_pods_are_left() {
        let deployment = |generation: i64, status: Value| -> Deployment {
            serde_json::from_value(json!({ "metadata": { "generation": generation }, "status": status })).unwrap()
        };
        let check = |deployment: Deployment, expect| assert_eq!(runs(&deployment, 2), expect, "{deployment:?}");
        let done = json!({ "observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2 });
        check(deployment(3, done.clone()), true);
        check(deployment(4, done), false);
        let mixed = json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3 });
        check(deployment(3, mixed), false);
        check(deployment(1, json!({})), false);
    }

    #[test]
    fn the_end_is_told_with_its_reason() {
        let pod = json!({ "status": { "containerStatuses": [{ "name": "app", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": { "terminated": { "exitCode": 134, "reason": "Error", "message": "unreachable" } } }] } });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(ended(&pod), (134, " (Error: unreachable)".to_owned()));
        assert_eq!(ended(&Pod::default()), (1, String::new()));
    }
}

//! Whom a request with streams is about: a container that runs, or a pod's network.

use std::collections::HashMap;
use std::net::TcpStream as BlockingStream;
use std::sync::Arc;

use axum::http::StatusCode;
use cri::{ContainerId, ContainerState, RuntimeService, SandboxState, Streams};
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpStream;

use super::EndpointState;
use crate::pod::execute::NodeContext;
use crate::pod::spec::PodView;
use crate::stream::forwarding::Dialer;
use crate::stream::remote_command::chain;

/// Why a request is not served.
pub type Refusal = (StatusCode, String);

/// A container that runs.
pub struct Target {
    pub runtime: Arc<dyn RuntimeService>,
    pub id: ContainerId,
}

pub async fn pod(state: &EndpointState, namespace: &str, name: &str) -> Result<Pod, Refusal> {
    let absent = || (StatusCode::NOT_FOUND, format!("pod {name:?} in namespace {namespace:?} is not on this node\n"));
    state.supervisor.pod(namespace, name).await.ok_or_else(absent)
}

/// The running attempt of a container.
pub async fn container(
    state: &EndpointState,
    (namespace, name): (&str, &str),
    container: &str,
) -> Result<Target, Refusal> {
    let pod = pod(state, namespace, name).await?;
    let uid = PodView::new(&pod).uid();
    for (_, runtime) in state.context.runtimes.iter() {
        let listed = runtime.list_containers().await.unwrap_or_default();
        let running = listed.into_iter().find(|status| {
            status.pod_uid == uid && status.name == container && matches!(status.state, ContainerState::Running { .. })
        });
        if let Some(status) = running {
            return Ok(Target { runtime: Arc::clone(runtime), id: status.id });
        }
    }
    Err((StatusCode::NOT_FOUND, format!("container not found ({container:?})\n")))
}

/// Something that connects to ports of a pod.
pub async fn dialer(state: &EndpointState, namespace: &str, name: &str) -> Result<Dialer, Refusal> {
    let pod = pod(state, namespace, name).await?;
    let (context, uid) = (Arc::clone(&state.context), PodView::new(&pod).uid().to_owned());
    let about = format!("pod {name}, uid {uid}");
    Ok(Arc::new(move |port| {
        let (context, uid, about) = (Arc::clone(&context), uid.clone(), about.clone());
        Box::pin(async move {
            let connected = connect(&context, &uid, port).await;
            connected.map_err(|why| format!("error forwarding port {port} to {about}: {why}"))
        })
    }))
}

/// The sandbox with a network namespace first: a pod of both kinds has one in each runtime.
async fn connect(context: &NodeContext, uid: &str, port: u16) -> Result<TcpStream, String> {
    let mut sandboxes = Vec::new();
    for (handler, runtime) in context.runtimes.iter() {
        let listed = runtime.list_pod_sandboxes().await.unwrap_or_default();
        let ready = listed.into_iter().filter(|one| one.pod_uid == uid && one.state == SandboxState::Ready);
        sandboxes.extend(ready.map(|one| (handler, runtime, one.id)));
    }
    sandboxes.sort_by_key(|(handler, _, _)| std::cmp::Reverse(*handler));
    let (_, runtime, id) = sandboxes.first().ok_or("the pod is not running")?;
    let stream: BlockingStream = runtime.connect_in_pod(id, port).await.map_err(|error| chain(&error))?;
    TcpStream::from_std(stream).map_err(|error| error.to_string())
}

/// The streams a kubelet's client asks for; a terminal has no standard error of its own.
pub fn streams(query: &[(String, String)]) -> Result<(Streams, bool), String> {
    let asked: HashMap<&str, bool> = query.iter().map(|(key, value)| (key.as_str(), is_true(value))).collect();
    let flag = |key: &str| asked.get(key).copied().unwrap_or(false);
    let tty = flag("tty");
    let streams = Streams { stdin: flag("input"), stdout: flag("output"), stderr: flag("error") && !tty };
    if streams == Streams::default() {
        return Err("you must specify at least 1 of stdin, stdout, stderr\n".to_owned());
    }
    Ok((streams, tty))
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_become_streams() {
        let check = |query: &[(&str, &str)], expect: Option<(bool, bool, bool, bool)>| {
            let query: Vec<_> = query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let got = streams(&query).ok().map(|(streams, tty)| (streams.stdin, streams.stdout, streams.stderr, tty));
            assert_eq!(got, expect, "{query:?}");
        };
        check(&[("output", "1"), ("error", "1")], Some((false, true, true, false)));
        check(&[("input", "true"), ("output", "1"), ("error", "1"), ("tty", "1")], Some((true, true, false, true)));
        check(&[("output", "0")], None);
        check(&[("tty", "1"), ("error", "1")], None);
    }
}

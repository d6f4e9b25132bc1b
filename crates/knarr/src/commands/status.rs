//! `knarr status`: is anything wrong?

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::member;
use crate::access::Access;
use crate::cli::{Output, StatusArgs};
use crate::cluster::wire::{MemberList, MemberRole};

pub async fn run(args: StatusArgs) -> Result<()> {
    let access = Access::load(&args.access).await?;
    let client = access.client()?;
    let reach = || format!("cannot reach {} (kubeconfig {})", access.config.cluster_url, access.path.display());
    let version = client.apiserver_version().await.with_context(reach)?;
    let nodes = Api::<Node>::all(client.clone()).list(&kube::api::ListParams::default()).await?.items;
    // A user that may see nodes and pods may not be allowed to see this.
    let members = member::list(&client).await.ok();
    let pods = Api::<Pod>::all(client).list(&kube::api::ListParams::default()).await?.items;
    let nodes: Vec<_> = nodes.iter().map(|n| (n.name_any(), node_ready(n))).collect();
    let waiting: Vec<_> = pods.iter().filter_map(trouble).collect();
    if args.output == Output::Json {
        let body = json!({
            "version": version.git_version,
            "controlPlane": members,
            "nodes": nodes.iter().map(|(name, ready)| json!({ "name": name, "ready": ready })).collect::<Vec<_>>(),
            "pods": pods.len(),
            "podsNotReady": waiting.iter().map(|(pod, why)| json!({ "pod": pod, "why": why })).collect::<Vec<_>>(),
        });
        println!("{}", serde_json::to_string_pretty(&body)?);
        return Ok(());
    }
    println!("server  {} {}", access.config.cluster_url, version.git_version);
    if let Some(members) = &members {
        print!("{}", control_plane(members));
    }
    for (name, ready) in &nodes {
        println!("node    {name} {}", if *ready { "Ready" } else { "NotReady" });
    }
    println!("pods    {} of {} ready or done", pods.len() - waiting.len(), pods.len());
    for (pod, why) in &waiting {
        println!("        {pod}: {why}");
    }
    Ok(())
}

/// One line, and one more if something is wrong.
fn control_plane(list: &MemberList) -> String {
    let voters = list.members.iter().filter(|member| member.role == MemberRole::Voter).count();
    let leads = list.leader.map_or_else(|| "nobody leads".to_owned(), |leader| format!("member {leader} leads"));
    let alarm = if list.alarm.is_empty() { String::new() } else { format!("        ALARM: {}\n", list.alarm) };
    format!("members {voters} vote, {leads}\n{alarm}")
}

fn node_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Why a pod is not ready; None when it is, or has succeeded.
pub(super) fn trouble(pod: &Pod) -> Option<(String, String)> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    if status.phase.as_deref() == Some("Succeeded")
        || conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    {
        return None;
    }
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waiting = containers.filter_map(|c| {
        let waiting = c.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone().unwrap_or_default();
        Some(format!("container {}: {reason} {}", c.name, waiting.message.as_deref().unwrap_or("")))
    });
    let unscheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    let scheduling = unscheduled.and_then(|c| c.message.clone());
    let why = scheduling.or_else(|| waiting.into_iter().next()).or_else(|| status.message.clone());
    Some((
        name,
        why.unwrap_or_else(|| status.phase.clone().unwrap_or_else(|| "no status yet".to_owned())).trim().to_owned(),
    ))
}

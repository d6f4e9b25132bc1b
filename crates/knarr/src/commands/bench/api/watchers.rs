//! One thousand writes, each seen by 100 watchers with a connection each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use tokio::task::JoinSet;

use super::load::Endpoint;
use crate::commands::bench::report::Section;
use crate::commands::bench::session::{Session, create};

const WATCHERS: usize = 100;
const WRITES: usize = 1000;
const CLIENTS: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(120);

pub async fn measure(session: &Session<'_>, endpoint: &Endpoint, name: &str, section: &mut Section) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(session.client.clone(), &session.namespace);
    let listed = maps.list(&ListParams::default().limit(1)).await.context("cannot list ConfigMaps")?;
    let from = listed.metadata.resource_version.unwrap_or_default();
    let path = format!("/api/v1/namespaces/{}/configmaps?watch=true&resourceVersion={from}", session.namespace);
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let body = open(endpoint, &path).await?;
        watchers.spawn(see(body));
    }
    let began = Instant::now();
    write(&maps).await?;
    let written = began.elapsed().as_secs_f64();
    let all = async {
        let mut counts = Vec::with_capacity(WATCHERS);
        while let Some(watcher) = watchers.join_next().await {
            counts.push(watcher.context("a watcher's task failed")??);
        }
        anyhow::Ok(counts)
    };
    let Ok(counts) = tokio::time::timeout(TIMEOUT, all).await else {
        bail!("not every watcher had seen {WRITES} writes after {TIMEOUT:?}");
    };
    let seconds = began.elapsed().as_secs_f64();
    let counts = counts?;
    let events = counts.iter().sum::<usize>() as f64;
    let cut_off = counts.iter().filter(|seen| **seen < WRITES).count();
    let label = format!("{name}, events to {WATCHERS} watchers of {WRITES} writes");
    section.row(label, [Some(events / seconds), None, None, Some(cut_off as f64)]);
    section.note(format!("{name}: the writes for the watchers took {written:.2} of {seconds:.2} s"));
    Ok(())
}

/// A watch whose answer has begun.
async fn open(endpoint: &Endpoint, path: &str) -> Result<Incoming> {
    let mut sender = endpoint.connect().await?;
    let request = Request::get(path).header(header::HOST, &endpoint.host).header(header::ACCEPT, "application/json");
    let request = request.body(Full::<Bytes>::default()).expect("names of the benchmark are valid in paths");
    let response = sender.send_request(request).await.context("cannot watch ConfigMaps")?;
    ensure!(response.status().is_success(), "the watch was answered {}", response.status());
    Ok(response.into_body())
}

/// Reads until every write was seen, each event a line, or until the server cut the watch off, as one that cannot keep up
/// does. How many were seen.
async fn see(mut body: Incoming) -> Result<usize> {
    let mut seen = 0;
    while seen < WRITES {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.context("a watch broke")?;
        seen += frame.data_ref().map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
    }
    Ok(seen)
}

async fn write(maps: &Api<ConfigMap>) -> Result<()> {
    let one = |number: usize| async move {
        let object = json!({ "metadata": { "name": format!("seen-{number}") }, "data": { "value": "x".repeat(256) } });
        create(maps, object).await.map(drop)
    };
    let all = stream::iter((0..WRITES).map(one)).buffer_unordered(CLIENTS);
    all.try_for_each(|()| async { Ok(()) }).await.context("cannot write")
}

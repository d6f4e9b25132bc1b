//! Lists of 10,000 pods: whole, as bytes on the wire, one after the other.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::load::{Endpoint, pod};
use crate::commands::bench::report::Section;
use crate::commands::bench::session::{Session, create};
use crate::commands::bench::stats::{millis, percentile};

pub const PODS: usize = 10_000;
const LISTS: usize = 20;
const CLIENTS: usize = 64;
const MB: f64 = 1e6;

pub async fn measure(session: &Session<'_>, endpoint: &Endpoint, name: &str, section: &mut Section) -> Result<()> {
    fill(&session.pods()).await?;
    let mut sender = endpoint.connect().await?;
    let path = format!("/api/v1/namespaces/{}/pods", session.namespace);
    let (mut times, mut bytes) = (Vec::with_capacity(LISTS), 0);
    for _ in 0..LISTS {
        let request = Request::get(&path).header(header::HOST, &endpoint.host);
        let request = request.header(header::ACCEPT, "application/json").body(Full::<Bytes>::default());
        let request = request.expect("names of the benchmark are valid in paths");
        let began = Instant::now();
        sender.ready().await.context("the connection is closed")?;
        let response = sender.send_request(request).await.context("cannot list the pods")?;
        ensure!(response.status().is_success(), "the list was answered {}", response.status());
        bytes = read(response.into_body()).await.context("the list broke off")?;
        times.push(millis(began.elapsed()));
    }
    let per_s = times.len() as f64 / (times.iter().sum::<f64>() / 1000.0);
    let label = format!("{name}, list {PODS} pods");
    section.note(format!("{name}: the list has {:.1} MB", bytes as f64 / MB));
    section.row(label, [Some(per_s), percentile(&times, 50.0), percentile(&times, 99.0), Some(0.0)]);
    Ok(())
}

async fn fill(pods: &Api<Pod>) -> Result<()> {
    let one = |number: usize| async move { create(pods, pod(&format!("pod-{number}"))).await.map(drop) };
    let all = stream::iter((0..PODS).map(one)).buffer_unordered(CLIENTS);
    all.try_for_each(|()| async { Ok(()) }).await.context("cannot create the pods")
}

/// Bytes of a body; nothing is kept.
async fn read(mut body: hyper::body::Incoming) -> Result<usize> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(bytes)
}

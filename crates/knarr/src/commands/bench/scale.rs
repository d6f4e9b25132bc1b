//! `scale`: many Wasm pods, of one image or of many, from apply until all are Ready, their memory when nothing happens,
//! and the first request that each of them ever gets: no instance is there yet.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::pod_watch::{self, Steps};
use super::report::Section;
use super::session::{PORT, Session, TIMEOUT, Workload, create, deployment};
use super::stats::{millis, percentile};
use super::{load, processes};

const NAME: &str = "scale";
/// What the machine may take for each image that it has never seen, besides what all of them may take.
const COMPILED_WITHIN: Duration = Duration::from_secs(2);
/// What pods may take until they are all there: at least [`TIMEOUT`].
const READY_PER_POD: Duration = Duration::from_millis(100);
/// After the last pod is ready, until what only their start needed is given back.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
const KIB: f64 = 1024.0;

pub async fn measure(session: &Session<'_>) -> Result<Section> {
    let (pods, images) = (session.settings.pods, session.settings.images.min(session.settings.pods));
    let columns = &[
        "all_ready_s",
        "pods_per_s",
        "all_scheduled_s",
        "idle_pss_kib_per_pod",
        "first_p50_ms",
        "first_p99_ms",
        "all_gone_s",
    ];
    let mut section = Section::new("scale", format!("{pods} Wasm pods of {images} images"), columns);
    let mut deployments = Vec::with_capacity(images);
    for number in 0..images {
        let image = session.push_variant(Workload::Wasm, number).await?;
        deployments.push(one_of(number, &image, share(pods, images, number)));
    }
    let (memory_before, hosts_before) = memory();
    let watch = pod_watch::open(&session.pods(), NAME).await?;
    let limit = TIMEOUT.max(READY_PER_POD * pods as u32) + COMPILED_WITHIN * images as u32;
    let began = Instant::now();
    let creating = async {
        for deployment in deployments {
            create(&session.deployments(), deployment).await.context("cannot create a Deployment")?;
        }
        Ok(())
    };
    // Together: a watch that nobody reads while thousands of Deployments are made falls behind and is cut off.
    let (steps, ()) = tokio::try_join!(watch.until_ready(pods, began, limit), creating)?;
    tokio::time::sleep(SETTLED_AFTER).await;
    let (memory_after, hosts_after) = memory();
    let per_pod = |before: u64, after: u64| (after as f64 - before as f64) / KIB / pods as f64;
    let firsts = first_requests(session).await?;
    let removal = Instant::now();
    session.remove_within(NAME, limit).await?;
    let gone = removal.elapsed().as_secs_f64();
    let ready = last(&steps, |steps| steps.ready);
    section.row(
        format!("{pods} pods of {images} images"),
        [
            ready,
            ready.map(|seconds| pods as f64 / seconds),
            last(&steps, |steps| steps.scheduled),
            Some(per_pod(memory_before, memory_after)),
            percentile(&firsts, 50.0),
            percentile(&firsts, 99.0),
            Some(gone),
        ],
    );
    section.note(format!(
        "memory per pod: growth of all of Knarr's processes {} s after the last was ready, divided by the pods",
        SETTLED_AFTER.as_secs()
    ));
    section.note(format!("of that, in the pods' sandbox hosts: {:.1} KiB", per_pod(hosts_before, hosts_after)));
    section.note("first: connect, request and whole answer, one pod after the other");
    Ok(section)
}

/// A Deployment of some of the pods; all of them carry the label `app` with [`NAME`].
fn one_of(number: usize, image: &str, replicas: usize) -> Value {
    let mut object = deployment(NAME, image, replicas);
    let of = json!(number.to_string());
    object["metadata"] = json!({ "name": format!("{NAME}-{number}"), "labels": { "app": NAME } });
    object["spec"]["selector"]["matchLabels"]["of"] = of.clone();
    object["spec"]["template"]["metadata"]["labels"]["of"] = of;
    object
}

/// How many of the pods are of image `number`.
fn share(pods: usize, images: usize, number: usize) -> usize {
    pods / images + usize::from(number < pods % images)
}

/// What the first request to each pod takes, in milliseconds.
async fn first_requests(session: &Session<'_>) -> Result<Vec<f64>> {
    let listed = session.pods().list(&ListParams::default().labels(&format!("app={NAME}"))).await;
    let mut times = Vec::new();
    for pod in listed.context("cannot list the pods")? {
        let address = pod.status.and_then(|status| status.pod_ip).context("a pod that is Ready has no address")?;
        let address: IpAddr = address.parse().with_context(|| format!("{address} is no address"))?;
        let began = Instant::now();
        let mut sender = load::connect((address, PORT).into()).await?;
        let status = load::exchange(&mut sender, load::get(&address.to_string(), "/")).await?;
        times.push(millis(began.elapsed()));
        ensure!(status == StatusCode::OK, "a pod answered its first request with {status}");
    }
    Ok(times)
}

/// Bytes of all of Knarr's processes, and of its sandbox hosts among them.
fn memory() -> (u64, u64) {
    let (hosts, others): (Vec<_>, Vec<_>) =
        processes::of_knarr().into_iter().partition(|process| process.role == wasm_runtime::HOST_COMMAND);
    let bytes = |all: Vec<processes::Process>| processes::usage_of(all.into_iter().map(|p| p.pid)).pss_bytes;
    let hosts = bytes(hosts);
    (bytes(others) + hosts, hosts)
}

/// When the last pod got there, in seconds.
fn last(steps: &[Steps], of: fn(&Steps) -> Option<Duration>) -> Option<f64> {
    steps.iter().filter_map(of).max().map(|time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_is_of_an_image() {
        let check = |pods, images, expect: &[usize]| {
            let shares: Vec<usize> = (0..images).map(|number| share(pods, images, number)).collect();
            assert_eq!(shares, expect);
        };
        check(100, 1, &[100]);
        check(10, 4, &[3, 3, 2, 2]);
        check(3, 3, &[1, 1, 1]);
    }

    #[test]
    fn the_last_pod_counts() {
        let at = |seconds| Steps { ready: Some(Duration::from_secs(seconds)), ..Steps::default() };
        assert_eq!(last(&[at(1), at(3), at(2)], |s| s.ready), Some(3.0));
        assert_eq!(last(&[at(1)], |s| s.scheduled), None);
    }
}

//! `scale`: many Wasm pods of one Deployment, from apply until all are Ready, their memory, and the first request that
//! each of them ever gets: no instance is there yet.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use kube::api::ListParams;

use super::pod_watch::{self, Steps};
use super::report::Section;
use super::session::{PORT, Session, Workload, create, deployment};
use super::stats::{millis, percentile};
use super::{load, processes};

const NAME: &str = "scale";
const KIB: f64 = 1024.0;

pub async fn measure(session: &Session<'_>) -> Result<Section> {
    let pods = session.settings.pods;
    let columns = &[
        "all_ready_s",
        "pods_per_s",
        "all_scheduled_s",
        "pss_kib_per_pod",
        "first_p50_ms",
        "first_p99_ms",
        "all_gone_s",
    ];
    let mut section = Section::new("scale", format!("{pods} Wasm pods of one Deployment"), columns);
    let image = session.push(Workload::Wasm).await?;
    let memory_before = memory();
    let watch = pod_watch::open(&session.pods(), NAME).await?;
    let began = Instant::now();
    create(&session.deployments(), deployment(NAME, &image, pods)).await.context("cannot create the Deployment")?;
    let steps = watch.until_ready(pods, began).await?;
    let grown = memory() - memory_before;
    let firsts = first_requests(session).await?;
    let removal = Instant::now();
    session.remove(NAME).await?;
    let gone = removal.elapsed().as_secs_f64();
    let ready = last(&steps, |steps| steps.ready);
    section.row(
        format!("{pods} pods"),
        [
            ready,
            ready.map(|seconds| pods as f64 / seconds),
            last(&steps, |steps| steps.scheduled),
            Some(grown / KIB / pods as f64),
            percentile(&firsts, 50.0),
            percentile(&firsts, 99.0),
            Some(gone),
        ],
    );
    section.note("memory per pod: growth of all of Knarr's processes, divided by the pods");
    section.note("first: connect, request and whole answer, one pod after the other");
    Ok(section)
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

fn memory() -> f64 {
    processes::usage_of(processes::of_knarr().into_iter().map(|p| p.pid)).pss_bytes as f64
}

/// When the last pod got there, in seconds.
fn last(steps: &[Steps], of: fn(&Steps) -> Option<Duration>) -> Option<f64> {
    steps.iter().filter_map(of).max().map(|time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pod_counts() {
        let at = |seconds| Steps { ready: Some(Duration::from_secs(seconds)), ..Steps::default() };
        assert_eq!(last(&[at(1), at(3), at(2)], |s| s.ready), Some(3.0));
        assert_eq!(last(&[at(1)], |s| s.scheduled), None);
    }
}

//! `start`: from applying a Deployment and its Service to the first answer through the Service.
//!
//! The image is in the registry already. The first run of each kind, in which Wasm is compiled and
//! layers are unpacked, is shown apart.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::StatusCode;
use kube::api::DeleteParams;

use super::load;
use super::pod_watch::{self, Steps};
use super::report::Section;
use super::session::{Session, TIMEOUT, Workload, create, deployment, service};
use super::stats::{median, millis, percentile};

/// How often the Service is asked until it answers; a part of what is measured.
const POLL: Duration = Duration::from_millis(2);

pub async fn measure(session: &Session<'_>) -> Result<Section> {
    let runs = session.settings.runs;
    let columns = &["first_run_ms", "median_ms", "p99_ms", "scheduled_ms", "running_ms", "ready_ms"];
    let title = format!("apply to the first answer through the Service, {runs} runs after a first one");
    let mut section = Section::new("start", title, columns);
    for workload in [Workload::Wasm, Workload::Container] {
        let image = session.push(workload).await?;
        let first = once(session, workload, &image, 0).await?;
        let mut starts = Vec::with_capacity(runs);
        for run in 1..=runs {
            starts.push(once(session, workload, &image, run).await?);
        }
        section.row(workload.name(), figures(&first, &starts));
    }
    section.note("scheduled, running, ready: medians of when a watching client saw it, since the apply");
    Ok(section)
}

struct Start {
    answered: Duration,
    steps: Steps,
}

fn figures(first: &Start, starts: &[Start]) -> [Option<f64>; 6] {
    let answered: Vec<f64> = starts.iter().map(|start| millis(start.answered)).collect();
    let step = |of: fn(&Steps) -> Option<Duration>| {
        median(&starts.iter().filter_map(|start| of(&start.steps).map(millis)).collect::<Vec<_>>())
    };
    [
        Some(millis(first.answered)),
        median(&answered),
        percentile(&answered, 99.0),
        step(|steps| steps.scheduled),
        step(|steps| steps.running),
        step(|steps| steps.ready),
    ]
}

async fn once(session: &Session<'_>, workload: Workload, image: &str, run: usize) -> Result<Start> {
    let name = format!("start-{}-{run}", workload.name());
    let watch = pod_watch::open(&session.pods(), &name).await?;
    let began = Instant::now();
    let service = create(&session.services(), service(&name)).await.context("cannot create the Service")?;
    create(&session.deployments(), deployment(&name, image, 1)).await.context("cannot create the Deployment")?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
    let address: IpAddr = address.parse().context("the Service has no address")?;
    let answer = first_answer(SocketAddr::new(address, 80), began);
    let (answered, steps) = tokio::try_join!(answer, watch.until_ready(1, began, TIMEOUT))?;
    session.services().delete(&name, &DeleteParams::default()).await.context("cannot delete the Service")?;
    session.remove(&name).await?;
    Ok(Start { answered, steps: steps.first().copied().unwrap_or_default() })
}

async fn first_answer(address: SocketAddr, began: Instant) -> Result<Duration> {
    while began.elapsed() < TIMEOUT {
        if ask(address).await.is_ok_and(|status| status == StatusCode::OK) {
            return Ok(began.elapsed());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("the Service at {address} did not answer in {TIMEOUT:?}")
}

async fn ask(address: SocketAddr) -> Result<StatusCode> {
    let mut sender = load::connect(address).await?;
    load::exchange(&mut sender, load::get("bench", "/")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_run_is_shown_apart() {
        let start = |answered: u64, scheduled: u64| Start {
            answered: Duration::from_millis(answered),
            steps: Steps { scheduled: Some(Duration::from_millis(scheduled)), ..Steps::default() },
        };
        let figures = figures(&start(900, 9), &[start(30, 3), start(10, 1), start(20, 2)]);
        assert_eq!(figures, [Some(900.0), Some(20.0), Some(30.0), Some(2.0), None, None]);
    }
}

//! `failover`: for how long no write is acknowledged when the leading of three servers is killed.
//!
//! Writers go on through the two others. What counts is the longest time between two acknowledgements around the
//! kill.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tokio::task::JoinSet;

use super::Settings;
use super::fleet::Fleet;
use super::report::Section;
use super::stats::{median, millis, percentile};

const SERVERS: usize = 3;
/// Writers through each of the servers that stay.
const WRITERS: usize = 2;
/// Writes before the kill, and after the first acknowledgement behind it.
const CALM: Duration = Duration::from_secs(1);
const RESUMED_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

pub async fn measure(settings: &Settings) -> Result<Section> {
    let title = format!("no write acknowledged after `kill -9` of the leader of {SERVERS}, {} kills", settings.runs);
    let mut section = Section::new("failover", title, &["median_ms", "p99_ms", "max_ms"]);
    let mut fleet = Fleet::start(settings, SERVERS).await?;
    let mut gaps = Vec::with_capacity(settings.runs);
    for _ in 0..settings.runs {
        let leader = fleet.leader(0).await?;
        gaps.push(millis(one(&mut fleet, leader).await?));
        fleet.restart(leader).await?;
    }
    fleet.stop().await?;
    let max = gaps.iter().copied().reduce(f64::max);
    section.row("time without writes", [median(&gaps), percentile(&gaps, 99.0), max]);
    Ok(section)
}

/// When writes were acknowledged.
type Acknowledged = Arc<Mutex<Vec<Instant>>>;

async fn one(fleet: &mut Fleet, leader: usize) -> Result<Duration> {
    let acknowledged: Acknowledged = Arc::default();
    let mut writers = JoinSet::new();
    for at in (0..SERVERS).filter(|at| *at != leader) {
        let client = fleet.access(at).await?.client()?;
        for _ in 0..WRITERS {
            writers.spawn(write(Api::default_namespaced(client.clone()), Arc::clone(&acknowledged)));
        }
    }
    tokio::time::sleep(CALM).await;
    let killed = Instant::now();
    fleet.kill(leader).await?;
    let newest = || acknowledged.lock().unwrap_or_else(PoisonError::into_inner).iter().max().copied();
    let resumed = async {
        // What was on its way when the leader died may still be acknowledged, so an end of the silence is only
        // believed after a while.
        while newest().is_none_or(|at| at <= killed + CALM) {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(RESUMED_TIMEOUT, resumed).await.context("writes did not go on")?;
    tokio::time::sleep(CALM).await;
    writers.shutdown().await;
    let mut times = acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
    times.sort_unstable();
    ensure!(times.first().is_some_and(|first| *first < killed), "nothing was written before the leader was killed");
    let gaps = times.windows(2).filter(|pair| pair[1] > killed).map(|pair| pair[1] - pair[0]);
    gaps.max().context("nothing was written after the leader was killed")
}

/// Until it is aborted. What fails is tried anew under another name.
async fn write(api: Api<ConfigMap>, acknowledged: Acknowledged) {
    let writer: u64 = rand::random();
    for number in 0_u64.. {
        let object = json!({ "metadata": { "name": format!("w{writer:016x}-{number}") } });
        let object = serde_json::from_value(object).expect("the benchmark's objects fit their types");
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now()),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

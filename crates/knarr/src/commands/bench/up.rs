//! `up`: from the start of the process on an empty data directory until the node is Ready.

use anyhow::Result;

use super::Settings;
use super::own_cluster::OwnCluster;
use super::report::Section;
use super::stats::{median, millis};

const RUNS: usize = 5;

pub async fn measure(settings: &Settings) -> Result<Section> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let cluster = OwnCluster::start(&settings.dir).await?;
        times.push(millis(cluster.up_time));
        cluster.stop().await?;
    }
    let title = format!("`knarr up` on an empty data directory until the node is Ready, {RUNS} runs");
    let mut section = Section::new("up", title, &["median_ms", "min_ms", "max_ms"]);
    let (min, max) = (times.iter().copied().reduce(f64::min), times.iter().copied().reduce(f64::max));
    section.row("up", [median(&times), min, max]);
    Ok(section)
}

//! `knarr bench`: figures of a cluster.
//!
//! Owns: the visible list of measurements and their order. It starts a cluster of its own, or asks a
//! running one. A measurement is one file and one line in [`MEASUREMENTS`]; one that fails says why
//! and does not keep the others from running.

mod api;
mod etcd;
mod failover;
mod fleet;
mod idle;
mod invoke;
mod kube_apiserver;
mod load;
mod objects;
mod own_cluster;
mod own_process;
mod pod_watch;
mod processes;
mod report;
mod rps;
mod scale;
mod servers;
mod session;
mod start;
mod stats;
mod up;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use thiserror::Error;

use crate::cli::{BenchArgs, BenchName, Output};
use crate::version;
use own_cluster::OwnCluster;
use report::Section;
use session::Session;

/// How a measurement is run.
enum Run {
    /// Starts clusters itself, so it runs while there is no other.
    Alone(for<'a> fn(&'a Settings) -> BoxFuture<'a, Result<Section>>),
    /// On the cluster that all such measurements share.
    OnCluster(for<'a> fn(&'a Session<'a>) -> BoxFuture<'a, Result<Section>>),
}

/// Every measurement there is, in the order in which they run.
const MEASUREMENTS: [(BenchName, Run); 10] = [
    (BenchName::Up, Run::Alone(|settings| up::measure(settings).boxed())),
    (BenchName::Servers, Run::Alone(|settings| servers::measure(settings).boxed())),
    (BenchName::Failover, Run::Alone(|settings| failover::measure(settings).boxed())),
    (BenchName::Objects, Run::Alone(|settings| objects::measure(settings).boxed())),
    (BenchName::Idle, Run::OnCluster(|session| idle::measure(session).boxed())),
    (BenchName::Start, Run::OnCluster(|session| start::measure(session).boxed())),
    (BenchName::Rps, Run::OnCluster(|session| rps::measure(session).boxed())),
    (BenchName::Invoke, Run::OnCluster(|session| invoke::measure(session).boxed())),
    (BenchName::Scale, Run::OnCluster(|session| scale::measure(session).boxed())),
    (BenchName::Api, Run::OnCluster(|session| api::measure(session).boxed())),
];

/// What the command line chose.
pub struct Settings {
    /// Where data directories of own clusters are made.
    dir: PathBuf,
    runs: usize,
    pods: usize,
    images: usize,
    /// Length of one load.
    load: Duration,
    idle: Duration,
    wasmtime: Option<PathBuf>,
    etcd: Option<PathBuf>,
    kube_apiserver: Option<PathBuf>,
}

pub fn run(args: BenchArgs) -> Result<()> {
    if let Some(url) = &args.load_client {
        return load::client_main(url, args.connections, Duration::from_secs(args.seconds));
    }
    super::runtime()?.block_on(bench(args))
}

async fn bench(args: BenchArgs) -> Result<()> {
    let settings = Settings {
        dir: args.dir,
        runs: args.runs,
        pods: args.pods,
        images: args.images,
        load: Duration::from_secs(args.seconds),
        idle: Duration::from_secs(args.idle_seconds),
        wasmtime: args.wasmtime,
        etcd: args.etcd,
        kube_apiserver: args.kube_apiserver,
    };
    let is_wanted = |name: &BenchName| args.measurements.is_empty() || args.measurements.contains(name);
    let mut sections = Vec::new();
    let starts_its_own =
        |name: &BenchName| MEASUREMENTS.iter().any(|(n, run)| n == name && matches!(run, Run::Alone(_)));
    match args.measurements.iter().find(|name| starts_its_own(name)) {
        Some(name) if args.kubeconfig.is_some() => {
            bail!("`{}` starts clusters of its own: leave out --kubeconfig", name.as_str())
        }
        _ if args.kubeconfig.is_some() => {}
        _ => sections.extend(alone(&settings, is_wanted).await?),
    }
    if MEASUREMENTS.iter().any(|(name, run)| is_wanted(name) && matches!(run, Run::OnCluster(_))) {
        sections.extend(on_cluster(&settings, args.kubeconfig.as_deref(), is_wanted).await?);
    }
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&to_json(&sections))?),
        Output::Text => println!("{}\n\n{}", heading(), texts(&sections)),
    }
    let failed: Vec<&str> = sections.iter().filter(|s| s.error.is_some()).map(|s| s.name).collect();
    if !failed.is_empty() {
        bail!("could not measure {}", failed.join(", "));
    }
    Ok(())
}

async fn alone(settings: &Settings, is_wanted: impl Fn(&BenchName) -> bool) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for (name, run) in MEASUREMENTS.iter().filter(|(name, _)| is_wanted(name)) {
        if let Run::Alone(measure) = run {
            eprintln!("knarr bench: {}", name.as_str());
            sections.push(section_of(*name, measure(settings).await)?);
        }
    }
    Ok(sections)
}

/// Runs the rest on the named cluster, or on one that is started for it and stopped in any case.
async fn on_cluster(
    settings: &Settings,
    kubeconfig: Option<&Path>,
    is_wanted: impl Fn(&BenchName) -> bool,
) -> Result<Vec<Section>> {
    if let Some(kubeconfig) = kubeconfig {
        return in_session(settings, kubeconfig, is_wanted).await;
    }
    let cluster = OwnCluster::start(&settings.dir).await.context("cannot start a cluster to measure")?;
    let sections = in_session(settings, &cluster.kubeconfig, is_wanted).await;
    let stopped = cluster.stop().await;
    let sections = sections?;
    stopped?;
    Ok(sections)
}

async fn in_session(
    settings: &Settings,
    kubeconfig: &Path,
    is_wanted: impl Fn(&BenchName) -> bool,
) -> Result<Vec<Section>> {
    let session = Session::open(settings, kubeconfig).await?;
    let mut sections = Vec::new();
    let mut interrupted = Ok(());
    for (name, run) in MEASUREMENTS.iter().filter(|(name, _)| is_wanted(name)) {
        if let Run::OnCluster(measure) = run {
            eprintln!("knarr bench: {}", name.as_str());
            match section_of(*name, unless_interrupted(measure(&session)).await) {
                Ok(section) => sections.push(section),
                Err(error) => {
                    interrupted = Err(error);
                    break;
                }
            }
        }
    }
    session.close().await?;
    interrupted.map(|()| sections)
}

/// The user wants it to end. What was started is stopped before this is passed on.
#[derive(Debug, Error)]
#[error("interrupted")]
struct Interrupted;

/// A failed measurement is a section that says so; only an interruption is an error.
fn section_of(name: BenchName, measured: Result<Section>) -> Result<Section> {
    match measured {
        Err(error) if error.is::<Interrupted>() => Err(error),
        Err(error) => {
            Ok(Section { error: Some(format!("{error:#}")), ..Section::new(name.as_str(), "no figures", &[]) })
        }
        measured => measured,
    }
}

async fn unless_interrupted(measured: BoxFuture<'_, Result<Section>>) -> Result<Section> {
    tokio::select! {
        measured = measured => measured,
        stopped = super::up::wait_for_stop() => stopped.and(Err(Interrupted.into())),
    }
}

/// A peer's program: the named one, or the first on the PATH.
fn program(named: Option<&PathBuf>, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    named.cloned().or_else(on_path)
}

/// What was measured, and on what.
fn heading() -> String {
    let machine = machine();
    let mut text = format!(
        "knarr {} on {} processors, Linux {}",
        version::git_version(),
        machine["processors"],
        machine["kernel"].as_str().unwrap_or("?")
    );
    if cfg!(debug_assertions) {
        text.push_str("\nThis is a debug build: its figures say little.");
    }
    text
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "processor": model.map(|(_, name)| name),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

fn to_json(sections: &[Section]) -> Value {
    json!({
        "version": version::git_version(),
        "debugBuild": cfg!(debug_assertions),
        "machine": machine(),
        "measurements": sections.iter().map(Section::to_json).collect::<Vec<_>>(),
    })
}

fn texts(sections: &[Section]) -> String {
    sections.iter().map(Section::to_text).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_name_has_a_measurement() {
        let listed: Vec<BenchName> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed, BenchName::value_variants());
    }

    #[test]
    fn a_failure_does_not_end_the_others_but_an_interruption_does() {
        let failed = Err(anyhow::anyhow!("no luck").context("cannot try"));
        let section = section_of(BenchName::Rps, failed).unwrap();
        assert_eq!((section.name, section.error.as_deref()), ("rps", Some("cannot try: no luck")));
        assert!(section_of(BenchName::Rps, Err(Interrupted.into())).is_err());
    }

    #[test]
    fn json_says_what_was_measured_and_where() {
        let mut section = Section::new("up", "t", &["median_ms"]);
        section.row("up", [Some(1.5)]);
        let json = to_json(&[section]);
        assert_eq!(json["measurements"][0]["rows"][0]["median_ms"], 1.5);
        assert!(json["machine"]["processors"].as_u64().is_some_and(|count| count > 0));
    }
}

//! `servers`: writes per second of three servers through their API, beside three members of etcd on the same disk
//! in the same run.
//!
//! Both are written to by the same closed loop, one connection for each client. Knarr's clients speak JSON over TLS
//! and each write is authenticated, authorized, validated and given defaults; etcd's put plain bytes without TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::Settings;
use super::api::{self, COLUMNS, Endpoint, Load, Work, figures};
use super::etcd::{Client, Etcd};
use super::fleet::Fleet;
use super::load::{self, Outcome, Step, Window};
use super::report::Section;

const SERVERS: usize = 3;
const CLIENTS: [usize; 4] = [1, 16, 64, 256];
const VALUE_BYTES: usize = 256;
const NAMESPACE: &str = "default";
/// Lets what the start set in motion come to rest.
const SETTLE: Duration = Duration::from_secs(5);
const INSTALL: &str = "no `etcd` on the PATH to compare with; name it with --etcd";

pub async fn measure(settings: &Settings) -> Result<Section> {
    let seconds = settings.load.as_secs();
    let title = format!("durable writes of {VALUE_BYTES} bytes to {SERVERS} servers on this machine, {seconds} s each");
    let mut section = Section::new("servers", title, &COLUMNS);
    let ours = knarr(settings, &mut section).await?;
    let Some(program) = super::program(settings.etcd.as_ref(), "etcd") else {
        section.note(INSTALL);
        return Ok(section);
    };
    let theirs = etcd(settings, &program, &mut section).await?;
    for ((clients, ours), theirs) in CLIENTS.iter().zip(&ours).zip(&theirs) {
        let ratio = ours.requests_per_s / theirs.requests_per_s;
        section.note(format!("{clients} clients: knarr's leader {ratio:.2} times etcd's leader"));
    }
    Ok(section)
}

/// Rows of the leader's writes, which are answered, and of everything else.
async fn knarr(settings: &Settings, section: &mut Section) -> Result<Vec<Outcome>> {
    let fleet = Fleet::start(settings, SERVERS).await?;
    let leader = fleet.leader(0).await?;
    api::prepare_reads(fleet.access(leader).await?.client()?, NAMESPACE, VALUE_BYTES).await?;
    tokio::time::sleep(SETTLE).await;
    let idle = syncs_per_s(&fleet, tokio::time::sleep(settings.idle)).await?.1;
    section.note(format!("idle: {} syncs a second, by server", list(&idle)));
    let mut of_leader = Vec::new();
    for work in [Work::CREATE, Work::GET] {
        for (role, at) in [("leader", leader), ("follower", (leader + 1) % SERVERS)] {
            let endpoint = Endpoint::new(&fleet.access(at).await?)?;
            for clients in CLIENTS {
                let length = settings.load;
                let (endpoint, namespace) = (&endpoint, NAMESPACE);
                let load = Load { endpoint, namespace, work, clients, value_bytes: VALUE_BYTES, length };
                let (outcome, syncs) = syncs_per_s(&fleet, load.run()).await?;
                let outcome = outcome?;
                if work == Work::CREATE {
                    section.note(format!("{clients} clients of the {role}: {} syncs a second", list(&syncs)));
                }
                section.row(format!("knarr, {}, {clients} clients of the {role}", work.name()), figures(&outcome));
                if at == leader && work == Work::CREATE {
                    of_leader.push(outcome);
                }
            }
        }
    }
    fleet.stop().await?;
    Ok(of_leader)
}

/// What the work answers, and how often each server synced meanwhile.
async fn syncs_per_s<T>(fleet: &Fleet, work: impl Future<Output = T>) -> Result<(T, Vec<f64>)> {
    let before = fleet.syncs().await?;
    let began = Instant::now();
    let answer = work.await;
    let seconds = began.elapsed().as_secs_f64();
    let after = fleet.syncs().await?;
    let rates = before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before) as f64 / seconds);
    Ok((answer, rates.collect()))
}

fn list(figures: &[f64]) -> String {
    figures.iter().map(|figure| format!("{figure:.1}")).collect::<Vec<_>>().join(", ")
}

async fn etcd(settings: &Settings, program: &PathBuf, section: &mut Section) -> Result<Vec<Outcome>> {
    let etcd = Etcd::start(program, SERVERS, settings).await?;
    let mut outcomes = Vec::new();
    for clients in CLIENTS {
        let mut connected = Vec::with_capacity(clients);
        for _ in 0..clients {
            connected.push(Client::connect(etcd.leader).await?);
        }
        let counter = Arc::new(AtomicU64::new(0));
        let window = Window::starting_now(settings.load);
        let mut tasks = JoinSet::new();
        for client in connected {
            tasks.spawn(load::drive(Puts { client, counter: Arc::clone(&counter), clients }, window));
        }
        let outcome = load::total(tasks, window).await.context("writing to etcd")?;
        section.row(format!("etcd, put, {clients} clients of the leader"), figures(&outcome));
        outcomes.push(outcome);
    }
    etcd.stop().await?;
    Ok(outcomes)
}

/// New keys, one after the other, whichever client puts them.
struct Puts {
    client: Client,
    counter: Arc<AtomicU64>,
    clients: usize,
}

impl Step for Puts {
    async fn step(&mut self) -> Result<bool> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let key = format!("/registry/configmaps/{NAMESPACE}/c{}-{number}", self.clients);
        self.client.put(key.as_bytes(), &[b'x'; VALUE_BYTES]).await
    }
}

//! `servers`: writes per second of three servers through their API, beside three members of etcd on the same disk
//! in the same run.
//!
//! Both are written to by the same closed loop, one connection for each client. Knarr's clients speak JSON over TLS
//! and each write is authenticated, authorized, validated and given defaults; etcd's put plain bytes without TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
const INSTALL: &str = "no `etcd` on the PATH to compare with; name it with --etcd";

pub async fn measure(settings: &Settings) -> Result<Section> {
    let seconds = settings.load.as_secs();
    let title = format!("durable writes of {VALUE_BYTES} bytes to {SERVERS} servers on this machine, {seconds} s each");
    let mut section = Section::new("servers", title, &COLUMNS);
    let ours = knarr(settings, &mut section).await?;
    let Some(program) = settings.etcd.clone().or_else(|| super::program("etcd")) else {
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
    let mut of_leader = Vec::new();
    for work in [Work::Create, Work::Get] {
        for (role, at) in [("leader", leader), ("follower", (leader + 1) % SERVERS)] {
            let endpoint = Endpoint::new(&fleet.access(at).await?)?;
            for clients in CLIENTS {
                let length = settings.load;
                let (endpoint, namespace) = (&endpoint, NAMESPACE);
                let load = Load { endpoint, namespace, work, clients, value_bytes: VALUE_BYTES, length };
                let outcome = load.run().await?;
                section.row(format!("knarr, {}, {clients} clients of the {role}", work.name()), figures(&outcome));
                if at == leader && work == Work::Create {
                    of_leader.push(outcome);
                }
            }
        }
    }
    fleet.stop().await?;
    Ok(of_leader)
}

async fn etcd(settings: &Settings, program: &PathBuf, section: &mut Section) -> Result<Vec<Outcome>> {
    let etcd = Etcd::start(program, settings).await?;
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

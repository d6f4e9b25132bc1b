//! Faults, one after the other, on one cluster under load; after each everything is judged.
//!
//! Owns: the course of a round, and what is chosen by chance. May not know: what a fault does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use e2e::within;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::load::{self, Kept, Load};
use crate::report::Line;
use crate::server::Storage;
use crate::servers::Servers;
use crate::verdict::judge;

/// Acknowledged writes before a fault and after it was mended.
const WRITES: usize = 25;
const WRITES_WITHIN: Duration = Duration::from_secs(60);
const WAIT_MS_MAX: u64 = 400;

/// Something that goes wrong. It is mended when `happen` returns, except that networks are healed and
/// time is given afterwards.
pub struct Fault {
    pub name: &'static str,
    pub happen: fn(&mut Scene<'_>),
}

/// Where a fault happens.
pub struct Scene<'a> {
    pub servers: &'a mut Servers,
    pub load: &'a mut Load,
    pub chance: &'a mut StdRng,
    /// How long no write was acknowledged, if the fault measures it.
    pub silence: Option<Duration>,
}

impl Scene<'_> {
    /// Sleeps for a time from a range of milliseconds.
    pub fn wait_ms(&mut self, from: u64, to: u64) {
        std::thread::sleep(Duration::from_millis(self.chance.random_range(from..to)));
    }

    /// Any server.
    pub fn any(&mut self) -> usize {
        self.chance.random_range(0..self.servers.servers.len())
    }

    /// Any server that does not lead.
    pub fn any_follower(&mut self) -> usize {
        let followers = self.servers.others(&[self.servers.leader()]);
        followers[self.chance.random_range(0..followers.len())]
    }

    /// Waits until others than these have a leader, and writes are acknowledged again.
    pub fn wait_for_another_leader(&self, but: &[usize]) -> usize {
        let others = self.servers.others(but);
        within(WRITES_WITHIN, "another server leads", || self.servers.leader_among(&others).ok_or("none does"))
    }

    /// Waits until some more writes were acknowledged.
    pub fn wait_for_writes(&self) {
        wait_for_writes(self.load);
    }

    /// Begins to try writes on a beat through servers other than these.
    pub fn probe_without(&mut self, but: &[usize]) {
        let through = self.servers.others(but);
        self.load.probe(&self.servers.runtime, through);
    }
}

fn wait_for_writes(load: &Load) {
    let enough = load.acknowledged() + WRITES;
    within(WRITES_WITHIN, "writes are acknowledged", || match load.acknowledged() {
        count if count >= enough => Ok(()),
        count => Err(format!("{count} of {enough}")),
    });
}

/// A cluster and what was chosen for it.
pub struct Campaign {
    servers: Servers,
    chance: StdRng,
    seed: Seed,
    kept: Kept,
    runs: Vec<String>,
}

/// Printed by a test that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the faults followed from KNARR_FAULT_SEED={}", self.0);
        }
    }
}

impl Campaign {
    /// Lets each of the faults happen, as often as the environment says.
    pub fn run(storage: Storage, faults: &[Fault]) {
        let count = number("KNARR_FAULT_SERVERS").unwrap_or(3);
        let seed = number("KNARR_FAULT_SEED").unwrap_or_else(seed_of_now);
        let Some(servers) = Servers::start(usize::try_from(count).unwrap_or(3), storage) else { return };
        let (kept, runs) = (BTreeMap::new(), Vec::new());
        let mut campaign = Self { servers, chance: StdRng::seed_from_u64(seed), seed: Seed(seed), kept, runs };
        let only = std::env::var("KNARR_FAULT_ONLY").unwrap_or_default();
        for round in 0..number("KNARR_FAULT_ROUNDS").unwrap_or(1) {
            for fault in faults.iter().filter(|fault| fault.name.contains(&only)) {
                campaign.round(round, fault);
            }
        }
    }

    fn round(&mut self, round: u64, fault: &Fault) {
        let began = Instant::now();
        let run = format!("run-{}", self.runs.len());
        let runtime = &self.servers.runtime;
        let mut load = Load::start(runtime, self.servers.clients(), &run, std::mem::take(&mut self.kept));
        wait_for_writes(&load);
        let (servers, chance) = (&mut self.servers, &mut self.chance);
        let mut scene = Scene { servers, load: &mut load, chance, silence: None };
        scene.wait_ms(0, WAIT_MS_MAX);
        (fault.happen)(&mut scene);
        let silence = scene.silence;
        self.servers.heal();
        self.servers.wait_well();
        wait_for_writes(&load);

        let evidence = load.finish(&self.servers.runtime);
        let verdict = judge(&evidence);
        let line = Line { fault: fault.name, round, seed: self.seed.0, silence, verdict: &verdict };
        println!("{} ({:?})", line.to_json(), began.elapsed());
        line.append();
        let faults = verdict.faults();
        assert!(faults.is_empty(), "{}, round {round}: {} broken rules: {faults:#?}", fault.name, faults.len());

        // The next round looks whether they are still there; those of the round before have been looked at.
        let own = evidence.lists[0].iter().filter(|(name, _)| name.starts_with(&format!("{run}-")));
        self.kept = own.map(|(name, version)| (name.clone(), version.resource_version)).collect();
        if let Some(old) = self.runs.last() {
            load::delete(&self.servers.runtime, &self.servers.client(0), old);
        }
        self.runs.push(run);
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn seed_of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()))
}

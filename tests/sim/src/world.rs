//! The machines: which are up, with which disk, and how they go down and come back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use store::{
    Alarm, Change, FatalHook, Key, KeyId, KeyRing, MemberId, PeersConfig, Revision, Start, Store, StoreConfig,
    WatchClosed, WatchEvent, Workers,
};
use tokio::time::Instant;

use crate::chance::Chance;
use crate::disk::{DiskFault, SimDisk};
use crate::network::{Network, Port};
use crate::plan::Plan;
use crate::record::{Recorder, Watched};

struct Host {
    disk: SimDisk,
    store: Option<Store<()>>,
    incarnation: u64,
    /// Its disk was damaged: it may refuse to start.
    damaged: bool,
    /// It never comes back.
    retired: bool,
}

/// How a machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    Kill,
    PowerCut,
}

#[derive(Clone)]
pub struct World {
    pub plan: Arc<Plan>,
    pub network: Network,
    pub recorder: Recorder,
    began: Instant,
    chance: Arc<Mutex<Chance>>,
    hosts: Arc<Mutex<BTreeMap<u64, Host>>>,
    /// Members that are gone for good and have to be replaced.
    pub gone: Arc<Mutex<Vec<u64>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub fn new(plan: Plan, mut chance: Chance) -> Self {
        Self {
            plan: Arc::new(plan),
            network: Network::new(chance.fork()),
            recorder: Recorder::default(),
            began: Instant::now(),
            chance: Arc::new(Mutex::new(chance)),
            hosts: Arc::default(),
            gone: Arc::default(),
        }
    }

    pub fn event(&self, what: String) {
        self.recorder.event(self.began.elapsed(), what);
    }

    pub fn draw<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut lock(&self.chance))
    }

    pub fn store(&self, id: u64) -> Option<Store<()>> {
        lock(&self.hosts).get(&id)?.store.clone()
    }

    pub fn up(&self) -> Vec<(u64, u64, Store<()>)> {
        let hosts = lock(&self.hosts);
        hosts.iter().filter_map(|(id, host)| Some((*id, host.incarnation, host.store.clone()?))).collect()
    }

    /// Those that are not gone for good.
    pub fn ids(&self) -> Vec<u64> {
        lock(&self.hosts).iter().filter(|(_, host)| !host.retired).map(|(id, _)| *id).collect()
    }

    pub fn leader(&self) -> Option<(u64, Store<()>)> {
        self.up().into_iter().find(|(.., store)| *store.leadership().borrow()).map(|(id, _, store)| (id, store))
    }

    pub fn set_fault(&self, id: u64, fault: DiskFault) {
        if let Some(host) = lock(&self.hosts).get(&id) {
            host.disk.set_fault(fault);
        }
    }

    /// A new machine with an empty disk.
    pub async fn found(&self, id: u64) {
        let disk = if self.plan.disks_lie { SimDisk::lying() } else { SimDisk::default() };
        let host = Host { disk, store: None, incarnation: 0, damaged: false, retired: false };
        lock(&self.hosts).insert(id, host);
        self.start(id).await;
    }

    fn config(&self, id: u64, incarnation: u64) -> StoreConfig {
        let delays = Mutex::new(self.draw(Chance::fork));
        let (this, slow_per_mille) = (self.clone(), self.plan.disk_slow_per_mille);
        let port = Port { network: self.network.clone(), member: id, incarnation };
        StoreConfig {
            member_id: MemberId(id),
            keys: if self.plan.sealed { keys(id, incarnation) } else { KeyRing::default() },
            history: self.plan.history,
            snapshot_log_bytes: self.plan.snapshot_log_bytes,
            log_entries_kept: 10,
            audit_every: Duration::from_secs(1),
            fatal: FatalHook::new(move |why| this.died(id, incarnation, why)),
            workers: Workers::Inline(Arc::new(move || {
                // A disk is fast, but for once in a while.
                let mut delays = lock(&delays);
                let slow = delays.per_mille(slow_per_mille);
                Duration::from_micros(if slow { delays.between(5_000, 80_000) } else { delays.between(50, 1_500) })
            })),
            start: if id == 1 { Start::Found } else { Start::Join },
            peers: PeersConfig { transport: Arc::new(port), ..PeersConfig::default() },
            ..StoreConfig::new("simulated")
        }
    }

    pub async fn start(&self, id: u64) {
        let (incarnation, disk) = {
            let mut hosts = lock(&self.hosts);
            let Some(host) = hosts.get_mut(&id).filter(|host| host.store.is_none() && !host.retired) else { return };
            host.incarnation += 1;
            (host.incarnation, host.disk.clone())
        };
        let opened = Store::<()>::open_on(Arc::new(disk), self.config(id, incarnation)).await;
        let mut hosts = lock(&self.hosts);
        let Some(host) = hosts.get_mut(&id).filter(|host| host.incarnation == incarnation) else { return };
        match opened {
            Ok(store) => {
                host.store = Some(store.clone());
                drop(hosts);
                self.event(format!("member {id} is up ({incarnation})"));
                self.network.attach(id, incarnation, store.clone());
                tokio::spawn(heed(self.clone(), id, store.alarms()));
                tokio::spawn(watch(store, self.recorder.clone(), (id, incarnation)));
            }
            // It could not be written: a supervisor tries again.
            Err(_) if host.disk.fault() != DiskFault::None => {
                drop(hosts);
                self.take_down(id, Down::PowerCut);
                self.restart_later(id);
            }
            Err(error) => {
                let why = chain(&error);
                let expected = host.damaged;
                host.retired = true;
                drop(hosts);
                self.event(format!("member {id} does not start: {why}"));
                lock(&self.gone).push(id);
                if !expected {
                    self.recorder.fail(format!("member {id} does not start: {why}"));
                }
            }
        }
    }

    /// The process ends itself.
    fn died(&self, id: u64, incarnation: u64, why: &str) {
        if lock(&self.hosts).get(&id).is_none_or(|host| host.incarnation != incarnation || host.store.is_none()) {
            return;
        }
        self.event(format!("member {id} ends itself: {why}"));
        if why.contains("raft ended") {
            self.recorder.fail(format!("member {id} ended itself: {why}"));
        }
        self.take_down(id, Down::PowerCut);
        self.restart_later(id);
    }

    pub fn take_down(&self, id: u64, how: Down) {
        let mut chance = self.draw(Chance::fork);
        let mut hosts = lock(&self.hosts);
        let Some(host) = hosts.get_mut(&id) else { return };
        host.disk = match how {
            Down::Kill => host.disk.kill(),
            Down::PowerCut => host.disk.cut_power(&mut chance),
        };
        // Also ends an attempt to start that is under way.
        host.incarnation += 1;
        let store = host.store.take();
        drop(hosts);
        self.network.detach(id);
        if let Some(store) = store {
            self.event(format!("member {id} is down ({how:?})"));
            // Its tasks are gone with the process; here they have to be asked.
            tokio::spawn(store.shutdown());
        }
    }

    pub fn restart_later(&self, id: u64) {
        let pause = self.draw(|chance| chance.millis(100, 4000));
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            this.start(id).await;
        });
    }

    /// Takes a machine down for good.
    pub fn retire(&self, id: u64) {
        self.take_down(id, Down::Kill);
        if let Some(host) = lock(&self.hosts).get_mut(&id) {
            host.retired = true;
        }
        self.event(format!("member {id} is gone for good"));
    }

    /// Damages the disk of a machine that is down.
    pub fn corrupt(&self, id: u64) {
        let mut chance = self.draw(Chance::fork);
        let mut hosts = lock(&self.hosts);
        let Some(host) = hosts.get_mut(&id) else { return };
        if let Some(place) = host.disk.corrupt(&mut chance) {
            host.damaged = true;
            drop(hosts);
            self.event(format!("a bit turned on the disk of member {id}: {place}"));
        }
    }

    pub async fn start_all(&self) {
        for id in self.ids() {
            self.set_fault(id, DiskFault::None);
            self.start(id).await;
        }
    }

    pub async fn shut_down(&self) {
        for (id, _, store) in self.up() {
            self.network.detach(id);
            if let Some(host) = lock(&self.hosts).get_mut(&id) {
                host.store = None;
            }
            store.shutdown().await;
        }
    }
}

/// Starts with plain files; from then on one start in a few brings a new key.
fn keys(id: u64, incarnation: u64) -> KeyRing {
    let key = |number: u64| Key::new([(id * 16 + number) as u8; 32]);
    let newest = incarnation / 3;
    let current = if newest == 0 { KeyRing::default() } else { KeyRing::new(KeyId(newest), key(newest)) };
    (1..newest).fold(current, |ring, number| ring.with_older(KeyId(number), key(number)))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// An alarm is a failure, but where a test has broken a member on purpose.
async fn heed(world: World, id: u64, mut alarms: tokio::sync::watch::Receiver<Alarm>) {
    while alarms.changed().await.is_ok() {
        let alarm = alarms.borrow_and_update().clone();
        match alarm {
            Alarm::None => {}
            Alarm::Diverged { .. } => world.recorder.fail(format!("to member {id} {alarm:?}")),
            Alarm::Quarantined { .. } => {
                world.recorder.fail(format!("member {id} is in quarantine"));
                let moment = world.recorder.moment();
                world.recorder.record().quarantined.push((id, moment));
                if let Some(host) = lock(&world.hosts).get_mut(&id) {
                    // It will not start again.
                    host.damaged = true;
                }
            }
        }
    }
}

/// Follows everything one process applies, from as far back as it can.
async fn watch(store: Store<()>, recorder: Recorder, of: (u64, u64)) {
    let saw = |seen: Watched| recorder.record().watches.entry(of).or_default().push(seen);
    let mut after = Revision(0);
    let mut watch = loop {
        match store.watch(Bytes::new(), after) {
            Ok(watch) => break watch,
            Err(compacted) => after = compacted.compacted,
        }
    };
    saw(Watched::From(after.0));
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    loop {
        match watch.next().await {
            Ok(WatchEvent { revision, change: Change::Put { entry, .. } }) => {
                saw(Watched::Event(revision.0, text(&entry.key), Some(text(&entry.value))));
            }
            Ok(WatchEvent { revision, change: Change::Delete { previous } }) => {
                saw(Watched::Event(revision.0, text(&previous.key), None));
            }
            Err(WatchClosed::Lagged(_)) => {
                let view = store.view().revision();
                let Ok(again) = store.watch(Bytes::new(), view) else { continue };
                saw(Watched::Lagged(view.0));
                watch = again;
            }
            Err(WatchClosed::Shutdown) => return,
        }
    }
}

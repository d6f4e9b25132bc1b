//! Power cuts on a simulated disk: whatever was not synced may be gone, cut short, zeroed or garbled; whatever was
//! acknowledged as synced is there, and the member starts without help. Any failure prints its seed.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex};

use store::{
    Change, Disk, DiskFile, Durability, FatalHook, Key, KeyId, KeyRing, Op, Revision, Store, StoreConfig, Txn,
    TxnOutcome,
};

/// What a file holds, and how much of it would survive.
#[derive(Clone, Default)]
struct SimFile {
    bytes: Vec<u8>,
    synced: usize,
    /// Where zeros end that follow the bytes.
    room_end: usize,
}

impl SimFile {
    fn content(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(self.room_end.max(bytes.len()), 0);
        bytes
    }
}

#[derive(Clone, Default)]
struct SimDisk(Arc<Mutex<BTreeMap<String, SimFile>>>);

struct Handle {
    disk: SimDisk,
    name: String,
}

impl DiskFile for Handle {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.disk.0.lock().unwrap();
        files.get_mut(&self.name).unwrap().bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|file| file.synced = file.bytes.len());
        Ok(())
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.with(|file| file.room_end = file.bytes.len() + bytes as usize);
        Ok(())
    }

    fn trim(&mut self) -> io::Result<()> {
        self.with(|file| (file.synced, file.room_end) = (file.bytes.len(), 0));
        Ok(())
    }
}

impl Handle {
    fn with(&self, change: impl FnOnce(&mut SimFile)) {
        let mut files = self.disk.0.lock().unwrap();
        // A file synced before its rename keeps its handle; the log does that with new segments.
        let name = if files.contains_key(&self.name) { &self.name } else { self.name.strip_suffix(".tmp").unwrap() };
        change(files.get_mut(name).unwrap());
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.lock().unwrap().insert(name.to_owned(), SimFile::default());
        Ok(Box::new(Renamed(Handle { disk: self.clone(), name: name.to_owned() })))
    }

    fn reopen(&self, name: &str, length: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut files = self.0.lock().unwrap();
        let file = files.get_mut(name).ok_or_else(missing)?;
        file.bytes.truncate(length as usize);
        (file.synced, file.room_end) = (file.bytes.len(), 0);
        Ok(Box::new(Handle { disk: self.clone(), name: name.to_owned() }))
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let content = self.0.lock().unwrap().get(name).ok_or_else(missing)?.content();
        Ok(Box::new(Cursor::new(content)))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let files = self.0.lock().unwrap();
        let bytes = &files.get(name).ok_or_else(missing)?.bytes;
        Ok(bytes[offset as usize..offset as usize + length].to_vec())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{directory}/");
        Ok(self.0.lock().unwrap().keys().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.0.lock().unwrap().contains_key(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let file = files.remove(from).ok_or_else(missing)?;
        assert_eq!(file.synced, file.bytes.len(), "{from} is renamed before it was synced");
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().remove(name).map(drop).ok_or_else(missing)
    }
}

/// A handle follows its file through the rename that ends in `.tmp` being dropped.
struct Renamed(Handle);

impl DiskFile for Renamed {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.0.disk.exists(&self.0.name)? {
            self.0.name = self.0.name.strip_suffix(".tmp").unwrap().to_owned();
        }
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.0.reserve(bytes)
    }

    fn trim(&mut self) -> io::Result<()> {
        self.0.trim()
    }
}

/// Small and good enough to choose faults with; the seed is in every message.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

impl SimDisk {
    /// The disk after the power came back.
    fn power_cut(&self, rng: &mut Rng) -> SimDisk {
        let mut files = self.0.lock().unwrap().clone();
        for file in files.values_mut() {
            let unsynced = (file.bytes.len() - file.synced) as u64;
            let kept = file.synced + rng.below(unsynced + 1) as usize;
            file.bytes.truncate(kept);
            let tail = &mut file.bytes[file.synced..];
            match rng.below(4) {
                0 => tail.fill(0),
                1 => tail.iter_mut().for_each(|byte| *byte ^= rng.below(256) as u8),
                2 if !tail.is_empty() => {
                    // One page of the tail never arrived.
                    let at = rng.below(tail.len() as u64) as usize;
                    let end = (at + 512).min(tail.len());
                    tail[at..end].fill(0);
                }
                _ => {}
            }
            // Of the room behind that as much as the file system knows of; what was lost before it reads as zeros.
            let room = file.room_end.saturating_sub(file.bytes.len()) as u64;
            if rng.below(2) == 0 {
                file.bytes.resize(file.bytes.len() + rng.below(room + 1) as usize, 0);
            } else {
                file.bytes = file.content();
            }
            (file.synced, file.room_end) = (file.bytes.len(), 0);
        }
        SimDisk(Arc::new(Mutex::new(files)))
    }
}

const WRITERS: u64 = 4;

fn config(keys: KeyRing) -> StoreConfig {
    StoreConfig {
        keys,
        snapshot_log_bytes: 20_000,
        fatal: FatalHook::new(|why| panic!("{why}")),
        ..StoreConfig::new("unused")
    }
}

/// Each writer puts rising numbers under its own key; what was acknowledged as synced is noted.
async fn writer(
    store: Store<()>,
    writer: u64,
    mut number: u64,
    acknowledged: Arc<Mutex<BTreeMap<u64, (u64, Revision)>>>,
) {
    loop {
        number += 1;
        let durability = if number.is_multiple_of(4) { Durability::Relaxed } else { Durability::Synced };
        let op = Op::Put { key: format!("/w/{writer}").into(), value: number.to_string().into(), stamp_at: None };
        let filler = Op::Put { key: format!("/f/{writer}").into(), value: vec![7; 300].into(), stamp_at: None };
        match store.propose(Txn { guards: vec![], ops: vec![op, filler], durability }).await {
            Ok(TxnOutcome::Applied { revision, .. }) if durability == Durability::Synced => {
                acknowledged.lock().unwrap().insert(writer, (number, revision));
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn found(store: &Store<()>) -> BTreeMap<u64, (u64, Revision)> {
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().parse().unwrap();
    store.view().range(b"/w/", None).map(|e| (number(&e.key[3..]), (number(&e.value), e.mod_revision))).collect()
}

/// Revisions in the window are without a gap, whatever was lost at the end.
async fn check_window(store: &Store<()>, seed: u64) {
    let view = store.view();
    let mut watch = store.watch("/w/".into(), Revision(0)).unwrap();
    for revision in 1..=view.revision().0 {
        let event = watch.next().await.unwrap();
        assert_eq!(event.revision, Revision(revision), "seed {seed}");
        assert!(matches!(event.change, Change::Put { .. }));
    }
}

/// Another key with every start.
fn keys_of(cut: u64) -> KeyRing {
    let key = |id: u64| Key::new([id as u8; 32]);
    (0..cut).fold(KeyRing::new(KeyId(cut), key(cut)), |ring, id| ring.with_older(KeyId(id), key(id)))
}

async fn run(seed: u64, keys: fn(u64) -> KeyRing) {
    let mut rng = Rng(seed);
    let mut disk = SimDisk::default();
    let mut acknowledged = BTreeMap::new();
    for cut in 0..6 {
        let store: Store<()> = Store::open_on(Arc::new(disk.clone()), config(keys(cut)))
            .await
            .unwrap_or_else(|error| panic!("seed {seed}, cut {cut}: {error:?}"));
        let there = found(&store);
        for (writer, (number, revision)) in &acknowledged {
            let (has, at) = there.get(writer).copied().unwrap_or_default();
            assert!(
                (has, at) == (*number, *revision) || (has > *number && at > *revision),
                "seed {seed}, cut {cut}, writer {writer}: {number} at {revision} was acknowledged, {has} at {at} is there"
            );
        }
        check_window(&store, seed).await;
        let noted = Arc::new(Mutex::new(there.clone()));
        let writers: Vec<_> = (0..WRITERS)
            .map(|id| {
                let number = there.get(&id).map_or(0, |(number, _)| *number);
                tokio::spawn(writer(store.clone(), id, number, noted.clone()))
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_micros(1000 + rng.below(30_000))).await;
        // First what was acknowledged, then the picture of the disk: a later acknowledgement may be on it or not.
        acknowledged = noted.lock().unwrap().clone();
        let after = disk.power_cut(&mut rng);
        writers.iter().for_each(tokio::task::JoinHandle::abort);
        store.shutdown().await;
        disk = after;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_as_synced_is_lost() {
    for seed in 1..=25u64 {
        run(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed), |_| KeyRing::default()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_when_it_is_sealed_and_the_keys_are_rotated() {
    for seed in 1..=25u64 {
        run(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed), keys_of).await;
    }
}

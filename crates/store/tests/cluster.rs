//! Members of one cluster in one process, each reached over real streams by way of TCP on the loopback.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use store::{
    Dial, Durability, KeyRing, MemberId, Op, PeerStream, PeersConfig, ProposeError, Revision, Start, Store,
    StoreConfig, StreamTransport, Txn, TxnOutcome,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Who does not hear whom.
#[derive(Clone, Default)]
pub struct Cuts(Arc<Mutex<Vec<(u64, u64)>>>);

impl Cuts {
    pub fn cut(&self, from: u64, to: u64) {
        self.0.lock().unwrap().push((from, to));
    }

    pub fn heal(&self) {
        self.0.lock().unwrap().clear();
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.0.lock().unwrap().contains(&(from, to))
    }
}

/// Tells the other end who it is in the first eight bytes: TLS does that in the product.
struct Tcp {
    me: MemberId,
    cuts: Cuts,
}

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, member: MemberId, address: &str) -> io::Result<Box<dyn PeerStream>> {
        if self.cuts.is_cut(self.me.0, member.0) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.me.0.to_le_bytes()).await?;
        Ok(Box::new(stream))
    }
}

pub struct Running {
    pub store: Store<()>,
    pub address: String,
    accepting: JoinHandle<()>,
}

pub struct Cluster {
    pub members: BTreeMap<u64, Running>,
    pub cuts: Cuts,
    pub keys: fn(u64) -> KeyRing,
    dir: tempfile::TempDir,
}

pub fn put(key: &str, value: &str) -> Txn {
    let op = Op::Put { key: key.to_owned().into(), value: value.to_owned().into(), stamp_at: None };
    Txn { ops: vec![op], durability: Durability::Synced, ..Txn::default() }
}

pub async fn write(store: &Store<()>, key: &str, value: &str) -> Result<Revision, ProposeError> {
    match store.propose(put(key, value)).await? {
        TxnOutcome::Applied { revision, .. } => Ok(revision),
        outcome => panic!("{outcome:?}"),
    }
}

/// Waits for what must become true.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}

impl Cluster {
    /// A cluster of `count` voters, the first of which founded it.
    pub async fn of(count: u64) -> Self {
        Self::sealed_of(count, |_| KeyRing::default()).await
    }

    /// With keys for each member.
    pub async fn sealed_of(count: u64, keys: fn(u64) -> KeyRing) -> Self {
        let mut cluster = Self::empty(keys);
        cluster.start(1, Start::Found, BTreeMap::new()).await;
        for _ in 1..count {
            let member = cluster.add_learner().await;
            cluster.store(1).promote(member).await.unwrap();
        }
        cluster
    }

    pub fn empty(keys: fn(u64) -> KeyRing) -> Self {
        Self { members: BTreeMap::new(), cuts: Cuts::default(), keys, dir: tempfile::tempdir().unwrap() }
    }

    pub fn store(&self, id: u64) -> Store<()> {
        self.members[&id].store.clone()
    }

    pub fn path(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("member-{id}"))
    }

    /// Reserves an id, starts an empty member under it and adds it.
    pub async fn add_learner(&mut self) -> MemberId {
        let any = self.members.values().next().unwrap().store.clone();
        let id = any.reserve_member().await.unwrap();
        self.start(id.0, Start::Join, BTreeMap::new()).await;
        any.add_learner(id, vec![self.members[&id.0].address.clone()]).await.unwrap();
        id
    }

    pub async fn start(&mut self, id: u64, start: Start, addresses: BTreeMap<MemberId, Vec<String>>) {
        let config = StoreConfig {
            member_id: MemberId(id),
            start,
            keys: (self.keys)(id),
            snapshot_log_bytes: 64 * 1024,
            ..StoreConfig::new(self.path(id))
        };
        let running = run(config, addresses, self.cuts.clone()).await;
        self.members.insert(id, running);
    }

    /// Ends a member in order.
    pub async fn stop(&mut self, id: u64) {
        let running = self.members.remove(&id).unwrap();
        running.accepting.abort();
        running.store.shutdown().await;
    }

    pub fn leader(&self) -> Option<u64> {
        self.members.iter().find(|(_, running)| *running.store.leadership().borrow()).map(|(id, _)| *id)
    }

    pub async fn wait_for_leader(&self) -> u64 {
        until("somebody leads", || self.leader().is_some()).await;
        self.leader().unwrap()
    }
}

async fn run(config: StoreConfig, addresses: BTreeMap<MemberId, Vec<String>>, cuts: Cuts) -> Running {
    let id = config.member_id;
    let severed_cuts = cuts.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let peers = PeersConfig {
        transport: Arc::new(StreamTransport::new(Tcp { me: id, cuts })),
        advertise: vec![address.clone()],
        addresses,
    };
    let store = Store::<()>::open(StoreConfig { peers, ..config }).await.unwrap();
    let (serving, severed) = (store.clone(), severed_cuts);
    let accepting = tokio::spawn(async move {
        let mut streams = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let (store, cuts) = (serving.clone(), severed.clone());
            streams.spawn(async move {
                stream.set_nodelay(true).unwrap();
                let mut from = [0; 8];
                if stream.read_exact(&mut from).await.is_ok() {
                    let from = u64::from_le_bytes(from);
                    let severed = async {
                        while !cuts.is_cut(from, id.0) {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    };
                    tokio::select! {
                        // However it ends: the other end may have gone.
                        ended = store.serve_stream(MemberId(from), stream) => drop(ended),
                        () = severed => {}
                    }
                }
            });
        }
    });
    Running { store, address, accepting }
}

/// Everything in a store, to be compared.
pub fn dump(store: &Store<()>) -> Vec<(bytes::Bytes, bytes::Bytes, Revision, Revision)> {
    let view = store.view();
    view.range(b"", None).map(|e| (e.key.clone(), e.value.clone(), e.create_revision, e.mod_revision)).collect()
}

//! Snapshots that other members send in pieces: kept in a directory of their own until they are whole, then handed
//! to raft. One transfer per sender; a new one ends the one before.

use std::collections::BTreeMap;
use std::io;
use std::sync::Weak;

use super::message::Chunk;
use super::state_machine::SnapshotData;
use crate::log::disk::Disk;
use crate::seal::{KeyRing, StoredFile, Vault};
use crate::types::MemberId;
use crate::workers::Workers;

pub(super) const DIRECTORY: &str = "incoming";
/// Transfers under way. There is one leader at a time; a second may be one that does not know yet.
const TRANSFERS_MAX: usize = 4;

#[derive(Debug, thiserror::Error)]
pub(super) enum IncomingError {
    #[error("the piece does not fit what is there")]
    OutOfPlace,
    #[error("the snapshot does not have the bytes that were sent")]
    Damaged,
    #[error("too many snapshots arrive at once")]
    TooMany,
    #[error("the member is about to stop")]
    Stopped,
    #[error("cannot write the snapshot")]
    Write(#[from] io::Error),
}

/// Owned behind one lock: a piece is on the disk before the next one is looked at.
pub(super) struct Incoming {
    disk: Weak<dyn Disk>,
    keys: KeyRing,
    workers: Workers,
    transfers: BTreeMap<MemberId, Transfer>,
}

struct Transfer {
    number: u64,
    file: StoredFile,
    received: u64,
    crc: crc32fast::Hasher,
}

impl Transfer {
    fn append(mut self, bytes: &[u8]) -> io::Result<Self> {
        self.file.append(bytes)?;
        self.crc.update(bytes);
        self.received += bytes.len() as u64;
        Ok(self)
    }
}

fn name_of(from: MemberId) -> String {
    format!("{DIRECTORY}/{from}.snap")
}

/// What an earlier run left is of no use.
pub(super) fn clear(disk: &dyn Disk) -> io::Result<()> {
    disk.list(DIRECTORY)?.iter().try_for_each(|name| disk.remove(&format!("{DIRECTORY}/{name}")))
}

impl Incoming {
    pub fn new(disk: Weak<dyn Disk>, keys: KeyRing, workers: Workers) -> Self {
        Self { disk, keys, workers, transfers: BTreeMap::new() }
    }

    fn vault(&self) -> Result<Vault, IncomingError> {
        let disk = self.disk.upgrade().ok_or(IncomingError::Stopped)?;
        Ok(Vault { disk, keys: self.keys.clone() })
    }

    /// Answers how many bytes of this transfer are there now.
    pub async fn take(&mut self, from: MemberId, chunk: Chunk) -> Result<u64, IncomingError> {
        if crc32fast::hash(&chunk.bytes) != chunk.crc {
            return Err(IncomingError::Damaged);
        }
        let transfer = if chunk.offset == 0 {
            self.transfers.remove(&from);
            if self.transfers.len() >= TRANSFERS_MAX {
                return Err(IncomingError::TooMany);
            }
            let vault = self.vault()?;
            let file = self.workers.run(move || vault.create(&name_of(from))).await?;
            Transfer { number: chunk.transfer, file, received: 0, crc: crc32fast::Hasher::new() }
        } else {
            self.transfers.remove(&from).ok_or(IncomingError::OutOfPlace)?
        };
        if (transfer.number, transfer.received) != (chunk.transfer, chunk.offset) {
            return Err(IncomingError::OutOfPlace);
        }
        let transfer = self.workers.run(move || transfer.append(&chunk.bytes)).await?;
        let received = transfer.received;
        self.transfers.insert(from, transfer);
        Ok(received)
    }

    /// The snapshot, when all of it is there.
    pub async fn finish(
        &mut self,
        from: MemberId,
        number: u64,
        length: u64,
        crc: u32,
    ) -> Result<SnapshotData, IncomingError> {
        let transfer = self.transfers.remove(&from).ok_or(IncomingError::OutOfPlace)?;
        if (transfer.number, transfer.received) != (number, length) {
            return Err(IncomingError::OutOfPlace);
        }
        if transfer.crc.clone().finalize() != crc {
            return Err(IncomingError::Damaged);
        }
        let Transfer { file, .. } = transfer;
        self.workers.run(move || file.finish()).await?;
        Ok(SnapshotData::new(self.vault()?, name_of(from)))
    }

    /// Whatever came of it, the file is of no more use.
    pub fn discard(&self, from: MemberId) {
        if let Some(disk) = self.disk.upgrade()
            && let Err(error) = disk.remove(&name_of(from))
        {
            tracing::warn!(%error, "a received snapshot cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use super::*;
    use crate::log::disk::OsDisk;
    use crate::seal::{Key, KeyId};

    const FROM: MemberId = MemberId(2);

    fn chunk(transfer: u64, offset: u64, bytes: &'static [u8]) -> Chunk {
        Chunk { transfer, offset, crc: crc32fast::hash(bytes), bytes: bytes.into() }
    }

    fn incoming() -> (tempfile::TempDir, Arc<dyn Disk>, Incoming) {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(dir.path()).unwrap());
        let keys = KeyRing::new(KeyId(1), Key::new([3; 32]));
        let incoming = Incoming::new(Arc::downgrade(&disk), keys, Workers::Threads);
        (dir, disk, incoming)
    }

    #[tokio::test]
    async fn pieces_make_a_whole() {
        let (_dir, disk, mut incoming) = incoming();
        assert_eq!(incoming.take(FROM, chunk(1, 0, b"given up")).await.unwrap(), 8);
        assert_eq!(incoming.take(FROM, chunk(2, 0, b"snap")).await.unwrap(), 4);
        assert_eq!(incoming.take(FROM, chunk(2, 4, b"shot")).await.unwrap(), 8);
        let data = incoming.finish(FROM, 2, 8, crc32fast::hash(b"snapshot")).await.unwrap();
        let mut text = String::new();
        data.open().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "snapshot");
        incoming.discard(FROM);
        assert!(disk.list(DIRECTORY).unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused() {
        let (_dir, disk, mut incoming) = incoming();
        assert!(matches!(incoming.take(FROM, chunk(1, 4, b"late")).await, Err(IncomingError::OutOfPlace)));
        incoming.take(FROM, chunk(1, 0, b"snap")).await.unwrap();
        assert!(matches!(incoming.take(FROM, chunk(2, 4, b"shot")).await, Err(IncomingError::OutOfPlace)));
        assert!(matches!(incoming.take(FROM, chunk(1, 4, b"shot")).await, Err(IncomingError::OutOfPlace)));
        let mut flipped = chunk(1, 0, b"snap");
        flipped.crc ^= 1;
        assert!(matches!(incoming.take(FROM, flipped).await, Err(IncomingError::Damaged)));
        incoming.take(FROM, chunk(3, 0, b"snap")).await.unwrap();
        assert!(matches!(incoming.finish(FROM, 3, 4, 7).await, Err(IncomingError::Damaged)));
        incoming.take(FROM, chunk(4, 0, b"snap")).await.unwrap();
        assert!(matches!(incoming.finish(FROM, 4, 5, 7).await, Err(IncomingError::OutOfPlace)));
        for sender in 10..10 + TRANSFERS_MAX as u64 {
            incoming.take(MemberId(sender), chunk(1, 0, b"x")).await.unwrap();
        }
        assert!(matches!(incoming.take(FROM, chunk(5, 0, b"x")).await, Err(IncomingError::TooMany)));
        clear(disk.as_ref()).unwrap();
        assert!(disk.list(DIRECTORY).unwrap().is_empty());
    }
}

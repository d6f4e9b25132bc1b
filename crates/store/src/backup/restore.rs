//! Founds a cluster of one in an empty directory, whose state is that of a backup. Blocks: it is no part of a running
//! store.
//!
//! In this order, so that an end at any place leaves nothing or everything:
//!
//! 1. the state is written as a snapshot, under a name that no member reads
//! 2. the backup's hash is compared; up to here everything is removed again
//! 3. the directory is given its identity, which names that snapshot: from here on there is a member
//! 4. the snapshot is given its name, by this code or by whoever opens the directory next

use std::io::{self, Read};
use std::sync::Arc;

use super::read::{BackupReader, BackupSummary};
use crate::config::StoreConfig;
use crate::identity::{self, IdentityError};
use crate::log::disk::{Disk, OsDisk};
use crate::raft;
use crate::seal::Vault;
use crate::snapshot::{self, Record, SnapshotError, SnapshotWriter};
use crate::types::Revision;

/// How far the revision is moved on. More than any cluster writes between a backup and its end, so that no revision
/// that the old cluster ever gave to anybody is one of the new cluster: it is compacted.
pub const REVISION_BUMP: u64 = 1_000_000_000;

#[derive(Debug, thiserror::Error)]
pub enum RestoreBackupError {
    #[error("cannot open the store directory {dir}")]
    Directory { dir: String, source: io::Error },
    #[error("there is a member in {dir} already: restore into an empty directory")]
    NotEmpty { dir: String },
    #[error("the backup cannot be used, and nothing was changed")]
    Backup(#[source] SnapshotError),
    #[error("cannot write the restored state; nothing was changed")]
    Write(#[source] io::Error),
    #[error("cannot make the restored state a member")]
    Claim(#[source] IdentityError),
}

/// What a restored cluster begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub backup: BackupSummary,
    /// The newest revision now, and the oldest that can be read or watched from.
    pub revision: Revision,
}

/// Restores into `config.dir` as member `config.member_id`, under `config.keys`, reachable at what
/// `config.peers` advertises. [`Store::open`](crate::Store::open) then finds a cluster of one; others join as usual.
pub fn restore(config: &StoreConfig, from: impl Read) -> Result<Restored, RestoreBackupError> {
    let dir = config.dir.display().to_string();
    let disk = OsDisk::open(&config.dir).map_err(|source| RestoreBackupError::Directory { dir, source })?;
    restore_on(Arc::new(disk), config, from)
}

/// As [`restore`], on a disk of the caller's.
pub fn restore_on(disk: Arc<dyn Disk>, config: &StoreConfig, from: impl Read) -> Result<Restored, RestoreBackupError> {
    let dir = config.dir.display().to_string();
    if !identity::is_free(disk.as_ref()).map_err(|source| RestoreBackupError::Directory { dir: dir.clone(), source })? {
        return Err(RestoreBackupError::NotEmpty { dir });
    }
    let vault = Vault { disk, keys: config.keys.clone() };
    let mut backup = BackupReader::open(from).map_err(RestoreBackupError::Backup)?;
    let ids_given_out = backup.head.ids_given_out;
    let addresses = config.peers.advertise.clone();
    let founding =
        raft::Founding::new(config.member_id, addresses, ids_given_out).map_err(RestoreBackupError::Write)?;
    let temporary = format!("{}.tmp", founding.snapshot);
    let written = write(&vault, &temporary, &founding.head, &mut backup);
    let restored = written.and_then(|revision| {
        let backup = backup.finish().map_err(RestoreBackupError::Backup)?;
        Ok(Restored { backup, revision })
    });
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => {
            // Were it to stay, it would be no member either.
            drop(vault.disk.remove(&temporary));
            return Err(error);
        }
    };
    let waiting = identity::waiting_name(&founding.snapshot);
    vault.disk.rename(&temporary, &waiting).map_err(RestoreBackupError::Write)?;
    let sealed = config.keys.current().is_some();
    identity::claim_for_restored(vault.disk.as_ref(), config.member_id, &founding.snapshot)
        .and_then(|()| identity::claim(vault.disk.as_ref(), config.member_id, sealed))
        .map_err(RestoreBackupError::Claim)?;
    Ok(restored)
}

/// The backup's state as a snapshot that is durable. Answers its revision.
fn write<R: Read>(
    vault: &Vault,
    name: &str,
    head: &[u8],
    backup: &mut BackupReader<R>,
) -> Result<Revision, RestoreBackupError> {
    use RestoreBackupError::{Backup, Write};
    let far = backup.head.revision.0.checked_add(REVISION_BUMP);
    let revision = Revision(far.ok_or(Backup(SnapshotError::Damaged("an impossible revision")))?);
    let mut file = vault.create(name).map_err(Write)?;
    let mut writer = SnapshotWriter::begin(snapshot::FORMAT, &mut file, head).map_err(Write)?;
    while let Some(record) = backup.next().map_err(Backup)? {
        let record = match record {
            // Entries keep their revisions: they are also in the stored bytes, and these do not change.
            Record::Base { .. } => Record::Base { revision },
            record => record,
        };
        writer.push(&record).map_err(Write)?;
    }
    writer.finish().map_err(Write)?;
    file.finish().map_err(Write)?;
    Ok(revision)
}

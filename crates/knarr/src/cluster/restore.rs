//! An empty data directory made into the first server of a cluster that was backed up.
//!
//! Owns: the order. The authorities come first and the state last, which is either there or not: a crash leaves a
//! directory into which the same backup can be restored again, or a restored one.
//! May not know: the backup's format.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use store::{MemberId, Restored, StoreConfig, verify_backup};

use super::lock::DataDirLock;
use super::wire::BackupHeader;
use crate::pki::AuthorityName;
use crate::store_keys::StoreKeys;

/// A member id that the old cluster never gave out: members of it that still run do not take this one for theirs.
pub fn restore(backup: &Path, data_dir: &Path, keys: &Path) -> Result<(MemberId, Restored)> {
    let open = || File::open(backup).with_context(|| format!("cannot open {}", backup.display()));
    let summary = verify_backup(open()?).with_context(|| format!("{} is no whole backup", backup.display()))?;
    let header: BackupHeader =
        serde_json::from_slice(&summary.header).context("the backup was not made by a Knarr server")?;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
    let _lock = DataDirLock::take(data_dir)?;
    let mut config = StoreConfig::new(data_dir.join("store"));
    if store::member_of(&config.dir).context("cannot look into the store directory")?.is_some() {
        bail!("{} holds the state of a cluster: restore into another --data-dir", data_dir.display());
    }
    let pki = data_dir.join("pki");
    AuthorityName::Cluster.install(&pki, &header.cluster_authority.into())?;
    if let Some(peers) = header.peer_authority {
        AuthorityName::Peers.install(&pki, &peers.into())?;
    }
    config.member_id = MemberId(summary.ids_given_out + 1);
    config.keys = StoreKeys::open(keys)?.ring();
    let restored = store::restore(&config, open()?)?;
    Ok((config.member_id, restored))
}

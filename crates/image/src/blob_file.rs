//! A blob that is being written: hashed as it comes, and brought to the disk in small steps.
//!
//! May not know: where it comes from, how long it may be, where it belongs.

use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use crate::digest::Digest;

/// What waits for the disk at most. An image that is synced at its end alone keeps the disk busy until then, and on a
/// server's machine the log of the cluster's state waits behind it.
const UNSYNCED_BYTES_MAX: usize = 1024 * 1024;

pub(crate) struct BlobFile {
    file: tokio::fs::File,
    hasher: Sha256,
    unsynced: usize,
}

impl BlobFile {
    pub async fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: tokio::fs::File::create(path).await?, hasher: Sha256::new(), unsynced: 0 })
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).await?;
        self.unsynced += bytes.len();
        if self.unsynced >= UNSYNCED_BYTES_MAX {
            self.unsynced = 0;
            self.file.sync_data().await?;
        }
        Ok(())
    }

    /// tokio's file keeps a write in flight; an error of it shows here.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.file.flush().await
    }

    /// All of it is durable when this returns.
    pub async fn sync(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.file.sync_all().await
    }

    /// Of what was written so far.
    pub fn digest(&self) -> Digest {
        Digest::from_hasher(self.hasher.clone())
    }
}

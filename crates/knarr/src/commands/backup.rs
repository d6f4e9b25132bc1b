//! `knarr backup` and `knarr restore`: the whole state as one file, and a cluster that begins with one.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;

use crate::access::Access;
use crate::cli::{BackupArgs, RestoreArgs};
use crate::cluster::{self, wire::BACKUP};
use crate::store_keys;

/// Written beside the file and checked before it takes the name.
pub async fn backup(args: BackupArgs) -> Result<()> {
    let access = Access::load(&args.access).await?;
    if args.file.exists() {
        bail!("{} exists: a backup does not replace another", args.file.display());
    }
    let temporary = args.file.with_added_extension("part");
    let written = fetch(&access, &temporary).await.and_then(|()| {
        let file = File::open(&temporary).context("cannot read the backup again")?;
        store::verify_backup(file).context("what the server sent is no whole backup")
    });
    let summary = match written {
        Ok(summary) => summary,
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
    };
    std::fs::rename(&temporary, &args.file).with_context(|| format!("cannot name {}", args.file.display()))?;
    println!("{}: {} objects at revision {}", args.file.display(), summary.records, summary.revision);
    println!("It holds every Secret in plain text, and the cluster's keys. Keep it safe.");
    Ok(())
}

async fn fetch(access: &Access, path: &Path) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).with_context(failed)?;
    let request = Request::get(BACKUP).body(Body::empty()).context("a path of ours is no URI")?;
    let response = access.client()?.send(request).await.context("cannot reach the server")?;
    let status = response.status();
    let mut body = response.into_body();
    if !status.is_success() {
        let bytes = http_body_util::Limited::new(body, 1024 * 1024).collect().await;
        let bytes = bytes.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        bail!("the server gives no backup: {}", crate::https::words(status, &bytes));
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the backup broke off")?;
        if let Ok(bytes) = frame.into_data() {
            file.write_all(&bytes).with_context(failed)?;
        }
    }
    file.sync_all().with_context(failed)
}

pub fn restore(args: &RestoreArgs) -> Result<()> {
    let keys = store_keys::path(args.store_keys.as_deref(), &args.data_dir);
    let (member, restored) = cluster::restore(&args.file, &args.data_dir, &keys)?;
    let dir = args.data_dir.display();
    println!("{} objects of revision {} are in {dir}", restored.backup.records, restored.backup.revision);
    println!("It is member {member} of a cluster of one, at revision {}. Next:\n", restored.revision);
    println!("  knarr up --data-dir {dir}        # or `knarr server`, which others can join");
    Ok(())
}

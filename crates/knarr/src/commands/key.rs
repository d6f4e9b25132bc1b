//! `knarr key …`: the keys that seal this machine's copy of the state.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use http::Request;

use crate::access::Access;
use crate::cli::{AccessArgs, KeyArgs, KeyCommand};
use crate::cluster::wire::{KEYS, KeyList};
use crate::store_keys::{self, StoreKeys};

pub async fn run(command: KeyCommand) -> Result<()> {
    match command {
        KeyCommand::Rotate { keys } => rotate(&keys),
        KeyCommand::Ls { keys } => list(&keys).await,
        KeyCommand::Prune { keys } => prune(&keys).await,
    }
}

fn path(args: &KeyArgs) -> PathBuf {
    store_keys::path(args.store_keys.as_deref(), &args.data_dir)
}

fn rotate(args: &KeyArgs) -> Result<()> {
    let path = path(args);
    let mut keys = StoreKeys::read(&path)?;
    let id = keys.add(rand::random());
    keys.write(&path)?;
    println!("key {id} writes when this server is started the next time; what older keys wrote is then replaced");
    Ok(())
}

/// What this machine's server says its disk needs.
async fn in_use(args: &KeyArgs) -> Result<KeyList> {
    let kubeconfig = args.access.kubeconfig.clone().unwrap_or_else(|| args.data_dir.join("admin.kubeconfig"));
    let access = Access::load(&AccessArgs { kubeconfig: Some(kubeconfig) }).await?;
    let request = Request::get(KEYS).body(Vec::new()).context("a path of ours is no URI")?;
    let text = access.client()?.request_text(request).await.context("cannot ask the server which keys it needs")?;
    serde_json::from_str(&text).context("the server did not answer a list of keys")
}

async fn list(args: &KeyArgs) -> Result<()> {
    let keys = StoreKeys::read(&path(args))?;
    let in_use = in_use(args).await?;
    println!("{:<6}{:<10}NEEDED", "ID", "WRITES");
    for id in keys.ids() {
        let writes = if id == keys.current() { "yes" } else { "" };
        let needed = if in_use.in_use.contains(&id) { "yes" } else { "no" };
        println!("{id:<6}{writes:<10}{needed}");
    }
    if in_use.plain {
        println!("\nSome files are not sealed yet.");
    }
    Ok(())
}

async fn prune(args: &KeyArgs) -> Result<()> {
    let path = path(args);
    let in_use: BTreeSet<u64> = in_use(args).await?.in_use.into_iter().collect();
    let mut keys = StoreKeys::read(&path)?;
    let gone = keys.prune(&in_use);
    keys.write(&path)?;
    match gone.as_slice() {
        [] => println!("every key is needed"),
        gone => println!("removed {}", gone.iter().map(|id| format!("key {id}")).collect::<Vec<_>>().join(", ")),
    }
    Ok(())
}

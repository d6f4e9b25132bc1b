//! Asks every runtime and the network what they have.

use std::collections::BTreeMap;

use crate::pod::execute::NodeContext;
use crate::pod::state::{Inventory, Observed};

/// No uid ends like this: its last part are 12 hexadecimal digits.
const LINUX_NETWORK: &str = "-linux";

/// What all runtimes and the network have, by pod uid.
pub async fn take_inventory(context: &NodeContext) -> Result<BTreeMap<String, Inventory>, String> {
    let mut all: BTreeMap<String, Inventory> = BTreeMap::new();
    for (handler, runtime) in context.runtimes.iter() {
        let failed = |error: cri::RuntimeError| format!("the {} runtime cannot list: {error}", handler.as_str());
        for sandbox in runtime.list_pod_sandboxes().await.map_err(failed)? {
            all.entry(sandbox.pod_uid.clone()).or_default().sandboxes.push((handler, sandbox));
        }
        for status in runtime.list_containers().await.map_err(failed)? {
            all.entry(status.pod_uid.clone()).or_default().containers.push(Observed { handler, status });
        }
    }
    let attached = context.network.list().await.map_err(|error| format!("the network cannot list: {error}"))?;
    for row in attached {
        match row.pod_uid.strip_suffix(LINUX_NETWORK) {
            Some(uid) => all.entry(uid.to_owned()).or_default().linux_network = Some(row.attachment),
            None => all.entry(row.pod_uid.clone()).or_default().network = Some(row.attachment),
        }
    }
    Ok(all)
}

/// What the network knows a pod's second address by: for Linux containers of a pod that has no namespace.
pub fn linux_network_of(uid: &str) -> String {
    format!("{uid}{LINUX_NETWORK}")
}

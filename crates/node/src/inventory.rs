//! Asks every runtime and the network what they have.

use std::collections::BTreeMap;

use crate::pod::execute::NodeContext;
use crate::pod::state::{Inventory, Observed};

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
        match cri::pod_of_linux_address(&row.pod_uid) {
            Some(uid) => all.entry(uid.to_owned()).or_default().linux_network = Some(row.attachment),
            None => all.entry(row.pod_uid.clone()).or_default().network = Some(row.attachment),
        }
    }
    Ok(all)
}

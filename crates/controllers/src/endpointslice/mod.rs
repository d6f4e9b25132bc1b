//! EndpointSlice: which addresses and ports stand behind each Service with a selector (and, for old tools, the same
//! as core/v1 Endpoints).
//!
//! `plan` diffs what should be against what is; `endpoint` says what a pod contributes.

mod endpoint;
mod legacy;
mod observe;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use reconcile::pod::Pod;
use reconcile::{Change, ObjectKey, Snapshot, WorkQueue};

use self::observe::EndpointSliceController;
use crate::setup::Setup;

/// Services worked on at a time.
const WORKERS: usize = 8;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Subscribes to Services, pods and slices, and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue = WorkQueue::default();
    setup.watches.services.subscribe({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    setup.watches.pods.subscribe({
        let (queue, services) = (queue.clone(), setup.watches.services.cache());
        move |change| {
            if !matters(change) {
                return;
            }
            let services = services.snapshot();
            let (old, new) = match change {
                Change::Applied { old, new } => (old.as_ref(), Some(new)),
                Change::Deleted { last } => (Some(last), None),
            };
            for pod in old.into_iter().chain(new) {
                for key in services_of(&services, pod) {
                    queue.add(key);
                }
            }
        }
    });
    setup.watches.endpoint_slices.subscribe({
        let queue = queue.clone();
        move |change| {
            let meta = &change.object().metadata;
            if let Some(service) = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) {
                queue.add(ObjectKey::new(meta.namespace.clone().unwrap_or_default(), service));
            }
        }
    });
    setup.run(EndpointSliceController::new(setup), queue, "endpoint-slice-controller", WORKERS);
}

/// Whether the change touches anything an endpoint shows: most pod updates (a container's state, an annotation) do not.
fn matters(change: &Change<Pod>) -> bool {
    let Change::Applied { old: Some(old), new } = change else { return true };
    let shown = |pod: &Pod| {
        let status = pod.status.as_ref();
        let address = status.and_then(|status| status.pod_ip.clone());
        (address, crate::pods::is_ready(pod), crate::pods::is_terminating(pod), crate::pods::is_terminal(pod))
    };
    old.metadata.labels != new.metadata.labels || old.metadata.uid != new.metadata.uid || shown(old) != shown(new)
}

fn services_of(services: &Snapshot<Service>, pod: &Arc<Pod>) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let selected = |service: &&Arc<Service>| selector(service).is_some_and(|selector| selects(selector, pod));
    services.in_namespace(namespace).filter(selected).map(|service| ObjectKey::of(service.as_ref())).collect()
}

/// The labels a Service asks for; `None` for Services whose endpoints somebody else writes.
pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

pub fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

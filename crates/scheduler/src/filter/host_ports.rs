//! Ports of the node itself.

use super::{Refusal, Request};
use crate::snapshot::NodeView;

pub fn filter(request: &Request, node: &NodeView, refusals: &mut Vec<Refusal>) {
    for wanted in &request.pod.host_ports {
        let taken = node.pods.values().flat_map(|pod| &pod.host_ports).any(|taken| taken.collides(wanted));
        if taken {
            refusals.push(Refusal::HostPort(wanted.port));
            return;
        }
    }
}

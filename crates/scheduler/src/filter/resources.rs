//! Requests fit into what is left of the node.

use super::{Refusal, Request};
use crate::resources::{CPU, EPHEMERAL_STORAGE, MEMORY};
use crate::snapshot::NodeView;

pub fn filter(request: &Request, node: &NodeView, refusals: &mut Vec<Refusal>) {
    if node.pods_free() < 1 {
        refusals.push(Refusal::TooManyPods);
    }
    let (asked, of, taken) = (&request.pod.asked, &node.allocatable, &node.taken);
    let mut check = |resource: &str, asked: i64, of: i64, taken: i64| {
        if asked > 0 && asked > of - taken {
            refusals.push(Refusal::Insufficient { resource: resource.to_owned(), asked, free: of - taken, of });
        }
    };
    check(CPU, asked.cpu_millis, of.cpu_millis, taken.cpu_millis);
    check(MEMORY, asked.memory_bytes, of.memory_bytes, taken.memory_bytes);
    check(EPHEMERAL_STORAGE, asked.ephemeral_bytes, of.ephemeral_bytes, taken.ephemeral_bytes);
    for (resource, asked) in &asked.other {
        let amount = |resources: &crate::resources::Resources| resources.other.get(resource).copied().unwrap_or(0);
        check(resource, *asked, amount(of), amount(taken));
    }
}

//! A pod that names its node goes nowhere else.

use super::{Refusal, Request};
use crate::snapshot::NodeView;

pub fn filter(request: &Request, node: &NodeView, refusals: &mut Vec<Refusal>) {
    if request.pod.node_name.as_ref().is_some_and(|name| *name != node.name) {
        refusals.push(Refusal::NodeName);
    }
}

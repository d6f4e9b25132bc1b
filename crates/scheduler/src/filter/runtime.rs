//! The node runs what the pod's RuntimeClass asks for.
//!
//! Knarr's nodes say with labels whether they run Wasm and Linux containers. A node without the labels is a stock
//! kubelet's: it runs containers. Without a class the image decides later, on the node.

use super::{Refusal, Request};
use crate::snapshot::NodeView;

pub const WASM_LABEL: &str = "knarr.dev/wasm";
pub const CONTAINER_LABEL: &str = "knarr.dev/container";

pub fn filter(request: &Request, node: &NodeView, refusals: &mut Vec<Refusal>) {
    if request.pod.runtime_class.is_none() {
        return;
    }
    let Some(class) = request.runtime_class else {
        refusals.push(Refusal::RuntimeClass);
        return;
    };
    let label = |key: &str| node.labels.get(key).map(String::as_str);
    let runs = match class.handler.as_str() {
        "wasm" => label(WASM_LABEL) == Some("true"),
        "container" => label(CONTAINER_LABEL) != Some("false"),
        // A handler of a stock node: only the class's own node selector can tell.
        _ => true,
    };
    let selected = class.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    if !runs {
        refusals.push(Refusal::Runtime);
    } else if !selected {
        refusals.push(Refusal::NodeAffinity);
    }
}

//! What makes one fitting node better than another, one file per rule. Pure.
//!
//! A rule answers 0 to 100 for each node; the sum of rule times weight decides, then the emptier node, then the name.
//! A new rule is a file and one line in `SCORES`.

mod balanced;
mod least_allocated;
mod preferences;
mod spread;

use crate::filter::Request;
use crate::snapshot::NodeView;

/// Scores all fitting nodes at once, so that a rule can compare them.
type Score = fn(&Request, &[&NodeView]) -> Vec<i64>;

/// A rule and how much it weighs.
const SCORES: &[(i64, Score)] = &[
    (1, least_allocated::score),
    (1, balanced::score),
    (2, spread::by_owner),
    (2, spread::by_topology),
    (2, preferences::node_affinity),
    (3, preferences::taints),
    (2, preferences::pod_affinity),
];

pub const SCORE_MAX: i64 = 100;

/// The best of `nodes` and its score.
#[must_use]
pub fn best<'a>(request: &Request, nodes: &[&'a NodeView]) -> Option<(&'a NodeView, i64)> {
    if let [only] = nodes {
        return Some((only, 0));
    }
    let mut totals = vec![0_i64; nodes.len()];
    for (weight, score) in SCORES {
        for (total, score) in totals.iter_mut().zip(score(request, nodes)) {
            *total += weight * score;
        }
    }
    let fewer_pods = |node: &NodeView| std::cmp::Reverse(node.pods.len());
    nodes
        .iter()
        .zip(totals)
        .max_by_key(|(node, total)| (*total, fewer_pods(node), std::cmp::Reverse(&node.name)))
        .map(|(node, total)| (*node, total))
}

/// Stretches raw counts so that the largest is 100; all equal (or empty) stays 0 and says nothing.
fn normalized(raw: &[i64]) -> Vec<i64> {
    let least = raw.iter().copied().min().unwrap_or(0);
    let most = raw.iter().copied().max().unwrap_or(0);
    let range = most - least;
    raw.iter().map(|score| if range == 0 { 0 } else { (score - least) * SCORE_MAX / range }).collect()
}

//! Prefer the node whose cpu and memory fill up evenly, so that neither is left over alone.

use super::SCORE_MAX;
use crate::filter::Request;
use crate::snapshot::NodeView;

pub fn score(request: &Request, nodes: &[&NodeView]) -> Vec<i64> {
    let asked = &request.pod.asked_for_scoring;
    let used = |of: i64, taken: i64, asked: i64| {
        let share = i128::from(taken + asked) * i128::from(SCORE_MAX) / i128::from(of.max(1));
        share.min(i128::from(SCORE_MAX))
    };
    let score = |node: &&NodeView| {
        let (of, taken) = (&node.allocatable, &node.taken_for_scoring);
        let cpu = used(of.cpu_millis, taken.cpu_millis, asked.cpu_millis);
        let memory = used(of.memory_bytes, taken.memory_bytes, asked.memory_bytes);
        SCORE_MAX - i64::try_from((cpu - memory).abs() / 2).unwrap_or(SCORE_MAX)
    };
    nodes.iter().map(score).collect()
}

//! Prefer the node with the larger free share of cpu and memory after the pod.

use super::SCORE_MAX;
use crate::filter::Request;
use crate::snapshot::NodeView;

pub fn score(request: &Request, nodes: &[&NodeView]) -> Vec<i64> {
    let asked = &request.pod.asked_for_scoring;
    let free = |of: i64, taken: i64, asked: i64| {
        let left = (of - taken - asked).max(0);
        if of == 0 { 0 } else { i128::from(left) * i128::from(SCORE_MAX) / i128::from(of) }
    };
    let score = |node: &&NodeView| {
        let (of, taken) = (&node.allocatable, &node.taken_for_scoring);
        let cpu = free(of.cpu_millis, taken.cpu_millis, asked.cpu_millis);
        let memory = free(of.memory_bytes, taken.memory_bytes, asked.memory_bytes);
        i64::try_from(i128::midpoint(cpu, memory)).unwrap_or(0)
    };
    nodes.iter().map(score).collect()
}

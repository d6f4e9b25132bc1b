//! Nodes: the agent registers a node together with its status.

use api::kinds::Kind;
use serde_json::Value;

use super::Strategy;
use super::strategy::copy_member;
use super::write::Part;

pub struct Nodes;

impl Strategy for Nodes {
    fn prepare_for_create(&self, _kind: &Kind, _object: &mut Value) {}

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        copy_member(new, old, "spec");
    }

    fn unowned(&self, _kind: &Kind, part: Part) -> &'static [&'static [&'static str]] {
        match part {
            Part::Main => &[&["status"]],
            Part::Status => &[&["spec"]],
            Part::Whole => &[],
        }
    }
}

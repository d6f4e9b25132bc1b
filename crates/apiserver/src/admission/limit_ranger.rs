//! LimitRanges of the namespace: defaults for containers, bounds for pods and claims.

use api::admission::limit_range;
use api::status::Status;
use serde_json::Value;

use super::{Consequences, Operation, Plugin, Review};
use crate::core::{core_kind, prefix};
use crate::object::encode::decode;

pub struct LimitRanger;

impl Plugin for LimitRanger {
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
        if review.operation == Operation::Create && review.is("", "pods") {
            ranges(review).iter().for_each(|range| limit_range::fill(range, object));
        }
        Ok(())
    }

    fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<Consequences, Status> {
        let Some(object) = object else { return Ok(Consequences::default()) };
        let resized = review.request.subresource == "resize" && review.operation == Operation::Update;
        let check: fn(&Value, &Value) -> Vec<String> = match (review.request.kind.group, review.request.kind.resource) {
            ("", "pods") if resized || (review.operation == Operation::Create && review.is("", "pods")) => {
                limit_range::check_pod
            }
            ("", "persistentvolumeclaims") if review.request.subresource.is_empty() => limit_range::check_claim,
            _ => return Ok(Consequences::default()),
        };
        for range in ranges(review) {
            let errors = check(&range, object);
            match errors.as_slice() {
                [] => {}
                [only] => return Err(review.refuse(only)),
                several => return Err(review.refuse(&format!("[{}]", several.join(", ")))),
            }
        }
        Ok(Consequences::default())
    }
}

fn ranges(review: &Review<'_>) -> Vec<Value> {
    let prefix = prefix(core_kind("limitranges"), &review.request.namespace);
    review.view.range(&prefix, None).map(|entry| decode(&entry.value)).collect()
}

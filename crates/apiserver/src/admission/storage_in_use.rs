//! Claims and volumes are made with the finalizers that hold them while they are in use (`StorageObjectInUseProtection`).
//! The controller `storageprotection` takes them off.

use api::meta;
use api::status::Status;
use serde_json::{Value, json};

use super::{Operation, Plugin, Review};

/// Resource, finalizer.
const PROTECTED: [(&str, &str); 2] =
    [("persistentvolumeclaims", "kubernetes.io/pvc-protection"), ("persistentvolumes", "kubernetes.io/pv-protection")];

pub struct StorageInUse;

impl Plugin for StorageInUse {
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
        if review.operation == Operation::Create {
            for (_, finalizer) in PROTECTED.iter().filter(|(resource, _)| review.is("", resource)) {
                protect(object, finalizer);
            }
        }
        Ok(())
    }
}

fn protect(object: &mut Value, finalizer: &str) {
    let mut all: Vec<String> = meta::finalizers(object).map(str::to_owned).collect();
    if !all.iter().any(|present| present == finalizer) {
        all.push(finalizer.to_owned());
        meta::set(object, "finalizers", json!(all));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finalizer_is_there_once() {
        let check = |metadata: Value, expect: Value| {
            let mut object = json!({ "metadata": metadata });
            protect(&mut object, "f");
            assert_eq!(object["metadata"]["finalizers"], expect);
        };
        check(json!({}), json!(["f"]));
        check(json!({ "finalizers": ["a"] }), json!(["a", "f"]));
        check(json!({ "finalizers": ["f", "a"] }), json!(["f", "a"]));
    }
}

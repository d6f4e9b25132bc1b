//! Patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386), strategic merge patch.
//!
//! Owns: applying a patch document to an object, with Kubernetes' limits.
//! May not know: storage, conflicts, kinds.

mod strategic;

use serde_json::Value;
use thiserror::Error;

pub use strategic::strategic;

/// Most operations of one JSON Patch, as kube-apiserver.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;
/// Most bytes that the `copy` operations of one JSON Patch may add.
pub const JSON_PATCH_COPY_BYTES_MAX: usize = 3 * 1024 * 1024;

#[derive(Debug, Error)]
pub enum PatchError {
    /// 400
    #[error("the patch does not decode: {why}")]
    Decode { why: String },
    /// 413
    #[error("the patch is too large: {why}")]
    TooLarge { why: String },
    /// 422
    #[error("the patch cannot be applied: {why}")]
    Apply { why: String },
}

/// RFC 6902. All operations apply, or none.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = patch.as_array().ok_or_else(|| PatchError::Decode { why: "a JSON patch is a list".to_owned() })?;
    if operations.len() > JSON_PATCH_OPERATIONS_MAX {
        let why = format!("{} operations, at most {JSON_PATCH_OPERATIONS_MAX} are allowed", operations.len());
        return Err(PatchError::TooLarge { why });
    }
    let parsed: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|e| PatchError::Decode { why: e.to_string() })?;
    let mut object = original.clone();
    let mut copied = 0;
    for (index, operation) in parsed.0.iter().enumerate() {
        if let json_patch::PatchOperation::Copy(copy) = operation {
            copied += object.pointer(copy.from.as_str()).map_or(0, |v| v.to_string().len());
            if copied > JSON_PATCH_COPY_BYTES_MAX {
                let why = format!("copy operations add more than {JSON_PATCH_COPY_BYTES_MAX} bytes");
                return Err(PatchError::TooLarge { why });
            }
        }
        json_patch::patch(&mut object, std::slice::from_ref(operation))
            .map_err(|e| PatchError::Apply { why: format!("operation {index}: {e}") })?;
    }
    Ok(object)
}

/// RFC 7386: null deletes, objects merge, everything else replaces.
pub fn merge_patch(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Decode { why: "a merge patch of an object is an object".to_owned() });
    }
    let mut object = original.clone();
    json_patch::merge(&mut object, patch);
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_patches() {
        let original = json!({ "a": { "b": [1, 2] }, "c": "x" });
        let check = |patch: Value, expect: Option<Value>| {
            assert_eq!(json_patch(&original, &patch).ok(), expect, "{patch}");
        };
        check(
            json!([{ "op": "add", "path": "/a/b/-", "value": 3 }, { "op": "remove", "path": "/c" }]),
            Some(json!({ "a": { "b": [1, 2, 3] } })),
        );
        check(json!([{ "op": "test", "path": "/c", "value": "y" }, { "op": "remove", "path": "/c" }]), None);
        check(json!([{ "op": "remove", "path": "/none" }]), None);
        check(json!({ "op": "remove" }), None);
        let many: Vec<Value> =
            (0..=JSON_PATCH_OPERATIONS_MAX).map(|_| json!({"op": "test", "path": "/c", "value": "x"})).collect();
        assert!(matches!(json_patch(&original, &Value::Array(many)), Err(PatchError::TooLarge { .. })));
    }

    #[test]
    fn growth_by_copy_is_bounded() {
        let original = json!({ "x": "y".repeat(1024 * 1024) });
        let patch: Vec<Value> =
            (0..8).map(|i| json!({ "op": "copy", "from": "/x", "path": format!("/x{i}") })).collect();
        assert!(matches!(json_patch(&original, &Value::Array(patch)), Err(PatchError::TooLarge { .. })));
    }

    #[test]
    fn merge_patches() {
        let original = json!({ "a": { "b": 1, "c": 2 }, "l": [1] });
        let check = |patch: Value, expect: Value| {
            assert_eq!(merge_patch(&original, &patch).unwrap(), expect, "{patch}");
        };
        check(json!({ "a": { "b": null, "d": 3 } }), json!({ "a": { "c": 2, "d": 3 }, "l": [1] }));
        check(json!({ "l": [2] }), json!({ "a": { "b": 1, "c": 2 }, "l": [2] }));
        assert!(merge_patch(&original, &json!([])).is_err());
    }
}

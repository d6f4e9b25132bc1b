//! Rules of `api` that this crate calls ahead of their landing there. Shrinks to nothing.

pub mod validate {
    use api::kinds::Kind;
    use api::status::FieldError;
    use serde_json::Value;

    pub fn create(_kind: &Kind, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    pub fn update(_kind: &Kind, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }
}

pub mod protobuf {
    use serde_json::Value;

    pub fn decode(_bytes: &[u8]) -> Result<Value, &'static str> {
        Err("protobuf request bodies are not served yet")
    }
}

pub mod patch {
    use api::kinds::Kind;
    use api::patch::PatchError;
    use serde_json::Value;

    pub fn strategic(_kind: &Kind, original: &Value, patch: &Value) -> Result<Value, PatchError> {
        api::patch::merge_patch(original, patch)
    }
}

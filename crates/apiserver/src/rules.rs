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

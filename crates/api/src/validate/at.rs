//! A value together with the way to it, and the list of complaints.
//!
//! Owns: the path notation of field errors (`spec.containers[0].ports[1].name`, `data[key]`).
//! Paths are linked to their parents and become text only when something is wrong.

use serde_json::Value;

use crate::status::{FieldError, FieldErrorKind};

static NULL: Value = Value::Null;

#[derive(Debug, Clone, Copy)]
enum Step<'p> {
    Root,
    Field(&'p str),
    Index(usize),
    Key(&'p str),
}

/// A place in an object. An absent value is null.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'p, 'v> {
    parent: Option<&'p At<'p, 'v>>,
    step: Step<'p>,
    pub value: &'v Value,
}

impl<'v> At<'_, 'v> {
    pub fn root(value: &'v Value) -> At<'v, 'v> {
        At { parent: None, step: Step::Root, value }
    }

    pub fn get<'c>(&'c self, field: &'c str) -> At<'c, 'v> {
        At { parent: Some(self), step: Step::Field(field), value: self.value.get(field).unwrap_or(&NULL) }
    }

    pub fn list(&self) -> &'v [Value] {
        self.value.as_array().map_or(&[], Vec::as_slice)
    }

    pub fn items<'c>(&'c self) -> impl Iterator<Item = At<'c, 'v>> {
        self.list().iter().enumerate().map(move |(index, value)| At {
            parent: Some(self),
            step: Step::Index(index),
            value,
        })
    }

    /// The entries of a map, at `path[key]`.
    pub fn entries<'c>(&'c self) -> impl Iterator<Item = (&'v str, At<'c, 'v>)>
    where
        'v: 'c,
    {
        self.value
            .as_object()
            .into_iter()
            .flatten()
            .map(move |(key, value)| (key.as_str(), At { parent: Some(self), step: Step::Key(key.as_str()), value }))
    }

    /// `path[key]`, also where the map has no such entry.
    pub fn key<'c>(&'c self, key: &'c str) -> At<'c, 'v> {
        At { parent: Some(self), step: Step::Key(key), value: self.value.get(key).unwrap_or(&NULL) }
    }

    pub fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    /// Absent, or nothing in it.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    pub fn text(&self) -> &'v str {
        self.value.as_str().unwrap_or("")
    }

    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub fn is_true(&self) -> bool {
        *self.value == Value::Bool(true)
    }

    pub fn path(&self) -> String {
        let mut path = self.parent.map(At::path).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Field(field) if path.is_empty() => path.push_str(field),
            Step::Field(field) => {
                path.push('.');
                path.push_str(field);
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            Step::Key(key) => path.push_str(&format!("[{key}]")),
        }
        path
    }
}

pub(super) const IMMUTABLE: &str = "field is immutable";
pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Everything that is wrong, in the order it was found.
#[derive(Debug, Default)]
pub(super) struct Errors(pub Vec<FieldError>);

impl Errors {
    pub fn required(&mut self, at: &At, detail: impl Into<String>) {
        self.0.push(FieldError::required(at.path(), detail));
    }

    /// Whether something is there; complains when not.
    pub fn require(&mut self, at: &At) -> bool {
        let there = !at.is_empty();
        if !there {
            self.required(at, "");
        }
        there
    }

    pub fn invalid(&mut self, at: &At, detail: impl Into<String>) {
        self.0.push(FieldError::invalid(at.path(), at.value.clone(), detail));
    }

    /// Shows another value than the one at the place, such as a map's key.
    pub fn invalid_as(&mut self, at: &At, value: impl Into<Value>, detail: impl Into<String>) {
        self.0.push(FieldError::invalid(at.path(), value, detail));
    }

    pub fn forbidden(&mut self, at: &At, detail: impl Into<String>) {
        self.0.push(FieldError::forbidden(at.path(), detail));
    }

    pub fn duplicate(&mut self, at: &At, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(at.path(), value));
    }

    pub fn not_found(&mut self, at: &At) {
        self.0.push(FieldError {
            kind: FieldErrorKind::NotFound,
            path: at.path(),
            value: at.value.clone(),
            detail: String::new(),
        });
    }

    pub fn too_long(&mut self, at: &At, max_bytes: usize) {
        self.0.push(FieldError::too_long(at.path(), max_bytes));
    }

    pub fn too_many(&mut self, at: &At, count: usize, max: usize) {
        self.0.push(FieldError {
            kind: FieldErrorKind::TooMany,
            path: at.path(),
            value: count.into(),
            detail: format!("must have at most {max} items"),
        });
    }

    pub fn not_supported(&mut self, at: &At, supported: &[&str]) {
        self.0.push(FieldError::not_supported(at.path(), at.value.clone(), supported));
    }

    /// One of a few words; absent is not.
    pub fn one_of(&mut self, at: &At, supported: &[&str]) {
        if at.is_empty() {
            self.required(at, "");
        } else if !supported.contains(&at.text()) {
            self.0.push(FieldError::not_supported(at.path(), at.value.clone(), supported));
        }
    }

    /// [`Self::one_of`] where something is there.
    pub fn one_of_if_set(&mut self, at: &At, supported: &[&str]) {
        if !at.is_empty() {
            self.one_of(at, supported);
        }
    }

    pub fn not_negative(&mut self, at: &At) {
        if at.int().is_some_and(|n| n < 0) {
            self.invalid(at, NOT_NEGATIVE);
        }
    }

    pub fn in_range(&mut self, at: &At, min: i64, max: i64) {
        if at.int().is_some_and(|n| !(min..=max).contains(&n)) {
            self.invalid(at, format!("must be between {min} and {max}, inclusive"));
        }
    }

    pub fn immutable(&mut self, new: &At, old: &At) {
        if new.value != old.value {
            self.invalid(new, IMMUTABLE);
        }
    }

    /// Complains when the text breaks a rule of [`super::text`].
    pub fn rule(&mut self, at: &At, rule: fn(&str) -> Option<String>) {
        if let Some(detail) = rule(at.text()) {
            self.invalid(at, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        let object = json!({ "spec": { "containers": [{ "name": "a" }] }, "data": { "k": 1 } });
        let root = At::root(&object);
        let (spec, data) = (root.get("spec"), root.get("data"));
        let containers = spec.get("containers");
        let first = containers.items().next().expect("one");
        assert_eq!(first.get("name").path(), "spec.containers[0].name");
        assert_eq!(first.get("name").text(), "a");
        assert!(first.get("image").is_absent());
        let (key, entry) = data.entries().next().expect("one");
        assert_eq!((key, entry.path().as_str(), entry.int()), ("k", "data[k]", Some(1)));
        assert_eq!(root.path(), "");
    }
}

//! Pruning and defaulting: what is stored of what a client sends.
//!
//! Owns: which fields go (those that no schema names), and what comes in their place. Follows apiextensions
//! `pkg/apiserver/schema/{pruning,defaulting}`. May not know: whether what stays is valid.

use serde_json::{Map, Value};

use super::schema::Schema;

/// Complaints of one object are counted up to here.
const COMPLAINTS_MAX: usize = 100;

/// Takes out what the schema does not name; `unknown field "spec.foo"` for each.
///
/// # Errors
/// Metadata of the object or of one embedded in it is of a wrong type.
pub fn prune(schema: &Schema, object: &mut Value) -> Result<Vec<String>, String> {
    let mut pruning = Pruning { path: String::new(), complaints: Vec::new(), failure: None };
    pruning.value(schema, object);
    match pruning.failure {
        Some(why) => Err(why),
        None => Ok(pruning.complaints),
    }
}

struct Pruning {
    path: String,
    complaints: Vec<String>,
    failure: Option<String>,
}

impl Pruning {
    fn value(&mut self, schema: &Schema, value: &mut Value) {
        match value {
            Value::Object(fields) => self.fields(schema, fields),
            Value::Array(items) => {
                let Some(of) = schema.items.as_deref() else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    self.below(&format!("[{index}]"), |pruning| pruning.value(of, item));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn fields(&mut self, schema: &Schema, fields: &mut Map<String, Value>) {
        fields.retain(|name, value| {
            if schema.is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                if name == "metadata" {
                    self.metadata(value);
                }
                return true;
            }
            match schema.field(name) {
                Some(field) => {
                    let step = if self.path.is_empty() { name.clone() } else { format!(".{name}") };
                    self.below(&step, |pruning| pruning.value(field, value));
                    true
                }
                None if schema.preserves => true,
                None => {
                    let at = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
                    self.complain(format!("unknown field {at:?}"));
                    false
                }
            }
        });
    }

    fn metadata(&mut self, value: &mut Value) {
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        let before = if self.path.is_empty() { "metadata".to_owned() } else { format!("{}.metadata", self.path) };
        match crate::schema::decode_metadata(value) {
            Ok(complaints) => {
                for complaint in complaints {
                    self.complain(complaint.replacen("unknown field \"", &format!("unknown field \"{before}."), 1));
                }
            }
            Err(error) => self.failure = Some(error.why),
        }
    }

    fn below(&mut self, step: &str, then: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(step);
        then(self);
        self.path.truncate(length);
    }

    fn complain(&mut self, complaint: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(complaint);
        }
    }
}

/// Fills in defaults, in place of nothing and of nulls that may not be.
pub fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in &schema.properties {
                let at = fields.get(&**name);
                let lacks = match at {
                    None => true,
                    Some(Value::Null) => !field.nullable,
                    Some(_) => false,
                };
                match (&field.default, lacks) {
                    (Some(default), true) => drop(fields.insert(name.to_string(), default.clone())),
                    // A null that means nothing.
                    (None, true) => drop(fields.remove(&**name)),
                    (_, false) => {}
                }
            }
            if let Some(of) = schema.additional.as_deref()
                && !of.nullable
            {
                fields.retain(|_, value| !value.is_null() || of.default.is_some());
            }
            for (name, value) in fields.iter_mut() {
                if schema.is_resource && name == "metadata" {
                    continue;
                }
                if let Some(field) = schema.field(name) {
                    settle(field, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(of) = schema.items.as_deref() {
                items.iter_mut().for_each(|item| settle(of, item));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn settle(schema: &Schema, value: &mut Value) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
    default(schema, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::root(&json!({ "type": "object", "properties": {
            "spec": { "type": "object", "properties": {
                "size": { "type": "integer", "default": 3 },
                "note": { "type": "string", "nullable": true, "default": "n" },
                "plain": { "type": "string" },
                "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": { "strict": { "type": "object", "properties": {} } } },
                "map": { "type": "object", "additionalProperties": { "type": "object", "properties": {
                    "port": { "type": "integer", "default": 80 } } } },
                "list": { "type": "array", "items": { "type": "object", "properties": { "a": { "type": "string" } } } },
                "pod": { "type": "object", "x-kubernetes-embedded-resource": true,
                    "x-kubernetes-preserve-unknown-fields": true },
            } } } }))
    }

    #[test]
    fn unknown_fields_go() {
        let check = |given: Value, expect: Value, complaints: &[&str]| {
            let mut object = given.clone();
            assert_eq!(prune(&schema(), &mut object).unwrap(), complaints, "{given}");
            assert_eq!(object, expect, "{given}");
        };
        check(json!({ "spec": { "size": 1 } }), json!({ "spec": { "size": 1 } }), &[]);
        check(
            json!({ "spec": { "sise": 1 }, "x": 1 }),
            json!({ "spec": {} }),
            &["unknown field \"spec.sise\"", "unknown field \"x\""],
        );
        check(
            json!({ "spec": { "free": { "any": { "thing": 1 }, "strict": { "y": 1 } } } }),
            json!({ "spec": { "free": { "any": { "thing": 1 }, "strict": {} } } }),
            &["unknown field \"spec.free.strict.y\""],
        );
        check(
            json!({ "spec": { "list": [{ "a": "b", "c": 1 }], "map": { "k": { "z": 1 } } } }),
            json!({ "spec": { "list": [{ "a": "b" }], "map": { "k": {} } } }),
            &["unknown field \"spec.list[0].c\"", "unknown field \"spec.map.k.z\""],
        );
        check(
            json!({ "metadata": { "name": "a", "nam": 1 }, "spec": { "pod": { "metadata": { "bogus": 1 }, "spec": 1 } } }),
            json!({ "metadata": { "name": "a" }, "spec": { "pod": { "metadata": {}, "spec": 1 } } }),
            &["unknown field \"metadata.nam\"", "unknown field \"spec.pod.metadata.bogus\""],
        );
        assert!(prune(&schema(), &mut json!({ "metadata": { "labels": 3 } })).is_err());
    }

    #[test]
    fn defaults_come() {
        let check = |given: Value, expect: Value| {
            let mut object = given.clone();
            default(&schema(), &mut object);
            assert_eq!(object, expect, "{given}");
            default(&schema(), &mut object);
            assert_eq!(object, expect, "{given} again");
        };
        check(json!({}), json!({}));
        check(json!({ "spec": {} }), json!({ "spec": { "size": 3, "note": "n" } }));
        check(
            json!({ "spec": { "size": null, "note": null, "plain": null } }),
            json!({ "spec": { "size": 3, "note": null } }),
        );
        check(
            json!({ "spec": { "size": 1, "note": "", "map": { "a": {}, "b": null } } }),
            json!({ "spec": { "size": 1, "note": "", "map": { "a": { "port": 80 } } } }),
        );
    }
}

//! Does a value fit its schema? In the words of kube-openapi's validator.
//!
//! Owns: the checks of types, bounds, formats, combinations, list identities, and ratcheting: what an update leaves
//! as it was is not complained about. May not know: pruning, defaults, rules in CEL (see `crate::cel`).

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::format;
use super::schema::{Checks, ListType, Schema, Type};
use crate::status::{FieldError, FieldErrorKind};

/// More is not said about one object.
pub const ERRORS_MAX: usize = 64;

/// What is wrong with a value; `old` is what an update replaces.
pub fn check(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    check_at(schema, (value, old), String::new())
}

/// [`check`] for a value that is part of another, at `path`.
pub fn check_at(schema: &Schema, values: (&Value, Option<&Value>), path: String) -> Vec<FieldError> {
    let mut checking = Checking { path, errors: Vec::new() };
    checking.value(schema, values.0, values.1);
    checking.errors
}

struct Checking {
    path: String,
    errors: Vec<FieldError>,
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_integer(number: &serde_json::Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn fits(kind: Type, value: &Value) -> bool {
    match (kind, value) {
        (Type::Any, _)
        | (Type::Object, Value::Object(_))
        | (Type::Array, Value::Array(_))
        | (Type::String | Type::IntOrString, Value::String(_))
        | (Type::Boolean, Value::Bool(_))
        | (Type::Number, Value::Number(_)) => true,
        (Type::Integer | Type::IntOrString, Value::Number(number)) => is_integer(number),
        _ => false,
    }
}

impl Checking {
    fn push(&mut self, kind: FieldErrorKind, value: Value, detail: String) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(FieldError { kind, path: self.path.clone(), value, detail });
        }
    }

    /// `spec.replicas in body should be …`
    fn body(&mut self, value: &Value, words: &str) {
        let detail = format!("{} in body {words}", self.path);
        self.push(FieldErrorKind::Invalid, value.clone(), detail);
    }

    fn below(&mut self, step: &str, then: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        then(self);
        self.path.truncate(length);
    }

    fn value(&mut self, schema: &Schema, value: &Value, old: Option<&Value>) {
        // Ratcheting: it was let in once, and is left as it was.
        if old == Some(value) || (value.is_null() && schema.nullable) {
            return;
        }
        if !fits(schema.kind, value) {
            let found = type_name(value);
            let detail = format!("{} in body must be of type {}: {found:?}", self.path, schema.kind.name());
            return self.push(FieldErrorKind::TypeInvalid, found.into(), detail);
        }
        if let Some(checks) = schema.checks.as_deref() {
            self.checks(checks, value);
        }
        match value {
            Value::Object(fields) => self.fields(schema, fields, old),
            Value::Array(items) => self.items(schema, items, old),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn fields(&mut self, schema: &Schema, fields: &Map<String, Value>, old: Option<&Value>) {
        for (name, value) in fields {
            if schema.is_resource
                && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")
                && !self.path.is_empty()
            {
                self.embedded(name, value);
            }
            if let Some(field) = schema.field(name) {
                let before = old.and_then(|old| old.get(name));
                self.below(name, |checking| checking.value(field, value, before));
            }
        }
        if schema.is_resource && !self.path.is_empty() {
            for name in ["apiVersion", "kind"].into_iter().filter(|name| !fields.contains_key(*name)) {
                self.below(name, |checking| {
                    checking.push(FieldErrorKind::Required, Value::Null, "must not be empty".to_owned());
                });
            }
        }
    }

    fn embedded(&mut self, name: &str, value: &Value) {
        let is_text = value.as_str().is_some_and(|text| !text.is_empty());
        if name != "metadata" && !is_text {
            self.below(name, |checking| {
                checking.push(FieldErrorKind::Required, Value::Null, "must not be empty".to_owned());
            });
        }
    }

    fn items(&mut self, schema: &Schema, items: &[Value], old: Option<&Value>) {
        let before = old.and_then(Value::as_array);
        if let Some(of) = schema.items.as_deref() {
            for (index, item) in items.iter().enumerate() {
                let was = before.and_then(|list| counterpart(schema.list, list, item));
                self.below(&format!("[{index}]"), |checking| checking.value(of, item, was));
            }
        }
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let identity = match schema.list {
                ListType::Atomic => return,
                ListType::Set => item.clone(),
                ListType::Map(keys) => key_of(schema, keys, item),
            };
            if !seen.insert(identity.to_string()) {
                self.below(&format!("[{index}]"), |checking| {
                    checking.push(FieldErrorKind::Duplicate, identity, String::new());
                });
            }
        }
    }

    fn checks(&mut self, checks: &Checks, value: &Value) {
        match value {
            Value::Number(number) => self.number(checks, value, number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => self.text(checks, value, text),
            Value::Array(items) => self.counted(checks.items, items.len(), ("items", value)),
            Value::Object(fields) => {
                for name in checks.required.iter().filter(|name| !fields.contains_key(&***name)) {
                    self.below(name, |checking| {
                        checking.push(FieldErrorKind::Required, Value::Null, String::new());
                    });
                }
                self.counted(checks.properties, fields.len(), ("properties", value));
            }
            Value::Null | Value::Bool(_) => {}
        }
        if let Some(choices) = &checks.choices
            && !choices.iter().any(|choice| same(choice, value))
        {
            let shown = |choice: &Value| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned);
            let list: Vec<String> = choices.iter().map(|choice| format!("{:?}", shown(choice))).collect();
            self.push(FieldErrorKind::NotSupported, value.clone(), format!("supported values: {}", list.join(", ")));
        }
        self.combinations(checks, value);
    }

    fn number(&mut self, checks: &Checks, value: &Value, number: f64) {
        if let Some((bound, exclusive)) = checks.minimum
            && (number < bound || (exclusive && number <= bound))
        {
            let words = if exclusive { "greater than" } else { "greater than or equal to" };
            self.body(value, &format!("should be {words} {bound}"));
        }
        if let Some((bound, exclusive)) = checks.maximum
            && (number > bound || (exclusive && number >= bound))
        {
            let words = if exclusive { "less than" } else { "less than or equal to" };
            self.body(value, &format!("should be {words} {bound}"));
        }
        if let Some(factor) = checks.multiple_of
            && (number / factor).fract() != 0.0
        {
            self.body(value, &format!("should be a multiple of {factor}"));
        }
        if let Some(format) = checks.format.as_deref()
            && !format::number_fits(format, number)
        {
            let detail = format!("{} in body must be of type {format}: {value}", self.path);
            self.push(FieldErrorKind::TypeInvalid, value.clone(), detail);
        }
    }

    fn text(&mut self, checks: &Checks, value: &Value, text: &str) {
        let length = text.chars().count() as u64;
        if let Some(max) = checks.length.1.filter(|max| length > *max) {
            self.push(FieldErrorKind::TooLong, Value::Null, format!("may not be more than {max} bytes"));
        }
        if let Some(min) = checks.length.0.filter(|min| length < *min) {
            self.body(value, &format!("should be at least {min} chars long"));
        }
        if let Some((pattern, compiled)) = &checks.pattern
            && !compiled.as_ref().is_some_and(|regex| regex.is_match(text))
        {
            self.body(value, &format!("should match '{pattern}'"));
        }
        if let Some(format) = checks.format.as_deref()
            && !format::text_fits(format, text)
        {
            let detail = format!("{} in body must be of type {format}: {text:?}", self.path);
            self.push(FieldErrorKind::TypeInvalid, value.clone(), detail);
        }
    }

    fn counted(&mut self, (min, max): (Option<u64>, Option<u64>), count: usize, (what, value): (&str, &Value)) {
        if let Some(max) = max.filter(|max| count as u64 > *max) {
            self.push(FieldErrorKind::TooMany, count.into(), format!("{count}: must have at most {max} items"));
        }
        if let Some(min) = min.filter(|min| (count as u64) < *min) {
            self.body(value, &format!("should have at least {min} {what}"));
        }
    }

    fn combinations(&mut self, checks: &Checks, value: &Value) {
        let is_valid = |schema: &Schema| check_at(schema, (value, None), self.path.clone()).is_empty();
        let (all, any) = (checks.all_of.iter().all(is_valid), checks.any_of.iter().any(is_valid));
        let one = checks.one_of.iter().filter(|schema| is_valid(schema)).count();
        let not = checks.not.as_ref().is_some_and(is_valid);
        if !all {
            for schema in &checks.all_of {
                let errors = check_at(schema, (value, None), self.path.clone());
                self.errors.extend(errors);
            }
            self.body(value, "must validate all the schemas (allOf)");
        }
        if !checks.any_of.is_empty() && !any {
            self.body(value, "must validate at least one schema (anyOf)");
        }
        if !checks.one_of.is_empty() && one != 1 {
            let found =
                if one == 0 { "Found none valid".to_owned() } else { format!("Found {one} valid alternatives") };
            self.body(value, &format!("must validate one and only one schema (oneOf). {found}"));
        }
        if not {
            self.body(value, "must not validate the schema (not)");
        }
    }
}

/// Equal as JSON Schema means it: `1` is `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// The former form of a list's item.
pub fn counterpart<'a>(list: ListType, before: &'a [Value], item: &Value) -> Option<&'a Value> {
    match list {
        ListType::Map(keys) => before.iter().find(|old| keys.iter().all(|key| old.get(key) == item.get(key))),
        ListType::Set => before.iter().find(|old| *old == item),
        // Items have no identity, so that only the list as a whole can be unchanged.
        ListType::Atomic => None,
    }
}

fn key_of(schema: &Schema, keys: &[&str], item: &Value) -> Value {
    let default = |key: &str| schema.items.as_deref()?.properties.get(key)?.default.clone();
    let entry = |key: &&str| {
        let value = item.get(key).cloned().or_else(|| default(key))?;
        Some(((*key).to_owned(), value))
    };
    Value::Object(keys.iter().filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(schema: Value, value: &Value, old: Option<&Value>) -> Vec<String> {
        let schema = Schema::root(&json!({ "type": "object", "properties": { "spec": schema } }));
        let wrap = |value: &Value| json!({ "spec": value });
        check(&schema, &wrap(value), old.map(wrap).as_ref()).iter().map(ToString::to_string).collect()
    }

    fn check_words(schema: Value, value: Value, expect: &[&str]) {
        assert_eq!(errors(schema, &value, None), expect, "{value}");
    }

    #[test]
    fn types_and_numbers() {
        let check = check_words;
        check(json!({ "type": "integer" }), json!(3), &[]);
        check(json!({ "type": "integer" }), json!(3.0), &[]);
        check(
            json!({ "type": "integer" }),
            json!("three"),
            &["spec: Invalid value: \"string\": spec in body must be of type integer: \"string\""],
        );
        check(
            json!({ "x-kubernetes-int-or-string": true }),
            json!(true),
            &["spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\""],
        );
        check(
            json!({ "type": "integer", "minimum": 1, "maximum": 5 }),
            json!(0),
            &["spec: Invalid value: 0: spec in body should be greater than or equal to 1"],
        );
    }

    #[test]
    fn strings_and_collections() {
        let check = check_words;
        check(
            json!({ "type": "string", "enum": ["a", "b"] }),
            json!("c"),
            &["spec: Unsupported value: \"c\": supported values: \"a\", \"b\""],
        );
        check(
            json!({ "type": "string", "pattern": "^a+$", "minLength": 3 }),
            json!("b"),
            &[
                "spec: Invalid value: \"b\": spec in body should be at least 3 chars long",
                "spec: Invalid value: \"b\": spec in body should match '^a+$'",
            ],
        );
        check(
            json!({ "type": "string", "maxLength": 1 }),
            json!("ab"),
            &["spec: Too long: may not be more than 1 bytes"],
        );
        check(
            json!({ "type": "object", "required": ["a"], "properties": { "a": { "type": "string" } } }),
            json!({}),
            &["spec.a: Required value"],
        );
        check(
            json!({ "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" }, "maxItems": 1 }),
            json!(["a", "a"]),
            &["spec: Too many: 2: must have at most 1 items", "spec[1]: Duplicate value: \"a\""],
        );
        check(
            json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": { "type": "object", "properties": { "n": { "type": "string" } } } }),
            json!([{ "n": "x" }, { "n": "x" }]),
            &["spec[1]: Duplicate value: {\"n\":\"x\"}"],
        );
        check(
            json!({ "type": "string", "format": "date-time" }),
            json!("soon"),
            &["spec: Invalid value: \"soon\": spec in body must be of type date-time: \"soon\""],
        );
        check(
            json!({ "type": "object", "properties": { "a": { "type": "string" }, "b": { "type": "string" } },
                "oneOf": [{ "required": ["a"] }, { "required": ["b"] }] }),
            json!({}),
            &["spec: Invalid value: {}: spec in body must validate one and only one schema (oneOf). Found none valid"],
        );
        check(json!({ "type": "string", "nullable": true }), json!(null), &[]);
        check(
            json!({ "type": "string" }),
            json!(null),
            &["spec: Invalid value: \"null\": spec in body must be of type string: \"null\""],
        );
    }

    #[test]
    fn what_stays_as_it_was_is_accepted() {
        let schema = json!({ "type": "object", "properties": {
            "a": { "type": "integer", "maximum": 5 }, "b": { "type": "integer", "maximum": 5 } } });
        let old = json!({ "a": 9, "b": 1 });
        assert!(errors(schema.clone(), &json!({ "a": 9, "b": 2 }), Some(&old)).is_empty());
        assert_eq!(errors(schema.clone(), &json!({ "a": 8, "b": 1 }), Some(&old)).len(), 1);
        assert_eq!(errors(schema, &json!({ "a": 9, "b": 1 }), None).len(), 1);
    }
}

//! May a schema be used? The rules of structural schemas, in Kubernetes' words.
//!
//! Owns: what a schema may say where. Follows apiextensions `pkg/apis/apiextensions/validation` and
//! `pkg/apiserver/schema/validation.go`. May not know: the rest of a definition.

use serde_json::Value;

use super::check::check_at;
use super::prune::prune;
use super::schema::{Schema, pattern};
use crate::cel::{self, Scope};
use crate::status::FieldError;

/// More is not said about one definition.
const ERRORS_MAX: usize = 64;

/// Words of JSON Schema that no structural schema has.
const UNSUPPORTED: [&str; 6] = ["$ref", "definitions", "dependencies", "id", "patternProperties", "additionalItems"];

/// Words that only the outer schema may say, not those under `allOf` and its kin.
const OUTER_ONLY: [&str; 12] = [
    "additionalProperties",
    "default",
    "description",
    "nullable",
    "title",
    "type",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// What is wrong with the schema of a version; `path` is where it is.
pub fn check_schema(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut checking = Checking { errors: Vec::new(), uncorrelated: None };
    checking.node(schema, path, Level::Root);
    checking.errors.truncate(ERRORS_MAX);
    checking.errors
}

struct Checking {
    errors: Vec<FieldError>,
    /// The list above whose items have no identity.
    uncorrelated: Option<String>,
}

fn text<'a>(schema: &'a Value, word: &str) -> &'a str {
    schema.get(word).and_then(Value::as_str).unwrap_or("")
}

fn flag(schema: &Value, word: &str) -> bool {
    schema.get(word).and_then(Value::as_bool).unwrap_or(false)
}

fn list<'a>(schema: &'a Value, word: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    schema.get(word).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn fields(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

impl Checking {
    fn forbidden(&mut self, path: String, why: impl Into<String>) {
        self.errors.push(FieldError::forbidden(path, why));
    }

    fn required(&mut self, path: String, why: &str) {
        self.errors.push(FieldError::required(path, why));
    }

    fn node(&mut self, schema: &Value, path: &str, level: Level) {
        if !schema.is_object() {
            self.errors.push(FieldError::invalid(path, schema.clone(), "must be a schema object"));
            return;
        }
        self.types(schema, path, level);
        self.words(schema, path, level);
        self.extensions(schema, path);
        self.combinations(schema, path);
        self.rules(schema, path, level);
        self.default(schema, path);
        for (name, field) in fields(schema) {
            let inner = format!("{path}.properties[{name}]");
            if level == Level::Root && name == "metadata" {
                self.root_metadata(field, &inner);
            }
            self.node(field, &inner, Level::Field);
        }
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            self.node(values, &format!("{path}.additionalProperties"), Level::Field);
        }
        match schema.get("items") {
            Some(Value::Array(_)) => {
                self.forbidden(format!("{path}.items"), "items must be a schema object and not an array");
            }
            Some(items) if items.is_object() => self.items(schema, items, path),
            _ => {}
        }
    }

    fn items(&mut self, list: &Value, items: &Value, path: &str) {
        let above = self.uncorrelated.clone();
        if text(list, "x-kubernetes-list-type") != "map" && self.uncorrelated.is_none() {
            self.uncorrelated = Some(path.to_owned());
        }
        self.node(items, &format!("{path}.items"), Level::Item);
        self.uncorrelated = above;
    }

    fn types(&mut self, schema: &Value, path: &str, level: Level) {
        let kind = text(schema, "type");
        let at = || format!("{path}.type");
        let free = flag(schema, "x-kubernetes-int-or-string") || flag(schema, "x-kubernetes-preserve-unknown-fields");
        match (level, kind) {
            (Level::Root, "") => self.required(at(), "must not be empty at the root"),
            (Level::Root, kind) if kind != "object" => {
                self.errors.push(FieldError::invalid(at(), kind, "must be object at the root"));
            }
            (Level::Item, "") if !free => self.required(at(), "must not be empty for specified array items"),
            (Level::Field, "") if !free => self.required(at(), "must not be empty for specified object fields"),
            (_, "" | "object" | "array" | "string" | "integer" | "number" | "boolean") => {}
            (_, kind) => {
                let known = ["array", "boolean", "integer", "number", "object", "string"];
                self.errors.push(FieldError::not_supported(at(), kind, &known));
            }
        }
        if flag(schema, "x-kubernetes-embedded-resource") {
            match kind {
                "object" => {}
                "" => self.required(at(), "must be object if x-kubernetes-embedded-resource is true"),
                kind => {
                    let why = "must be object if x-kubernetes-embedded-resource is true";
                    self.errors.push(FieldError::invalid(at(), kind, why));
                }
            }
            let is_bare = fields(schema).next().is_none() && !flag(schema, "x-kubernetes-preserve-unknown-fields");
            if is_bare {
                let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                           x-kubernetes-preserve-unknown-fields";
                self.required(format!("{path}.properties"), why);
            }
        }
        if flag(schema, "x-kubernetes-int-or-string") && !kind.is_empty() {
            let why = "must be empty if x-kubernetes-int-or-string is true";
            self.errors.push(FieldError::invalid(at(), kind, why));
        }
        if kind == "array" && schema.get("items").is_none_or(Value::is_null) {
            self.required(format!("{path}.items"), "must be specified");
        }
    }

    fn words(&mut self, schema: &Value, path: &str, level: Level) {
        for word in UNSUPPORTED.iter().filter(|word| schema.get(**word).is_some()) {
            self.forbidden(format!("{path}.{word}"), format!("{word} is not supported"));
        }
        if flag(schema, "uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(format!("{path}.uniqueItems"), why);
        }
        let additional = schema.get("additionalProperties").filter(|value| !value.is_null());
        match additional {
            Some(Value::Bool(false)) => {
                self.forbidden(format!("{path}.additionalProperties"), "additionalProperties cannot be set to false");
            }
            Some(_) if fields(schema).next().is_some() => {
                let why = "additionalProperties and properties are mutual exclusive";
                self.forbidden(format!("{path}.additionalProperties"), why);
            }
            Some(_) if level == Level::Root => {
                let why = "additionalProperties cannot be used at the root";
                self.forbidden(format!("{path}.additionalProperties"), why);
            }
            _ => {}
        }
        self.pattern(schema, path);
        if level == Level::Root && flag(schema, "nullable") {
            self.forbidden(format!("{path}.nullable"), "nullable cannot be true at the root");
        }
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let at = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.errors.push(FieldError::invalid(at, false, "must be true or undefined"));
        }
    }

    fn pattern(&mut self, schema: &Value, path: &str) {
        if let Some(wanted) = schema.get("pattern").and_then(Value::as_str)
            && let Err(why) = pattern(wanted)
        {
            let why = format!("must be a valid regular expression, but isn't: {why}");
            self.errors.push(FieldError::invalid(format!("{path}.pattern"), wanted, why));
        }
    }

    fn root_metadata(&mut self, schema: &Value, path: &str) {
        let is_allowed = fields(schema).all(|(name, _)| matches!(name.as_str(), "name" | "generateName"))
            && schema
                .as_object()
                .into_iter()
                .flatten()
                .all(|(word, _)| matches!(word.as_str(), "type" | "description" | "properties"));
        if !is_allowed {
            let why =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbidden(path.to_owned(), why);
        }
    }

    fn extensions(&mut self, schema: &Value, path: &str) {
        let kind = text(schema, "type");
        let list_type = text(schema, "x-kubernetes-list-type");
        let at = format!("{path}.x-kubernetes-list-type");
        if !list_type.is_empty() && kind != "array" {
            let why = format!("must be array if x-kubernetes-list-type is {list_type}");
            self.errors.push(FieldError::invalid(format!("{path}.type"), kind, why));
        }
        match list_type {
            "" | "atomic" => {}
            "set" => {
                let item = schema.get("items").unwrap_or(&Value::Null);
                let scalar = !matches!(text(item, "type"), "object" | "array")
                    || text(item, "x-kubernetes-map-type") == "atomic"
                    || (text(item, "type") == "array" && matches!(text(item, "x-kubernetes-list-type"), "" | "atomic"));
                if !scalar {
                    let why =
                        "the x-kubernetes-map-type of items must be atomic, because x-kubernetes-list-type is set";
                    self.errors.push(FieldError::invalid(
                        format!("{path}.items.x-kubernetes-map-type"),
                        Value::Null,
                        why,
                    ));
                }
                if flag(item, "nullable") {
                    self.forbidden(
                        format!("{path}.items.nullable"),
                        "cannot be nullable when x-kubernetes-list-type is set",
                    );
                }
            }
            "map" => self.list_map(schema, path),
            other => self.errors.push(FieldError::not_supported(at, other, &["atomic", "map", "set"])),
        }
        if list_type != "map" && list(schema, "x-kubernetes-list-map-keys").next().is_some() {
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.errors.push(FieldError::invalid(format!("{path}.x-kubernetes-list-type"), list_type, why));
        }
        match text(schema, "x-kubernetes-map-type") {
            "" => {}
            "atomic" | "granular" if kind == "object" => {}
            "atomic" | "granular" => {
                let why = "must be object if x-kubernetes-map-type is specified";
                self.errors.push(FieldError::invalid(format!("{path}.type"), kind, why));
            }
            other => {
                let at = format!("{path}.x-kubernetes-map-type");
                self.errors.push(FieldError::not_supported(at, other, &["atomic", "granular"]));
            }
        }
    }

    fn list_map(&mut self, schema: &Value, path: &str) {
        let keys: Vec<&str> = list(schema, "x-kubernetes-list-map-keys").filter_map(|(_, key)| key.as_str()).collect();
        if keys.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            self.required(format!("{path}.x-kubernetes-list-map-keys"), why);
        }
        let item = schema.get("items").unwrap_or(&Value::Null);
        if text(item, "type") != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            self.errors.push(FieldError::invalid(format!("{path}.items.type"), text(item, "type"), why));
        }
        let mut seen = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let at = format!("{path}.x-kubernetes-list-map-keys[{index}]");
            if seen.contains(&key) {
                self.errors.push(FieldError::duplicate(at.clone(), *key));
            }
            seen.push(key);
            let Some(field) = item.get("properties").and_then(|properties| properties.get(*key)) else {
                self.errors.push(FieldError::invalid(at, *key, "entries must all be names of item properties"));
                continue;
            };
            if matches!(text(field, "type"), "object" | "array") {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.errors.push(FieldError::invalid(
                    format!("{path}.items.properties[{key}].type"),
                    text(field, "type"),
                    why,
                ));
            }
            let is_required = list(item, "required").any(|(_, name)| name == *key);
            if !is_required && field.get("default").is_none() {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                           property";
                self.required(format!("{path}.items.properties[{key}].default"), why);
            }
        }
    }

    fn combinations(&mut self, schema: &Value, path: &str) {
        for word in ["allOf", "anyOf", "oneOf"] {
            for (index, inner) in list(schema, word) {
                self.inner(schema, inner, &format!("{path}.{word}[{index}]"));
            }
        }
        if let Some(inner) = schema.get("not").filter(|inner| inner.is_object()) {
            self.inner(schema, inner, &format!("{path}.not"));
        }
    }

    /// A schema under `allOf` or its kin says nothing that the outer one does not specify.
    fn inner(&mut self, outer: &Value, inner: &Value, path: &str) {
        for word in OUTER_ONLY.iter().filter(|word| inner.get(**word).is_some_and(|v| !v.is_null())) {
            // `anyOf: [{type: integer}, {type: string}]` is how int-or-string is written out.
            let is_int_or_string = *word == "type"
                && flag(outer, "x-kubernetes-int-or-string")
                && matches!(text(inner, "type"), "integer" | "string");
            if !is_int_or_string {
                self.forbidden(format!("{path}.{word}"), "must be empty to be structural");
            }
        }
        self.pattern(inner, path);
        for (name, field) in fields(inner) {
            let at = format!("{path}.properties[{name}]");
            let known = outer.get("properties").and_then(|properties| properties.get(name));
            match known.or_else(|| outer.get("additionalProperties").filter(|values| values.is_object())) {
                Some(known) => self.inner(known, field, &at),
                None if flag(outer, "x-kubernetes-preserve-unknown-fields") => {}
                None => {
                    let base = path.rsplit_once('.').map_or(path, |(base, _)| base);
                    self.required(format!("{base}.properties[{name}]"), &format!("because it is defined in {at}"));
                }
            }
        }
        if let Some(items) = inner.get("items").filter(|items| items.is_object()) {
            match outer.get("items").filter(|items| items.is_object()) {
                Some(known) => self.inner(known, items, &format!("{path}.items")),
                None => self.required(format!("{path}.items"), "must be specified in the outer schema"),
            }
        }
        for word in ["allOf", "anyOf", "oneOf"] {
            for (index, deeper) in list(inner, word) {
                self.inner(outer, deeper, &format!("{path}.{word}[{index}]"));
            }
        }
        if let Some(deeper) = inner.get("not").filter(|inner| inner.is_object()) {
            self.inner(outer, deeper, &format!("{path}.not"));
        }
    }

    fn rules(&mut self, schema: &Value, path: &str, level: Level) {
        if schema.get("x-kubernetes-validations").is_none() {
            return;
        }
        let mut bare = schema.clone();
        if let Some(words) = bare.as_object_mut() {
            words.remove("x-kubernetes-validations");
        }
        let scope = if level == Level::Root { Schema::root(&bare) } else { Schema::part(&bare) };
        for (index, rule) in list(schema, "x-kubernetes-validations") {
            let at = format!("{path}.x-kubernetes-validations[{index}]");
            self.errors.extend(cel::check_rule(rule, &Scope::of(&scope).within(self.uncorrelated.clone()), &at));
        }
    }

    fn default(&mut self, schema: &Value, path: &str) {
        let Some(default) = schema.get("default").filter(|default| !default.is_null()) else { return };
        let at = format!("{path}.default");
        let read = Schema::part(schema);
        let mut pruned = default.clone();
        match prune(&read, &mut pruned) {
            Ok(complaints) if complaints.is_empty() => {}
            Ok(_) => self.errors.push(FieldError::invalid(at.clone(), default.clone(), "must not have unknown fields")),
            Err(why) => self.errors.push(FieldError::invalid(at.clone(), default.clone(), why)),
        }
        let mut whole = pruned;
        super::prune::default(&read, &mut whole);
        self.errors.extend(check_at(&read, (&whole, None), at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words() {
        let check = |field: Value, expect: &[&str]| {
            let schema = json!({ "type": "object", "properties": { "f": field } });
            let found: Vec<String> = check_schema(&schema, "s").iter().map(ToString::to_string).collect();
            assert_eq!(found, expect, "{field}");
        };
        check(json!({ "type": "string", "default": "x", "pattern": "^x$" }), &[]);
        check(
            json!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] }),
            &[],
        );
        check(json!({}), &["s.properties[f].type: Required value: must not be empty for specified object fields"]);
        check(json!({ "type": "array" }), &["s.properties[f].items: Required value: must be specified"]);
        check(
            json!({ "type": "array", "items": {} }),
            &["s.properties[f].items.type: Required value: must not be empty for specified array items"],
        );
        check(
            json!({ "type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"} }),
            &[
                "s.properties[f].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ],
        );
        check(
            json!({ "type": "string", "default": 3 }),
            &["s.properties[f].default: Invalid value: \"integer\": s.properties[f].default in body must be of type \
               string: \"integer\""],
        );
        check(
            json!({ "type": "object", "anyOf": [{ "properties": { "a": { "minLength": 1 } } }] }),
            &["s.properties[f].properties[a]: Required value: because it is defined in \
               s.properties[f].anyOf[0].properties[a]"],
        );
        check(
            json!({ "type": "string", "anyOf": [{ "type": "string" }] }),
            &["s.properties[f].anyOf[0].type: Forbidden: must be empty to be structural"],
        );
        check(
            json!({ "type": "array", "x-kubernetes-list-type": "map", "items": { "type": "object" } }),
            &["s.properties[f].x-kubernetes-list-map-keys: Required value: must not be empty if \
               x-kubernetes-list-type is map"],
        );
        check(
            json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": { "type": "object", "properties": { "n": { "type": "string" } } } }),
            &["s.properties[f].items.properties[n].default: Required value: this property is in \
               x-kubernetes-list-map-keys, so it must have a default or be a required property"],
        );
        check(json!({ "type": "string", "$ref": "#/x" }), &["s.properties[f].$ref: Forbidden: $ref is not supported"]);
        check(
            json!({ "type": "array", "items": { "type": "integer",
                "x-kubernetes-validations": [{ "rule": "self >= oldSelf" }] } }),
            &["s.properties[f].items.x-kubernetes-validations[0].rule: Invalid value: \"self >= oldSelf\": oldSelf \
               cannot be used on the uncorrelatable portion of the schema within s.properties[f]"],
        );
        let pattern = check_schema(
            &json!({ "type": "object", "properties": { "f": { "type": "string", "pattern": "(" } } }),
            "s",
        );
        assert!(pattern[0].to_string().contains("must be a valid regular expression, but isn't"));
        let root = check_schema(&json!({ "type": "string" }), "s");
        assert_eq!(root[0].to_string(), "s.type: Invalid value: \"string\": must be object at the root");
    }
}

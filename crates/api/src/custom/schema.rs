//! A structural schema as a tree of nodes, made once from `openAPIV3Schema`.
//!
//! Owns: the node and reading it. Expects a schema that passed `super::structural`; of one that did not, whatever is
//! wrong is left out. May not know: values, requests.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use crate::cel::Rule;
use crate::kinds::custom::intern_keys;

/// Longest compiled form of a pattern.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    /// `x-kubernetes-int-or-string`
    IntOrString,
    /// None is named.
    #[default]
    Any,
}

impl Type {
    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
            Self::Any => "any",
        }
    }

    fn of(text: &str) -> Self {
        match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => Self::Any,
        }
    }
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map(&'static [&'static str]),
}

#[derive(Debug, Default)]
pub struct Schema {
    pub kind: Type,
    pub nullable: bool,
    pub properties: BTreeMap<Box<str>, Schema>,
    /// Values under keys that `properties` does not name.
    pub additional: Option<Box<Schema>>,
    /// `additionalProperties: true`, or fields that are not known are kept.
    pub preserves: bool,
    pub items: Option<Box<Schema>>,
    /// Has `apiVersion`, `kind` and `metadata` of its own: an embedded resource, or the root.
    pub is_resource: bool,
    pub list: ListType,
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
    pub default: Option<Value>,
    pub rules: Vec<Rule>,
    /// Rules that do not compile (any more): no value keeps to them.
    pub broken: Vec<String>,
    pub checks: Option<Box<Checks>>,
}

/// What a value must be, beyond its type.
#[derive(Debug, Default)]
pub struct Checks {
    pub required: Vec<Box<str>>,
    pub choices: Option<Vec<Value>>,
    pub minimum: Option<(f64, bool)>,
    pub maximum: Option<(f64, bool)>,
    pub multiple_of: Option<f64>,
    pub length: (Option<u64>, Option<u64>),
    pub items: (Option<u64>, Option<u64>),
    pub properties: (Option<u64>, Option<u64>),
    pub pattern: Option<(String, Option<Regex>)>,
    pub format: Option<Box<str>>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Schema>,
}

impl Schema {
    /// The schema of a whole object.
    pub fn root(text: &Value) -> Self {
        Self::read_as(text, true)
    }

    /// A schema that is part of another.
    pub fn part(text: &Value) -> Self {
        Self::read(text)
    }

    /// A version without a schema keeps everything.
    pub fn anything() -> Self {
        Self { kind: Type::Object, preserves: true, is_resource: true, ..Self::default() }
    }

    fn read(text: &Value) -> Self {
        Self::read_as(text, false)
    }

    fn read_as(text: &Value, is_root: bool) -> Self {
        let flag = |name: &str| text.get(name).and_then(Value::as_bool).unwrap_or(false);
        let mut kind = Type::of(text.get("type").and_then(Value::as_str).unwrap_or(""));
        if flag("x-kubernetes-int-or-string") {
            kind = Type::IntOrString;
        }
        let additional = text.get("additionalProperties");
        Self {
            kind,
            nullable: flag("nullable"),
            properties: fields(text, "properties")
                .map(|(name, field)| (name.as_str().into(), Self::read(field)))
                .collect(),
            additional: additional.filter(|a| a.is_object()).map(|a| Box::new(Self::read(a))),
            preserves: flag("x-kubernetes-preserve-unknown-fields") || additional == Some(&Value::Bool(true)),
            items: text.get("items").filter(|items| items.is_object()).map(|items| Box::new(Self::read(items))),
            is_resource: is_root || flag("x-kubernetes-embedded-resource"),
            list: list_type(text),
            atomic: text.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
            default: text.get("default").cloned(),
            rules: Vec::new(),
            broken: Vec::new(),
            checks: Checks::read(text),
        }
        .with_rules(text)
    }

    fn with_rules(self, text: &Value) -> Self {
        let Some(rules) = text.get("x-kubernetes-validations").and_then(Value::as_array) else { return self };
        let mut broken = Vec::new();
        let mut compiled = Vec::new();
        for rule in rules {
            match Rule::compile(rule, &self) {
                Ok(rule) => compiled.push(rule),
                Err((_, why)) => broken.push(why),
            }
        }
        Self { rules: compiled, broken, ..self }
    }

    /// Whether a value of any field is kept.
    pub fn is_open(&self) -> bool {
        self.preserves && self.properties.is_empty() && self.additional.is_none() && !self.is_resource
    }

    /// The schema of a field or of a map's value, when there is one.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional.as_deref())
    }

    /// Whether a value lacks something that defaults would bring.
    pub fn has_defaults(&self) -> bool {
        self.default.is_some()
            || self.properties.values().any(Self::has_defaults)
            || self.additional.as_deref().is_some_and(Self::has_defaults)
            || self.items.as_deref().is_some_and(Self::has_defaults)
    }
}

fn fields<'a>(text: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    text.get(name).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn list_type(text: &Value) -> ListType {
    match text.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys: Vec<String> = strings(text, "x-kubernetes-list-map-keys").map(str::to_owned).collect();
            intern_keys(&keys).map_or(ListType::Atomic, ListType::Map)
        }
        _ => ListType::Atomic,
    }
}

fn strings<'a>(text: &'a Value, name: &str) -> impl Iterator<Item = &'a str> {
    text.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// A pattern as Go reads it, in linear time and bounded space.
pub fn pattern(text: &str) -> Result<Regex, String> {
    // RE2 knows `\z` and `\pN`; so does this. `\Z` and lookarounds are unknown to both.
    regex::RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build().map_err(|error| error.to_string())
}

impl Checks {
    fn read(text: &Value) -> Option<Box<Self>> {
        let number = |name: &str| text.get(name).and_then(Value::as_f64);
        let count = |name: &str| text.get(name).and_then(Value::as_u64);
        let flag = |name: &str| text.get(name).and_then(Value::as_bool).unwrap_or(false);
        let list = |name: &str| -> Vec<Schema> {
            text.get(name).and_then(Value::as_array).into_iter().flatten().map(Schema::read).collect()
        };
        let checks = Self {
            required: strings(text, "required").map(Into::into).collect(),
            choices: text.get("enum").and_then(Value::as_array).cloned(),
            minimum: number("minimum").map(|n| (n, flag("exclusiveMinimum"))),
            maximum: number("maximum").map(|n| (n, flag("exclusiveMaximum"))),
            multiple_of: number("multipleOf").filter(|n| *n > 0.0),
            length: (count("minLength"), count("maxLength")),
            items: (count("minItems"), count("maxItems")),
            properties: (count("minProperties"), count("maxProperties")),
            pattern: text.get("pattern").and_then(Value::as_str).map(|p| (p.to_owned(), pattern(p).ok())),
            format: text.get("format").and_then(Value::as_str).map(Into::into),
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: text.get("not").map(Schema::read),
        };
        (!checks.is_empty()).then(|| Box::new(checks))
    }

    fn is_empty(&self) -> bool {
        let none = |(min, max): (Option<u64>, Option<u64>)| min.is_none() && max.is_none();
        self.required.is_empty()
            && self.choices.is_none()
            && self.minimum.is_none()
            && self.maximum.is_none()
            && self.multiple_of.is_none()
            && none(self.length)
            && none(self.items)
            && none(self.properties)
            && self.pattern.is_none()
            && self.format.is_none()
            && self.all_of.is_empty()
            && self.any_of.is_empty()
            && self.one_of.is_empty()
            && self.not.is_none()
    }
}

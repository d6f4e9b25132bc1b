//! What `kubectl get` prints of a custom kind: `additionalPrinterColumns`, or name and age.
//!
//! Owns: the subset of JSONPath that Kubernetes allows in columns, and how values become cells. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::table::{IncludeObject, age, partial_metadata};
use crate::{kinds::Kind, meta};

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    path: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Every,
    /// `[?(@.type=="Ready")]`
    Where {
        path: Vec<String>,
        is: String,
        equals: bool,
    },
}

impl Column {
    /// The columns of a version, without the name that is always first.
    pub(super) fn read(version: &Value) -> Vec<Self> {
        let list = version.get("additionalPrinterColumns").and_then(Value::as_array);
        let given: Vec<Self> = list.into_iter().flatten().filter_map(Self::one).collect();
        if !given.is_empty() {
            return given;
        }
        vec![Self {
            name: "Age".to_owned(),
            kind: "date".to_owned(),
            format: String::new(),
            description: String::new(),
            priority: 0,
            path: parse(".metadata.creationTimestamp").unwrap_or_default(),
        }]
    }

    fn one(column: &Value) -> Option<Self> {
        let text = |field: &str| column.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
        Some(Self {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: text("description"),
            priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
            path: parse(&text("jsonPath")).ok()?,
        })
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let mut found = vec![object];
        for step in &self.path {
            found = found.into_iter().flat_map(|value| step.follow(value)).collect();
        }
        let Some(first) = found.first() else { return Value::Null };
        match (self.kind.as_str(), *first) {
            ("date", Value::String(text)) => age::since(text, now).into(),
            ("string", Value::String(_)) if found.len() == 1 => (*first).clone(),
            ("string", _) => {
                let shown = |value: &&Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                found.iter().map(shown).collect::<Vec<_>>().join(" ").into()
            }
            ("integer", Value::Number(number)) if number.is_f64() => {
                // A column of integers cuts off what is behind the point.
                let whole = number.as_f64().unwrap_or(0.0) as i64;
                whole.into()
            }
            ("integer" | "number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
            _ => Value::Null,
        }
    }
}

impl Step {
    fn follow<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(at) => {
                let list = value.as_array().map_or(&[][..], Vec::as_slice);
                let at = if *at < 0 { i64::try_from(list.len()).unwrap_or(0) + at } else { *at };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            Self::Every => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Where { path, is, equals } => {
                let list = value.as_array().map_or(&[][..], Vec::as_slice);
                let matches = |item: &&Value| {
                    let found = path.iter().try_fold(*item, |value, field| value.get(field));
                    let shown = found.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                    shown.is_some_and(|shown| (shown == *is) == *equals)
                };
                list.iter().filter(matches).collect()
            }
        }
    }
}

/// Whether a path can be followed.
pub(super) fn is_path(text: &str) -> bool {
    parse(text).is_ok()
}

fn parse(text: &str) -> Result<Vec<Step>, String> {
    let text = text.trim();
    let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
    let mut rest = text.strip_prefix('$').unwrap_or(text);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after).ok_or("unterminated array")?;
            steps.push(bracket(&after[..end])?);
            rest = &after[end + 1..];
        } else if let Some(after) = rest.strip_prefix('.') {
            let (name, left) = field(after);
            match name.as_str() {
                "" if left.starts_with('[') => {}
                "" if left.is_empty() => {}
                "" => return Err(format!("no field after the dot in {text:?}")),
                "*" => steps.push(Step::Every),
                _ => steps.push(Step::Field(name)),
            }
            rest = left;
        } else if steps.is_empty() {
            let (name, left) = field(rest);
            steps.push(Step::Field(name));
            rest = left;
        } else {
            return Err(format!("unexpected {rest:?}"));
        }
    }
    Ok(steps)
}

/// A field name, in which a backslash takes dots and brackets for what they are.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket ends that is open here; quoted ones do not count.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, ']') => return Some(at),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inner = |quote: char| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
    inner('\'').or_else(|| inner('"')).unwrap_or(text)
}

fn bracket(text: &str) -> Result<Step, String> {
    let text = text.trim();
    if text == "*" {
        return Ok(Step::Every);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let (equals, (left, right)) = match (filter.split_once("=="), filter.split_once("!=")) {
            (Some(parts), _) => (true, parts),
            (None, Some(parts)) => (false, parts),
            (None, None) => return Err(format!("the filter {filter:?} is not supported")),
        };
        let left = left.trim().strip_prefix('@').ok_or_else(|| format!("the filter {filter:?} is not supported"))?;
        let path = left.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        return Ok(Step::Where { path, is: unquoted(right).to_owned(), equals });
    }
    if text.starts_with(['\'', '"']) {
        return Ok(Step::Field(unquoted(text).replace("\\.", ".")));
    }
    text.parse().map(Step::Index).map_err(|_| format!("invalid array index {text:?}"))
}

/// A Table of objects of a custom kind.
pub fn table(columns: &[Column], kind: &Kind, objects: &[&Value], now: Timestamp, include: IncludeObject) -> Value {
    let mut definitions = vec![json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    })];
    definitions.extend(columns.iter().map(|column| {
        json!({ "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority })
    }));
    let row = |object: &&Value| {
        let mut cells = vec![Value::from(meta::name(object))];
        cells.extend(columns.iter().map(|column| column.cell(object, now)));
        let mut row = json!({ "cells": cells });
        match include {
            IncludeObject::None => {}
            IncludeObject::Metadata => row["object"] = partial_metadata(object),
            IncludeObject::Object => {
                row["object"] = (*object).clone();
                row["object"]["apiVersion"] = kind.api_version().into();
                row["object"]["kind"] = kind.kind.into();
            }
        }
        row
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": definitions,
        "rows": objects.iter().map(row).collect::<Vec<_>>(),
    })
}

impl super::Custom {
    /// What `kubectl get` prints.
    pub fn table(&self, objects: &[&Value], now: Timestamp, include: IncludeObject) -> Value {
        table(&self.version().columns, self.kind(), objects, now, include)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let object = json!({
            "metadata": { "name": "a", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": { "x.y/z": "w" } },
            "spec": { "n": 3, "f": 1.5, "on": true, "list": ["a", "b"], "ports": [{ "p": 1 }, { "p": 2 }] },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Old", "status": "False" }] },
        });
        let check = |kind: &str, path: &str, expect: Value| {
            let version = json!({ "additionalPrinterColumns": [{ "name": "C", "type": kind, "jsonPath": path }] });
            assert_eq!(Column::read(&version)[0].cell(&object, now), expect, "{kind} {path}");
        };
        check("integer", ".spec.n", json!(3));
        check("string", ".spec.n", json!("3"));
        check("number", ".spec.f", json!(1.5));
        check("integer", ".spec.f", json!(1));
        check("boolean", ".spec.on", json!(true));
        check("string", ".spec.missing", Value::Null);
        check("integer", ".spec.on", Value::Null);
        check("date", ".metadata.creationTimestamp", json!("60m"));
        check("string", ".spec.list[0]", json!("a"));
        check("string", ".spec.list[-1]", json!("b"));
        check("string", ".spec.list[*]", json!("a b"));
        check("string", ".spec.list", json!("[\"a\",\"b\"]"));
        check("string", ".spec.ports[*].p", json!("1 2"));
        check("string", ".status.conditions[?(@.type==\"Ready\")].status", json!("True"));
        check("string", ".status.conditions[?(@.type=='None')].status", Value::Null);
        check("string", ".metadata.annotations['x.y/z']", json!("w"));
        check("string", ".metadata.annotations.x\\.y/z", json!("w"));
        for bad in [".spec[", ".spec[x]", ".spec[?(x)]", ".a..b"] {
            assert!(!is_path(bad), "{bad}");
        }
    }

    #[test]
    fn without_columns_the_age_is_shown() {
        assert_eq!(Column::read(&json!({}))[0].name, "Age");
    }
}

//! One step of a path to a field: `f:replicas`, `k:{"name":"web"}`, `v:"finalizer"`, `i:0`.
//!
//! Owns: the text forms of a step (FieldsV1's and that of messages) and the order of steps.
//! May not know: types, objects. Follows structured-merge-diff `fieldpath`.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

/// Steps sort as listed here: fields, then keys, values, indices.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A field of a struct, or a key of a map.
    Field(Box<str>),
    /// The list item that has these fields; sorted by name.
    Key(Vec<(Box<str>, Atom)>),
    /// The list item that is this value.
    Value(Atom),
    /// The list item at this place.
    Index(i64),
}

/// Steps from the object down.
pub type Path = [Element];

/// A scalar with an order: numbers, texts, booleans, the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Atom(pub Value);

impl Eq for Atom {}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |value: &Value| match value {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Null | Value::Array(_) | Value::Object(_) => 3,
        };
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
            },
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) => rank(a).cmp(&rank(b)).then_with(|| a.to_string().cmp(&b.to_string())),
        }
    }
}

impl Element {
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// Sorts the fields.
    pub fn key(mut fields: Vec<(Box<str>, Atom)>) -> Self {
        fields.sort();
        Self::Key(fields)
    }

    /// The form in FieldsV1.
    pub fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let fields: Map<String, Value> =
                    fields.iter().map(|(name, value)| (name.to_string(), value.0.clone())).collect();
                format!("k:{}", Value::Object(fields))
            }
            Self::Value(value) => format!("v:{}", value.0),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// Reads [`Self::encode`]'s form; `None` when it is not of that form.
    pub fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::field(rest)),
            "k" => {
                let fields: Map<String, Value> = serde_json::from_str(rest).ok()?;
                Some(Self::key(fields.into_iter().map(|(name, value)| (name.into(), Atom(value))).collect()))
            }
            "v" => serde_json::from_str(rest).ok().map(|value| Self::Value(Atom(value))),
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{name}={}", value.0)?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={}]", value.0),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// As messages show a path: `.spec.containers[name="web"].image`.
pub fn path_text(path: &Path) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FieldsV1's text, the text in messages.
    const CASES: &[(&str, &str)] = &[
        ("f:replicas", ".replicas"),
        ("f:app.kubernetes.io/name", ".app.kubernetes.io/name"),
        ("f:", "."),
        ("f:a:b", ".a:b"),
        ("k:{\"name\":\"web\"}", "[name=\"web\"]"),
        ("k:{\"containerPort\":80,\"protocol\":\"TCP\"}", "[containerPort=80,protocol=\"TCP\"]"),
        ("v:\"kubernetes\"", "[=\"kubernetes\"]"),
        ("v:3", "[=3]"),
        ("v:true", "[=true]"),
        ("i:0", "[0]"),
    ];

    #[test]
    fn texts() {
        for (encoded, shown) in CASES {
            let element = Element::decode(encoded).unwrap();
            assert_eq!((element.encode().as_str(), element.to_string().as_str()), (*encoded, *shown));
        }
        for text in ["", "f", "x:1", "k:3", "k:{", "v:", "i:x"] {
            assert_eq!(Element::decode(text), None, "{text}");
        }
        assert_eq!(Element::decode("k:{\"b\":1,\"a\":2}").unwrap().encode(), "k:{\"a\":2,\"b\":1}");
    }

    #[test]
    fn order() {
        let sorted =
            ["f:a", "f:b", "k:{\"p\":80}", "k:{\"p\":443}", "k:{\"p\":\"a\"}", "v:2", "v:10", "v:\"a\"", "i:2"];
        let elements: Vec<Element> = sorted.iter().map(|text| Element::decode(text).unwrap()).collect();
        assert!(elements.is_sorted());
    }
}

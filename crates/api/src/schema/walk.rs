//! One pass over a value beside its type: check, prune, bring scalars into canonical form.
//!
//! Owns: Go's decoding rules (null is absence, numbers do not become strings) and the text of its errors.
//! May not know: which kind it walks.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::DecodeError;
use super::node::{Node, NodeId, Scalar, Struct, Tree};
use crate::quantity::Quantity;

/// The strict decoder of apimachinery stops counting here.
const COMPLAINTS_MAX: usize = 100;

/// Prunes `value` to the type `root`; returns what a strict decoder would refuse.
pub(super) fn walk(tree: &Tree, root: NodeId, value: &mut Value) -> Result<Vec<String>, DecodeError> {
    let mut walker = Walker { tree, path: Vec::new(), complaints: Vec::new() };
    walker.value(root, value)?;
    Ok(walker.complaints)
}

/// One step from an object to what it contains.
enum Step<'t> {
    Field { of: &'t Struct, name: &'t str },
    Key(String),
    Index(usize),
}

struct Walker<'t> {
    tree: &'t Tree,
    path: Vec<Step<'t>>,
    complaints: Vec<String>,
}

impl<'t> Walker<'t> {
    fn value(&mut self, id: NodeId, value: &mut Value) -> Result<(), DecodeError> {
        match self.tree.node(id) {
            Node::Raw => Ok(()),
            Node::Scalar(scalar) => self.scalar(id, *scalar, value),
            Node::Struct(of) => match value {
                Value::Object(fields) => self.fields(of, fields),
                other => Err(self.mismatch(id, other)),
            },
            Node::Map(values) => match value {
                Value::Object(entries) => self.entries(*values, entries),
                other => Err(self.mismatch(id, other)),
            },
            Node::List(items) => match value {
                Value::Array(list) => self.items(*items, list),
                other => Err(self.mismatch(id, other)),
            },
        }
    }

    fn fields(&mut self, of: &'t Struct, fields: &mut Map<String, Value>) -> Result<(), DecodeError> {
        let mut failure = None;
        fields.retain(|key, value| {
            if failure.is_some() {
                return true;
            }
            let Some(field) = of.field(key) else {
                self.complain(key);
                return false;
            };
            if value.is_null() {
                return false;
            }
            self.path.push(Step::Field { of, name: &field.name });
            failure = self.value(field.node, value).err();
            self.path.pop();
            true
        });
        failure.map_or(Ok(()), Err)
    }

    fn entries(&mut self, values: NodeId, entries: &mut Map<String, Value>) -> Result<(), DecodeError> {
        for (key, value) in entries.iter_mut() {
            self.path.push(Step::Key(key.clone()));
            self.element(values, value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn items(&mut self, items: NodeId, list: &mut [Value]) -> Result<(), DecodeError> {
        for (index, value) in list.iter_mut().enumerate() {
            self.path.push(Step::Index(index));
            self.element(items, value)?;
            self.path.pop();
        }
        Ok(())
    }

    /// In maps and lists null cannot be absence: it is the type's zero value.
    fn element(&mut self, id: NodeId, value: &mut Value) -> Result<(), DecodeError> {
        if value.is_null() {
            *value = match self.tree.node(id) {
                Node::Struct(_) | Node::Map(_) => Value::Object(Map::new()),
                Node::List(_) => Value::Array(Vec::new()),
                Node::Raw => Value::Null,
                Node::Scalar(scalar) => match scalar {
                    Scalar::String | Scalar::Bytes => "".into(),
                    Scalar::Bool => false.into(),
                    Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString => 0.into(),
                    Scalar::Quantity => "0".into(),
                    Scalar::Time | Scalar::MicroTime => Value::Null,
                },
            };
            return Ok(());
        }
        self.value(id, value)
    }

    fn scalar(&mut self, id: NodeId, scalar: Scalar, value: &mut Value) -> Result<(), DecodeError> {
        let fits = match (scalar, &*value) {
            (Scalar::String, Value::String(_)) | (Scalar::Bool, Value::Bool(_)) => true,
            (Scalar::Double, Value::Number(_)) => true,
            (Scalar::Int64, Value::Number(number)) => number.is_i64(),
            (Scalar::Int32, Value::Number(number)) => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            (Scalar::IntOrString, Value::String(_)) => true,
            (Scalar::IntOrString, Value::Number(number)) => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            (Scalar::Bytes, Value::String(text)) => match bad_base64_at(text) {
                None => true,
                Some(at) => return Err(DecodeError { why: format!("illegal base64 data at input byte {at}") }),
            },
            (Scalar::Quantity, Value::String(_) | Value::Number(_)) => return quantity(value),
            (Scalar::Time | Scalar::MicroTime, Value::String(_)) => return time(scalar, value),
            _ => false,
        };
        if fits { Ok(()) } else { Err(self.mismatch(id, value)) }
    }

    fn complain(&mut self, field: &str) {
        if self.complaints.len() >= COMPLAINTS_MAX {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field { name, .. } => push_dotted(&mut path, name),
                Step::Key(key) => push_dotted(&mut path, key),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        push_dotted(&mut path, field);
        self.complaints.push(format!("unknown field {path:?}"));
    }

    /// Go names the innermost struct, and the fields from the root without list indices and map keys.
    fn mismatch(&self, id: NodeId, value: &Value) -> DecodeError {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) => match self.tree.node(id) {
                Node::Scalar(Scalar::Int32 | Scalar::Int64) => format!("number {number}"),
                _ => "number".to_owned(),
            },
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let mut innermost = None;
        let mut path = String::new();
        for step in &self.path {
            if let Step::Field { of, name } = step {
                innermost = Some(&of.name);
                push_dotted(&mut path, name);
            }
        }
        let wanted = self.tree.go_type(id);
        let place = match innermost {
            Some(name) => format!("Go struct field {name}.{path}"),
            None => "Go value".to_owned(),
        };
        DecodeError { why: format!("json: cannot unmarshal {found} into {place} of type {wanted}") }
    }
}

fn push_dotted(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// Kubernetes stores quantities in canonical form: `1024Mi` comes back as `1Gi`, `0.5` as `500m`.
fn quantity(value: &mut Value) -> Result<(), DecodeError> {
    let text = match &*value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match Quantity::parse(&text) {
        Ok(quantity) => {
            *value = quantity.to_string().into();
            Ok(())
        }
        Err(_) => Err(DecodeError {
            why: "quantities must match the regular expression \
                  '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                .to_owned(),
        }),
    }
}

/// Times are kept in UTC, to the second or (MicroTime) to the microsecond.
fn time(scalar: Scalar, value: &mut Value) -> Result<(), DecodeError> {
    let text = value.as_str().unwrap_or("");
    let layout =
        if scalar == Scalar::MicroTime { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let Ok(at) = text.parse::<Timestamp>() else {
        return Err(DecodeError {
            why: format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""),
        });
    };
    let format = if scalar == Scalar::MicroTime { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    *value = at.strftime(format).to_string().into();
    Ok(())
}

/// The offset of the first byte that is not standard base64 with padding, as Go's decoder counts it.
fn bad_base64_at(text: &str) -> Option<usize> {
    let mut seen = 0;
    let mut padding = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\r' | b'\n' => {}
            b'=' if seen % 4 >= 2 || padding > 0 => {
                padding += 1;
                seen += 1;
                if padding > 2 || (padding == 2 && seen % 4 != 0) {
                    return Some(at);
                }
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => seen += 1,
            _ => return Some(at),
        }
    }
    (seen % 4 != 0).then(|| text.len() - (text.len() % 4).min(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64() {
        let cases = [
            ("", true),
            ("YQ==", true),
            ("YWI=", true),
            ("YWJj", true),
            ("YW\nJj", true),
            ("YQ", false),
            ("YQ=", false),
            ("not base64", false),
            ("=YQ=", false),
            ("YQ==YQ==", false),
        ];
        for (text, good) in cases {
            assert_eq!(bad_base64_at(text).is_none(), good, "{text:?}");
        }
        assert_eq!(bad_base64_at("ab!d"), Some(2));
    }
}

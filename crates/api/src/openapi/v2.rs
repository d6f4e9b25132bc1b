//! OpenAPI v2: the definitions of all kinds, as JSON and in the protobuf form of gnostic, which Go clients ask for.
//!
//! Owns: what v3 says in v2's words, and that encoding. Operations are published as v3 only.
//! May not know: HTTP.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::schemas;
use crate::kinds::{KINDS, Kind};

const DEFINITIONS_PREFIX: &str = "#/definitions/";

/// Both forms of one document.
#[derive(Debug, Clone)]
pub struct Document {
    pub json: Bytes,
    pub protobuf: Bytes,
}

/// The document of built-in kinds and `more`, the schemas of custom ones, which are in v2's form already.
pub fn document(more: Map<String, Value>) -> Document {
    let kinds: Vec<&Kind> = KINDS.iter().collect();
    let mut definitions = schemas::schemas(&kinds);
    definitions.values_mut().for_each(downgrade);
    for (name, schema) in more {
        // What is known here is not said otherwise by somebody else.
        definitions.entry(name).or_insert(schema);
    }
    let json = json!({ "swagger": "2.0", "info": { "title": "Kubernetes", "version": "v1.36.0" }, "paths": {},
        "definitions": definitions });
    Document { json: json.to_string().into(), protobuf: encode(&definitions) }
}

/// References stand alone in v2, and there are no alternatives.
fn downgrade(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    if let Some(reference) = fields.get("allOf").and_then(|all| all.pointer("/0/$ref")).and_then(Value::as_str) {
        let target = reference.replacen(schemas::COMPONENTS_PREFIX, DEFINITIONS_PREFIX, 1);
        fields.remove("allOf");
        fields.remove("default");
        fields.insert("$ref".to_owned(), target.into());
    }
    if fields.remove("oneOf").is_some() {
        fields.insert("type".to_owned(), "string".into());
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(word) {
            downgrade(inner);
        }
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(downgrade);
    }
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A field of bytes: a text or a message.
fn field(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    varint(out, (tag << 3) | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn encode(definitions: &Map<String, Value>) -> Bytes {
    let mut info = Vec::new();
    field(&mut info, 1, b"Kubernetes");
    field(&mut info, 2, b"v1.36.0");
    let mut out = Vec::new();
    field(&mut out, 1, b"2.0");
    field(&mut out, 2, &info);
    field(&mut out, 8, &[]);
    field(&mut out, 9, &named(definitions));
    out.into()
}

/// `Definitions` and `Properties`: schemas by name.
fn named(schemas: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, schema) in schemas {
        let mut entry = Vec::new();
        field(&mut entry, 1, name.as_bytes());
        field(&mut entry, 2, &encode_schema(schema));
        field(&mut out, 1, &entry);
    }
    out
}

/// `Any`: YAML, of which JSON is a part.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, 2, value.to_string().as_bytes());
    out
}

fn encode_schema(schema: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (word, value) in schema.as_object().into_iter().flatten() {
        encode_word(&mut out, word, value);
    }
    out
}

fn encode_word(out: &mut Vec<u8>, word: &str, value: &Value) {
    let text = |tag: u64, out: &mut Vec<u8>| field(out, tag, value.as_str().unwrap_or("").as_bytes());
    let double = |tag: u64, out: &mut Vec<u8>| {
        varint(out, (tag << 3) | 1);
        out.extend_from_slice(&value.as_f64().unwrap_or(0.0).to_le_bytes());
    };
    let whole = |tag: u64, out: &mut Vec<u8>| {
        varint(out, tag << 3);
        varint(out, value.as_u64().unwrap_or(u64::from(value.as_bool().unwrap_or(false))));
    };
    let wrapped = |tag: u64, out: &mut Vec<u8>| {
        let mut inner = Vec::new();
        match value {
            Value::Bool(value) => inner.extend([2 << 3, u8::from(*value)]),
            Value::String(text) => field(&mut inner, 1, text.as_bytes()),
            schema => field(&mut inner, 1, &encode_schema(schema)),
        }
        field(out, tag, &inner);
    };
    let list = || value.as_array().into_iter().flatten();
    match word {
        "$ref" => text(1, out),
        "format" => text(2, out),
        "title" => text(3, out),
        "description" => text(4, out),
        "default" => field(out, 5, &any(value)),
        "multipleOf" => double(6, out),
        "maximum" => double(7, out),
        "exclusiveMaximum" => whole(8, out),
        "minimum" => double(9, out),
        "exclusiveMinimum" => whole(10, out),
        "maxLength" => whole(11, out),
        "minLength" => whole(12, out),
        "pattern" => text(13, out),
        "maxItems" => whole(14, out),
        "minItems" => whole(15, out),
        "uniqueItems" => whole(16, out),
        "maxProperties" => whole(17, out),
        "minProperties" => whole(18, out),
        "required" => list().for_each(|name| field(out, 19, name.as_str().unwrap_or("").as_bytes())),
        "enum" => list().for_each(|choice| field(out, 20, &any(choice))),
        "additionalProperties" => wrapped(21, out),
        "type" => wrapped(22, out),
        "items" => wrapped(23, out),
        "properties" => field(out, 25, &named(value.as_object().unwrap_or(&Map::new()))),
        word if word.starts_with("x-") => {
            let mut entry = Vec::new();
            field(&mut entry, 1, word.as_bytes());
            field(&mut entry, 2, &any(value));
            field(out, 31, &entry);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stay_inside_the_document() {
        let json: Value = serde_json::from_slice(&document(Map::new()).json).unwrap();
        let text = json.to_string();
        for (at, _) in text.match_indices("\"$ref\":\"") {
            let target = text[at + 8..].split('"').next().unwrap();
            let name = target.strip_prefix(DEFINITIONS_PREFIX).expect(target);
            assert!(json["definitions"].get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn messages() {
        let schema = json!({ "type": "array", "items": { "$ref": "#/x" }, "maxItems": 300, "x-a": true });
        let expect: &[u8] = b"\xba\x01\x07\x0a\x05\x0a\x03#/x\x70\xac\x02\xb2\x01\x07\x0a\x05array\xfa\x01\x0d\x0a\x03x-a\x12\x06\x12\x04true";
        assert_eq!(encode_schema(&schema), expect);
    }
}

//! Kubernetes' protobuf: bodies decoded to the JSON they stand for, and JSON encoded for answers (`encode`).
//!
//! Owns: the `k8s\0` envelope (`runtime.Unknown`, apimachinery `pkg/runtime/serializer/protobuf`),
//! the walk over wire bytes guided by a generated field table, and the dozen types whose JSON is
//! not what their message looks like. May not know: HTTP, kinds' rules.
//!
//! Go writes every field that is no pointer, set or not; JSON leaves those out when they are empty.
//! So empty strings are dropped (but for the few where "" is a choice), and zeros of the fields
//! named in [`ZERO_IS_ABSENT`].

mod encode;
mod messages;
mod special;
mod wire;

use serde_json::{Map, Value};
use thiserror::Error;

pub use encode::{EncodeError, ListEncoder, encode, has_message, watch_event};
use messages::{FieldKind, Message, Repeat};
use wire::{Reader, WireValue};

/// What every enveloped body starts with.
pub const MAGIC: &[u8] = b"k8s\0";
/// Deepest nesting of messages that is followed.
pub const DEPTH_MAX: u32 = 64;

/// Fields that are no pointers in Go: their zero value means "not set".
const ZERO_IS_ABSENT: [&str; 29] = [
    "exclusiveMaximum",
    "exclusiveMinimum",
    "failureThreshold",
    "healthCheckNodePort",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "nullable",
    "observedGeneration",
    "generation",
    "paused",
    "periodSeconds",
    "preserveUnknownFields",
    "publishNotReadyAddresses",
    "readOnly",
    "stdin",
    "stdinOnce",
    "successThreshold",
    "suspend",
    "timeoutSeconds",
    "tty",
    "uniqueItems",
    "unschedulable",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
];
/// Pointers to strings where "" says something else than absence.
const EMPTY_IS_A_VALUE: [&str; 2] = ["storageClassName", "volumeAttributesClassName"];

#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProtobufError {
    #[error("the body does not start with the Kubernetes protobuf prefix")]
    NoMagic,
    #[error("the body ends inside a field")]
    Truncated,
    #[error("field {tag} has wire type {wire_type}, which its message does not use")]
    WireType { tag: u32, wire_type: u8 },
    #[error("message nesting is deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("a string is not UTF-8")]
    Utf8,
    #[error("there is no protobuf message for {api_version} {kind}")]
    UnknownKind { api_version: String, kind: String },
    #[error("raw content is no JSON")]
    RawContent,
}

/// Does the body look like an enveloped protobuf object?
pub fn is_protobuf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Decodes an enveloped object; the value has `apiVersion` and `kind` as the envelope says.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = Envelope::read(bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?)?;
    let unknown =
        || ProtobufError::UnknownKind { api_version: envelope.api_version.clone(), kind: envelope.kind.clone() };
    let message = messages::of_kind(&envelope.api_version, &envelope.kind).ok_or_else(unknown)?;
    let mut object = read_message(message, envelope.raw, 0)?;
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), envelope.api_version.into());
        fields.insert("kind".to_owned(), envelope.kind.into());
    }
    Ok(object)
}

/// `runtime.Unknown`: type meta (1: apiVersion, 2: kind) and the object's own bytes.
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ProtobufError> {
        let mut envelope = Self { api_version: String::new(), kind: String::new(), raw: &[] };
        let mut reader = Reader::new(bytes);
        while let Some((tag, value)) = reader.next_field()? {
            match (tag, value) {
                (1, WireValue::Bytes(type_meta)) => {
                    let mut inner = Reader::new(type_meta);
                    while let Some((tag, value)) = inner.next_field()? {
                        match (tag, value) {
                            (1, WireValue::Bytes(text)) => envelope.api_version = utf8(text)?.to_owned(),
                            (2, WireValue::Bytes(text)) => envelope.kind = utf8(text)?.to_owned(),
                            _ => {}
                        }
                    }
                }
                (2, WireValue::Bytes(raw)) => envelope.raw = raw,
                _ => {}
            }
        }
        Ok(envelope)
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Utf8)
}

fn read_message(message: &'static Message, bytes: &[u8], depth: u32) -> Result<Value, ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::TooDeep);
    }
    if let Some(read) = special::reader(&message.name) {
        return read(bytes, depth);
    }
    let mut object = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next_field()? {
        // Fields of a newer Kubernetes than ours are unknown and skipped, as protobuf has it.
        let Some(field) = message.field(tag) else { continue };
        match field.repeat {
            Repeat::Once => {
                let value = read_value(&field.kind, tag, wire, depth)?;
                if !is_absent(&field.json, &value) {
                    object.insert(field.json.clone(), value);
                }
            }
            Repeat::Inline => {
                if let Value::Object(fields) = read_value(&field.kind, tag, wire, depth)? {
                    object.extend(fields);
                }
            }
            Repeat::List => {
                let items = object.entry(&*field.json).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(items) = items {
                    read_items(&field.kind, tag, wire, depth, items)?;
                }
            }
            Repeat::Map => {
                let (key, value) = read_map_entry(&field.kind, tag, wire, depth)?;
                let map = object.entry(&*field.json).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(Value::Object(object))
}

fn is_absent(field: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() && !EMPTY_IS_A_VALUE.contains(&field),
        Value::Number(number) => number.as_i64() == Some(0) && ZERO_IS_ABSENT.contains(&field),
        Value::Bool(value) => !value && ZERO_IS_ABSENT.contains(&field),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn read_value(kind: &FieldKind, tag: u32, wire: WireValue<'_>, depth: u32) -> Result<Value, ProtobufError> {
    match (kind, wire) {
        (FieldKind::String, WireValue::Bytes(bytes)) => Ok(utf8(bytes)?.into()),
        (FieldKind::Bytes, WireValue::Bytes(bytes)) => Ok(special::base64(bytes).into()),
        (FieldKind::Message(name), WireValue::Bytes(bytes)) => {
            let message = messages::by_name(name).expect("the generated table is closed: every target has its row");
            read_message(message, bytes, depth + 1)
        }
        (FieldKind::Bool, WireValue::Varint(number)) => Ok((number != 0).into()),
        // Negative int32 and int64 are both sign-extended to 64 bits on the wire.
        (FieldKind::Integer, WireValue::Varint(number)) => Ok(number.cast_signed().into()),
        (FieldKind::Double, WireValue::Fixed64(bits)) => Ok(f64::from_bits(bits).into()),
        (_, wire) => Err(ProtobufError::WireType { tag, wire_type: wire.number() }),
    }
}

/// One list item, or a packed run of numbers.
fn read_items(
    kind: &FieldKind,
    tag: u32,
    wire: WireValue<'_>,
    depth: u32,
    items: &mut Vec<Value>,
) -> Result<(), ProtobufError> {
    if let (FieldKind::Integer, WireValue::Bytes(packed)) = (kind, &wire) {
        let mut reader = Reader::new(packed);
        while !reader.is_empty() {
            items.push(reader.varint()?.cast_signed().into());
        }
        return Ok(());
    }
    items.push(read_value(kind, tag, wire, depth)?);
    Ok(())
}

fn read_map_entry(
    kind: &FieldKind,
    tag: u32,
    wire: WireValue<'_>,
    depth: u32,
) -> Result<(String, Value), ProtobufError> {
    let WireValue::Bytes(bytes) = wire else {
        return Err(ProtobufError::WireType { tag, wire_type: wire.number() });
    };
    let mut reader = Reader::new(bytes);
    let (mut key, mut value) = (String::new(), Value::Null);
    while let Some((inner, wire)) = reader.next_field()? {
        match (inner, wire) {
            (1, WireValue::Bytes(bytes)) => key = utf8(bytes)?.to_owned(),
            (2, wire) => value = read_value(kind, inner, wire, depth)?,
            _ => {}
        }
    }
    if value.is_null() && matches!(kind, FieldKind::String | FieldKind::Bytes) {
        value = "".into();
    }
    Ok((key, value))
}

#[cfg(test)]
pub(crate) mod generate;
#[cfg(test)]
mod generated_tests;
#[cfg(test)]
mod tests;

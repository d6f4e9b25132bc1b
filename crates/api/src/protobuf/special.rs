//! Messages whose JSON is not an object of their fields: times, quantities, raw JSON, bare lists.
//!
//! Source: the custom `MarshalJSON` methods of apimachinery's `meta/v1`, `api/resource`, `util/intstr` and `runtime`, and
//! those of `apiextensions/v1`.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::{Reader, WireValue};
use super::{ProtobufError, messages, read_message, utf8};

/// From the message's bytes, and how deep it lies.
type ReadFn = fn(&[u8], u32) -> Result<Value, ProtobufError>;

pub(super) const SCHEMA: &str = "io.k8s.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// The reader of a message with a JSON form of its own.
pub(super) fn reader(message: &str) -> Option<ReadFn> {
    let short = message.rsplit('.').next()?;
    match short {
        "Time" => Some(time),
        "MicroTime" => Some(micro_time),
        "Timestamp" => Some(time),
        "Duration" => Some(duration),
        "Quantity" => Some(quantity),
        "IntOrString" => Some(int_or_string),
        "RawExtension" | "FieldsV1" | "JSON" => Some(raw_json),
        "Verbs" | "ExtraValue" => Some(list),
        "JSONSchemaPropsOrArray" => Some(schema_or_schemas),
        "JSONSchemaPropsOrBool" => Some(schema_or_bool),
        "JSONSchemaPropsOrStringArray" => Some(schema_or_words),
        _ => None,
    }
}

/// Standard base64 with padding, as Go writes `[]byte`.
pub(super) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn numbers(bytes: &[u8]) -> Result<(i64, i64), ProtobufError> {
    let (mut first, mut second) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((tag, value)) = reader.next_field()? {
        match (tag, value) {
            (1, WireValue::Varint(number)) => first = number.cast_signed(),
            (2, WireValue::Varint(number)) => second = number.cast_signed(),
            _ => {}
        }
    }
    Ok((first, second))
}

/// RFC 3339 in seconds; the zero time (an empty message) is null.
fn time(bytes: &[u8], _depth: u32) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (seconds, _) = numbers(bytes)?;
    Ok(Timestamp::from_second(seconds).map_or(Value::Null, |t| t.to_string().into()))
}

/// RFC 3339 with six digits of a second.
fn micro_time(bytes: &[u8], _depth: u32) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (seconds, nanos) = numbers(bytes)?;
    let nanos = i32::try_from(nanos).unwrap_or(0);
    Ok(Timestamp::new(seconds, nanos).map_or(Value::Null, |t| format!("{t:.6}").into()))
}

/// Go's `time.Duration` text; the field counts nanoseconds.
fn duration(bytes: &[u8], _depth: u32) -> Result<Value, ProtobufError> {
    let (nanos, _) = numbers(bytes)?;
    let seconds = nanos / 1_000_000_000;
    let fraction = (nanos % 1_000_000_000).unsigned_abs();
    if fraction == 0 {
        return Ok(format!("{seconds}s").into());
    }
    let digits = format!("{fraction:09}");
    let sign = if nanos < 0 && seconds == 0 { "-" } else { "" };
    Ok(format!("{sign}{seconds}.{}s", digits.trim_end_matches('0')).into())
}

fn first_bytes(bytes: &[u8]) -> Result<Option<&[u8]>, ProtobufError> {
    let mut reader = Reader::new(bytes);
    while let Some((tag, value)) = reader.next_field()? {
        if let (1, WireValue::Bytes(inner)) = (tag, value) {
            return Ok(Some(inner));
        }
    }
    Ok(None)
}

fn quantity(bytes: &[u8], _depth: u32) -> Result<Value, ProtobufError> {
    match first_bytes(bytes)? {
        Some(text) if !text.is_empty() => Ok(utf8(text)?.into()),
        _ => Ok("0".into()),
    }
}

/// type 0: the number; type 1: the string.
fn int_or_string(bytes: &[u8], _depth: u32) -> Result<Value, ProtobufError> {
    let (mut is_string, mut number, mut text) = (false, 0_i64, "");
    let mut reader = Reader::new(bytes);
    while let Some((tag, value)) = reader.next_field()? {
        match (tag, value) {
            (1, WireValue::Varint(kind)) => is_string = kind != 0,
            (2, WireValue::Varint(value)) => number = value.cast_signed(),
            (3, WireValue::Bytes(bytes)) => text = utf8(bytes)?,
            _ => {}
        }
    }
    Ok(if is_string { text.into() } else { number.into() })
}

fn raw_json(bytes: &[u8], _depth: u32) -> Result<Value, ProtobufError> {
    match first_bytes(bytes)? {
        Some(raw) if !raw.is_empty() => serde_json::from_slice(raw).map_err(|_| ProtobufError::RawContent),
        _ => Ok(Value::Object(Map::new())),
    }
}

fn list(bytes: &[u8], _depth: u32) -> Result<Value, ProtobufError> {
    let mut items = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((tag, value)) = reader.next_field()? {
        if let (1, WireValue::Bytes(text)) = (tag, value) {
            items.push(Value::from(utf8(text)?));
        }
    }
    Ok(Value::Array(items))
}

/// One item of `JSON`'s second forms.
type ReadItem = fn(&[u8], u32) -> Result<Value, ProtobufError>;

fn schema(bytes: &[u8], depth: u32) -> Result<Value, ProtobufError> {
    read_message(messages::by_name(SCHEMA).expect("the table has the type of schemas"), bytes, depth + 1)
}

fn word(bytes: &[u8], _depth: u32) -> Result<Value, ProtobufError> {
    Ok(utf8(bytes)?.into())
}

/// 1: a schema; 2: instead of it, a list.
fn schema_or_list(bytes: &[u8], depth: u32, item: ReadItem) -> Result<Value, ProtobufError> {
    let (mut one, mut many) = (None, Vec::new());
    let mut reader = Reader::new(bytes);
    while let Some((tag, value)) = reader.next_field()? {
        match (tag, value) {
            (1, WireValue::Bytes(inner)) => one = Some(schema(inner, depth)?),
            (2, WireValue::Bytes(inner)) => many.push(item(inner, depth)?),
            _ => {}
        }
    }
    Ok(if many.is_empty() { one.unwrap_or(Value::Null) } else { many.into() })
}

fn schema_or_schemas(bytes: &[u8], depth: u32) -> Result<Value, ProtobufError> {
    schema_or_list(bytes, depth, schema)
}

fn schema_or_words(bytes: &[u8], depth: u32) -> Result<Value, ProtobufError> {
    schema_or_list(bytes, depth, word)
}

/// 1: whether anything is allowed; 2: instead of it, a schema.
fn schema_or_bool(bytes: &[u8], depth: u32) -> Result<Value, ProtobufError> {
    let (mut allows, mut only) = (false, None);
    let mut reader = Reader::new(bytes);
    while let Some((tag, value)) = reader.next_field()? {
        match (tag, value) {
            (1, WireValue::Varint(number)) => allows = number != 0,
            (2, WireValue::Bytes(inner)) => only = Some(schema(inner, depth)?),
            _ => {}
        }
    }
    Ok(only.unwrap_or_else(|| allows.into()))
}

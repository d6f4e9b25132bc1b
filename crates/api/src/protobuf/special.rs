//! Messages whose JSON is not an object of their fields: times, quantities, raw JSON, bare lists.
//!
//! Source: the custom `MarshalJSON` methods of apimachinery's `meta/v1`, `api/resource`, `util/intstr` and `runtime`, and
//! those of `apiextensions/v1`.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::encode::{EncodeError, write_message};
use super::messages::Message;
use super::wire::{Reader, WireValue, put_bytes, put_delimited, put_number};
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

/// A message's bytes, from its JSON.
type WriteFn = fn(&'static Message, &Value, &mut Vec<u8>) -> Result<(), EncodeError>;

/// The writer of a message with a JSON form of its own.
pub(super) fn writer(message: &str) -> Option<WriteFn> {
    let short = message.rsplit('.').next()?;
    match short {
        "Time" | "Timestamp" => Some(put_time),
        "MicroTime" => Some(put_micro_time),
        "Duration" => Some(put_duration),
        "Quantity" => Some(put_quantity),
        "IntOrString" => Some(put_int_or_string),
        "RawExtension" | "FieldsV1" | "JSON" => Some(put_raw_json),
        "Verbs" | "ExtraValue" => Some(put_list),
        "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => {
            Some(put_schema_or_other)
        }
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

fn at_time(message: &Message, value: &Value) -> Result<Option<Timestamp>, EncodeError> {
    match value {
        // The zero time.
        Value::Null => Ok(None),
        Value::String(text) => text.parse().map(Some).map_err(|_| EncodeError::misfit(&message.name, "", value)),
        other => Err(EncodeError::misfit(&message.name, "", other)),
    }
}

/// Seconds only, as Kubernetes writes them.
fn put_time(message: &'static Message, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if let Some(at) = at_time(message, value)? {
        put_number(1, at.as_microsecond().div_euclid(1_000_000).cast_unsigned(), out);
        put_number(2, 0, out);
    }
    Ok(())
}

fn put_micro_time(message: &'static Message, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if let Some(at) = at_time(message, value)? {
        let micros = at.as_microsecond();
        put_number(1, micros.div_euclid(1_000_000).cast_unsigned(), out);
        put_number(2, (micros.rem_euclid(1_000_000) * 1000).cast_unsigned(), out);
    }
    Ok(())
}

fn put_duration(message: &'static Message, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let nanos = value.as_str().and_then(crate::custom::format::duration);
    let nanos = nanos.ok_or_else(|| EncodeError::misfit(&message.name, "", value))?;
    put_number(1, nanos.cast_unsigned(), out);
    Ok(())
}

fn put_quantity(message: &'static Message, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match value {
        Value::String(text) => put_bytes(1, text.as_bytes(), out),
        Value::Number(number) => put_bytes(1, number.to_string().as_bytes(), out),
        other => return Err(EncodeError::misfit(&message.name, "", other)),
    }
    Ok(())
}

fn put_int_or_string(message: &'static Message, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match (value, value.as_i64()) {
        (_, Some(number)) => {
            put_number(1, 0, out);
            put_number(2, number.cast_unsigned(), out);
        }
        (Value::String(text), _) => {
            put_number(1, 1, out);
            put_bytes(3, text.as_bytes(), out);
        }
        (other, None) => return Err(EncodeError::misfit(&message.name, "", other)),
    }
    Ok(())
}

fn put_raw_json(_message: &'static Message, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    put_bytes(1, value.to_string().as_bytes(), out);
    Ok(())
}

fn put_list(message: &'static Message, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    put_words(1, message, value, out)
}

fn put_words(tag: u32, message: &Message, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let misfit = |found: &Value| EncodeError::misfit(&message.name, "", found);
    for item in value.as_array().ok_or_else(|| misfit(value))? {
        put_bytes(tag, item.as_str().ok_or_else(|| misfit(item))?.as_bytes(), out);
    }
    Ok(())
}

/// A schema, or instead of it a list of schemas, a list of words, or whether anything is allowed.
fn put_schema_or_other(message: &'static Message, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let schema = messages::by_name(SCHEMA).expect("the table has the type of schemas");
    let is_bool = message.name.ends_with("OrBool");
    match value {
        Value::Bool(allows) if is_bool => put_number(1, u64::from(*allows), out),
        Value::Object(_) if is_bool => {
            put_number(1, 1, out);
            put_delimited(2, out, |out| write_message(schema, value, out))?;
        }
        Value::Object(_) => put_delimited(1, out, |out| write_message(schema, value, out))?,
        Value::Array(_) if message.name.ends_with("OrStringArray") => put_words(2, message, value, out)?,
        Value::Array(schemas) if !is_bool => {
            for one in schemas {
                put_delimited(2, out, |out| write_message(schema, one, out))?;
            }
        }
        other => return Err(EncodeError::misfit(&message.name, "", other)),
    }
    Ok(())
}

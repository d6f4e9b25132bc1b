//! JSON objects as Kubernetes' protobuf: what clients are answered who ask for it.
//!
//! Owns: the walk over a JSON value guided by the field table, the envelope, lists, and the events of a watch. May not
//! know: HTTP, which answers there are.
//!
//! What JSON says is written, a zero too; what it does not say is left out. So a decoder finds a pointer where the object
//! has a value, and Go's zero value everywhere else, which is what Kubernetes' own bytes say with more of them.

use base64::Engine;
use serde_json::{Map, Value};
use thiserror::Error;

use super::messages::{self, Field, FieldKind, Message, Repeat};
use super::wire::{put_bytes, put_delimited, put_double, put_length, put_number};
use super::{MAGIC, special};

#[derive(Debug, Error, PartialEq, Eq)]
pub enum EncodeError {
    #[error("there is no protobuf message for {api_version} {kind}")]
    UnknownKind { api_version: String, kind: String },
    #[error("{found} cannot be written as {message}{field}")]
    Misfit { message: String, field: String, found: String },
}

impl EncodeError {
    pub(super) fn misfit(message: &str, field: &str, found: &Value) -> Self {
        let field = if field.is_empty() { String::new() } else { format!(".{field}") };
        Self::Misfit { message: message.to_owned(), field, found: sort_of(found).to_owned() }
    }
}

/// Not the value itself: it may be a secret.
fn sort_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether objects of a type can be answered as protobuf.
pub fn has_message(api_version: &str, kind: &str) -> bool {
    messages::of_kind(api_version, kind).is_some()
}

/// An object with its envelope, as the type that it says it is.
pub fn encode(object: &Value) -> Result<Vec<u8>, EncodeError> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or("");
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let message = message_of(api_version, kind)?;
    let mut raw = Vec::with_capacity(512);
    write_message(message, object, &mut raw)?;
    let [head, tail] = envelope(api_version, kind, raw.len());
    Ok([head, raw, tail].concat())
}

fn message_of(api_version: &str, kind: &str) -> Result<&'static Message, EncodeError> {
    messages::of_kind(api_version, kind)
        .ok_or_else(|| EncodeError::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() })
}

/// `runtime.Unknown` before and after an object's own bytes: 1 the type, 2 those bytes, 3 and 4 (their encoding and media
/// type) empty.
fn envelope(api_version: &str, kind: &str, raw_bytes: usize) -> [Vec<u8>; 2] {
    let mut head = MAGIC.to_vec();
    put_delimited(1, &mut head, |out| {
        put_bytes(1, api_version.as_bytes(), out);
        put_bytes(2, kind.as_bytes(), out);
    });
    put_length(2, raw_bytes, &mut head);
    let mut tail = Vec::new();
    put_bytes(3, b"", &mut tail);
    put_bytes(4, b"", &mut tail);
    [head, tail]
}

/// A list in the making. All lists of Kubernetes have the same two fields: 1 is `metadata`, 2 are the items.
pub struct ListEncoder {
    item: &'static Message,
    raw: Vec<u8>,
}

impl ListEncoder {
    /// Of items of one type, with the `metadata` of the list.
    pub fn new(api_version: &str, kind: &str, metadata: &Value) -> Result<Self, EncodeError> {
        let mut raw = Vec::new();
        let message = message_of("v1", "ListMeta")?;
        put_delimited(1, &mut raw, |out| write_message(message, metadata, out))?;
        Ok(Self { item: message_of(api_version, kind)?, raw })
    }

    pub fn push(&mut self, object: &Value) -> Result<(), EncodeError> {
        put_delimited(2, &mut self.raw, |out| write_message(self.item, object, out))
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The whole list in pieces, so that the items are not copied once more.
    pub fn finish(self, api_version: &str, list_kind: &str) -> [Vec<u8>; 3] {
        let [head, tail] = envelope(api_version, list_kind, self.raw.len());
        [head, self.raw, tail]
    }
}

/// One event of a watch: its length in four bytes, then a `WatchEvent` without an envelope, around an object with one.
pub fn watch_event(event: &str, object: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(object.len() + event.len() + 24);
    frame.extend_from_slice(&[0; 4]);
    put_bytes(1, event.as_bytes(), &mut frame);
    put_delimited(2, &mut frame, |out| put_bytes(1, object, out));
    // Objects are limited to a few megabytes.
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// The fields of a message, in the order of their table.
pub(super) fn write_message(message: &'static Message, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if let Some(write) = special::writer(&message.name) {
        return write(message, value, out);
    }
    match value {
        Value::Object(object) => write_fields(message, object, out),
        // A null in a list or map is the zero value.
        Value::Null => Ok(()),
        other => Err(EncodeError::misfit(&message.name, "", other)),
    }
}

fn write_fields(message: &'static Message, object: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    for field in message.fields() {
        if let (Repeat::Inline, FieldKind::Message(inner)) = (field.repeat, &field.kind) {
            write_inline(field.tag, inner, object, out)?;
            continue;
        }
        let place = Place { message, field };
        match (field.repeat, object.get(&field.json)) {
            (_, None | Some(Value::Null)) => {}
            (Repeat::Once | Repeat::Inline, Some(value)) => place.write(field.tag, value, out)?,
            (Repeat::List, Some(Value::Array(items))) => {
                for item in items {
                    place.write(field.tag, item, out)?;
                }
            }
            (Repeat::Map, Some(Value::Object(entries))) => {
                for (key, value) in entries {
                    put_delimited(field.tag, out, |out| {
                        put_bytes(1, key.as_bytes(), out);
                        place.write(2, value, out)
                    })?;
                }
            }
            (Repeat::List | Repeat::Map, Some(other)) => return Err(place.misfit(other)),
        }
    }
    Ok(())
}

/// Fields that are the outer object's in JSON. A message of none of them says nothing.
fn write_inline(tag: u32, inner: &str, object: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let inner = messages::by_name(inner).expect("the generated table is closed: every target has its row");
    let before = out.len();
    let mut is_empty = false;
    put_delimited(tag, out, |out| {
        let begin = out.len();
        let written = write_fields(inner, object, out);
        is_empty = out.len() == begin;
        written
    })?;
    if is_empty {
        out.truncate(before);
    }
    Ok(())
}

/// Where a value belongs.
struct Place {
    message: &'static Message,
    field: &'static Field,
}

impl Place {
    fn misfit(&self, found: &Value) -> EncodeError {
        EncodeError::misfit(&self.message.name, &self.field.json, found)
    }

    /// One value; `tag` is that of the field, or 2 in an entry of a map.
    fn write(&self, tag: u32, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match (&self.field.kind, value) {
            (FieldKind::Message(name), value) => {
                let message = messages::by_name(name).expect("the generated table is closed: every target has its row");
                return put_delimited(tag, out, |out| write_message(message, value, out));
            }
            (FieldKind::String, Value::String(text)) => put_bytes(tag, text.as_bytes(), out),
            (FieldKind::Bytes, Value::String(text)) => {
                put_bytes(tag, &from_base64(text).ok_or_else(|| self.misfit(value))?, out);
            }
            (FieldKind::String | FieldKind::Bytes, Value::Null) => put_bytes(tag, b"", out),
            (FieldKind::Bool, Value::Bool(value)) => put_number(tag, u64::from(*value), out),
            (FieldKind::Integer, Value::Number(number)) => {
                put_number(tag, number.as_i64().ok_or_else(|| self.misfit(value))?.cast_unsigned(), out);
            }
            (FieldKind::Double, Value::Number(number)) => {
                put_double(tag, number.as_f64().ok_or_else(|| self.misfit(value))?, out);
            }
            (_, other) => return Err(self.misfit(other)),
        }
        Ok(())
    }
}

/// As Go reads it: line ends do not count.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let engine = base64::engine::general_purpose::STANDARD;
    if !text.contains(['\r', '\n']) {
        return engine.decode(text).ok();
    }
    engine.decode(text.replace(['\r', '\n'], "")).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{ProtobufError, decode};
    use super::*;
    use serde_json::json;

    /// What a client makes of our bytes.
    #[track_caller]
    fn check(object: Value) {
        assert_eq!(decode(&encode(&object).expect("it fits")), Ok(object));
    }

    #[test]
    fn objects_come_back() {
        check(json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "generation": 2,
            "creationTimestamp": "2026-01-02T03:04:05Z", "labels": { "app": "web", "empty": "" },
            "managedFields": [{ "manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1",
                "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } } }] },
            "spec": { "replicas": 0, "selector": { "matchLabels": { "app": "web" } },
                "strategy": { "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": 1 } },
                "template": { "spec": { "containers": [{ "name": "c", "image": "i",
                    "resources": { "limits": { "cpu": "100m", "memory": "1Gi" } },
                    "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
                    "env": [{ "name": "A", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }] }],
                    "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
                    "volumes": [{ "name": "tmp", "emptyDir": {} }] } } } }));
        check(json!({ "apiVersion": "v1", "kind": "Secret", "data": { "key": "/wA=", "none": "" }, "type": "Opaque" }));
        check(json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "spec": { "holderIdentity": "n", "renewTime": "2026-01-02T03:04:05.000006Z" } }));
        check(json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
            "metadata": {}, "message": "pods \"p\" not found", "details": { "name": "p", "kind": "pods" } }));
    }

    #[test]
    fn bytes_are_those_of_kubernetes() {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "k": "v" } });
        let expect = [
            &b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap"[..],
            b"\x12\x0d\x0a\x03\x0a\x01a\x12\x06\x0a\x01k\x12\x01v\x1a\0\x22\0",
        ];
        assert_eq!(encode(&map), Ok(expect.concat()));
    }

    #[test]
    fn long_messages_have_long_lengths() {
        for length in [100, 127, 128, 300, 20_000, 70_000] {
            check(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" },
                "data": { "k": "v".repeat(length) } }));
        }
    }

    #[test]
    fn null_is_absence_but_in_lists() {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "creationTimestamp": null },
            "status": { "conditions": [{ "type": "Ready", "lastProbeTime": null }] },
            "spec": { "tolerations": null } });
        let expect = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
            "status": { "conditions": [{ "type": "Ready" }] }, "spec": {} });
        assert_eq!(decode(&encode(&pod).unwrap()), Ok(expect));
    }

    #[test]
    fn lists_have_all_their_items() {
        let mut list = ListEncoder::new("v1", "ConfigMap", &json!({ "resourceVersion": "7" })).unwrap();
        for name in ["a", "b"] {
            list.push(&json!({ "kind": "ConfigMap", "metadata": { "name": name } })).unwrap();
        }
        let expect = json!({ "apiVersion": "v1", "kind": "ConfigMapList", "metadata": { "resourceVersion": "7" },
            "items": [{ "metadata": { "name": "a" } }, { "metadata": { "name": "b" } }] });
        assert_eq!(decode(&list.finish("v1", "ConfigMapList").concat()), Ok(expect));
    }

    #[test]
    fn events_have_their_length_before_them() {
        assert_eq!(watch_event("ADDED", b"k8s\0"), b"\0\0\0\x0f\x0a\x05ADDED\x12\x06\x0a\x04k8s\0");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let unknown = |api_version: &str, kind: &str| EncodeError::UnknownKind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        };
        assert_eq!(encode(&json!({ "apiVersion": "a.dev/v1", "kind": "A" })), Err(unknown("a.dev/v1", "A")));
        assert_eq!(encode(&json!([])), Err(unknown("", "")));
        let check = |spec: Value, expect: &str| {
            let error = encode(&json!({ "apiVersion": "v1", "kind": "Pod", "spec": spec })).unwrap_err();
            assert_eq!(error.to_string(), expect);
        };
        check(json!([1]), "an array cannot be written as io.k8s.api.core.v1.PodSpec");
        check(json!({ "priority": "x" }), "a string cannot be written as io.k8s.api.core.v1.PodSpec.priority");
        check(json!({ "priority": 1.5 }), "a number cannot be written as io.k8s.api.core.v1.PodSpec.priority");
        check(json!({ "containers": {} }), "an object cannot be written as io.k8s.api.core.v1.PodSpec.containers");
        check(
            json!({ "nodeSelector": { "a": 1 } }),
            "a number cannot be written as io.k8s.api.core.v1.PodSpec.nodeSelector",
        );
        assert_eq!(decode(b"k8s"), Err(ProtobufError::NoMagic));
    }
}

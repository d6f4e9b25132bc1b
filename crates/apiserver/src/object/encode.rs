//! The stored form of an object: canonical JSON whose `resourceVersion` comes first in `metadata`.
//!
//! The store writes the commit revision into the empty `resourceVersion` string, so that a GET, a
//! LIST item and a watch event hand out the stored bytes unchanged. Because the place is always
//! the first one of its kind in the text, a deletion event can exchange it without decoding.

use api::status::Status;
use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Largest stored form of an object: that of a request's body.
pub const OBJECT_BYTES_MAX: usize = crate::wire::body::BODY_BYTES_MAX;

const MARK: &[u8] = b"\"resourceVersion\":\"";

/// Canonical bytes, and the offset at which the revision's digits belong.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub bytes: Bytes,
    pub stamp_at: u32,
}

impl Encoded {
    /// The bytes as apply would make them, for answers to dry runs.
    pub fn stamped(&self, revision: &str) -> Bytes {
        let at = self.stamp_at as usize;
        [&self.bytes[..at], revision.as_bytes(), &self.bytes[at..]].concat().into()
    }
}

fn push(out: &mut BytesMut, key: &str, value: &Value) {
    out.put_u8(b'"');
    out.put_slice(key.as_bytes());
    out.put_slice(b"\":");
    serde_json::to_writer(out.writer(), value).expect("a JSON value encodes into memory");
}

fn push_rest(out: &mut BytesMut, fields: &Map<String, Value>, but: &[&str]) {
    for (key, value) in fields.iter().filter(|(key, _)| !but.contains(&key.as_str())) {
        out.put_u8(b',');
        serde_json::to_writer(out.writer(), key).expect("a string encodes into memory");
        out.put_u8(b':');
        serde_json::to_writer(out.writer(), value).expect("a JSON value encodes into memory");
    }
}

/// Encodes an object; whatever `resourceVersion` it carries is left out.
///
/// # Panics
/// When `object` or its `metadata` is no JSON object; decoding refuses those before.
pub fn encode(object: &Value) -> Encoded {
    let fields = object.as_object().expect("an API object is a JSON object");
    let mut out = BytesMut::with_capacity(1024);
    out.put_u8(b'{');
    push(&mut out, "apiVersion", fields.get("apiVersion").unwrap_or(&Value::Null));
    out.put_u8(b',');
    push(&mut out, "kind", fields.get("kind").unwrap_or(&Value::Null));
    out.put_slice(b",\"metadata\":{");
    out.put_slice(MARK);
    let stamp_at = u32::try_from(out.len()).expect("apiVersion and kind are short");
    out.put_u8(b'"');
    let metadata = fields.get("metadata").and_then(Value::as_object).expect("an API object has metadata");
    push_rest(&mut out, metadata, &["resourceVersion"]);
    out.put_u8(b'}');
    push_rest(&mut out, fields, &["apiVersion", "kind", "metadata"]);
    out.put_u8(b'}');
    Encoded { bytes: out.freeze(), stamp_at }
}

/// [`encode`], of at most so many bytes. What nobody asked for (who owns which field) goes first, as in Kubernetes.
pub fn encode_within(object: &mut Value, bytes_max: usize) -> Result<Encoded, Status> {
    let encoded = encode(object);
    if encoded.bytes.len() <= bytes_max {
        return Ok(encoded);
    }
    api::meta::unset(object, "managedFields");
    let encoded = encode(object);
    if encoded.bytes.len() <= bytes_max { Ok(encoded) } else { Err(Status::too_large(bytes_max)) }
}

/// The stored object with another resourceVersion: what a DELETED event carries.
pub fn with_revision(stored: &[u8], revision: u64) -> Bytes {
    let Some(mark) = stored.windows(MARK.len()).position(|w| w == MARK) else {
        return Bytes::copy_from_slice(stored);
    };
    let start = mark + MARK.len();
    let digits = stored[start..].iter().take_while(|b| b.is_ascii_digit()).count();
    [&stored[..start], revision.to_string().as_bytes(), &stored[start + digits..]].concat().into()
}

/// Decodes stored bytes.
///
/// # Panics
/// Never on bytes made by [`encode`]; the store checks its records against corruption.
pub fn decode(stored: &[u8]) -> Value {
    decode_as(stored)
}

/// [`decode`] of the fields that `T` has, which is cheaper than the whole.
///
/// # Panics
/// When a field of `T` does not take what validation lets through.
pub fn decode_as<T: DeserializeOwned>(stored: &[u8]) -> T {
    serde_json::from_slice(stored).expect("stored objects are canonical JSON, and of their kind")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn ownership_goes_before_an_object_is_too_large() {
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a",
            "managedFields": [{ "manager": "somebody" }] }, "data": { "k": "0123456789" } });
        let check = |bytes_max: usize, expect: Result<bool, u16>| {
            let found = encode_within(&mut object.clone(), bytes_max);
            let kept = found.map(|encoded| decode(&encoded.bytes).pointer("/metadata/managedFields").is_some());
            assert_eq!(kept.map_err(|status| status.code), expect, "{bytes_max}");
        };
        check(1000, Ok(true));
        check(120, Ok(false));
        check(50, Err(413));
    }

    #[test]
    fn revision_lands_in_its_place() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": { "resourceVersion": "mine" },
            "metadata": { "name": "a", "resourceVersion": "7", "annotations": { "x": "\"resourceVersion\":\"1" } },
        });
        let encoded = encode(&object);
        let stamped = encoded.stamped("12");
        let mut expect = object.clone();
        expect["metadata"]["resourceVersion"] = "12".into();
        assert_eq!(decode(&stamped), expect);
        expect["metadata"]["resourceVersion"] = "4711".into();
        assert_eq!(decode(&with_revision(&stamped, 4711)), expect);
    }

    #[test]
    fn encoding_does_not_depend_on_the_old_revision() {
        let object = |rv: &str| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "resourceVersion": rv } });
        assert_eq!(encode(&object("")).bytes, encode(&object("99")).bytes);
    }

    proptest! {
        #[test]
        fn any_text_survives(name in ".*", key in ".*", value in ".*", revision: u64) {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": name, "resourceVersion": revision.to_string(), "labels": { key.as_str(): value } },
                key.as_str(): 1,
            });
            prop_assume!(!["apiVersion", "kind", "metadata"].contains(&key.as_str()));
            let stamped = encode(&object).stamped("1");
            prop_assert_eq!(decode(&with_revision(&stamped, revision)), object);
        }
    }
}

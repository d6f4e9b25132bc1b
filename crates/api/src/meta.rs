//! Accessors for `ObjectMeta` on untyped objects, and the name rules of RFC 1123/1035.
//!
//! Owns: reading `metadata`. May not know: any single kind.

use serde_json::{Map, Value};

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or("")
}

/// `metadata.name`, or "".
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.namespace`, or "".
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.uid`, or "".
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// `metadata.generateName`, or "".
pub fn generate_name(object: &Value) -> &str {
    text(object, "generateName")
}

/// `metadata.resourceVersion`, or "".
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// `metadata.deletionTimestamp`, or "".
pub fn deletion_timestamp(object: &Value) -> &str {
    text(object, "deletionTimestamp")
}

/// `metadata.creationTimestamp`, or "".
pub fn creation_timestamp(object: &Value) -> &str {
    text(object, "creationTimestamp")
}

/// `metadata.generation`, or 0.
pub fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0)
}

/// The pairs of a string map such as labels or annotations.
pub fn pairs(map: Option<&Value>) -> impl Iterator<Item = (&str, &str)> {
    map.and_then(Value::as_object)
        .into_iter()
        .flat_map(|m| m.iter().filter_map(|(k, v)| v.as_str().map(|v| (k.as_str(), v))))
}

/// `metadata.labels`.
pub fn labels(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(object.pointer("/metadata/labels"))
}

/// `metadata.annotations`.
pub fn annotations(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(object.pointer("/metadata/annotations"))
}

/// One annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flat_map(|list| list.iter().filter_map(Value::as_str))
}

/// `metadata.ownerReferences`, raw.
pub fn owner_references(object: &Value) -> &[Value] {
    object.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `metadata` as a map that can be changed; made when missing or of a wrong type.
///
/// # Panics
/// When `object` is not a JSON object (decoding refuses anything else before this is called).
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    let metadata =
        object.as_object_mut().expect("an API object is a JSON object").entry("metadata").or_insert(Value::Null);
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().expect("made an object just above")
}

/// Sets one field of `metadata`.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(field.to_owned(), value.into());
}

/// Removes one field of `metadata`.
pub fn unset(object: &mut Value, field: &str) {
    metadata_mut(object).remove(field);
}

/// The wording of apimachinery's `validation.IsDNS1123Label` and its kin.
pub const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
/// See [`LABEL_RULE`].
pub const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
/// See [`LABEL_RULE`].
pub const RFC1035_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn is_lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// RFC 1123 label: at most 63 characters of `[a-z0-9-]`, alphanumeric at both ends.
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.iter().all(|&b| is_lower_alnum(b) || b == b'-')
        && is_lower_alnum(bytes[0])
        && is_lower_alnum(bytes[bytes.len() - 1])
}

/// RFC 1035 label: as [`is_dns_label`], and the first character is a letter.
pub fn is_dns_1035_label(text: &str) -> bool {
    is_dns_label(text) && text.as_bytes()[0].is_ascii_lowercase()
}

/// RFC 1123 subdomain: labels joined by dots, at most 253 characters.
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && !text.is_empty()
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            !bytes.is_empty()
                && bytes.iter().all(|&b| is_lower_alnum(b) || b == b'-')
                && is_lower_alnum(bytes[0])
                && is_lower_alnum(bytes[bytes.len() - 1])
        })
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

/// A label or annotation key: `[prefix/]name`.
pub fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        None => is_name_part(text),
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_name_part(name),
    }
}

/// A label value: empty, or as the name part of a qualified name.
pub fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names() {
        let cases: [(&str, bool, bool, bool, bool); 9] = [
            // text, label, subdomain, qualified, label value
            ("a", true, true, true, true),
            ("a-b", true, true, true, true),
            ("-a", false, false, false, false),
            ("a.b", false, true, true, true),
            ("a..b", false, false, true, true),
            ("A", false, false, true, true),
            ("", false, false, false, true),
            ("example.com/role", false, false, true, false),
            ("Bad_/role", false, false, false, false),
        ];
        for (text, label, subdomain, qualified, value) in cases {
            assert_eq!(is_dns_label(text), label, "label {text:?}");
            assert_eq!(is_dns_subdomain(text), subdomain, "subdomain {text:?}");
            assert_eq!(is_qualified_name(text), qualified, "qualified {text:?}");
            assert_eq!(is_label_value(text), value, "value {text:?}");
        }
        assert!(!is_dns_label(&"a".repeat(64)));
        assert!(is_dns_1035_label("a1") && !is_dns_1035_label("1a"));
    }

    #[test]
    fn accessors_tolerate_anything() {
        let mut object = json!({ "metadata": 3 });
        assert_eq!((name(&object), labels(&object).count(), generation(&object)), ("", 0, 0));
        set(&mut object, "name", "x");
        assert_eq!(name(&object), "x");
        unset(&mut object, "name");
        assert_eq!(name(&object), "");
    }
}

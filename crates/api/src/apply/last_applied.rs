//! From client-side apply to server-side apply without a conflict.
//!
//! Owns: what the annotation `kubectl.kubernetes.io/last-applied-configuration` says about ownership.
//! May not know: kubectl's own migration of `managedFields`, which is an ordinary patch to the server.

use serde_json::Value;

use super::check::complaints;
use super::compare::compare;
use super::owned::owned;
use super::set::Set;
use super::writer::Writer;
use crate::meta;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together; see `validate`.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

/// The fields that kubectl applied last and that are still so: kubectl may change them, whoever owns them.
pub fn unchanged(writer: &Writer<'_>, live: &Value) -> Set {
    let parsed = meta::annotation(live, ANNOTATION).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(config) = parsed else { return Set::default() };
    let place = writer.typing.root();
    let version = config.get("apiVersion").and_then(Value::as_str);
    if version != Some(writer.api_version) || !complaints(place, &config).is_empty() {
        return Set::default();
    }
    let changes = compare(place, &config, live);
    owned(place, &config).difference(&changes.written().union(&changes.removed))
}

/// An object that has the annotation gets a new one, so that client-side apply can follow.
pub fn renew(object: &mut Value, config: &Value) {
    if meta::annotation(object, ANNOTATION).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{config}\n");
    let Some(annotations) = meta::metadata_mut(object).get_mut("annotations").and_then(Value::as_object_mut) else {
        return;
    };
    let others: usize = annotations
        .iter()
        .filter(|(key, _)| *key != ANNOTATION)
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if others + ANNOTATION.len() + text.len() > ANNOTATION_BYTES_MAX {
        annotations.remove(ANNOTATION);
    } else {
        annotations.insert(ANNOTATION.to_owned(), text.into());
    }
}

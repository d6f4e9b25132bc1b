//! Conversion of objects from version to version by somebody else: the question, and which answers are taken.
//!
//! Follows `apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`. Pure: who is asked, how and for how
//! long is the server's business.

use serde_json::{Map, Value, json};

use crate::meta;

/// The annotation of a definition whose converter is a Function: the `service` of its webhook names that, and the
/// `path` its export.
pub const FUNCTION_ANNOTATION: &str = "conversion.knarr.dev/function";

/// Versions of the question that are known here.
pub const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

const KIND: &str = "ConversionReview";
/// Of metadata, what a converter may change.
const CONVERTED_METADATA: [&str; 2] = ["labels", "annotations"];

/// Who converts the objects of a definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversion {
    /// `clientConfig` of the webhook.
    pub client: Value,
    /// `apiVersion` of the question; `None` when the converter takes none that is known here.
    pub review_version: Option<String>,
    /// It is a Function, and no server.
    pub by_function: bool,
}

impl Conversion {
    /// Of a definition; `None` where objects change nothing but their `apiVersion`.
    pub fn read(definition: &Value) -> Option<Self> {
        let conversion = definition.pointer("/spec/conversion")?;
        if conversion.get("strategy").and_then(Value::as_str) != Some("Webhook") {
            return None;
        }
        let versions = conversion.pointer("/webhook/conversionReviewVersions").and_then(Value::as_array);
        let mut versions = versions.into_iter().flatten().filter_map(Value::as_str);
        let version = versions.find(|version| REVIEW_VERSIONS.contains(version));
        Some(Self {
            client: conversion.pointer("/webhook/clientConfig").cloned().unwrap_or_default(),
            review_version: version.map(|version| format!("{}/{version}", super::GROUP)),
            by_function: meta::annotation(definition, FUNCTION_ANNOTATION) == Some("true"),
        })
    }
}

/// The body of the question.
pub fn question(review_version: &str, uid: &str, desired: &str, objects: &[Value]) -> Value {
    json!({ "apiVersion": review_version, "kind": KIND,
        "request": { "uid": uid, "desiredAPIVersion": desired, "objects": objects } })
}

/// What was asked, to be compared with the answer.
pub struct Asked<'a> {
    pub review_version: &'a str,
    pub uid: &'a str,
    pub desired: &'a str,
    pub objects: &'a [Value],
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or("")
}

/// The converted objects of an answer, in the order of the question. Metadata but for labels and annotations is that
/// of the originals.
///
/// # Errors
/// Why it is no answer, or what the converter says of its failure.
pub fn read(asked: &Asked<'_>, answer: Value) -> Result<Vec<Value>, String> {
    if text(&answer, "apiVersion") != asked.review_version || text(&answer, "kind") != KIND {
        return Err(format!(
            "expected webhook response of {}, Kind={KIND}, got {}, Kind={}",
            asked.review_version,
            text(&answer, "apiVersion"),
            text(&answer, "kind")
        ));
    }
    let Value::Object(mut answer) = answer else { return Err("no response provided".to_owned()) };
    let Some(mut response) = answer.remove("response").filter(Value::is_object) else {
        return Err("no response provided".to_owned());
    };
    if text(&response, "uid") != asked.uid {
        return Err(format!("expected response.uid={:?}, got {:?}", asked.uid, text(&response, "uid")));
    }
    let result = &response["result"];
    if text(result, "status") != "Success" {
        return Err(match text(result, "message") {
            "" => format!("response.result.status was '{}', not 'Success'", text(result, "status")),
            message => message.to_owned(),
        });
    }
    let Value::Array(converted) = response["convertedObjects"].take() else {
        return Err("response.convertedObjects is no list".to_owned());
    };
    if converted.len() != asked.objects.len() {
        return Err(format!("returned {} objects, expected {}", converted.len(), asked.objects.len()));
    }
    let pairs = asked.objects.iter().zip(converted).enumerate();
    pairs
        .map(|(index, (original, converted))| {
            one(asked.desired, original, converted)
                .map_err(|why| format!("invalid converted object at index {index}: {why}"))
        })
        .collect()
}

fn one(desired: &str, original: &Value, mut converted: Value) -> Result<Value, String> {
    if text(&converted, "apiVersion") != desired {
        return Err(format!(
            "invalid groupVersion (expected: {desired}, received: {})",
            text(&converted, "apiVersion")
        ));
    }
    let same = |what: &str, expected: &str, received: &str| {
        if expected == received {
            Ok(())
        } else {
            Err(format!("must have the same {what} (expected: {expected}, received: {received})"))
        }
    };
    same("kind", text(original, "kind"), text(&converted, "kind"))?;
    if !converted.get("metadata").is_some_and(Value::is_object) {
        return Err("metadata must be an object".to_owned());
    }
    same("name", meta::name(original), meta::name(&converted))?;
    same("namespace", meta::namespace(original), meta::namespace(&converted))?;
    same("UID", meta::uid(original), meta::uid(&converted))?;
    let mut metadata = original.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in CONVERTED_METADATA {
        match converted.pointer(&format!("/metadata/{field}")) {
            None | Some(Value::Null) => drop(metadata.remove(field)),
            Some(Value::Object(map)) => drop(metadata.insert(field.to_owned(), texts(field, map)?)),
            Some(_) => return Err(format!("metadata.{field} must be a map of texts")),
        }
    }
    converted["metadata"] = metadata.into();
    Ok(converted)
}

fn texts(field: &str, map: &Map<String, Value>) -> Result<Value, String> {
    match map.iter().find(|(_, value)| !value.is_string()) {
        Some((key, _)) => Err(format!("metadata.{field}[{key}] must be a text")),
        None => Ok(map.clone().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "apiextensions.k8s.io/v1";

    #[test]
    fn who_converts() {
        let definition = |conversion: Value| json!({ "metadata": {}, "spec": { "conversion": conversion } });
        assert_eq!(Conversion::read(&definition(json!({ "strategy": "None" }))), None);
        let webhook = |versions: &[&str]| {
            definition(json!({ "strategy": "Webhook", "webhook": { "clientConfig": { "url": "https://x" },
                "conversionReviewVersions": versions } }))
        };
        let read = |versions: &[&str]| Conversion::read(&webhook(versions)).unwrap().review_version;
        assert_eq!(read(&["v2", "v1"]).as_deref(), Some(V1));
        assert_eq!(read(&["v1beta1", "v1"]).as_deref(), Some("apiextensions.k8s.io/v1beta1"));
        assert_eq!(read(&["v2"]), None);
        let mut function = webhook(&["v1"]);
        assert!(!Conversion::read(&function).unwrap().by_function);
        function["metadata"]["annotations"] = json!({ FUNCTION_ANNOTATION: "true" });
        assert!(Conversion::read(&function).unwrap().by_function);
    }

    fn original() -> Value {
        json!({ "apiVersion": "g/v1", "kind": "K", "spec": { "a": 1 }, "metadata": { "name": "n", "namespace": "s",
            "uid": "u", "resourceVersion": "7", "labels": { "old": "1" }, "finalizers": ["f"] } })
    }

    fn read_one(change: impl FnOnce(&mut Value)) -> Result<Value, String> {
        let mut converted = original();
        converted["apiVersion"] = "g/v2".into();
        let mut answer = json!({ "apiVersion": V1, "kind": KIND, "response": { "uid": "q",
            "result": { "status": "Success" }, "convertedObjects": [converted] } });
        change(&mut answer);
        let objects = [original()];
        let asked = Asked { review_version: V1, uid: "q", desired: "g/v2", objects: &objects };
        read(&asked, answer).map(|mut all| all.remove(0))
    }

    #[test]
    fn metadata_stays_but_for_labels_and_annotations() {
        let converted = read_one(|answer| {
            let object = &mut answer["response"]["convertedObjects"][0];
            object["spec"] = json!({ "b": 1 });
            object["metadata"] = json!({ "name": "n", "namespace": "s", "uid": "u", "resourceVersion": "9",
                "labels": { "new": "2" }, "annotations": { "x": "y" }, "finalizers": [], "ownerReferences": [1] });
        });
        let expect = json!({ "apiVersion": "g/v2", "kind": "K", "spec": { "b": 1 }, "metadata": { "name": "n",
            "namespace": "s", "uid": "u", "resourceVersion": "7", "labels": { "new": "2" },
            "annotations": { "x": "y" }, "finalizers": ["f"] } });
        assert_eq!(converted, Ok(expect));
        let bare = read_one(|answer| {
            let object = &mut answer["response"]["convertedObjects"][0];
            object["metadata"].as_object_mut().unwrap().remove("labels");
        });
        assert_eq!(bare.unwrap()["metadata"].get("labels"), None);
    }

    #[test]
    fn answers_that_are_none() {
        let check = |pointer: &str, value: Value, expect: &str| {
            let found = read_one(|answer| *answer.pointer_mut(pointer).expect(pointer) = value);
            assert_eq!(found.unwrap_err(), expect, "{pointer}");
        };
        let object = "/response/convertedObjects/0";
        let index = |why: &str| format!("invalid converted object at index 0: {why}");
        check(
            "/kind",
            "Pod".into(),
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got apiextensions.k8s.io/v1, Kind=Pod",
        );
        check("/response", Value::Null, "no response provided");
        check("/response/uid", "p".into(), "expected response.uid=\"q\", got \"p\"");
        check("/response/result", json!({ "status": "Failed", "message": "no way" }), "no way");
        check("/response/result", json!({}), "response.result.status was '', not 'Success'");
        check("/response/convertedObjects", json!([]), "returned 0 objects, expected 1");
        check("/response/convertedObjects", json!({}), "response.convertedObjects is no list");
        check(
            &format!("{object}/apiVersion"),
            "g/v3".into(),
            &index("invalid groupVersion (expected: g/v2, received: g/v3)"),
        );
        check(&format!("{object}/kind"), "L".into(), &index("must have the same kind (expected: K, received: L)"));
        check(
            &format!("{object}/metadata/name"),
            "m".into(),
            &index("must have the same name (expected: n, received: m)"),
        );
        check(
            &format!("{object}/metadata/uid"),
            "v".into(),
            &index("must have the same UID (expected: u, received: v)"),
        );
        check(
            &format!("{object}/metadata/namespace"),
            "t".into(),
            &index("must have the same namespace (expected: s, received: t)"),
        );
        check(&format!("{object}/metadata"), json!([]), &index("metadata must be an object"));
        check(&format!("{object}/metadata/labels"), json!(["a"]), &index("metadata.labels must be a map of texts"));
        check(&format!("{object}/metadata/labels"), json!({ "a": 1 }), &index("metadata.labels[a] must be a text"));
        check(object, json!("text"), &index("invalid groupVersion (expected: g/v2, received: )"));
    }
}

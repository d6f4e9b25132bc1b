//! What the server writes into `metadata`: identity, times, generation, generated names.
//!
//! Pure: time and randomness come in as values or from the caller's source.

use api::kinds::Kind;
use api::meta;
use api::status::{Status, Subject};
use jiff::Timestamp;
use rand::Rng;
use serde_json::Value;

/// No vowels and no look-alikes, as Kubernetes' generated names.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_SUFFIX_LEN: usize = 5;
/// Longest base of a generated name.
const NAME_BASE_LEN_MAX: usize = 63 - NAME_SUFFIX_LEN;

/// `metav1.Time`: seconds, UTC.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `base` and five random characters.
pub fn generated_name(base: &str, random: &mut impl Rng) -> String {
    let mut end = base.len().min(NAME_BASE_LEN_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    name.extend((0..NAME_SUFFIX_LEN).map(|_| char::from(NAME_ALPHABET[random.random_range(0..NAME_ALPHABET.len())])));
    name
}

/// `apiVersion` and `kind` of a body: filled in when missing, refused when of another type.
pub fn check_type(kind: &Kind, object: &mut Value) -> Result<(), Status> {
    for (field, expect) in [("apiVersion", kind.api_version()), ("kind", kind.kind.to_owned())] {
        match object.get(field).and_then(Value::as_str).unwrap_or("") {
            "" => object[field] = expect.into(),
            given if given == expect => {}
            given => {
                return Err(Status::bad_request(format!(
                    "the {field} in the data ({given}) does not match the expected {field} ({expect})"
                )));
            }
        }
    }
    if object.get("metadata").is_some_and(|m| !m.is_object() && !m.is_null()) {
        return Err(Status::bad_request("metadata: Invalid value: must be an object"));
    }
    meta::metadata_mut(object);
    Ok(())
}

/// The namespace in the body must be that of the path; empty means the path's.
pub fn check_namespace(kind: &Kind, object: &mut Value, namespace: &str) -> Result<(), Status> {
    match (kind.namespaced, meta::namespace(object)) {
        (false, _) => meta::unset(object, "namespace"),
        (true, "") => meta::set(object, "namespace", namespace),
        (true, given) if given == namespace => {}
        (true, given) => {
            return Err(Status::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request ({given} is \
                 not {namespace})"
            )));
        }
    }
    Ok(())
}

/// Takes out owners that are named twice; what is said to the client then.
pub fn one_reference_per_owner(object: &mut Value) -> Option<String> {
    let owners = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut)?;
    let (mut kept, mut doubled) = (Vec::with_capacity(owners.len()), Vec::new());
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            doubled.push(owner.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned());
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    (!doubled.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
             reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            doubled.join(", ")
        )
    })
}

/// Mints the identity of a new object.
pub fn mint(kind: &Kind, object: &mut Value, now: Timestamp) -> Result<(), Status> {
    if !matches!(meta::resource_version(object), "" | "0") {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let metadata = meta::metadata_mut(object);
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), format_time(now).into());
    if kind.keeps_generation {
        metadata.insert("generation".to_owned(), 1.into());
    }
    Ok(())
}

/// Fields of `metadata` that no update changes.
const KEPT: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];

/// Puts the server's own fields of `metadata` back and counts the generation.
pub fn carry_over(kind: &Kind, new: &mut Value, old: &Value) {
    let kept: Vec<(&str, Option<Value>)> =
        KEPT.iter().map(|field| (*field, old.pointer(&format!("/metadata/{field}")).cloned())).collect();
    for (field, value) in kept {
        match value {
            Some(value) => meta::set(new, field, value),
            None => meta::unset(new, field),
        }
    }
    let metadata = meta::metadata_mut(new);
    // Empty collections and nulls mean the same as absence; one form is stored.
    metadata.retain(|_, value| !match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    });
    if kind.keeps_generation && desired_state_differs(kind, new, old) {
        meta::set(new, "generation", meta::generation(old) + 1);
    }
}

/// Anything but `metadata` and `status` differs. Of a custom kind that has no status of its own, that one counts.
fn desired_state_differs(kind: &Kind, new: &Value, old: &Value) -> bool {
    let status_counts = kind.is_custom() && !kind.has_status();
    let desired = |object: &Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        fields
            .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "apiVersion" | "kind"))
            .filter(|(key, _)| status_counts || *key != "status")
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    desired(new) != desired(old)
}

/// An update must be about the object that is there.
pub fn check_identity(subject: &Subject<'_>, new: &Value, old: &Value) -> Result<(), Status> {
    let name = meta::name(new);
    if !name.is_empty() && name != meta::name(old) {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            meta::name(old)
        )));
    }
    let uid = meta::uid(new);
    if !uid.is_empty() && uid != meta::uid(old) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::uid(old));
        return Err(Status::conflict(subject, &why));
    }
    match meta::resource_version(new) {
        "" | "0" => Ok(()),
        given if given == meta::resource_version(old) => Ok(()),
        _ => Err(Status::stale(subject)),
    }
}

/// Whether a deleted object may now go: nothing holds it back and its grace is over.
pub fn may_go(object: &Value) -> bool {
    let grace = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    !meta::deletion_timestamp(object).is_empty() && grace == 0 && meta::finalizers(object).next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployments() -> &'static Kind {
        api::kinds::lookup("apps", "v1", "deployments").unwrap()
    }

    #[test]
    fn names_are_generated() {
        let name = generated_name("web-", &mut rand::rng());
        assert!(name.starts_with("web-") && name.len() == 9 && meta::is_dns_label(&name), "{name}");
        assert_eq!(generated_name(&"a".repeat(300), &mut rand::rng()).len(), 63);
    }

    #[test]
    fn minting() {
        let mut object = json!({ "metadata": { "uid": "mine", "generation": 9, "deletionTimestamp": "x" } });
        mint(deployments(), &mut object, "2026-01-02T03:04:05.678Z".parse().unwrap()).unwrap();
        let metadata = object["metadata"].as_object().unwrap();
        assert_eq!(metadata["creationTimestamp"], "2026-01-02T03:04:05Z");
        assert_eq!(metadata["generation"], 1);
        assert!(metadata["uid"] != "mine" && !metadata.contains_key("deletionTimestamp"));
        let mut object = json!({ "metadata": { "resourceVersion": "5" } });
        assert_eq!(mint(deployments(), &mut object, Timestamp::UNIX_EPOCH).unwrap_err().code, 400);
    }

    #[test]
    fn owners_are_named_once() {
        let owner = |uid: &str| json!({ "apiVersion": "v1", "kind": "Node", "name": "n", "uid": uid });
        let mut object = json!({ "metadata": { "ownerReferences": [owner("a"), owner("b"), owner("a")] } });
        let warning = one_reference_per_owner(&mut object).unwrap();
        assert!(warning.ends_with("duplicate UID(s) observed: a"), "{warning}");
        assert_eq!(object["metadata"]["ownerReferences"], json!([owner("a"), owner("b")]));
        assert_eq!(one_reference_per_owner(&mut object), None);
        assert_eq!(one_reference_per_owner(&mut json!({ "metadata": {} })), None);
    }

    #[test]
    fn generation_counts_desired_state() {
        let old = json!({ "metadata": { "uid": "u", "generation": 4 }, "spec": 1, "status": 1 });
        let check = |new: Value, expect: i64| {
            let mut after = new.clone();
            carry_over(deployments(), &mut after, &old);
            assert_eq!((meta::generation(&after), meta::uid(&after)), (expect, "u"), "{new}");
        };
        check(json!({ "metadata": { "labels": { "a": "b" }, "generation": 77 }, "spec": 1, "status": 2 }), 4);
        check(json!({ "metadata": {}, "spec": 2, "status": 1 }), 5);
    }

    #[test]
    fn identity() {
        let subject = Subject { group: "", resource: "pods", name: "a" };
        let old = json!({ "metadata": { "name": "a", "uid": "u", "resourceVersion": "3" } });
        let check = |metadata: Value, expect: Result<(), u16>| {
            let new = json!({ "metadata": metadata });
            assert_eq!(check_identity(&subject, &new, &old).map_err(|s| s.code), expect, "{new}");
        };
        check(json!({ "name": "a" }), Ok(()));
        check(json!({ "name": "a", "uid": "u", "resourceVersion": "3" }), Ok(()));
        check(json!({ "name": "b" }), Err(400));
        check(json!({ "name": "a", "uid": "v" }), Err(409));
        check(json!({ "name": "a", "resourceVersion": "2" }), Err(409));
    }

    #[test]
    fn types_and_namespaces() {
        let mut object = json!({});
        check_type(deployments(), &mut object).unwrap();
        check_namespace(deployments(), &mut object, "n").unwrap();
        assert_eq!(object, json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "namespace": "n" } }));
        assert_eq!(check_type(deployments(), &mut json!({ "kind": "Pod" })).unwrap_err().code, 400);
        assert_eq!(check_namespace(deployments(), &mut object, "m").unwrap_err().code, 400);
    }
}

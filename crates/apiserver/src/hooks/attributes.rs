//! What a request looks like to policies and webhooks: its operation, its objects in the version asked for, and the
//! `request` of an AdmissionReview.

use api::admission::rules::{Asked, LabelOf, Selected};
use api::kinds::convert::convert;
use api::kinds::{KINDS, Kind};
use api::meta;
use api::schema::FieldValidation;
use api::status::Status;
use serde_json::{Value, json};

use super::GROUP;
use crate::admission::{Operation, Review};
use crate::authz::Attributes;
use crate::core::{core_kind, key};
use crate::custom::form;
use crate::object::encode::decode;
use crate::subresource::shown_as;

/// The user of what the server does by itself.
const SERVER: &str = "system:apiserver";

/// Whether users' policies and webhooks have a say in this request. The server's own writes are not theirs: a webhook
/// that does not answer must not keep a cluster from starting. Bindings are shown to nobody yet.
pub fn is_reviewed(review: &Review<'_>) -> bool {
    let request = review.request;
    request.kind.group != GROUP && request.subresource != "binding" && request.user.name != SERVER
}

pub fn operation(review: &Review<'_>) -> &'static str {
    match review.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

pub fn asked<'a>(review: &'a Review<'_>) -> Asked<'a> {
    Asked {
        operation: operation(review),
        kind: review.request.kind,
        subresource: &review.request.subresource,
        name: review.name,
    }
}

/// Other versions in which the resource of a request is served.
pub fn equivalents(review: &Review<'_>) -> Vec<&'static Kind> {
    let kind = review.request.kind;
    match &review.request.custom {
        Some(custom) => {
            let served = custom.definition.versions.iter().filter(|version| version.served);
            served.map(|version| version.kind).filter(|other| other.version != kind.version).collect()
        }
        None => {
            let same = |other: &&'static Kind| {
                std::ptr::eq(other.stored(), kind.stored()) && !std::ptr::eq(*other, kind) && other.is_stored()
            };
            // Most kinds are served once, which is found out without looking at all of them again.
            KINDS.iter().filter(|other| other.kind == kind.kind).filter(same).collect()
        }
    }
}

/// An object of the write in the form of a version of its kind.
pub async fn in_form_of(review: &Review<'_>, kind: &'static Kind, object: &Value) -> Result<Value, Status> {
    let mut shown = object.clone();
    if review.request.custom.is_some() {
        custom_form(review, kind, &mut shown).await?;
    } else {
        convert(review.request.kind.stored(), kind, &mut shown);
    }
    Ok(shown_as(review.request, shown))
}

/// [`in_form_of`] of what may not be there; null then.
pub async fn form_of(review: &Review<'_>, kind: &'static Kind, object: Option<&Value>) -> Result<Value, Status> {
    match object {
        Some(object) => in_form_of(review, kind, object).await,
        None => Ok(Value::Null),
    }
}

/// Back from [`in_form_of`].
pub async fn from_form_of(review: &Review<'_>, kind: &'static Kind, shown: &mut Value) -> Result<(), Status> {
    if review.request.custom.is_some() {
        return custom_form(review, review.request.kind, shown).await;
    }
    convert(kind, review.request.kind.stored(), shown);
    Ok(())
}

async fn custom_form(review: &Review<'_>, kind: &'static Kind, object: &mut Value) -> Result<(), Status> {
    let desired = kind.api_version();
    if object.get("apiVersion").and_then(Value::as_str) != Some(&desired)
        && let Some(opener) = form::opener(review.request)?
    {
        let mut converted = opener.values(&desired, std::slice::from_ref(object)).await?;
        *object = converted.pop().ok_or_else(|| Status::internal("a conversion of one object gave none"))?;
    }
    object["apiVersion"] = desired.into();
    Ok(())
}

/// What a webhook or a policy made of an object is what a client could have sent, and nothing else.
pub fn settle(review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
    // The options of a connection are read by nobody but those that are asked.
    if review.operation == Operation::Connect {
        return Ok(());
    }
    let stored = review.request.kind.stored();
    if !object.get("metadata").is_some_and(Value::is_object) {
        return Err(Status::internal("the metadata of an object was taken away"));
    }
    match &review.request.custom {
        Some(custom) => drop(custom.admit(object, FieldValidation::Ignore, Vec::new())?),
        None => drop(api::schema::check_from(stored, object, FieldValidation::Ignore, Vec::new())?),
    }
    api::defaults::apply(stored, object);
    Ok(())
}

fn is_namespace(review: &Review<'_>) -> bool {
    review.request.kind.group.is_empty() && review.request.kind.resource == "namespaces"
}

/// Runs a question about selectors with what they look at.
pub fn with_selected<T>(review: &Review<'_>, object: Option<&Value>, ask: impl FnOnce(&Selected<'_>) -> T) -> T {
    let of_object = |label: &str| {
        let from = object.or(review.old)?;
        meta::labels(from).find(|(key, _)| *key == label).map(|(_, value)| value.to_owned())
    };
    let namespace = review.view.get(&key(core_kind("namespaces"), "", &review.request.namespace));
    let of_namespace = |label: &str| namespace?.facets.label(label).map(str::to_owned);
    let labels: Option<&LabelOf<'_>> = if is_namespace(review) {
        Some(&of_object)
    } else if review.request.kind.namespaced {
        Some(&of_namespace)
    } else {
        None
    };
    ask(&Selected { namespace: labels, object, old: review.old })
}

/// The namespace of the request; null for what is in none.
pub fn namespace_object(review: &Review<'_>) -> Value {
    if !review.request.kind.namespaced {
        return Value::Null;
    }
    let found = review.view.get(&key(core_kind("namespaces"), "", &review.request.namespace));
    found.map(|entry| decode(&entry.value)).unwrap_or_default()
}

pub fn authorization<'a>(review: &'a Review<'_>) -> Attributes<'a> {
    Attributes {
        verb: "",
        group: review.request.kind.group,
        resource: review.request.kind.resource,
        subresource: &review.request.subresource,
        namespace: &review.request.namespace,
        name: review.name,
        path: "",
    }
}

fn group_version_kind(review: &Review<'_>, kind: &Kind) -> Value {
    match kind.subresource(&review.request.subresource) {
        // What a subresource takes may be of another kind than the object: a Scale.
        Some(sub) if sub.kind != kind.kind => json!({ "group": sub.group, "version": sub.version, "kind": sub.kind }),
        _ => json!({ "group": kind.group, "version": kind.version, "kind": kind.kind }),
    }
}

/// `request` of an AdmissionReview without its objects, for somebody who is shown `kind`.
pub fn request(review: &Review<'_>, kind: &Kind, uid: &str) -> Value {
    let request = review.request;
    let resource = |kind: &Kind| json!({ "group": kind.group, "version": kind.version, "resource": kind.resource });
    let namespace = if is_namespace(review) { review.name } else { &request.namespace };
    let options = match review.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => "",
    };
    let user = &request.user;
    let mut user_info = json!({ "username": user.name, "groups": user.groups });
    if !user.uid.is_empty() {
        user_info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        user_info["extra"] = json!(user.extra);
    }
    let mut options = json!({ "apiVersion": "meta.k8s.io/v1", "kind": options });
    if !request.parameters.field_manager.is_empty() {
        options["fieldManager"] = request.parameters.field_manager.as_str().into();
    }
    if review.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    let mut value = json!({
        "uid": uid, "kind": group_version_kind(review, kind), "resource": resource(kind),
        "requestKind": group_version_kind(review, request.kind), "requestResource": resource(request.kind),
        "name": review.name, "operation": operation(review), "userInfo": user_info, "dryRun": review.dry_run,
    });
    if review.operation != Operation::Connect {
        value["options"] = options;
    }
    if !namespace.is_empty() {
        value["namespace"] = namespace.into();
    }
    if !request.subresource.is_empty() {
        value["subResource"] = request.subresource.as_str().into();
        value["requestSubResource"] = request.subresource.as_str().into();
    }
    value
}

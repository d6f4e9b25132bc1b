//! `serviceaccounts/token`: a token for a service account, which ends by itself, and with what it is bound to.
//!
//! Follows `pkg/registry/core/serviceaccount/storage/token.go` and KEP-1205.

use api::meta;
use api::schema::{Body, check_body};
use api::status::{FieldError, Status, Subject};
use axum::response::Response;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::admission::node_restriction;
use crate::authn::claims::{AUDIENCE, Bound, Claims, Named};
use crate::core::{Request, Snapshot, core_kind, key};
use crate::object::encode::decode;
use crate::registry::meta::format_time;
use crate::rest::write::Input;
use crate::wire::respond;

const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;
const AUDIENCES_MAX: usize = 64;

pub async fn request(request: &Request, input: Input) -> Result<Response, Status> {
    let (mut body, _) = input.object().await?;
    check_body(Body::TokenRequest, &mut body, request.parameters.validation)?;
    let wanted = wanted(&request.name, &body)?;
    let view = request.core.fresh().await?;
    let account = decode(&request.find(&view)?.value);
    let bound = bound(request, &view, &account, &wanted)?;
    let now = Timestamp::now();
    let id = uuid::Uuid::new_v4().to_string();
    let claims = Claims::new(bound, wanted.audiences.clone(), now, wanted.seconds, id);
    let token = request.core.token_keys.current(&request.core).await?.sign(&claims)?;
    let expires = now.saturating_add(SignedDuration::from_secs(wanted.seconds)).map_err(Status::internal)?;
    let mut answer = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": { "name": request.name, "namespace": request.namespace, "creationTimestamp": format_time(now) },
        "spec": { "audiences": wanted.audiences, "expirationSeconds": wanted.seconds },
        "status": { "token": token, "expirationTimestamp": format_time(expires) },
    });
    answer["spec"]["boundObjectRef"] = body.pointer("/spec/boundObjectRef").cloned().unwrap_or(Value::Null);
    respond::object(request.accepted.media, StatusCode::CREATED, &answer)
}

#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    audiences: Vec<String>,
    seconds: i64,
    bound: Option<BoundTo>,
}

#[derive(Debug, PartialEq, Eq)]
struct BoundTo {
    kind: &'static str,
    name: String,
    /// Empty: whichever is there.
    uid: String,
}

fn wanted(account: &str, body: &Value) -> Result<Wanted, Status> {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let named = body.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    let mut audiences: Vec<String> = named.filter_map(|one| one.as_str().map(str::to_owned)).collect();
    if audiences.is_empty() {
        audiences.push(AUDIENCE.to_owned());
    }
    let seconds = body.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(SECONDS_DEFAULT);
    let mut errors = Vec::new();
    if audiences.len() > AUDIENCES_MAX {
        errors.push(FieldError::invalid(
            "spec.audiences",
            audiences.len(),
            format!("must have at most {AUDIENCES_MAX} items"),
        ));
    }
    if seconds < SECONDS_MIN {
        errors.push(FieldError::invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 10 minutes",
        ));
    }
    if seconds > SECONDS_MAX {
        errors.push(FieldError::invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    let bound = body.pointer("/spec/boundObjectRef").filter(|bound| bound.is_object()).map(|_| {
        let (kind, version) = (text("/spec/boundObjectRef/kind"), text("/spec/boundObjectRef/apiVersion"));
        let kind = ["Pod", "Secret", "Node"].into_iter().find(|known| version == "v1" && *known == kind);
        let bound_to =
            |kind| BoundTo { kind, name: text("/spec/boundObjectRef/name"), uid: text("/spec/boundObjectRef/uid") };
        kind.map(bound_to).ok_or_else(|| {
            let asked = text("/spec/boundObjectRef/kind");
            FieldError::not_supported("spec.boundObjectRef.kind", asked, &["v1 Pod", "v1 Secret", "v1 Node"])
        })
    });
    let bound = match bound {
        Some(Err(error)) => {
            errors.push(error);
            None
        }
        Some(Ok(bound)) => Some(bound),
        None => None,
    };
    if errors.is_empty() {
        return Ok(Wanted { audiences, seconds, bound });
    }
    let subject = Subject { group: "authentication.k8s.io", resource: "TokenRequest", name: account };
    Err(Status::invalid(&subject, &errors))
}

/// What the token depends on, as it is now.
fn bound(request: &Request, view: &Snapshot, account: &Value, wanted: &Wanted) -> Result<Bound, Status> {
    let mut bound = Bound {
        namespace: request.namespace.clone(),
        serviceaccount: named(account),
        pod: None,
        secret: None,
        node: None,
    };
    let object = match &wanted.bound {
        None => None,
        Some(to) => Some((to.kind, find(request, view, to)?)),
    };
    if let Some(node) = request.user.node_name() {
        let pod = object.as_ref().filter(|(kind, _)| *kind == "Pod").map(|(_, pod)| pod);
        node_restriction::check_token(node, pod).map_err(|why| Status::forbidden(&request.subject(), &why))?;
    }
    match object {
        None => {}
        Some(("Pod", pod)) => {
            bound.node = node_of(view, &pod);
            bound.pod = Some(check_pod(request, &pod)?);
        }
        Some(("Secret", secret)) => bound.secret = Some(named(&secret)),
        Some((_, node)) => bound.node = Some(named(&node)),
    }
    Ok(bound)
}

fn named(object: &Value) -> Named {
    Named { name: meta::name(object).to_owned(), uid: meta::uid(object).to_owned() }
}

fn find(request: &Request, view: &Snapshot, to: &BoundTo) -> Result<Value, Status> {
    let (resource, namespace) = match to.kind {
        "Pod" => ("pods", request.namespace.as_str()),
        "Secret" => ("secrets", request.namespace.as_str()),
        _ => ("nodes", ""),
    };
    let subject = Subject { group: "", resource, name: &to.name };
    let entry = view.get(&key(core_kind(resource), namespace, &to.name)).ok_or_else(|| Status::not_found(&subject))?;
    let object = decode(&entry.value);
    if to.uid.is_empty() || to.uid == meta::uid(&object) {
        return Ok(object);
    }
    let (asked, is) = (&to.uid, meta::uid(&object));
    Err(Status::conflict(
        &subject,
        &format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record ({is}). The object might \
             have been deleted and then recreated"
        ),
    ))
}

/// A pod's token is one of its own service account.
fn check_pod(request: &Request, pod: &Value) -> Result<Named, Status> {
    let runs_as = pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or_default();
    if runs_as == request.name {
        return Ok(named(pod));
    }
    let (account, pod) = (&request.name, meta::name(pod));
    Err(Status::bad_request(format!(
        "cannot bind token for serviceaccount {account:?} to pod {pod:?} running with different serviceaccount name."
    )))
}

fn node_of(view: &Snapshot, pod: &Value) -> Option<Named> {
    let name = pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|name| !name.is_empty())?;
    view.get(&key(core_kind("nodes"), "", name)).map(|entry| named(&decode(&entry.value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_refused() {
        let ok = wanted("a", &json!({ "spec": {} })).unwrap();
        assert_eq!(ok, Wanted { audiences: vec![AUDIENCE.to_owned()], seconds: 3600, bound: None });
        let spec = json!({ "audiences": ["vault"], "expirationSeconds": 600,
            "boundObjectRef": { "kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "u" } });
        let ok = wanted("a", &json!({ "spec": spec })).unwrap();
        assert_eq!((ok.audiences, ok.seconds), (vec!["vault".to_owned()], 600));
        assert_eq!(ok.bound, Some(BoundTo { kind: "Pod", name: "p".to_owned(), uid: "u".to_owned() }));
        let check = |spec: Value, expect: &str| {
            let status = wanted("a", &json!({ "spec": spec })).unwrap_err();
            assert_eq!(status.code, 422);
            assert!(status.message.contains(expect), "{}", status.message);
        };
        check(json!({ "expirationSeconds": 599 }), "may not specify a duration less than 10 minutes");
        check(json!({ "expirationSeconds": 1_i64 << 33 }), "larger than 2^32 seconds");
        check(json!({ "boundObjectRef": { "kind": "Service", "apiVersion": "v1" } }), "supported values: \"v1 Pod\"");
        check(json!({ "audiences": vec!["x"; 65] }), "at most 64 items");
    }
}

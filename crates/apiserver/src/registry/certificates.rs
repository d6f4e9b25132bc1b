//! CertificateSigningRequests: the server writes down who asks; what was asked for never changes.
//!
//! Follows `pkg/registry/certificates/certificates/strategy.go` and the admission plugin `CertificateSubjectRestriction`.

use api::kinds::Kind;
use api::meta;
use api::status::{FieldError, Status, Subject};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use super::Strategy;
use super::meta::format_time;
use super::strategy::{Plain, copy_member};
use super::write::Part;
use crate::identity::{MASTERS, UserInfo};

/// The signer whose certificates prove identities to this API.
const API_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Conditions that only `/approval` changes.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

pub struct CertificateRequests;

impl Strategy for CertificateRequests {
    fn prepare_for_create(&self, _kind: &Kind, object: &mut Value) {
        object["status"] = json!({});
    }

    fn attribute(&self, user: &UserInfo, object: &mut Value) -> Result<(), Status> {
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        for field in ["username", "uid", "groups", "extra"] {
            spec.remove(field);
        }
        spec.insert("username".to_owned(), user.name.as_str().into());
        if !user.uid.is_empty() {
            spec.insert("uid".to_owned(), user.uid.as_str().into());
        }
        spec.insert("groups".to_owned(), json!(user.groups));
        if !user.extra.is_empty() {
            spec.insert("extra".to_owned(), json!(user.extra));
        }
        check_request(object)
    }

    fn prepare_for_update(&self, _kind: &Kind, new: &mut Value, old: &Value) {
        copy_member(new, old, "spec");
        copy_member(new, old, "status");
    }

    /// A signer's answer does not decide.
    fn prepare_for_status_update(&self, kind: &Kind, new: &mut Value, old: &Value) {
        Plain.prepare_for_status_update(kind, new, old);
        let is_decision = |condition: &&Value| DECISIONS.iter().any(|kind| condition["type"] == *kind);
        let mut conditions: Vec<Value> = conditions(old).iter().filter(is_decision).cloned().collect();
        conditions.extend(self::conditions(new).iter().filter(|condition| !is_decision(condition)).cloned());
        set_conditions(new, conditions, Timestamp::now());
    }

    fn unowned(&self, _kind: &Kind, part: Part) -> &'static [&'static [&'static str]] {
        match part {
            Part::Main => &[&["spec"], &["status"]],
            Part::Status => &[&["spec"]],
            Part::Whole => &[],
        }
    }
}

fn conditions(request: &Value) -> &[Value] {
    request.pointer("/status/conditions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Sets the conditions, with a time where the client gave none.
pub fn set_conditions(request: &mut Value, mut conditions: Vec<Value>, now: Timestamp) {
    for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if condition.get(field).is_none_or(Value::is_null) {
                condition.insert(field.to_owned(), format_time(now).into());
            }
        }
    }
    if !request["status"].is_object() {
        request["status"] = json!({});
    }
    let status = request["status"].as_object_mut().expect("it was just made one");
    if conditions.is_empty() {
        status.remove("conditions");
    } else {
        status.insert("conditions".to_owned(), conditions.into());
    }
}

/// The request has to parse, and nobody becomes a master by a certificate that he asked for.
fn check_request(object: &Value) -> Result<(), Status> {
    let name = meta::name(object);
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let invalid = |why: String| {
        let error = FieldError::invalid("spec.request", text("/spec/request"), why);
        let subject = Subject { group: "certificates.k8s.io", resource: "CertificateSigningRequest", name };
        Err(Status::invalid(&subject, &[error]))
    };
    let Ok(bytes) = STANDARD.decode(text("/spec/request")) else { return invalid("it is not base64".to_owned()) };
    let pem = match parse_x509_pem(&bytes) {
        Ok((_, pem)) if pem.label == "CERTIFICATE REQUEST" => pem,
        _ => return invalid("PEM block type must be CERTIFICATE REQUEST".to_owned()),
    };
    let parsed = match X509CertificationRequest::from_der(&pem.contents) {
        Ok((_, parsed)) => parsed,
        Err(error) => return invalid(error.to_string()),
    };
    let subject = &parsed.certification_request_info.subject;
    let mut groups = subject.iter_organization().filter_map(|attribute| attribute.as_str().ok());
    if text("/spec/signerName") == API_CLIENT_SIGNER && groups.any(|group| group == MASTERS) {
        let subject = Subject { group: "certificates.k8s.io", resource: "certificatesigningrequests", name };
        let why = format!("use of {API_CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
        return Err(Status::forbidden(&subject, &why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(group: &str, signer: &str) -> Value {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({ "metadata": { "name": "r" }, "spec": { "request": STANDARD.encode(pem), "signerName": signer } })
    }

    #[test]
    fn the_server_says_who_asks() {
        let mut user = UserInfo::authenticated("jane", ["dev"]);
        user.extra.insert("key".to_owned(), vec!["v".to_owned()]);
        let mut object = request("dev", API_CLIENT_SIGNER);
        object["spec"]["username"] = "root".into();
        object["spec"]["uid"] = "0".into();
        CertificateRequests.attribute(&user, &mut object).unwrap();
        let spec = &object["spec"];
        assert_eq!((&spec["username"], spec.get("uid")), (&json!("jane"), None));
        assert_eq!((&spec["groups"], &spec["extra"]), (&json!(user.groups), &json!({ "key": ["v"] })));
    }

    #[test]
    fn what_is_asked_for() {
        let check = |mut object: Value, expect: Result<(), u16>| {
            let user = UserInfo::authenticated("jane", Vec::<String>::new());
            let found = CertificateRequests.attribute(&user, &mut object).map_err(|status| status.code);
            assert_eq!(found, expect, "{object}");
        };
        check(request("dev", API_CLIENT_SIGNER), Ok(()));
        check(request(MASTERS, API_CLIENT_SIGNER), Err(403));
        check(request(MASTERS, "example.com/own"), Ok(()));
        check(json!({ "spec": { "request": "!" } }), Err(422));
        let empty = STANDARD.encode("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n");
        check(json!({ "spec": { "request": empty } }), Err(422));
    }

    #[test]
    fn a_signer_does_not_approve() {
        let old = json!({ "status": { "conditions": [{ "type": "Approved", "status": "True",
            "lastUpdateTime": "1970-01-01T00:00:00Z", "lastTransitionTime": "1970-01-01T00:00:00Z" }] } });
        let mut new =
            json!({ "status": { "certificate": "eA==", "conditions": [{ "type": "Denied" }, { "type": "Failed" }] } });
        let kind = api::kinds::lookup("certificates.k8s.io", "v1", "certificatesigningrequests").unwrap();
        CertificateRequests.prepare_for_status_update(kind, &mut new, &old);
        let kinds: Vec<&Value> = conditions(&new).iter().map(|condition| &condition["type"]).collect();
        assert_eq!(kinds, ["Approved", "Failed"]);
        assert_eq!(conditions(&new)[0], conditions(&old)[0]);
        assert!(conditions(&new)[1]["lastUpdateTime"].is_string());
        assert_eq!(new["status"]["certificate"], "eA==");
    }
}

//! Whether a request is signed, what is said then, and how long it is kept. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::clock::elapsed;
use reconcile::{ApiAction, Plan};

pub const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// The longest life of a certificate, and that of one which asks for nothing else.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const SHORTEST: Duration = Duration::from_secs(600);
/// So long a request stays that was decided about, and one that nobody looks at.
const DECIDED_KEPT: Duration = Duration::from_secs(60 * 60);
const PENDING_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// What a client's certificate may be for; the first has to be asked for.
const USAGES: [&str; 3] = ["client auth", "digital signature", "key encipherment"];

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Nothing(&'static str),
    Refuse(String),
    Sign { request_pem: String, longest: Duration },
}

#[must_use]
pub fn verdict(request: &CertificateSigningRequest) -> Verdict {
    let status = request.status.clone().unwrap_or_default();
    let has = |kind: &str| status.conditions.iter().flatten().any(|condition| condition.type_ == kind);
    if request.spec.signer_name != SIGNER {
        return Verdict::Nothing("another signer's");
    }
    if status.certificate.is_some_and(|certificate| !certificate.0.is_empty()) {
        return Verdict::Nothing("signed");
    }
    if !has("Approved") || has("Denied") || has("Failed") {
        return Verdict::Nothing("not approved, or settled");
    }
    let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
    let are_a_clients = usages.contains(&USAGES[0]) && usages.iter().all(|usage| USAGES.contains(usage));
    if !are_a_clients {
        return Verdict::Refuse(format!("usages {usages:?} are not those of a client: {USAGES:?}"));
    }
    let asked = request.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let longest = asked.map_or(LONGEST, |seconds| Duration::from_secs(seconds).clamp(SHORTEST, LONGEST));
    match String::from_utf8(request.spec.request.0.clone()) {
        Ok(request_pem) => Verdict::Sign { request_pem, longest },
        Err(_) => Verdict::Refuse("the request is no PEM".to_owned()),
    }
}

/// Lets a request go when it has been kept long enough, whoever its signer is.
#[must_use]
pub fn kept(request: &CertificateSigningRequest, why: &str, now: Timestamp) -> Plan {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let decided = conditions.filter_map(|condition| condition.last_update_time.as_ref()).map(|time| time.0).max();
    let made = request.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let (since, longest) = decided.map_or((made, PENDING_KEPT), |decided| (decided, DECIDED_KEPT));
    let left = longest.saturating_sub(elapsed(since, now));
    if left.is_zero() {
        return Plan::of(vec![ApiAction::delete(request)], format!("{why}: kept long enough"));
    }
    let mut plan = Plan::nothing(why);
    plan.requeue_within(left);
    plan
}

/// Writes the certificate, or why there is none.
#[must_use]
pub fn answered(request: &CertificateSigningRequest, answer: Result<String, String>, now: Timestamp) -> Plan {
    let mut request = request.clone();
    let status = request.status.get_or_insert_default();
    let why = match answer {
        Ok(pem) => {
            status.certificate = Some(ByteString(pem.into_bytes()));
            "approved: signed".to_owned()
        }
        Err(why) => {
            let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
            status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
                type_: "Failed".to_owned(),
                status: "True".to_owned(),
                reason: Some("SignerValidationFailure".to_owned()),
                message: Some(why.clone()),
                last_transition_time: Some(now.clone()),
                last_update_time: Some(now),
            });
            why
        }
    };
    Plan::of(vec![ApiAction::update_status(&request)], why)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(spec: Value, conditions: &[&str]) -> CertificateSigningRequest {
        let conditions: Vec<Value> = conditions.iter().map(|kind| json!({ "type": kind, "status": "True" })).collect();
        let mut object = json!({ "metadata": { "name": "r" }, "status": { "conditions": conditions }, "spec": {
            "signerName": SIGNER, "request": "UEVN", "usages": ["client auth"] } });
        for (field, value) in spec.as_object().expect("fields") {
            object["spec"][field] = value.clone();
        }
        serde_json::from_value(object).expect("a request")
    }

    #[test]
    fn verdicts() {
        let check = |spec: Value, conditions: &[&str], expect: Verdict| {
            assert_eq!(verdict(&request(spec.clone(), conditions)), expect, "{spec} {conditions:?}");
        };
        let sign = |longest| Verdict::Sign { request_pem: "PEM".to_owned(), longest };
        check(json!({}), &["Approved"], sign(LONGEST));
        check(json!({ "expirationSeconds": 900 }), &["Approved"], sign(Duration::from_secs(900)));
        check(json!({ "expirationSeconds": 2_000_000_000 }), &["Approved"], sign(LONGEST));
        check(json!({}), &[], Verdict::Nothing("not approved, or settled"));
        check(json!({}), &["Approved", "Failed"], Verdict::Nothing("not approved, or settled"));
        check(json!({ "signerName": "example.com/x" }), &["Approved"], Verdict::Nothing("another signer's"));
        for usages in [json!(["digital signature"]), json!(["client auth", "server auth"])] {
            let found = verdict(&request(json!({ "usages": usages }), &["Approved"]));
            assert!(matches!(found, Verdict::Refuse(_)), "{usages}: {found:?}");
        }
    }

    #[test]
    fn requests_are_not_kept_for_ever() {
        let check = |status: Value, second: i64, expect: &str| {
            let mut object = serde_json::to_value(request(json!({}), &[])).expect("a request");
            object["metadata"]["creationTimestamp"] = "1970-01-01T00:00:00Z".into();
            object["status"] = status;
            let request = serde_json::from_value(object).expect("a request");
            let now = Timestamp::from_second(second).expect("a time");
            assert_eq!(kept(&request, "pending", now).render(), expect, "{second}");
        };
        check(json!({}), 3600, "pending\n  again after 82800s");
        check(json!({}), 86_400, "pending: kept long enough\n  delete certificatesigningrequests/r");
        let denied = || {
            let at = "1970-01-01T01:00:00Z";
            json!({ "conditions": [{ "type": "Denied", "status": "True", "lastUpdateTime": at }] })
        };
        check(denied(), 3601, "pending\n  again after 3599s");
        check(denied(), 7200, "pending: kept long enough\n  delete certificatesigningrequests/r");
    }

    #[test]
    fn answers() {
        let approved = request(json!({}), &["Approved"]);
        let body = |plan: Plan| match plan.actions.into_iter().next() {
            Some(ApiAction::UpdateStatus { body, .. }) => body["status"].clone(),
            other => panic!("{other:?}"),
        };
        let signed = body(answered(&approved, Ok("PEM".to_owned()), Timestamp::UNIX_EPOCH));
        assert_eq!((&signed["certificate"], signed["conditions"].as_array().map(Vec::len)), (&json!("UEVN"), Some(1)));
        let failed = body(answered(&approved, Err("no".to_owned()), Timestamp::UNIX_EPOCH));
        assert_eq!((&failed["conditions"][1]["message"], failed.get("certificate")), (&json!("no"), None));
    }
}

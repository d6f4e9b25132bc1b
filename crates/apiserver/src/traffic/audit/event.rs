//! One event of the audit log. Pure.
//!
//! Source: `k8s.io/apiserver/pkg/apis/audit/v1`, type Event.

use std::net::IpAddr;

use http::{HeaderMap, Uri, header};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::{Outcome, Record};
use crate::identity::UserInfo;

/// Longest words of a client that are kept.
const TEXT_BYTES_MAX: usize = 1024;

/// What is known of a request when it arrives.
#[derive(Debug, Clone, Default)]
pub struct Arrived {
    pub at: Timestamp,
    pub uri: Uri,
    pub user_agent: String,
    pub peer: Option<IpAddr>,
}

impl Arrived {
    pub fn new(uri: &Uri, headers: &HeaderMap, peer: Option<IpAddr>) -> Self {
        let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
        Self { at: Timestamp::now(), uri: uri.clone(), user_agent: shortened(agent).to_owned(), peer }
    }
}

fn shortened(text: &str) -> &str {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// A request that stays open is told of when its answer begins, any other when it is over.
pub fn event(arrived: &Arrived, record: &Record, outcome: Outcome, is_long_running: bool) -> Value {
    let stage_at = arrived.at.checked_add(outcome.took).unwrap_or(arrived.at);
    let uri = arrived.uri.path_and_query().map_or("", |path| path.as_str());
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": uuid::Uuid::new_v4().to_string(),
        "stage": if is_long_running { "ResponseStarted" } else { "ResponseComplete" },
        "requestURI": shortened(uri),
        "verb": record.verb,
        "user": record.user.as_ref().map_or_else(|| json!({}), user),
        "userAgent": arrived.user_agent,
        "responseStatus": { "metadata": {}, "code": outcome.code },
        "requestReceivedTimestamp": format!("{:.6}", arrived.at),
        "stageTimestamp": format!("{stage_at:.6}"),
        "annotations": { "authorization.k8s.io/decision": if record.is_allowed { "allow" } else { "forbid" } },
    });
    for (key, value) in record.annotations.all() {
        event["annotations"][key] = value.into();
    }
    if let Some(peer) = arrived.peer {
        event["sourceIPs"] = json!([peer.to_string()]);
    }
    if let Some(impersonated) = &record.impersonated {
        event["impersonatedUser"] = user(impersonated);
    }
    if !record.resource.is_empty() {
        event["objectRef"] = reference(record);
    }
    event
}

fn user(user: &UserInfo) -> Value {
    let mut value = json!({ "username": user.name, "groups": user.groups });
    if !user.uid.is_empty() {
        value["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

fn reference(record: &Record) -> Value {
    let Record { resource, namespace, name, group, version, subresource, .. } = record;
    let fields = [
        ("resource", resource.as_str()),
        ("namespace", namespace),
        ("name", name),
        ("apiGroup", group),
        ("apiVersion", version),
        ("subresource", subresource),
    ];
    let present = fields.into_iter().filter(|(_, text)| !text.is_empty());
    present.map(|(key, text)| (key.to_owned(), Value::from(shortened(text)))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_event_says_who_did_what() {
        let arrived = Arrived {
            uri: Uri::from_static("/api/v1/namespaces/shop/pods/web?pretty=true"),
            user_agent: "kubectl/v1.36".to_owned(),
            peer: Some(IpAddr::from([10, 0, 0, 7])),
            ..Arrived::default()
        };
        let record = Record {
            user: Some(UserInfo::authenticated("jane", ["dev"])),
            verb: "delete",
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            ..Record::default()
        };
        record.annotations.note("pod-security.kubernetes.io/enforce-policy", "baseline:latest".to_owned());
        let outcome = Outcome { code: 403, took: Duration::from_millis(2) };
        let event = event(&arrived, &record, outcome, false);
        let expect =
            |pointer: &str, value: Value| assert_eq!(event.pointer(pointer), Some(&value), "{pointer} of {event}");
        expect("/user/username", json!("jane"));
        expect("/objectRef", json!({ "resource": "pods", "namespace": "shop", "name": "web", "apiVersion": "v1" }));
        expect("/responseStatus/code", json!(403));
        expect("/annotations/authorization.k8s.io~1decision", json!("forbid"));
        expect("/annotations/pod-security.kubernetes.io~1enforce-policy", json!("baseline:latest"));
        expect("/sourceIPs", json!(["10.0.0.7"]));
        expect("/requestReceivedTimestamp", json!("1970-01-01T00:00:00.000000Z"));
        expect("/stageTimestamp", json!("1970-01-01T00:00:00.002000Z"));
        expect("/requestURI", json!("/api/v1/namespaces/shop/pods/web?pretty=true"));
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        let text = "é".repeat(TEXT_BYTES_MAX);
        assert_eq!(shortened(&text).len(), TEXT_BYTES_MAX);
        assert_eq!(shortened(&format!("x{text}")).len(), TEXT_BYTES_MAX - 1);
        assert_eq!(shortened("short"), "short");
    }
}

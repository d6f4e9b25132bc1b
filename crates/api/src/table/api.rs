//! Kinds about the API itself: who serves it, who may ask how often, certificates, components.

use serde_json::Value;

use super::{AGE, NAME, NONE, Printer, UNKNOWN, age, age_of, count, int_at, list_at, str_at, str_or_none, text};
use crate::meta;

/// The condition of a type, if there is one.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list_at(object, "/status/conditions").iter().find(|condition| str_at(condition, "/type") == kind)
}

pub(super) const SERVICE: Printer = Printer {
    columns: &[NAME, text("Service"), text("Available"), AGE],
    cells: |object, now| {
        let service = match object.pointer("/spec/service") {
            None | Some(Value::Null) => "Local".to_owned(),
            Some(service) => format!("{}/{}", str_at(service, "/namespace"), str_at(service, "/name")),
        };
        let available = match condition(object, "Available") {
            None => "Unknown".to_owned(),
            Some(condition) if str_at(condition, "/status") == "True" => "True".to_owned(),
            Some(condition) => format!("{} ({})", str_at(condition, "/status"), str_at(condition, "/reason")),
        };
        vec![meta::name(object).into(), service.into(), available.into(), age_of(object, now)]
    },
};

pub(super) const CERTIFICATE_REQUEST: Printer = Printer {
    columns: &[NAME, AGE, text("SignerName"), text("Requestor"), text("RequestedDuration"), text("Condition")],
    cells: |object, now| {
        let signer = str_at(object, "/spec/signerName");
        let duration = match object.pointer("/spec/expirationSeconds").and_then(Value::as_i64) {
            None => NONE.to_owned(),
            Some(seconds) => age::human(seconds),
        };
        vec![
            meta::name(object).into(),
            age_of(object, now),
            if signer.is_empty() { NONE } else { signer }.into(),
            str_at(object, "/spec/username").into(),
            duration.into(),
            request_status(object).into(),
        ]
    },
};

fn request_status(object: &Value) -> String {
    let has = |kind: &str| condition(object, kind).is_some();
    let decided = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    };
    let mut status = decided.to_owned();
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !str_at(object, "/status/certificate").is_empty() {
        status.push_str(",Issued");
    }
    status
}

/// No age: it is asked for when it is shown.
pub(super) const COMPONENT_STATUS: Printer = Printer {
    columns: &[NAME, text("Status"), text("Message"), text("Error")],
    cells: |object, _| {
        let health = list_at(object, "/conditions").iter().find(|condition| str_at(condition, "/type") == "Healthy");
        let status = match health.map(|condition| str_at(condition, "/status")) {
            Some("True") => "Healthy",
            Some("False") => "Unhealthy",
            _ => "Unknown",
        };
        let of = |field: &str| Value::from(health.map_or("", |condition| str_at(condition, field)));
        vec![meta::name(object).into(), status.into(), of("/message"), of("/error")]
    },
};

pub(super) const FLOW_SCHEMA: Printer = Printer {
    columns: &[
        NAME,
        text("PriorityLevel"),
        count("MatchingPrecedence"),
        text("DistinguisherMethod"),
        AGE,
        text("MissingPL"),
    ],
    cells: |object, now| {
        let missing = condition(object, "Dangling").map_or("?", |condition| str_at(condition, "/status"));
        vec![
            meta::name(object).into(),
            str_at(object, "/spec/priorityLevelConfiguration/name").into(),
            int_at(object, "/spec/matchingPrecedence").into(),
            str_or_none(object, "/spec/distinguisherMethod/type"),
            age_of(object, now),
            missing.into(),
        ]
    },
};

pub(super) const PRIORITY_LEVEL: Printer = Printer {
    columns: &[
        NAME,
        text("Type"),
        text("NominalConcurrencyShares"),
        text("Queues"),
        text("HandSize"),
        text("QueueLengthLimit"),
        AGE,
    ],
    cells: |object, now| {
        let number = |pointers: &[&str]| -> Value {
            pointers.iter().find_map(|pointer| object.pointer(pointer)).cloned().unwrap_or_else(|| NONE.into())
        };
        let shares = ["/spec/limited/nominalConcurrencyShares", "/spec/exempt/nominalConcurrencyShares"];
        let queuing = "/spec/limited/limitResponse/queuing";
        vec![
            meta::name(object).into(),
            match str_at(object, "/spec/type") {
                "" => UNKNOWN.into(),
                kind => kind.into(),
            },
            number(&shares),
            number(&[&format!("{queuing}/queues")]),
            number(&[&format!("{queuing}/handSize")]),
            number(&[&format!("{queuing}/queueLengthLimit")]),
            age_of(object, now),
        ]
    },
};

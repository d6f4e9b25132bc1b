//! storage.k8s.io, and what claims of devices leave unsaid.

use serde_json::json;

use super::{Fields, absent, each, ensured, inner, number, str_of, text};

pub(super) fn class(fields: &mut Fields) {
    text(fields, "reclaimPolicy", "Delete");
    text(fields, "volumeBindingMode", "Immediate");
}

pub(super) fn driver(fields: &mut Fields) {
    let Some(spec) = ensured(fields, "spec") else { return };
    absent(spec, "attachRequired", || true.into());
    absent(spec, "fsGroupPolicy", || "ReadWriteOnceWithFSType".into());
    for field in ["podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"] {
        absent(spec, field, || false.into());
    }
    if spec.get("volumeLifecycleModes").and_then(|modes| modes.as_array()).is_none_or(Vec::is_empty) {
        spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
    }
}

pub(super) fn claim(fields: &mut Fields) {
    if let Some(spec) = ensured(fields, "spec") {
        claim_spec(spec);
    }
}

pub(super) fn claim_template(fields: &mut Fields) {
    if let Some(spec) = ensured(fields, "spec").and_then(|spec| ensured(spec, "spec")) {
        claim_spec(spec);
    }
}

fn claim_spec(spec: &mut Fields) {
    let Some(devices) = inner(spec, "devices") else { return };
    each(devices, "requests", |request| {
        if let Some(exact) = inner(request, "exactly") {
            device_request(exact);
        }
        each(request, "firstAvailable", device_request);
    });
}

fn device_request(request: &mut Fields) {
    text(request, "allocationMode", "ExactCount");
    if str_of(request, "allocationMode") == "ExactCount" {
        number(request, "count", 1);
    }
    each(request, "tolerations", |toleration| text(toleration, "operator", "Equal"));
}

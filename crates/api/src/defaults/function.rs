//! Functions.

use serde_json::json;

use super::{Fields, absent, each, ensured, inner, text};
use crate::function::{CALLS_AT_ONCE_DEFAULT, MEMORY_DEFAULT, TIMEOUT_DEFAULT};

pub(super) fn function(fields: &mut Fields) {
    let Some(spec) = ensured(fields, "spec") else { return };
    absent(spec, "replicas", || 1.into());
    text(spec, "interfaceChanges", "Compatible");
    let Some(limits) = ensured(spec, "limits") else { return };
    absent(limits, "memory", || MEMORY_DEFAULT.into());
    text(limits, "timeout", TIMEOUT_DEFAULT);
    absent(limits, "callsAtOnce", || CALLS_AT_ONCE_DEFAULT.into());
    each(spec, "triggers", trigger);
}

fn trigger(fields: &mut Fields) {
    if fields.contains_key("schedule") {
        text(fields, "concurrencyPolicy", "Allow");
        absent(fields, "suspend", || false.into());
    }
    let Some(http) = inner(fields, "http") else { return };
    text(http, "pathType", "Exact");
    // The component's own handler knows what to say to any method.
    if http.contains_key("export") {
        absent(http, "methods", || json!(["POST"]));
    }
}

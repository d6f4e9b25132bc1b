//! resource.k8s.io: claims for devices, what offers them, and classes of them.

use std::collections::HashSet;

use super::at::{At, Errors};
use super::text;

const REQUESTS_MAX: usize = 32;
const SUB_REQUESTS_MAX: usize = 8;
const SELECTORS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const DEVICES_MAX: usize = 128;
const RESERVED_MAX: usize = 256;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
const DRIVER_BYTES_MAX: usize = 63;
const ONE_FORM: &str = "exactly one of `exactly` or `firstAvailable` is required";
const ONE_PLACE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

fn at_most(list: &At, most: usize, errors: &mut Errors) {
    let count = list.list().len();
    if count > most {
        errors.too_many(list, count, most);
    }
}

fn driver(name: &At, errors: &mut Errors) {
    if !errors.require(name) {
        return;
    }
    if name.text().len() > DRIVER_BYTES_MAX {
        errors.too_long(name, DRIVER_BYTES_MAX);
    }
    errors.rule(name, text::dns_subdomain);
}

fn selectors(list: &At, errors: &mut Errors) {
    at_most(list, SELECTORS_MAX, errors);
    for selector in list.items() {
        let cel = selector.get("cel");
        if cel.is_absent() {
            errors.required(&cel, "");
            continue;
        }
        let expression = cel.get("expression");
        if expression.text().len() > EXPRESSION_BYTES_MAX {
            errors.too_long(&expression, EXPRESSION_BYTES_MAX);
        }
        errors.require(&expression);
    }
}

fn configuration(list: &At, known: Option<&HashSet<String>>, errors: &mut Errors) {
    at_most(list, CONFIGS_MAX, errors);
    for config in list.items() {
        if let Some(known) = known {
            references(&config.get("requests"), known, errors);
        }
        let opaque = config.get("opaque");
        if opaque.is_absent() {
            errors.required(&opaque, "");
            continue;
        }
        driver(&opaque.get("driver"), errors);
        errors.require(&opaque.get("parameters"));
    }
}

pub(super) fn class(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    selectors(&spec.get("selectors"), errors);
    configuration(&spec.get("config"), None, errors);
}

pub(super) fn claim(object: &At, errors: &mut Errors) {
    claim_spec(&object.get("spec"), errors);
}

pub(super) fn template(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let metadata = spec.get("metadata");
    super::metadata::labels(&metadata.get("labels"), errors);
    super::metadata::annotations(&metadata.get("annotations"), errors);
    claim_spec(&spec.get("spec"), errors);
}

fn claim_spec(spec: &At, errors: &mut Errors) {
    let devices = spec.get("devices");
    let requests = devices.get("requests");
    at_most(&requests, REQUESTS_MAX, errors);
    let mut known = HashSet::new();
    for request in requests.items() {
        let name = request.get("name");
        if errors.require(&name) {
            errors.rule(&name, text::dns_label);
        }
        if !known.insert(name.text().to_owned()) {
            errors.duplicate(&name, name.text());
        }
        let (exact, several) = (request.get("exactly"), request.get("firstAvailable"));
        match (exact.is_absent(), several.is_empty()) {
            (true, true) => errors.required(&request, ONE_FORM),
            (false, false) => errors.invalid(&request, format!("{ONE_FORM}, but multiple fields are set")),
            (false, true) => device_request(&exact, errors),
            (true, false) => sub_requests(&several, name.text(), &mut known, errors),
        }
    }
    let constraints = devices.get("constraints");
    at_most(&constraints, CONSTRAINTS_MAX, errors);
    for constraint in constraints.items() {
        references(&constraint.get("requests"), &known, errors);
        let (same, distinct) = (constraint.get("matchAttribute"), constraint.get("distinctAttribute"));
        if same.is_absent() && distinct.is_absent() {
            errors.required(&constraint, "exactly one of `matchAttribute` or `distinctAttribute` is required");
        }
    }
    configuration(&devices.get("config"), Some(&known), errors);
}

fn sub_requests(list: &At, parent: &str, known: &mut HashSet<String>, errors: &mut Errors) {
    at_most(list, SUB_REQUESTS_MAX, errors);
    for request in list.items() {
        let name = request.get("name");
        if errors.require(&name) {
            errors.rule(&name, text::dns_label);
        }
        if !known.insert(format!("{parent}/{}", name.text())) {
            errors.duplicate(&name, name.text());
        }
        device_request(&request, errors);
    }
}

fn device_request(request: &At, errors: &mut Errors) {
    let (class, mode, count) = (request.get("deviceClassName"), request.get("allocationMode"), request.get("count"));
    if errors.require(&class) {
        errors.rule(&class, text::dns_subdomain);
    }
    selectors(&request.get("selectors"), errors);
    let counted = count.int().unwrap_or(0);
    match mode.text() {
        "All" if counted != 0 => {
            errors.invalid(&count, "must not be specified when allocationMode is 'All'");
        }
        "All" => {}
        "ExactCount" if counted <= 0 => errors.invalid(&count, "must be greater than zero"),
        "ExactCount" => {}
        _ => errors.one_of(&mode, &["All", "ExactCount"]),
    }
    for toleration in request.get("tolerations").items() {
        errors.one_of(&toleration.get("operator"), &["Equal", "Exists"]);
        errors.one_of_if_set(&toleration.get("effect"), &["NoExecute", "NoSchedule", "None"]);
    }
}

fn references(list: &At, known: &HashSet<String>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for name in list.items() {
        if !known.contains(name.text()) {
            errors.invalid(
                &name,
                "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
            );
        }
        if !seen.insert(name.text()) {
            errors.duplicate(&name, name.text());
        }
    }
}

/// Who uses a claim may change; what it was given does not, as long as somebody has it.
pub(super) fn claim_status_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("status"), old.get("status"));
    let (allocation, reserved) = (new.get("allocation"), new.get("reservedFor"));
    at_most(&reserved, RESERVED_MAX, errors);
    if allocation.is_absent() && !reserved.is_empty() {
        errors.forbidden(&reserved, "may not be specified when `allocated` is not set");
    }
    if !allocation.is_absent() && !old.get("allocation").is_absent() {
        errors.immutable(&allocation, &old.get("allocation"));
    }
    let mut uids = HashSet::new();
    for consumer in reserved.items() {
        for field in ["resource", "name", "uid"] {
            errors.require(&consumer.get(field));
        }
        if !uids.insert(consumer.get("uid").text()) {
            errors.duplicate(&consumer.get("uid"), consumer.get("uid").text());
        }
    }
}

pub(super) fn slice(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    driver(&spec.get("driver"), errors);
    let pool = spec.get("pool");
    errors.require(&pool.get("name"));
    errors.not_negative(&pool.get("generation"));
    let slices = pool.get("resourceSliceCount");
    if slices.int().is_none_or(|n| n <= 0) {
        errors.invalid(&slices, "must be greater than zero");
    }
    let places = [
        !spec.get("nodeName").is_empty(),
        !spec.get("nodeSelector").is_absent(),
        spec.get("allNodes").is_true(),
        spec.get("perDeviceNodeSelection").is_true(),
    ];
    match places.into_iter().filter(|there| *there).count() {
        0 => errors.required(&spec, ONE_PLACE),
        1 => {}
        _ => errors.invalid(&spec, format!("{ONE_PLACE}, but multiple fields are set")),
    }
    let devices = spec.get("devices");
    at_most(&devices, DEVICES_MAX, errors);
    let mut names = HashSet::new();
    for device in devices.items() {
        let name = device.get("name");
        if errors.require(&name) {
            errors.rule(&name, text::dns_label);
        }
        if !names.insert(name.text()) {
            errors.duplicate(&name, name.text());
        }
        for (_, attribute) in device.get("attributes").entries() {
            if attribute.value.as_object().is_none_or(|values| values.len() != 1) {
                errors.invalid(&attribute, "exactly one value must be specified");
            }
        }
        for taint in device.get("taints").items() {
            errors.require(&taint.get("key"));
            errors.one_of(&taint.get("effect"), &["NoExecute", "NoSchedule", "None"]);
        }
    }
}

pub(super) fn slice_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    for field in ["driver", "nodeName"] {
        errors.immutable(&new.get(field), &old.get(field));
    }
    let (pool, before) = (new.get("pool"), old.get("pool"));
    errors.immutable(&pool.get("name"), &before.get("name"));
}

//! Probes and lifecycle handlers.

use super::at::{At, Errors};
use super::text;

const PORT_MAX: i64 = 65_535;

pub(super) fn probes(container: &At, errors: &mut Errors) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.get(name);
        if probe.is_absent() {
            continue;
        }
        handler(&probe, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
        for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            errors.not_negative(&probe.get(field));
        }
        let threshold = probe.get("successThreshold");
        if name != "readinessProbe" && threshold.int().is_some_and(|n| n != 1) {
            errors.invalid(&threshold, "must be 1");
        }
        let grace = probe.get("terminationGracePeriodSeconds");
        if grace.int().is_some_and(|n| n <= 0) {
            errors.invalid(&grace, "must be greater than 0");
        }
        if name == "readinessProbe" && !grace.is_absent() {
            errors.invalid(&grace, "must not be set for readinessProbes");
        }
    }
    let lifecycle = container.get("lifecycle");
    for name in ["postStart", "preStop"] {
        let hook = lifecycle.get(name);
        if !hook.is_absent() {
            handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], errors);
        }
    }
}

fn handler(of: &At, kinds: &[&str], errors: &mut Errors) {
    let mut given = kinds.iter().filter(|kind| !of.get(kind).is_absent());
    let Some(first) = given.next() else {
        return errors.required(of, "must specify a handler type");
    };
    for second in given {
        errors.forbidden(&of.get(second), "may not specify more than 1 handler type");
    }
    let action = of.get(first);
    match *first {
        "exec" => {
            errors.require(&action.get("command"));
        }
        "httpGet" => {
            errors.require(&action.get("path"));
            port(&action.get("port"), errors);
            errors.one_of(&action.get("scheme"), &["HTTP", "HTTPS"]);
            for header in action.get("httpHeaders").items() {
                errors.require(&header.get("name"));
            }
        }
        "sleep" => errors.not_negative(&action.get("seconds")),
        _ => port(&action.get("port"), errors),
    }
}

/// A number, or the name of a port.
pub(super) fn port(port: &At, errors: &mut Errors) {
    match port.int() {
        Some(_) => errors.in_range(port, 1, PORT_MAX),
        None if port.is_absent() => {
            errors.invalid_as(port, 0, format!("must be between 1 and {PORT_MAX}, inclusive"));
        }
        None => errors.rule(port, text::port_name),
    }
}

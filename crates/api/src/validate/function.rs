//! Functions: limits that can be kept, hosts and interfaces that can be meant.

use super::at::{At, Errors};
use super::{env, resources, text};
use crate::function::{self, CALLS_AT_ONCE_MAX, TIMEOUT_MAX};
use crate::quantity::Quantity;

mod trigger;

/// Less than one page of Wasm memory runs nothing.
const MEMORY_BYTES_MIN: u64 = 64 << 10;
const CALLS_PER_SECOND_MAX: i64 = 1_000_000;

pub(super) fn function(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let image = spec.get("image");
    if errors.require(&image) && image.text().trim() != image.text() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
    errors.not_negative(&spec.get("replicas"));
    errors.one_of_if_set(&spec.get("interfaceChanges"), &["Any", "Compatible"]);
    for secret in spec.get("imagePullSecrets").items() {
        errors.require(&secret.get("name"));
    }
    limits(&spec.get("limits"), errors);
    let grants = spec.get("grants");
    env::variables(&grants, errors);
    for allowed in grants.get("allowedHosts").items() {
        host(&allowed, errors);
    }
    for import in grants.get("imports").items() {
        interface(&import, errors);
    }
    trigger::triggers(object, errors);
}

fn limits(limits: &At, errors: &mut Errors) {
    let memory = limits.get("memory");
    if !memory.is_absent() {
        resources::quantity("memory", &memory, errors);
        if Quantity::parse(memory.text()).is_ok_and(|memory| memory.as_bytes() < MEMORY_BYTES_MIN) {
            errors.invalid(&memory, "must be at least 64Ki, one page of a component's memory");
        }
    }
    let timeout = limits.get("timeout");
    if !timeout.is_empty() && function::timeout(timeout.text()).is_none() {
        let most = TIMEOUT_MAX.as_secs() / 60;
        errors.invalid(&timeout, format!("must be a number and ms, s or m, between 1ms and {most}m (e.g. '500ms')"));
    }
    errors.in_range(&limits.get("callsAtOnce"), 1, i64::from(CALLS_AT_ONCE_MAX));
    errors.in_range(&limits.get("callsPerSecond"), 1, CALLS_PER_SECOND_MAX);
}

/// A name, `*.` and a name, or `*`; no port and no scheme.
fn host(at: &At, errors: &mut Errors) {
    let name = at.text();
    let bare = name.strip_prefix("*.").unwrap_or(name);
    if name != "*" && text::ip(bare).is_some() && text::dns_subdomain(bare).is_some() {
        errors.invalid(at, "must be a host name, '*.' and a domain, or '*', without scheme and port");
    }
}

/// `namespace:package`, with `/interface` and `@version` where they matter.
fn interface(at: &At, errors: &mut Errors) {
    let name = at.text().split('@').next().unwrap_or_default();
    let (package, interface) = name.split_once('/').unwrap_or((name, "any"));
    let is_label = |label: &str| {
        label.starts_with(|first: char| first.is_ascii_alphabetic())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let is_package = package.split_once(':').is_some_and(|(namespace, name)| is_label(namespace) && is_label(name));
    if !is_package || !is_label(interface) {
        errors.invalid(at, "must be an interface or a package of WIT (e.g. 'wasi:http/types' or 'wasi:http')");
    }
}

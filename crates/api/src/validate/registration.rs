//! apiregistration.k8s.io: who serves which group version.

use super::at::{At, Errors};
use super::text;

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;
const PORT_MAX: i64 = 65_535;

pub(super) fn service(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let (group, version) = (spec.get("group"), spec.get("version"));
    let name = format!("{}.{}", version.text(), group.text());
    let metadata = object.get("metadata");
    if metadata.get("name").text() != name {
        errors.invalid(&metadata.get("name"), format!("must be `spec.version+\".\"+spec.group`: {name:?}"));
    }
    if !group.is_empty() {
        errors.rule(&group, text::dns_subdomain);
    } else if version.text() != "v1" {
        errors.required(&group, "only v1 may have an empty group and it better be legacy kube");
    }
    errors.rule(&version, text::dns_1035_label);
    for (field, most) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        let at = spec.get(field);
        if at.int().is_none_or(|n| n <= 0 || n > most) {
            errors.invalid(&at, format!("must be positive and less than {most}"));
        }
    }
    let (target, bundle, skips) = (spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if target.is_absent() {
        if !bundle.is_empty() {
            errors.invalid(&bundle, "local APIServices may not have a caBundle");
        }
        if skips.is_true() {
            errors.invalid(&skips, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    errors.require(&target.get("namespace"));
    errors.require(&target.get("name"));
    errors.in_range(&target.get("port"), 1, PORT_MAX);
    if skips.is_true() && !bundle.is_empty() {
        errors.invalid(&skips, "may not be true if caBundle is present");
    }
}

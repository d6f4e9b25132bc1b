//! storage.k8s.io, and PersistentVolumes.

use std::collections::HashSet;

use super::at::{At, Errors};
use super::{pod, resources, text};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const DRIVER_NAME_BYTES_MAX: usize = 63;
const NODE_ID_BYTES_MAX: usize = 192;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const ONE_SOURCE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";

/// Fields of a PersistentVolume's spec that are no source of the volume.
const VOLUME_FIELDS: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

pub(super) fn volume(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    volume_modes(&spec.get("accessModes"), errors);
    let capacity = spec.get("capacity");
    if capacity.is_empty() {
        errors.required(&capacity, "");
    } else if capacity.key("storage").is_absent() || capacity.value.as_object().is_some_and(|all| all.len() > 1) {
        errors.not_supported(&capacity, &["storage"]);
    }
    for (name, amount) in capacity.entries() {
        resources::quantity(name, &amount, errors);
        if amount.text().bytes().all(|b| b == b'0') {
            errors.invalid(&amount, "must be greater than zero");
        }
    }
    errors.one_of_if_set(&spec.get("persistentVolumeReclaimPolicy"), &["Delete", "Recycle", "Retain"]);
    let sources: Vec<&str> = sources(&spec).collect();
    match sources[..] {
        [] => errors.required(&spec, "must specify a volume type"),
        [only] => volume_source(&spec, only, errors),
        [_, ref others @ ..] => {
            for other in others {
                errors.forbidden(&spec.get(other), "may not specify more than 1 volume type");
            }
        }
    }
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        errors.rule(&class, text::dns_subdomain);
    }
    errors.one_of_if_set(&spec.get("volumeMode"), &["Block", "Filesystem"]);
}

fn sources<'v>(spec: &At<'_, 'v>) -> impl Iterator<Item = &'v str> {
    let fields = spec.value.as_object().into_iter().flatten();
    fields.map(|(field, _)| field.as_str()).filter(|field| !VOLUME_FIELDS.contains(field))
}

fn volume_modes(modes: &At, errors: &mut Errors) {
    if modes.is_empty() {
        errors.required(modes, "");
    }
    for mode in modes.items() {
        errors.one_of(&mode, ACCESS_MODES);
    }
    let alone = modes.list().iter().any(|mode| mode == "ReadWriteOncePod");
    if alone && modes.list().len() > 1 {
        errors.forbidden(modes, "may not use ReadWriteOncePod with other access modes");
    }
}

fn volume_source(spec: &At, kind: &str, errors: &mut Errors) {
    let source = spec.get(kind);
    match kind {
        "hostPath" | "local" => {
            let path = source.get("path");
            if errors.require(&path) {
                errors.rule(&path, text::no_backsteps);
            }
            if kind == "local" && spec.get("nodeAffinity").is_empty() {
                errors.required(&spec.get("nodeAffinity"), "Local volume requires node affinity");
            }
        }
        "nfs" => {
            errors.require(&source.get("server"));
            let path = source.get("path");
            if errors.require(&path) && !path.text().starts_with('/') {
                errors.invalid(&path, "must be an absolute path");
            }
        }
        "csi" => {
            driver_name(&source.get("driver"), errors);
            errors.require(&source.get("volumeHandle"));
        }
        _ => {}
    }
}

/// Where the data is never changes.
pub(super) fn volume_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    let (now, before): (Vec<&str>, Vec<&str>) = (sources(&new).collect(), sources(&old).collect());
    if now != before || now.iter().any(|source| new.get(source).value != old.get(source).value) {
        let at = new.get("persistentvolumesource");
        errors.forbidden(&at, "spec.persistentvolumesource is immutable after creation");
    }
    errors.immutable(&new.get("volumeMode"), &old.get("volumeMode"));
    if !old.get("nodeAffinity").is_absent() {
        errors.immutable(&new.get("nodeAffinity"), &old.get("nodeAffinity"));
    }
}

pub(super) fn class(object: &At, errors: &mut Errors) {
    let provisioner = object.get("provisioner");
    if errors.require(&provisioner) {
        errors.rule(&provisioner, text::qualified_name);
    }
    errors.one_of(&object.get("reclaimPolicy"), &["Delete", "Retain"]);
    errors.one_of(&object.get("volumeBindingMode"), &["Immediate", "WaitForFirstConsumer"]);
}

pub(super) fn class_update(new: &At, old: &At, errors: &mut Errors) {
    for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        if new.get(field).value != old.get(field).value {
            errors.forbidden(&new.get(field), format!("updates to {field} are forbidden."));
        }
    }
}

fn driver_name(name: &At, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(name, "");
    }
    if name.text().len() > DRIVER_NAME_BYTES_MAX {
        errors.too_long(name, DRIVER_NAME_BYTES_MAX);
    }
    if let Some(why) = text::dns_subdomain(&name.text().to_lowercase()) {
        errors.invalid(name, why);
    }
}

pub(super) fn driver(object: &At, errors: &mut Errors) {
    driver_name(&object.get("metadata").get("name"), errors);
    let spec = object.get("spec");
    errors.one_of_if_set(&spec.get("fsGroupPolicy"), &["File", "None", "ReadWriteOnceWithFSType"]);
    for mode in spec.get("volumeLifecycleModes").items() {
        errors.one_of(&mode, &["Ephemeral", "Persistent"]);
    }
    let mut audiences = HashSet::new();
    for request in spec.get("tokenRequests").items() {
        let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
        if !audiences.insert(audience.text()) {
            errors.duplicate(&audience, audience.text());
        }
        match seconds.int() {
            Some(n) if n < TOKEN_SECONDS_MIN => {
                errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
            }
            Some(n) if n > TOKEN_SECONDS_MAX => {
                errors.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
}

pub(super) fn driver_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    for field in ["attachRequired", "volumeLifecycleModes"] {
        errors.immutable(&new.get(field), &old.get(field));
    }
}

pub(super) fn node(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let mut names = HashSet::new();
    for driver in spec.get("drivers").items() {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        driver_name(&name, errors);
        if !names.insert(name.text()) {
            errors.duplicate(&name, name.text());
        }
        if errors.require(&id) && id.text().len() > NODE_ID_BYTES_MAX {
            errors.invalid(&id, format!("must be {NODE_ID_BYTES_MAX} characters or less"));
        }
        errors.not_negative(&driver.get("allocatable").get("count"));
        let mut keys = HashSet::new();
        for key in driver.get("topologyKeys").items() {
            if errors.require(&key) {
                errors.rule(&key, text::qualified_name);
            }
            if !keys.insert(key.text()) {
                errors.duplicate(&key, key.text());
            }
        }
    }
}

/// A driver comes and goes as a whole.
pub(super) fn node_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    for driver in new.get("drivers").items() {
        let name = driver.get("name");
        let before = old.get("drivers");
        let Some(before) = before.list().iter().find(|before| before.get("name") == Some(name.value)) else { continue };
        let same = ["nodeID", "topologyKeys"].into_iter().all(|field| before.get(field) == driver.value.get(field));
        if !same {
            errors.invalid(&driver, super::at::IMMUTABLE);
        }
    }
}

pub(super) fn capacity(object: &At, errors: &mut Errors) {
    let class = object.get("storageClassName");
    if errors.require(&class) {
        errors.rule(&class, text::dns_subdomain);
    }
    pod::label_selector(&object.get("nodeTopology"), errors);
    for field in ["capacity", "maximumVolumeSize"] {
        let amount = object.get(field);
        if !amount.is_absent() {
            resources::quantity("storage", &amount, errors);
        }
    }
}

pub(super) fn capacity_update(new: &At, old: &At, errors: &mut Errors) {
    for field in ["nodeTopology", "storageClassName"] {
        errors.immutable(&new.get(field), &old.get(field));
    }
}

pub(super) fn attachment(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    driver_name(&spec.get("attacher"), errors);
    let (node, source) = (spec.get("nodeName"), spec.get("source"));
    if errors.require(&node) {
        errors.rule(&node, text::dns_subdomain);
    }
    let (inline, named) = (source.get("inlineVolumeSpec"), source.get("persistentVolumeName"));
    match (inline.is_absent(), named.is_absent()) {
        (true, true) => errors.required(&source, ONE_SOURCE),
        (false, false) => errors.forbidden(&source, ONE_SOURCE),
        (true, false) if named.is_empty() => errors.required(&named, "must specify non empty persistentVolumeName"),
        _ => {}
    }
}

pub(super) fn attributes_class(object: &At, errors: &mut Errors) {
    driver_name(&object.get("driverName"), errors);
    let parameters = object.get("parameters");
    if parameters.is_empty() {
        errors.required(&parameters, "must contain at least one key/value pair");
    }
}

pub(super) fn attributes_class_update(new: &At, old: &At, errors: &mut Errors) {
    for field in ["driverName", "parameters"] {
        errors.immutable(&new.get(field), &old.get(field));
    }
}

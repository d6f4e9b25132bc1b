//! Volumes of a pod, and claims.

use std::collections::HashSet;

use super::at::{At, Errors};
use super::{env, resources, text};

const MODE_MAX: i64 = 0o777;
const MODE_RULE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const DOWNWARD_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const TOKEN_SECONDS_MIN: i64 = 600;

/// Checks all volumes and returns the names that can be mounted.
pub(super) fn volumes<'v>(volumes: &At<'_, 'v>, errors: &mut Errors) -> HashSet<&'v str> {
    let mut names = HashSet::new();
    for volume in volumes.items() {
        let name = volume.get("name");
        if errors.require(&name) {
            errors.rule(&name, text::dns_label);
            if !names.insert(name.text()) {
                errors.duplicate(&name, name.text());
            }
        }
        let sources: Vec<&str> = volume.value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        let mut sources = sources.into_iter().filter(|key| *key != "name");
        let Some(first) = sources.next() else {
            errors.required(&volume, "must specify a volume type");
            continue;
        };
        for second in sources {
            errors.forbidden(&volume.get(second), "may not specify more than 1 volume type");
        }
        source(first, &volume.get(first), errors);
    }
    names
}

fn source(kind: &str, source: &At, errors: &mut Errors) {
    match kind {
        "hostPath" => {
            let path = source.get("path");
            if errors.require(&path) {
                errors.rule(&path, text::no_backsteps);
            }
            if !HOST_PATH_TYPES.contains(&source.get("type").text()) {
                errors.one_of(&source.get("type"), HOST_PATH_TYPES);
            }
        }
        "configMap" => {
            errors.require(&source.get("name"));
            files(source, errors);
        }
        "secret" => {
            errors.require(&source.get("secretName"));
            files(source, errors);
        }
        "emptyDir" => {
            let limit = source.get("sizeLimit");
            if !limit.is_absent() {
                resources::quantity("memory", &limit, errors);
            }
        }
        "downwardAPI" => downward(source, errors),
        "projected" => {
            mode(&source.get("defaultMode"), errors);
            for projection in source.get("sources").items() {
                self::projection(&projection, errors);
            }
        }
        "persistentVolumeClaim" => {
            errors.require(&source.get("claimName"));
        }
        "image" => {
            errors.require(&source.get("reference"));
            errors.one_of(&source.get("pullPolicy"), &["Always", "IfNotPresent", "Never"]);
        }
        "nfs" => {
            errors.require(&source.get("server"));
            errors.require(&source.get("path"));
        }
        "csi" => {
            errors.require(&source.get("driver"));
        }
        _ => {}
    }
}

fn projection(projection: &At, errors: &mut Errors) {
    let (config_map, secret) = (projection.get("configMap"), projection.get("secret"));
    let (token, fields) = (projection.get("serviceAccountToken"), projection.get("downwardAPI"));
    for source in [&config_map, &secret] {
        if !source.is_absent() {
            errors.require(&source.get("name"));
            files(source, errors);
        }
    }
    if !fields.is_absent() {
        downward(&fields, errors);
    }
    if !token.is_absent() {
        errors.require(&token.get("path"));
        let seconds = token.get("expirationSeconds");
        if seconds.int().is_some_and(|n| n < TOKEN_SECONDS_MIN) {
            errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
        }
    }
}

/// The files of a ConfigMap or Secret volume.
fn files(source: &At, errors: &mut Errors) {
    mode(&source.get("defaultMode"), errors);
    for item in source.get("items").items() {
        errors.require(&item.get("key"));
        let path = item.get("path");
        if errors.require(&path) {
            errors.rule(&path, text::relative_path);
        }
        mode(&item.get("mode"), errors);
    }
}

fn downward(source: &At, errors: &mut Errors) {
    mode(&source.get("defaultMode"), errors);
    for item in source.get("items").items() {
        let path = item.get("path");
        if errors.require(&path) {
            errors.rule(&path, text::relative_path);
        }
        let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
        match (field.is_absent(), resource.is_absent()) {
            (true, true) => errors.required(&item, "one of fieldRef and resourceFieldRef is required"),
            (false, false) => {
                errors.invalid(&item, "fieldRef and resourceFieldRef can not be specified simultaneously")
            }
            (false, true) => env::field_path(&field.get("fieldPath"), DOWNWARD_FIELDS, errors),
            (true, false) => {
                errors.require(&resource.get("resource"));
                errors.require(&resource.get("containerName"));
            }
        }
        mode(&item.get("mode"), errors);
    }
}

fn mode(mode: &At, errors: &mut Errors) {
    if mode.int().is_some_and(|n| !(0..=MODE_MAX).contains(&n)) {
        errors.invalid(mode, MODE_RULE);
    }
}

pub(super) fn claim(claim: &At, errors: &mut Errors) {
    let spec = claim.get("spec");
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        errors.required(&modes, "at least 1 access mode is required");
    }
    for mode in modes.items() {
        errors.one_of(&mode, &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]);
    }
    let resources_of_claim = spec.get("resources");
    let requests = resources_of_claim.get("requests");
    let storage = requests.key("storage");
    if storage.is_absent() {
        errors.required(&storage, "");
    } else {
        resources::quantity("storage", &storage, errors);
    }
    errors.one_of(&spec.get("volumeMode"), &["Block", "Filesystem"]);
}

/// A claim is only filled in by the binder, or grown.
pub(super) fn claim_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    for field in ["accessModes", "selector", "volumeMode", "dataSource"] {
        errors.immutable(&new.get(field), &old.get(field));
    }
    for field in ["volumeName", "storageClassName"] {
        if !old.get(field).is_empty() {
            errors.immutable(&new.get(field), &old.get(field));
        }
    }
}

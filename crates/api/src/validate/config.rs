//! ConfigMaps and Secrets.

use serde_json::Value;

use super::at::{At, Errors};
use super::text;

/// Of all values together.
const DATA_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn config_map(object: &At, errors: &mut Errors) {
    let (data, binary) = (object.get("data"), object.get("binaryData"));
    let mut bytes = 0;
    for (key, value) in data.entries() {
        config_key(&data, key, errors);
        if !binary.key(key).is_absent() {
            errors.invalid_as(&data.key(key), key, "duplicate of key present in binaryData");
        }
        bytes += value.text().len();
    }
    for (key, value) in binary.entries() {
        config_key(&binary, key, errors);
        bytes += decoded_len(value.text());
    }
    if bytes > DATA_BYTES_MAX {
        errors.too_long(&At::root(&Value::Null), DATA_BYTES_MAX);
    }
}

pub(super) fn config_map_update(new: &At, old: &At, errors: &mut Errors) {
    frozen(new, old, &["data", "binaryData"], errors);
}

/// Once `immutable` is set nothing but metadata may change.
fn frozen(new: &At, old: &At, fields: &[&str], errors: &mut Errors) {
    const RULE: &str = "field is immutable when `immutable` is set";
    if !old.get("immutable").is_true() {
        return;
    }
    if !new.get("immutable").is_true() {
        errors.forbidden(&new.get("immutable"), RULE);
    }
    for field in fields {
        if new.get(field).value != old.get(field).value {
            errors.forbidden(&new.get(field), RULE);
        }
    }
}

fn config_key(of: &At, key: &str, errors: &mut Errors) {
    if let Some(why) = text::config_key(key) {
        errors.invalid_as(&of.key(key), key, why);
    }
}

/// The bytes behind a base64 text.
fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

pub(super) fn secret(object: &At, errors: &mut Errors) {
    let data = object.get("data");
    let mut bytes = 0;
    for (key, value) in data.entries() {
        config_key(&data, key, errors);
        bytes += decoded_len(value.text());
    }
    if bytes > DATA_BYTES_MAX {
        errors.too_long(&data, DATA_BYTES_MAX);
    }
    let needed: &[&str] = match object.get("type").text() {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed {
        if data.key(key).is_absent() {
            errors.required(&data.key(key), "");
        }
    }
    match object.get("type").text() {
        "kubernetes.io/basic-auth" if data.key("username").is_absent() && data.key("password").is_absent() => {
            errors.required(&data.key("username"), "");
            errors.required(&data.key("password"), "");
        }
        "kubernetes.io/service-account-token" => {
            let metadata = object.get("metadata");
            let annotations = metadata.get("annotations");
            errors.require(&annotations.key("kubernetes.io/service-account.name"));
        }
        _ => {}
    }
}

pub(super) fn secret_update(new: &At, old: &At, errors: &mut Errors) {
    errors.immutable(&new.get("type"), &old.get("type"));
    frozen(new, old, &["data"], errors);
}

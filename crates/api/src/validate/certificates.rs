//! certificates.k8s.io: what may be asked for, and how a decision may change.

use std::collections::HashSet;

use serde_json::Value;

use super::at::{At, Errors};
use super::text;

const SECONDS_MIN: i64 = 600;
const SIGNER_RULE: &str = "must be a fully qualified domain and path of the form \"example.com/signer-name\"";
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// Conditions that stay once they are there.
const LASTING: &[&str] = &["Approved", "Denied", "Failed"];

pub(super) fn request(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let (asked, signer, usages) = (spec.get("request"), spec.get("signerName"), spec.get("usages"));
    if decoded(asked.text()).is_none_or(|pem| !pem.trim_start().starts_with("-----BEGIN CERTIFICATE REQUEST-----")) {
        errors.invalid(&asked, "PEM block type must be CERTIFICATE REQUEST");
    }
    if usages.is_empty() {
        errors.required(&usages, "");
    }
    let mut seen = HashSet::new();
    for usage in usages.items() {
        errors.one_of(&usage, USAGES);
        if !seen.insert(usage.text()) {
            errors.duplicate(&usage, usage.text());
        }
    }
    if signer.is_empty() {
        errors.required(&signer, "");
    } else if signer.text() == "kubernetes.io/legacy-unknown" {
        errors.invalid(&signer, "the legacy signerName is not allowed via this API version");
    } else {
        signer_name(&signer, errors);
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|n| n < SECONDS_MIN) {
        errors.invalid(&seconds, "may not specify a duration less than 600 seconds (10 minutes)");
    }
}

fn signer_name(signer: &At, errors: &mut Errors) {
    let Some((domain, path)) = signer.text().split_once('/') else { return errors.invalid(signer, SIGNER_RULE) };
    if !domain.contains('.') || path.is_empty() {
        return errors.invalid(signer, SIGNER_RULE);
    }
    for part in [domain, path] {
        if let Some(why) = text::dns_subdomain(part) {
            errors.invalid(signer, why);
        }
    }
}

fn decoded(base64: &str) -> Option<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64).ok()?;
    String::from_utf8(bytes).ok()
}

/// Approval or the signer's answer: what was decided stays decided.
pub(super) fn status_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("status"), old.get("status"));
    let (certificate, before) = (new.get("certificate"), old.get("certificate"));
    if !before.is_empty() && certificate.value != before.value {
        errors.forbidden(&certificate, "updates may not set certificate content");
    } else if !certificate.is_empty()
        && decoded(certificate.text()).is_none_or(|pem| !pem.contains("-----BEGIN CERTIFICATE-----"))
    {
        errors.invalid(&certificate, "must contain at least one CERTIFICATE PEM block");
    }
    let conditions = new.get("conditions");
    let has = |conditions: &At, kind: &str| {
        conditions.list().iter().any(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
    };
    for kind in LASTING {
        if has(&old.get("conditions"), kind) && !has(&conditions, kind) {
            errors.forbidden(&conditions, format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    let mut seen = HashSet::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        errors.require(&kind);
        if LASTING.contains(&kind.text()) && status.text() != "True" {
            errors.one_of(&status, &["True"]);
        } else {
            errors.one_of(&status, &["False", "True", "Unknown"]);
        }
        if !seen.insert(kind.text()) {
            errors.duplicate(&kind, kind.text());
        }
        let denied = kind.text() == "Denied" && has(&conditions, "Approved");
        if denied {
            errors.invalid(&kind, "Approved and Denied conditions are mutually exclusive");
        }
    }
}

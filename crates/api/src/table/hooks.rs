//! Webhooks, admission policies and their bindings.

use serde_json::Value;

use super::{AGE, NAME, Printer, UNSET, age_of, count, label_selector, list_at, str_at, text};
use crate::meta;

pub(super) const WEBHOOKS: Printer = Printer {
    columns: &[NAME, count("Webhooks"), AGE],
    cells: |object, now| {
        vec![meta::name(object).into(), list_at(object, "/webhooks").len().into(), age_of(object, now)]
    },
};

fn param_kind(object: &Value) -> Value {
    match object.pointer("/spec/paramKind") {
        Some(kind) if !kind.is_null() => format!("{}/{}", str_at(kind, "/apiVersion"), str_at(kind, "/kind")).into(),
        _ => UNSET.into(),
    }
}

pub(super) const VALIDATING_POLICY: Printer = Printer {
    columns: &[NAME, count("Validations"), text("ParamKind"), AGE],
    cells: |object, now| {
        let count = list_at(object, "/spec/validations").len();
        vec![meta::name(object).into(), count.into(), param_kind(object), age_of(object, now)]
    },
};

pub(super) const MUTATING_POLICY: Printer = Printer {
    columns: &[NAME, count("Mutations"), text("ParamKind"), AGE],
    cells: |object, now| {
        let count = list_at(object, "/spec/mutations").len();
        vec![meta::name(object).into(), count.into(), param_kind(object), age_of(object, now)]
    },
};

pub(super) const POLICY_BINDING: Printer = Printer {
    columns: &[NAME, text("PolicyName"), text("ParamRef"), AGE],
    cells: |object, now| {
        let (name, namespace) = (str_at(object, "/spec/paramRef/name"), str_at(object, "/spec/paramRef/namespace"));
        let param: Value = match (name, namespace) {
            ("", _) if object.pointer("/spec/paramRef/selector").is_some() => {
                label_selector(object, "/spec/paramRef/selector")
            }
            ("", _) => UNSET.into(),
            (name, "") => name.into(),
            (name, namespace) => format!("{namespace}/{name}").into(),
        };
        vec![meta::name(object).into(), str_at(object, "/spec/policyName").into(), param, age_of(object, now)]
    },
};

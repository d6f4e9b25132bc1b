//! Roles and their bindings.

use serde_json::Value;

use super::{AGE, NAME, Printer, age_of, list_at, str_at, text, wide};
use crate::meta;

/// Kinds that are shown with a date instead of an age.
pub(super) const CREATED_AT: Printer = Printer {
    columns: &[NAME, text("Created At")],
    cells: |object, _| vec![meta::name(object).into(), meta::creation_timestamp(object).into()],
};

pub(super) const BINDING: Printer = Printer {
    columns: &[NAME, text("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")],
    cells: |object, now| {
        let of_kind =
            |kind: &str| -> Value {
                let names = list_at(object, "/subjects").iter().filter(|s| str_at(s, "/kind") == kind).map(|subject| {
                    match str_at(subject, "/namespace") {
                        "" => str_at(subject, "/name").to_owned(),
                        namespace => format!("{namespace}/{}", str_at(subject, "/name")),
                    }
                });
                names.collect::<Vec<_>>().join(", ").into()
            };
        let role = format!("{}/{}", str_at(object, "/roleRef/kind"), str_at(object, "/roleRef/name"));
        vec![
            meta::name(object).into(),
            role.into(),
            age_of(object, now),
            of_kind("User"),
            of_kind("Group"),
            of_kind("ServiceAccount"),
        ]
    },
};

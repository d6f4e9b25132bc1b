//! resource.k8s.io.

use super::{AGE, NAME, Printer, age_of, list_at, str_at, text};
use crate::meta;

pub(super) const CLAIM: Printer = Printer {
    columns: &[NAME, text("State"), AGE],
    cells: |object, now| {
        let is_deleted = !meta::deletion_timestamp(object).is_empty();
        let mut states = Vec::new();
        if is_deleted {
            states.push("deleted");
        }
        if object.pointer("/status/allocation").is_none() {
            if !is_deleted {
                states.push("pending");
            }
        } else {
            states.push("allocated");
            if !list_at(object, "/status/reservedFor").is_empty() {
                states.push("reserved");
            }
        }
        vec![meta::name(object).into(), states.join(",").into(), age_of(object, now)]
    },
};

pub(super) const SLICE: Printer = Printer {
    columns: &[NAME, text("Node"), text("Driver"), text("Pool"), AGE],
    cells: |object, now| {
        vec![
            meta::name(object).into(),
            str_at(object, "/spec/nodeName").into(),
            str_at(object, "/spec/driver").into(),
            str_at(object, "/spec/pool/name").into(),
            age_of(object, now),
        ]
    },
};

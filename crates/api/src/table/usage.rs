//! Measurements, in the columns of Kubernetes' metrics server.

use serde_json::Value;

use super::{NAME, Printer, list_at, str_at, text};
use crate::meta;
use crate::quantity::Quantity;

pub(super) const MEASURED: Printer = Printer {
    columns: &[NAME, text("cpu"), text("memory"), text("Window")],
    cells: |object, _| {
        vec![
            meta::name(object).into(),
            used(object, "/usage/cpu"),
            used(object, "/usage/memory"),
            str_at(object, "/window").into(),
        ]
    },
};

/// Of a node, or of all containers of a pod together.
fn used(object: &Value, pointer: &str) -> Value {
    let containers = list_at(object, "/containers").iter();
    let all = std::iter::once(object).chain(containers).map(|measured| str_at(measured, pointer));
    let sum = all.filter_map(|text| Quantity::parse(text).ok()).reduce(Quantity::add);
    sum.map_or_else(|| "0".to_owned(), |sum| sum.to_string()).into()
}

//! Functions.

use serde_json::Value;

use super::{AGE, NAME, Printer, age_of, first_three, int_at, list_at, shown, str_at, text, wide};
use crate::meta;

pub(super) const FUNCTION: Printer = Printer {
    columns: &[
        NAME,
        text("Ready"),
        text("Up-to-date"),
        text("Image"),
        text("Exports"),
        AGE,
        wide("Memory"),
        wide("Timeout"),
        wide("Triggers"),
        wide("Message"),
    ],
    cells: |object, now| {
        let names: Vec<String> =
            list_at(object, "/status/exports").iter().map(|export| short(str_at(export, "/name"))).collect();
        let condition = |type_: &str| {
            list_at(object, "/status/conditions").iter().find(|condition| str_at(condition, "/type") == type_)
        };
        let message = ["Ready", "UpToDate"].into_iter().filter_map(condition).find(|c| str_at(c, "/status") != "True");
        vec![
            meta::name(object).into(),
            format!("{}/{}", int_at(object, "/status/readyReplicas"), int_at(object, "/spec/replicas")).into(),
            condition("UpToDate").map_or("Unknown", |condition| str_at(condition, "/status")).into(),
            str_at(object, "/spec/image").into(),
            first_three(&names, "<none>"),
            age_of(object, now),
            shown(object.pointer("/spec/limits/memory")).into(),
            str_at(object, "/spec/limits/timeout").into(),
            first_three(&list_at(object, "/spec/triggers").iter().map(trigger).collect::<Vec<_>>(), "<none>"),
            message.map_or("", |condition| str_at(condition, "/message")).into(),
        ]
    },
};

/// `acme:shop/orders@1.0.0#place` is `orders#place`.
fn short(name: &str) -> String {
    let Some((interface, function)) = name.split_once('#') else { return name.to_owned() };
    let interface = interface.rsplit('/').next().unwrap_or(interface);
    format!("{}#{function}", interface.split('@').next().unwrap_or(interface))
}

/// `nightly:0 3 * * *`, `price:/price`
fn trigger(trigger: &Value) -> String {
    let what = [str_at(trigger, "/schedule"), str_at(trigger, "/http/path")].concat();
    let is_off = trigger.get("suspend") == Some(&Value::Bool(true));
    format!("{}:{what}{}", str_at(trigger, "/name"), if is_off { " (suspended)" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn names_are_shortened() {
        assert_eq!(short("add"), "add");
        assert_eq!(short("acme:shop/orders@1.0.0#place"), "orders#place");
    }
}

//! Events, in either of their two forms.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, Printer, UNKNOWN, age, int_at, str_at, text, wide};
use crate::meta;

pub(super) const EVENT: Printer = Printer {
    columns: &[
        text("Last Seen"),
        text("Type"),
        text("Reason"),
        text("Object"),
        wide("Subobject"),
        wide("Source"),
        text("Message"),
        wide("First Seen"),
        Column { name: "Count", kind: "integer", priority: 1 },
        wide("Name"),
    ],
    cells: |event, now| {
        let first = seen(event, &["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"], now);
        let mut last = seen(event, &["/lastTimestamp", "/deprecatedLastTimestamp"], now);
        let mut times = int_at(event, "/count").max(int_at(event, "/deprecatedCount"));
        if let Some(series) = event.get("series").filter(|series| series.is_object()) {
            last = seen(series, &["/lastObservedTime"], now);
            times = int_at(series, "/count");
        }
        vec![
            last.or_else(|| first.clone()).unwrap_or_else(|| UNKNOWN.to_owned()).into(),
            str_at(event, "/type").into(),
            str_at(event, "/reason").into(),
            target(event).into(),
            either(event, "/involvedObject/fieldPath", "/regarding/fieldPath").into(),
            source(event).into(),
            either(event, "/message", "/note").trim().into(),
            first.unwrap_or_else(|| UNKNOWN.to_owned()).into(),
            times.max(1).into(),
            meta::name(event).into(),
        ]
    },
};

fn seen(event: &Value, pointers: &[&str], now: Timestamp) -> Option<String> {
    pointers
        .iter()
        .map(|pointer| str_at(event, pointer))
        .find(|time| !time.is_empty())
        .map(|time| age::since(time, now))
}

fn either<'a>(event: &'a Value, old: &str, new: &str) -> &'a str {
    match str_at(event, old) {
        "" => str_at(event, new),
        text => text,
    }
}

/// `pod/web-0`
fn target(event: &Value) -> String {
    let kind = either(event, "/involvedObject/kind", "/regarding/kind").to_lowercase();
    match either(event, "/involvedObject/name", "/regarding/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

/// `kubelet, node-1`
fn source(event: &Value) -> String {
    let component = match either(event, "/source/component", "/deprecatedSource/component") {
        "" => either(event, "/reportingComponent", "/reportingController"),
        component => component,
    };
    let host = match either(event, "/source/host", "/deprecatedSource/host") {
        "" => str_at(event, "/reportingInstance"),
        host => host,
    };
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

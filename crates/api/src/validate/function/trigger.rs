//! Triggers of Functions: one way to be fired each, schedules that come, paths that no other trigger has.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::at::{At, Errors};
use super::super::{batch, text};
use crate::function::{ARGS_BYTES_MAX, METHODS, TRIGGERS_MAX};

const PATH_BYTES_MAX: usize = 1024;
/// What only a schedule has a use for.
const OF_SCHEDULES: [&str; 6] =
    ["timeZone", "export", "args", "concurrencyPolicy", "startingDeadlineSeconds", "suspend"];

pub(super) fn triggers(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let triggers = spec.get("triggers");
    if triggers.list().len() > TRIGGERS_MAX {
        errors.too_many(&triggers, triggers.list().len(), TRIGGERS_MAX);
    }
    let (mut names, mut taken, mut serves_http) = (BTreeSet::new(), Taken::default(), false);
    for trigger in triggers.items() {
        let name = trigger.get("name");
        if errors.require(&name) {
            errors.rule(&name, text::dns_label);
            if !names.insert(name.text()) {
                errors.duplicate(&name, name.text());
            }
        }
        let (schedule, http) = (trigger.get("schedule"), trigger.get("http"));
        match (schedule.is_absent(), http.is_absent()) {
            (true, true) => errors.required(&trigger, "must have a `schedule` or `http`"),
            (false, false) => errors.forbidden(&trigger, "must have one of `schedule` and `http`, not both"),
            (false, true) => scheduled(&trigger, errors),
            (true, false) => {
                serves_http = true;
                for field in OF_SCHEDULES.map(|name| trigger.get(name)).iter().filter(|field| !field.is_absent()) {
                    errors.forbidden(field, "belongs to a trigger that has a schedule");
                }
                requests(&http, &mut taken, errors);
            }
        }
    }
    let metadata = object.get("metadata");
    let name = metadata.get("name");
    if let Some(why) = text::dns_1035_label(name.text()).filter(|_| serves_http && !name.is_empty()) {
        errors.invalid(&name, format!("names a Service, because of its HTTP triggers: {why}"));
    }
}

fn scheduled(trigger: &At, errors: &mut Errors) {
    batch::schedule(trigger, errors);
    let export = trigger.get("export");
    if export.is_empty() {
        errors.required(&export, "names the export that the schedule calls");
    }
    let args = trigger.get("args");
    match args.value {
        Value::Null => {}
        Value::Array(_) | Value::Object(_) => {
            if args.value.to_string().len() > ARGS_BYTES_MAX {
                errors.too_long(&args, ARGS_BYTES_MAX);
            }
        }
        _ => errors.invalid(&args, "must be an array, or an object by parameter name"),
    }
    let policy = trigger.get("concurrencyPolicy");
    if policy.text() == "Replace" {
        errors.invalid(&policy, "a call that has begun cannot be taken back; must be Allow or Forbid");
    } else {
        errors.one_of_if_set(&policy, &["Allow", "Forbid"]);
    }
    errors.not_negative(&trigger.get("startingDeadlineSeconds"));
}

/// Path, whether what is below it counts, and method; `None` is any method.
#[derive(Default)]
struct Taken<'v>(BTreeSet<(&'v str, bool, Option<&'v str>)>);

impl<'v> Taken<'v> {
    /// False when another trigger answers some of these requests already.
    fn insert(&mut self, path: &'v str, is_prefix: bool, methods: &[Value]) -> bool {
        let path = if is_prefix { path.trim_end_matches('/') } else { path };
        let of_path = |(known, prefix, _): &&(&str, bool, Option<&str>)| *known == path && *prefix == is_prefix;
        let methods: Vec<&'static str> =
            METHODS.into_iter().filter(|method| methods.iter().any(|given| given == method)).collect();
        let clashes = self
            .0
            .iter()
            .filter(of_path)
            .any(|(.., method)| methods.is_empty() || method.is_none_or(|method| methods.contains(&method)));
        if methods.is_empty() {
            self.0.insert((path, is_prefix, None));
        }
        self.0.extend(methods.into_iter().map(|method| (path, is_prefix, Some(method))));
        !clashes
    }
}

fn requests<'v>(http: &At<'_, 'v>, taken: &mut Taken<'v>, errors: &mut Errors) {
    let (path, path_type, methods) = (http.get("path"), http.get("pathType"), http.get("methods"));
    if errors.require(&path) {
        match wrong_path(path.text()) {
            Some(why) => errors.invalid(&path, why),
            None if taken.insert(path.text(), path_type.text() == "Prefix", methods.list()) => {}
            None => errors.duplicate(&path, path.text()),
        }
    }
    errors.one_of_if_set(&path_type, &["Exact", "Prefix"]);
    let mut known = BTreeSet::new();
    for method in methods.items() {
        errors.one_of(&method, &METHODS);
        if !known.insert(method.text()) {
            errors.duplicate(&method, method.text());
        }
    }
    let export = http.get("export");
    if !export.is_absent() && export.is_empty() {
        errors.required(&export, "names an export, or is left out for the component's own HTTP handler");
    }
}

fn wrong_path(path: &str) -> Option<String> {
    if path.len() > PATH_BYTES_MAX {
        return Some(format!("must be no more than {PATH_BYTES_MAX} bytes"));
    }
    if !path.starts_with('/') {
        return Some("must begin with '/'".to_owned());
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#')) {
        return Some("must be printable ASCII without spaces, '?' and '#' (write others as %20)".to_owned());
    }
    let has_dots = path.split('/').any(|part| matches!(part, "." | ".."));
    has_dots.then(|| "must not have '.' or '..' as a part".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::tests::check;
    use super::*;

    fn check_triggers(triggers: &Value, expect: &[&str]) {
        let expect: Vec<String> = expect.iter().map(|line| format!("spec.triggers{line}")).collect();
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        let spec = json!({ "spec": { "image": "i", "triggers": triggers } });
        check("knarr.dev/v1alpha1", "Function", spec, &expect);
    }

    fn with(mut object: Value, more: &Value) -> Value {
        for (key, value) in more.as_object().expect("fields") {
            object[key] = value.clone();
        }
        object
    }

    fn cron(more: &Value) -> Value {
        let object = json!({ "name": "t", "schedule": "0 3 * * *", "export": "f", "concurrencyPolicy": "Allow" });
        with(object, more)
    }

    fn http(name: &str, more: &Value) -> Value {
        let http = json!({ "path": "/a", "pathType": "Exact", "methods": ["POST"], "export": "f" });
        json!({ "name": name, "http": with(http, more) })
    }

    #[test]
    fn schedules() {
        let berlin = json!({ "timeZone": "Europe/Berlin", "args": [1, { "a": null }], "startingDeadlineSeconds": 10 });
        check_triggers(&json!([cron(&berlin)]), &[]);
        let bad = json!({ "schedule": "0 25 * * *", "timeZone": "Mars/Base", "export": "", "args": 3,
            "concurrencyPolicy": "Replace", "startingDeadlineSeconds": -1 });
        check_triggers(
            &json!([cron(&bad)]),
            &[
                "[0].schedule: Invalid value: \"0 25 * * *\": end of range (25) above maximum (23): 25",
                "[0].timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base",
                "[0].export: Required value: names the export that the schedule calls",
                "[0].args: Invalid value: 3: must be an array, or an object by parameter name",
                "[0].concurrencyPolicy: Invalid value: \"Replace\": a call that has begun cannot be taken back; must \
                 be Allow or Forbid",
                "[0].startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        let long = json!({ "args": ["x".repeat(ARGS_BYTES_MAX)] });
        check_triggers(&json!([cron(&long)]), &["[0].args: Too long: may not be more than 65536 bytes"]);
        let none = json!({});
        check_triggers(
            &json!([{ "name": "A" }, cron(&json!({ "http": { "path": "/" } })), http("t", &none)]),
            &[
                &format!("[0].name: Invalid value: \"A\": {}", crate::meta::LABEL_RULE),
                "[0]: Required value: must have a `schedule` or `http`",
                "[1]: Forbidden: must have one of `schedule` and `http`, not both",
                "[2].name: Duplicate value: \"t\"",
            ],
        );
    }

    #[test]
    fn paths() {
        let own = http("own", &json!({ "path": "/", "pathType": "Prefix", "export": null }));
        let other = http("other", &json!({ "methods": ["GET"] }));
        let below = http("below", &json!({ "pathType": "Prefix" }));
        check_triggers(&json!([http("h", &json!({})), own, other, below]), &[]);
        let mixed = with(http("m", &json!({})), &json!({ "args": [], "timeZone": "UTC" }));
        let spaced = json!({ "path": "a b", "pathType": "Regex", "methods": ["HEAD", "GET", "GET"] });
        let (dots, query) = (json!({ "path": "/x/../y" }), json!({ "path": "/x?y" }));
        check_triggers(
            &json!([mixed, http("b", &spaced), http("c", &dots), http("d", &query)]),
            &[
                "[0].timeZone: Forbidden: belongs to a trigger that has a schedule",
                "[0].args: Forbidden: belongs to a trigger that has a schedule",
                "[1].http.path: Invalid value: \"a b\": must begin with '/'",
                "[1].http.pathType: Unsupported value: \"Regex\": supported values: \"Exact\", \"Prefix\"",
                "[1].http.methods[0]: Unsupported value: \"HEAD\": supported values: \"DELETE\", \"GET\", \"PATCH\", \
                 \"POST\", \"PUT\"",
                "[1].http.methods[2]: Duplicate value: \"GET\"",
                "[2].http.path: Invalid value: \"/x/../y\": must not have '.' or '..' as a part",
                "[3].http.path: Invalid value: \"/x?y\": must be printable ASCII without spaces, '?' and '#' (write \
                 others as %20)",
            ],
        );
        let prefix = json!({ "pathType": "Prefix", "path": "/a/" });
        let (some, any) = (json!({ "methods": ["GET", "POST"] }), json!({ "methods": [], "export": null }));
        check_triggers(
            &json!([
                http("a", &prefix),
                http("b", &with(prefix.clone(), &some)),
                http("c", &with(prefix.clone(), &any))
            ]),
            &["[1].http.path: Duplicate value: \"/a/\"", "[2].http.path: Duplicate value: \"/a/\""],
        );
        let named =
            json!({ "metadata": { "name": "3d" }, "spec": { "image": "i", "triggers": [http("a", &json!({}))] } });
        let why = text::dns_1035_label("3d").expect("it is none");
        let line =
            format!("metadata.name: Invalid value: \"3d\": names a Service, because of its HTTP triggers: {why}");
        check("knarr.dev/v1alpha1", "Function", named, &[&line]);
    }
}

//! `spec.triggers` of a Function: what calls an export without somebody who asks for it through the API.
//!
//! Owns: the shape of triggers and of what is told about them, and the words that their parts share. May not know:
//! when a schedule is due, how a request is answered.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FunctionExport, FunctionSpec};

/// Annotation of a function's pods: its HTTP triggers, a JSON array of [`FunctionHttpTrigger`]. The sandbox host
/// serves them.
pub const HTTP_ROUTES: &str = "knarr.dev/http-routes";
/// Where a function's pods take requests.
pub const HTTP_PORT: i32 = 8080;
/// Where its Service does.
pub const SERVICE_PORT: i32 = 80;
/// Triggers of one function.
pub const TRIGGERS_MAX: usize = 64;
/// Longest `args` of a trigger, as text.
pub const ARGS_BYTES_MAX: usize = 64 << 10;
/// The methods that a request to an export may have.
pub const METHODS: [&str; 5] = ["DELETE", "GET", "PATCH", "POST", "PUT"];

/// Calls an export at times, or for HTTP requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "dev.knarr.v1alpha1.FunctionTrigger")]
pub struct FunctionTrigger {
    /// Names the trigger among those of its function.
    pub name: String,
    /// When to call: five fields of cron, @hourly and the like, or @every 90s. As a CronJob has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub schedule: Option<String>,
    /// The time zone of the schedule, by its name (Europe/Berlin). Defaults to UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub time_zone: Option<String>,
    /// The export that the schedule calls, by any form of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub export: Option<String>,
    /// Arguments of that call: a JSON array by position, or an object by parameter name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Json")]
    pub args: Option<Value>,
    /// What happens when a call is due while an earlier one runs: Allow calls at the same time, Forbid waits for the
    /// earlier one. Defaults to Allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub concurrency_policy: Option<String>,
    /// How late a call may begin. Without it a missed call is made up for whenever that is possible; several missed
    /// ones are one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub starting_deadline_seconds: Option<i64>,
    /// Makes no calls as long as it is true. Defaults to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub suspend: Option<bool>,
    /// Answers HTTP requests, at the Service that has the function's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FunctionHttpTrigger")]
    pub http: Option<FunctionHttpTrigger>,
}

/// Requests that an export answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "dev.knarr.v1alpha1.FunctionHTTPTrigger")]
pub struct FunctionHttpTrigger {
    /// The path of the requests, beginning with a slash.
    pub path: String,
    /// Exact: this path only. Prefix: it, and those below it. Defaults to Exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub path_type: Option<String>,
    /// Methods of the requests: of DELETE, GET, PATCH, POST and PUT. Defaults to POST, and to any method where the
    /// component's own handler answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The export to call. Without it the component's own HTTP handler (wasi:http) answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub export: Option<String>,
}

/// What became of a trigger with a schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "dev.knarr.v1alpha1.FunctionTriggerStatus")]
pub struct FunctionTriggerStatus {
    /// The trigger.
    pub name: String,
    /// When it was first seen: no earlier time of the schedule counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub since: Option<Time>,
    /// Scheduled times of the calls that run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<Time>,
    /// The time of the schedule that was called for last. Written before the call is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub last_schedule_time: Option<Time>,
    /// When a call last gave a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub last_successful_time: Option<Time>,
    /// How the call that ended last did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FunctionTriggerResult")]
    pub last_result: Option<FunctionTriggerResult>,
}

/// How a call of a schedule ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "dev.knarr.v1alpha1.FunctionTriggerResult")]
pub struct FunctionTriggerResult {
    /// Result: it gave a value. Error: it gave an error of its own. Else the reason why there is no answer, such as
    /// Trapped, DeadlineExceeded, or Unknown when nobody knows whether it ran.
    pub kind: String,
    /// The value as JSON, or what went wrong; cut off after 1024 bytes.
    pub message: String,
    /// The time of the schedule that the call was for.
    pub schedule_time: Time,
    /// When it ended.
    pub completion_time: Time,
}

/// The schema of JSON of any type.
struct Json;

impl JsonSchema for Json {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "dev.knarr.v1alpha1.JSON".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "JSON: an array or an object." })
    }
}

impl FunctionSpec {
    /// Its triggers that are HTTP's.
    pub fn http_triggers(&self) -> impl Iterator<Item = &FunctionHttpTrigger> {
        self.triggers.iter().filter_map(|trigger| trigger.http.as_ref())
    }
}

/// The export that is meant by `word`, which may leave out the version, the package and the interface, as in a call.
/// The error is a sentence about what is wrong.
pub fn find_export<'a>(exports: &'a [FunctionExport], word: &str) -> Result<&'a FunctionExport, String> {
    let mut found = exports.iter().filter(|export| means(word, &export.name));
    let exact = exports.iter().find(|export| export.name == word);
    match (exact.or_else(|| found.next()), exact.is_none() && found.next().is_some()) {
        (Some(export), false) => Ok(export),
        (Some(_), true) => Err(format!("`{word}` is exported by several interfaces")),
        (None, _) => {
            let names: Vec<&str> = exports.iter().map(|export| export.name.as_str()).collect();
            let names =
                if names.is_empty() { "it has none".to_owned() } else { format!("it has: {}", names.join(", ")) };
            Err(format!("there is no export `{word}`; {names}"))
        }
    }
}

/// Whether `word` is a form of the name of an export; a dot does for `#`.
fn means(word: &str, name: &str) -> bool {
    let Some((interface, function)) = name.split_once('#') else { return word == name };
    let unversioned = interface.split('@').next().unwrap_or(interface);
    let bare = unversioned.rsplit('/').next().unwrap_or(unversioned);
    let version = &interface[unversioned.len()..];
    let joined = |interface: &str, mark: &str| format!("{interface}{mark}{function}");
    word == function
        || word == format!("{unversioned}.{function}{version}")
        || [interface, unversioned, bare]
            .iter()
            .any(|interface| word == joined(interface, "#") || word == joined(interface, "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_have_names_of_many_forms() {
        let names = ["acme:shop/orders@1.2.0#place", "acme:shop/orders@1.2.0#same", "acme:shop/admin#same", "add"];
        let exports = names.map(|name| FunctionExport { name: name.to_owned(), ..FunctionExport::default() });
        let check = |word: &str, expect: &str| {
            let found = find_export(&exports, word).map(|export| export.name.clone());
            assert_eq!(found.unwrap_or_else(|why| why), expect, "{word}");
        };
        let place = names[0];
        for form in
            [place, "acme:shop/orders#place", "orders#place", "place", "orders.place", "acme:shop/orders.place@1.2.0"]
        {
            check(form, place);
        }
        check("add", "add");
        check("admin.same", names[2]);
        check("same", "`same` is exported by several interfaces");
        check("sub", &format!("there is no export `sub`; it has: {}", names.join(", ")));
        check("", &format!("there is no export ``; it has: {}", names.join(", ")));
        assert_eq!(find_export(&[], "f"), Err("there is no export `f`; it has none".to_owned()));
    }
}

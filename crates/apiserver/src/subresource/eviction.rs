//! `pods/eviction`: a delete that a PodDisruptionBudget may refuse.
//!
//! Follows `pkg/registry/core/pod/storage/eviction.go`. Owns: which budget is asked, what it answers, and taking one
//! disruption from it. What a budget allows is the disruption controller's to say, in the budget's status.

use api::kinds::Kind;
use api::meta;
use api::schema::{Body, check_body};
use api::selector::LabelSelector;
use api::status::{Status, Subject};
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::core::{Request, Snapshot, prefix};
use crate::object::encode::decode;
use crate::registry::delete::{DeleteOptions, delete};
use crate::registry::meta::format_time;
use crate::registry::write::{Part, update};
use crate::rest::write::Input;
use crate::wire::query::Parameters;
use crate::wire::respond;

/// How often a pod that changes meanwhile is looked at anew.
const ATTEMPTS_MAX: usize = 8;
/// Evictions of one budget that its controller has not seen yet.
const DISRUPTED_PODS_MAX: usize = 2000;
const REFUSAL: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const MANY_BUDGETS: &str =
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";

fn budgets_kind() -> &'static Kind {
    api::kinds::lookup("policy", "v1", "poddisruptionbudgets").expect("budgets are in the kinds table")
}

pub async fn evict(request: &Request, input: Input) -> Result<Response, Status> {
    let (mut object, _) = input.object().await?;
    check_body(Body::Eviction, &mut object, request.parameters.validation)?;
    let named = meta::name(&object);
    if !named.is_empty() && named != request.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = DeleteOptions::new(&request.parameters, object.get("deleteOptions").filter(|o| o.is_object()))?;
    // The deletion is one of the pod itself.
    let pod = Request { subresource: String::new(), ..request.clone() };
    let mut attempts = 1;
    while let Err(refusal) = evict_once(&pod, &options).await {
        match refusal {
            Refusal::Changed(_) if attempts < ATTEMPTS_MAX => attempts += 1,
            Refusal::Changed(status) | Refusal::Final(status) => return Err(status),
        }
    }
    let success = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    respond::object(request.accepted.media, StatusCode::CREATED, &success)
}

enum Refusal {
    /// The pod is another one than the decision was about.
    Changed(Status),
    Final(Status),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Final(status)
    }
}

async fn evict_once(pod: &Request, options: &DeleteOptions) -> Result<(), Refusal> {
    let view = pod.core.fresh().await?;
    let object = decode(&pod.find(&view)?.value);
    options.check(&pod.subject(), &object)?;
    let mut options = options.clone();
    let asked_for_revision = options.resource_version.is_some();
    match decide(&object, &budgets_of(pod, &view, &object))? {
        Decision::Free => {}
        Decision::AsItIs => options.resource_version = Some(meta::resource_version(&object).to_owned()),
        Decision::Ask(budget) => take(pod, &budget, options.dry_run).await?,
    }
    if !options.dry_run {
        let marked = mark(pod, options.resource_version.as_deref()).await;
        let revision = marked.map_err(|status| changed(status, asked_for_revision))?;
        if options.resource_version.is_some() {
            options.resource_version = Some(revision);
        }
    }
    delete(pod, &options).await.map(drop).map_err(|status| changed(status, asked_for_revision))
}

/// A conflict with what the client demands is the client's to solve.
fn changed(status: Status, asked_for_revision: bool) -> Refusal {
    if status.code == 409 && !asked_for_revision { Refusal::Changed(status) } else { Refusal::Final(status) }
}

fn budgets_of(request: &Request, view: &Snapshot, pod: &Value) -> Vec<Value> {
    let of_namespace = prefix(budgets_kind(), &request.namespace);
    let all = view.range(&of_namespace, None).map(|entry| decode(&entry.value));
    all.filter(|budget| selects(budget, pod)).collect()
}

/// An empty selector is every pod, an absent one is none.
fn selects(budget: &Value, pod: &Value) -> bool {
    let Some(selector) = budget.pointer("/spec/selector").filter(|selector| selector.is_object()) else { return false };
    LabelSelector::from_object(selector).is_ok_and(|selector| selector.matches_object(pod))
}

#[derive(Debug, PartialEq)]
enum Decision {
    /// No budget has a say.
    Free,
    /// No budget has a say as long as the pod stays as it is.
    AsItIs,
    Ask(String),
}

fn decide(pod: &Value, budgets: &[Value]) -> Result<Decision, Status> {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending");
    if matches!(phase, "Succeeded" | "Failed") || !meta::deletion_timestamp(pod).is_empty() {
        return Ok(Decision::Free);
    }
    if phase == "Pending" {
        return Ok(Decision::AsItIs);
    }
    let budget = match budgets {
        [] => return Ok(Decision::Free),
        [budget] => budget,
        _ => return Err(Status::internal(MANY_BUDGETS)),
    };
    if !is_ready(pod) {
        let policy = budget.pointer("/spec/unhealthyPodEvictionPolicy").and_then(Value::as_str);
        let desired = count(budget, "desiredHealthy");
        if policy == Some("AlwaysAllow") || (desired > 0 && count(budget, "currentHealthy") >= desired) {
            return Ok(Decision::AsItIs);
        }
    }
    Ok(Decision::Ask(meta::name(budget).to_owned()))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn count(budget: &Value, field: &str) -> i64 {
    budget.get("status").and_then(|status| status.get(field)).and_then(Value::as_i64).unwrap_or(0)
}

/// Takes one disruption from a budget, or is refused.
async fn take(pod: &Request, budget: &str, dry_run: bool) -> Result<(), Status> {
    let request = Request {
        subresource: "status".to_owned(),
        parameters: Parameters { dry_run, ..Parameters::default() },
        ..Request::by_server(&pod.core, budgets_kind(), &pod.namespace, budget)
    };
    let change = |present: &Value| taken(present, &pod.name, Timestamp::now());
    update(&request, Part::Status, Vec::new(), change).await.map(drop)
}

fn taken(budget: &Value, pod: &str, now: Timestamp) -> Result<Value, Status> {
    let name = meta::name(budget);
    let forbidden =
        |why: &str| Err(Status::forbidden(&Subject { group: "policy", resource: "poddisruptionbudgets", name }, why));
    if count(budget, "observedGeneration") < meta::generation(budget) {
        return Err(refusal(format!("The disruption budget {name} is still being processed by the server.")));
    }
    let allowed = count(budget, "disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    let disrupted = budget.pointer("/status/disruptedPods").and_then(Value::as_object);
    if disrupted.map_or(0, serde_json::Map::len) > DISRUPTED_PODS_MAX {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(refusal(why_none(budget)));
    }
    let mut new = budget.clone();
    let status = &mut new["status"];
    status["disruptionsAllowed"] = (allowed - 1).into();
    if !status["disruptedPods"].is_object() {
        status["disruptedPods"] = json!({});
    }
    status["disruptedPods"][pod] = format_time(now).into();
    if allowed == 1
        && let Some(conditions) = status["conditions"].as_array_mut()
    {
        for condition in conditions.iter_mut().filter(|condition| condition["type"] == "DisruptionAllowed") {
            condition["status"] = "False".into();
            condition["reason"] = "InsufficientPods".into();
            condition["lastTransitionTime"] = format_time(now).into();
        }
    }
    Ok(new)
}

fn why_none(budget: &Value) -> String {
    let name = meta::name(budget);
    let conditions = budget.pointer("/status/conditions").and_then(Value::as_array);
    let failed = conditions.into_iter().flatten().find(|condition| {
        condition["type"] == "DisruptionAllowed"
            && condition["status"] == "False"
            && condition["reason"] == "SyncFailed"
    });
    match failed {
        Some(condition) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            condition["message"].as_str().unwrap_or_default()
        ),
        None => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count(budget, "desiredHealthy"),
            count(budget, "currentHealthy")
        ),
    }
}

/// 429 without a time to wait: clients such as `kubectl drain` have their own.
fn refusal(cause: String) -> Status {
    let mut status = Status::too_many_requests(REFUSAL, 0);
    status.details = json!({ "causes": [{ "reason": "DisruptionBudget", "message": cause }] });
    status
}

/// Says in the pod's status why it goes, so that a Job does not count it as a failure. The pod's new revision comes back.
async fn mark(pod: &Request, revision: Option<&str>) -> Result<String, Status> {
    let request = Request {
        subresource: "status".to_owned(),
        parameters: Parameters::default(),
        ..Request::by_server(&pod.core, pod.kind, &pod.namespace, &pod.name)
    };
    let change = |present: &Value| {
        let mut new = marked(present, Timestamp::now());
        if let Some(revision) = revision {
            meta::set(&mut new, "resourceVersion", revision);
        }
        Ok(new)
    };
    let done = update(&request, Part::Status, Vec::new(), change).await?;
    Ok(meta::resource_version(&decode(&done.bytes)).to_owned())
}

fn marked(pod: &Value, now: Timestamp) -> Value {
    let mut new = pod.clone();
    if !new["status"].is_object() {
        new["status"] = json!({});
    }
    let mut conditions = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|c| c["type"] == "DisruptionTarget" && c["status"] == "True") {
        return new;
    }
    conditions.retain(|condition| condition["type"] != "DisruptionTarget");
    conditions.push(json!({ "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": format_time(now),
        "observedGeneration": meta::generation(pod) }));
    new["status"]["conditions"] = conditions.into();
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str, ready: &str) -> Value {
        json!({ "metadata": { "name": "p", "labels": { "app": "web" } },
            "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] } })
    }

    fn budget(allowed: i64, healthy: (i64, i64), policy: Option<&str>) -> Value {
        json!({ "metadata": { "name": "b", "generation": 2 },
            "spec": { "selector": { "matchLabels": { "app": "web" } }, "unhealthyPodEvictionPolicy": policy },
            "status": { "observedGeneration": 2, "disruptionsAllowed": allowed, "currentHealthy": healthy.0,
                "desiredHealthy": healthy.1, "conditions": [{ "type": "DisruptionAllowed", "status": "True" }] } })
    }

    #[test]
    fn who_is_asked() {
        let check = |pod: &Value, budgets: &[Value], expect: Result<Decision, u16>| {
            assert_eq!(decide(pod, budgets).map_err(|status| status.code), expect, "{pod} {budgets:?}");
        };
        let one = [budget(0, (1, 1), None)];
        let ask = || Ok(Decision::Ask("b".to_owned()));
        check(&pod("Running", "True"), &[], Ok(Decision::Free));
        check(&pod("Running", "True"), &one, ask());
        check(&pod("Succeeded", "False"), &one, Ok(Decision::Free));
        check(&pod("Pending", "False"), &one, Ok(Decision::AsItIs));
        check(&pod("Running", "True"), &[one[0].clone(), one[0].clone()], Err(500));
        // A pod that is not ready goes while the others suffice, or always if the budget says so.
        check(&pod("Running", "False"), &one, Ok(Decision::AsItIs));
        check(&pod("Running", "False"), &[budget(0, (0, 1), None)], ask());
        check(&pod("Running", "False"), &[budget(0, (0, 0), None)], ask());
        check(&pod("Running", "False"), &[budget(0, (0, 1), Some("AlwaysAllow"))], Ok(Decision::AsItIs));
        check(&pod("Running", "False"), &[budget(0, (0, 1), Some("IfHealthyBudget"))], ask());
    }

    #[test]
    fn selectors() {
        let check = |selector: Value, expect: bool| {
            assert_eq!(
                selects(&json!({ "spec": { "selector": selector } }), &pod("Running", "True")),
                expect,
                "{selector}"
            );
        };
        check(json!({}), true);
        check(Value::Null, false);
        check(json!({ "matchLabels": { "app": "web" } }), true);
        check(json!({ "matchLabels": { "app": "db" } }), false);
    }

    #[test]
    fn a_budget_gives_what_it_has() {
        let now = Timestamp::UNIX_EPOCH;
        let new = taken(&budget(2, (3, 1), None), "p", now).unwrap();
        assert_eq!(new["status"]["disruptionsAllowed"], 1);
        assert_eq!(new["status"]["disruptedPods"], json!({ "p": "1970-01-01T00:00:00Z" }));
        assert_eq!(new["status"]["conditions"][0]["status"], "True");
        let last = taken(&budget(1, (2, 1), None), "p", now).unwrap();
        assert_eq!(last["status"]["conditions"][0]["reason"], "InsufficientPods");
    }

    #[test]
    fn refusals_name_their_reason() {
        let check = |budget: &Value, code: u16, cause: &str| {
            let status = taken(budget, "p", Timestamp::UNIX_EPOCH).unwrap_err();
            let said = status.details["causes"][0]["message"].as_str().unwrap_or(&status.message).to_owned();
            assert_eq!((status.code, said.as_str()), (code, cause));
        };
        check(&budget(0, (1, 1), None), 429, "The disruption budget b needs 1 healthy pods and has 1 currently");
        let mut behind = budget(1, (1, 1), None);
        behind["metadata"]["generation"] = 3.into();
        check(&behind, 429, "The disruption budget b is still being processed by the server.");
        let mut failed = budget(0, (0, 0), None);
        failed["status"]["conditions"] =
            json!([{ "type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no scale" }]);
        check(
            &failed,
            429,
            "The disruption budget b does not allow evicting pods currently because it failed sync: no scale",
        );
        let negative = budget(-1, (0, 0), None);
        let words = "poddisruptionbudgets.policy \"b\" is forbidden: pdb disruptions allowed is negative";
        check(&negative, 403, words);
    }
}

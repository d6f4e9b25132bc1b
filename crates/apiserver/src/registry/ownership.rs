//! Who owns the fields of an object after a write: the step between defaults and admission.
//!
//! Owns: which rules of `api::apply` a write follows, asking a converter for the versions in which there are owners, and
//! the answers to applies that are refused. May not know: HTTP, the store.

use std::collections::BTreeMap;

use api::apply::{self, Question, Refusal, Typing, Writer, paths};
use api::kinds::Kind;
use api::meta;
use api::status::Status;
use jiff::Timestamp;
use serde_json::Value;

use super::meta::format_time;
use super::strategy_of;
use super::write::Part;
use crate::core::Request;
use crate::custom::convert::Opener;

/// How a write changes `managedFields`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Who changes a field owns it.
    Tracked,
    /// The change is an apply, which has settled that already.
    Applied,
    /// Nobody owns what changes: a pod's node is as little the scheduler's as its address is the agent's.
    Untracked,
}

/// Puts what a client sent as `managedFields` into an object that was made anew meanwhile.
pub fn offer(object: &mut Value, managed_fields: Option<Value>) {
    match managed_fields {
        Some(list) => meta::set(object, "managedFields", list),
        None => meta::unset(object, "managedFields"),
    }
}

/// Sets `metadata.managedFields`; both objects are in the stored form, `old` is `None` on create.
pub fn settle(request: &Request, part: Part, old: Option<&Value>, new: &mut Value) {
    match request.ownership {
        Ownership::Applied => {}
        Ownership::Untracked => offer(new, old.and_then(|old| old.pointer("/metadata/managedFields").cloned())),
        Ownership::Tracked => {
            with_writer(request, request.kind.stored(), part, |writer| apply::track(writer, old, new));
        }
    }
}

/// A new object, with its owners.
pub async fn created(request: &Request, mut object: Value) -> Result<Value, Status> {
    if !needs_converter(request) {
        settle(request, Part::Main, None, &mut object);
        return Ok(object);
    }
    let decide = || {
        let mut object = object.clone();
        settle(request, Part::Main, None, &mut object);
        Ok(object)
    };
    with_conversions(request, decide).await
}

/// An object with a configuration applied, in the served form; `live` is `None` when there is none yet.
pub fn applied(request: &Request, part: Part, live: Option<&Value>, config: &Value) -> Result<Value, Status> {
    let force = request.parameters.force;
    with_writer(request, request.kind, part, |writer| apply::apply(writer, live, config, force))
        .map_err(|refusal| refuse(request.kind, config, &refusal))
}

/// `kind` is the form in which objects come.
fn with_writer<T>(request: &Request, kind: &'static Kind, part: Part, then: impl FnOnce(&Writer<'_>) -> T) -> T {
    let unowned = paths(strategy_of(kind.stored()).unowned(kind.stored(), part));
    then(&Writer {
        typing: match &request.custom {
            Some(custom) => Typing::Custom(&custom.definition, custom.at),
            None => Typing::Kind(kind),
        },
        api_version: &request.kind.api_version(),
        manager: &request.manager,
        subresource: &request.subresource,
        unowned: &unowned,
        now: &format_time(Timestamp::now()),
        conversions: needs_converter(request).then_some(&*request.conversions),
    })
}

/// How often the converter is asked before a write: the more versions there are entries of, the more steps an apply
/// takes that gives something up.
const ROUNDS_MAX: usize = 24;

fn needs_converter(request: &Request) -> bool {
    request.custom.as_ref().is_some_and(|custom| custom.definition.conversion.is_some())
}

/// Runs `decide` until it has all objects in all the versions in which somebody owns fields.
///
/// A converter that fails makes an apply fail. Every other write goes on, and what is owned in the versions that were not
/// to be had stays owned. (Kubernetes drops all entries then.)
pub async fn with_conversions<T>(request: &Request, decide: impl Fn() -> Result<T, Status>) -> Result<T, Status> {
    if !needs_converter(request) {
        return decide();
    }
    request.conversions.forget();
    for _ in 0..ROUNDS_MAX {
        let outcome = decide();
        let questions = request.conversions.questions();
        if questions.is_empty() {
            return outcome;
        }
        learn(request, questions).await?;
    }
    Err(Status::internal(format!("field ownership was not settled after {ROUNDS_MAX} conversions")))
}

/// Asks the converter, once for each version.
async fn learn(request: &Request, questions: Vec<Question>) -> Result<(), Status> {
    let opener = Opener::of(&request.core, request.custom.as_ref())?;
    let opener = opener.ok_or_else(|| Status::internal("a definition without a converter asks for one"))?;
    let mut by_version: BTreeMap<String, Vec<Question>> = BTreeMap::new();
    for question in questions {
        by_version.entry(question.api_version.clone()).or_default().push(question);
    }
    for (api_version, questions) in by_version {
        let objects: Vec<Value> = questions.iter().map(|question| question.object.clone()).collect();
        let answers: Vec<Option<Value>> = match opener.values(&api_version, &objects).await {
            Ok(converted) => converted.into_iter().map(Some).collect(),
            Err(status) if request.ownership == Ownership::Applied => return Err(status),
            Err(status) => {
                tracing::warn!(api_version, why = status.message, "ownership in a version stays as it was");
                vec![None; questions.len()]
            }
        };
        for (question, answer) in questions.into_iter().zip(answers) {
            request.conversions.answer(question, answer);
        }
    }
    Ok(())
}

/// As Go prints a type: `apps/v1, Kind=Deployment`, `/v1, Kind=Pod`.
pub fn type_text(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

/// kube-apiserver's answers, the one without a reason included.
fn refuse(kind: &Kind, config: &Value, refusal: &Refusal) -> Status {
    match refusal {
        Refusal::ManagedFields => Status::bad_request("metadata.managedFields must be nil"),
        Refusal::Conflicts(conflicts) => Status::apply_conflict(conflicts),
        Refusal::Untyped(complaints) => {
            let list = match complaints.as_slice() {
                [only] => only.clone(),
                many => format!("errors:\n  {}", many.join("\n  ")),
            };
            let (namespace, name) = (meta::namespace(config), meta::name(config));
            let object = format!("{namespace}/{name}; {}", type_text(&kind.api_version(), kind.kind));
            Status::unknown(format!("failed to create typed patch object ({object}): {list}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refusals() {
        let kind = api::kinds::lookup("apps", "v1", "deployments").unwrap();
        let config = json!({ "metadata": { "name": "web", "namespace": "shop" } });
        let check = |refusal: Refusal, code: u16, message: &str| {
            let status = refuse(kind, &config, &refusal);
            assert_eq!((status.code, status.message.as_str()), (code, message));
        };
        check(Refusal::ManagedFields, 400, "metadata.managedFields must be nil");
        check(
            Refusal::Untyped(vec![".spec.foo: field not declared in schema".to_owned()]),
            500,
            "failed to create typed patch object (shop/web; apps/v1, Kind=Deployment): .spec.foo: field not declared \
             in schema",
        );
    }
}

//! ValidatingAdmissionPolicies: which are about a request, with which parameters, and what their answers mean.

use std::rc::Rc;
use std::sync::Arc;

use api::admission::policy::{Action, Binding, Failure, Inputs, ParamKind, Policy, REQUEST_STEPS_MAX};
use api::kinds::{self, Kind};
use api::status::Status;
use serde_json::{Value, json};

use super::attributes::{
    asked, authorization, equivalents, form_of, is_reviewed, namespace_object, request, with_selected,
};
use super::authorizer::Authorizer;
use super::registered::Bound;
use crate::admission::Review;
use crate::core::{key, prefix};
use crate::custom::convert::api_version_of;
use crate::object::encode::decode;

/// Warnings for the client, or the refusal of the first policy that denies.
pub async fn validate(review: &Review<'_>, object: Option<&Value>) -> Result<Vec<String>, Status> {
    let registered = Arc::clone(&review.request.core.hooks.current());
    if registered.policies.is_empty() || !is_reviewed(review) {
        return Ok(Vec::new());
    }
    // Behind a pointer, so that writes that no policy is about do not carry its state.
    let forms = Box::pin(forms(review, object, &registered.policies)).await?;
    let mut evaluation =
        Evaluation { review, object, forms, budget: REQUEST_STEPS_MAX, warnings: Vec::new(), denied: None };
    for bound in &registered.policies {
        evaluation.policy(bound);
    }
    match evaluation.denied {
        Some(status) => Err(status),
        None => Ok(evaluation.warnings),
    }
}

/// What policies see: the object and the old one in a version.
struct Shown {
    kind: &'static Kind,
    object: Value,
    old: Value,
}

/// In every version that a policy wants; each is made once.
async fn forms(review: &Review<'_>, object: Option<&Value>, policies: &[Bound<Policy>]) -> Result<Vec<Shown>, Status> {
    let mut forms: Vec<Shown> = Vec::new();
    for bound in policies {
        let Some(kind) = bound.policy.matching.kind_of(&asked(review), &equivalents(review)) else { continue };
        if !forms.iter().any(|shown| std::ptr::eq(shown.kind, kind)) {
            let (object, old) = (form_of(review, kind, object).await?, form_of(review, kind, review.old).await?);
            forms.push(Shown { kind, object, old });
        }
    }
    Ok(forms)
}

struct Evaluation<'a, 'r> {
    review: &'a Review<'r>,
    object: Option<&'a Value>,
    forms: Vec<Shown>,
    /// Steps left for all policies.
    budget: u64,
    warnings: Vec<String>,
    /// By the first that denies; the others still warn.
    denied: Option<Status>,
}

impl Evaluation<'_, '_> {
    fn policy(&mut self, bound: &Bound<Policy>) {
        let (review, policy) = (self.review, &bound.policy);
        let Some(kind) = policy.matching.kind_of(&asked(review), &equivalents(review)) else { return };
        if !with_selected(review, self.object, |selected| policy.matching.selects(selected)) {
            return;
        }
        let at = self.forms.iter().position(|shown| std::ptr::eq(shown.kind, kind));
        let at = at.expect("every policy's form was made before");
        let (asking, namespace) = (request(review, kind, ""), namespace_object(review));
        let core = &review.request.core;
        let authorizer = Authorizer::new(core.rbac.current(), review.request.user.clone(), &authorization(review));
        let authorizer = Rc::new(authorizer);
        for binding in &bound.bindings {
            if !is_about(binding, review, self.object) {
                continue;
            }
            let found = match &policy.params {
                Some(kind) => params(review, kind, binding),
                None => Ok(vec![Value::Null]),
            };
            let all = match found {
                Ok(all) => all,
                Err(_) if policy.ignores_failures => continue,
                Err(why) => {
                    let failure = Failure::invalid(format!("failed to configure binding: {why}"));
                    self.deny(&policy.name, binding, &failure);
                    continue;
                }
            };
            for params in &all {
                let Shown { object, old, .. } = &self.forms[at];
                let inputs = Inputs {
                    object,
                    old,
                    request: &asking,
                    namespace: &namespace,
                    params,
                    authorizer: authorizer.clone(),
                };
                let outcome = policy.evaluate(&inputs, &mut self.budget);
                outcome.failures.iter().for_each(|failure| self.act(&policy.name, binding, failure));
                for (key, value) in outcome.annotations {
                    tracing::info!(policy = policy.name, binding = binding.name, key, value, "audit annotation");
                }
            }
        }
    }

    fn act(&mut self, policy: &str, binding: &Binding, failure: &Failure) {
        for action in &binding.actions {
            match action {
                Action::Deny => self.deny(policy, binding, failure),
                Action::Warn => self.warnings.push(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{}': {}",
                    binding.name, failure.message
                )),
                // There is no audit log yet: what it would hold goes to the server's own.
                Action::Audit => {
                    let (name, namespace) = (self.review.name, &self.review.request.namespace);
                    tracing::info!(policy, binding = binding.name, %namespace, name, "validation failure: {}", failure.message);
                }
            }
        }
    }

    fn deny(&mut self, policy: &str, binding: &Binding, failure: &Failure) {
        if self.denied.is_some() {
            return;
        }
        let message = format!(
            "ValidatingAdmissionPolicy '{policy}' with binding '{}' denied request: {}",
            binding.name, failure.message
        );
        let mut status = self.review.refuse(&message);
        status.reason = failure.reason;
        status.code = failure.code;
        status.details["causes"] = json!([{ "message": message }]);
        self.denied = Some(status);
    }
}

/// Whether a binding is about a request that its policy is about.
pub(super) fn is_about(binding: &Binding, review: &Review<'_>, object: Option<&Value>) -> bool {
    binding.matching.as_ref().is_none_or(|matching| {
        matching.kind_of(&asked(review), &equivalents(review)).is_some()
            && with_selected(review, object, |selected| matching.selects(selected))
    })
}

/// The kind of parameters, and its definition's opening of stored objects.
fn param_objects(review: &Review<'_>, wanted: &ParamKind) -> Option<(&'static Kind, Option<api::custom::Custom>)> {
    let ParamKind { group, version, kind } = wanted;
    if let Some(kind) = kinds::by_kind(group, version, kind) {
        return Some((kind, None));
    }
    let catalog = review.request.core.catalog.current();
    let served = catalog.served();
    let found = served.iter().find(|custom| {
        let row = custom.kind();
        row.group == group && row.version == version && row.kind == kind
    });
    found.map(|custom| (custom.kind(), Some((*custom).clone())))
}

/// The parameters of a binding: one null when it names none.
pub(super) fn params(review: &Review<'_>, wanted: &ParamKind, binding: &Binding) -> Result<Vec<Value>, String> {
    let Some(reference) = &binding.params else { return Ok(vec![Value::Null]) };
    let unknown = || format!("paramKind kind `{}/{}, Kind={}` not known", wanted.group, wanted.version, wanted.kind);
    let (kind, custom) = param_objects(review, wanted).ok_or_else(unknown)?;
    let namespace = match (kind.namespaced, reference.namespace.as_str(), review.request.namespace.as_str()) {
        (false, "", _) => "",
        (false, _, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (true, "", "") => {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.to_owned());
        }
        (true, "", of_request) => of_request,
        (true, named, _) => named,
    };
    let open = |bytes: &[u8]| {
        let mut object = decode(bytes);
        match &custom {
            Some(custom) if custom.definition.conversion.is_some() && !kind.is_api_version(api_version_of(bytes)) => {
                return Err("parameters that only a webhook could convert to the paramKind are not read".to_owned());
            }
            Some(custom) => custom.present(&mut object),
            None => kinds::convert::convert(kind.stored(), kind, &mut object),
        }
        Ok(object)
    };
    let found: Vec<Value> = match &reference.selector {
        Some(selector) => {
            let folder = prefix(kind, namespace);
            let all = review.view.range(&folder, None).filter(|entry| selector.matches(|key| entry.facets.label(key)));
            all.map(|entry| open(&entry.value)).collect::<Result<_, String>>()?
        }
        None => {
            let entry = review.view.get(&key(kind, namespace, &reference.name));
            entry.map(|entry| open(&entry.value)).into_iter().collect::<Result<_, String>>()?
        }
    };
    if found.is_empty() && reference.required {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}

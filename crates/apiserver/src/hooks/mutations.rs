//! MutatingAdmissionPolicies: which are about a request, and carrying out what they ask for.

use std::rc::Rc;
use std::sync::Arc;

use api::admission::mutation::{MutatingPolicy, Patch};
use api::admission::policy::{Binding, Inputs, REQUEST_STEPS_MAX};
use api::apply::{Typing, laid_over};
use api::kinds::Kind;
use api::patch::json_patch;
use api::status::Status;
use serde_json::Value;

use super::attributes::{
    asked, authorization, equivalents, form_of, from_form_of, in_form_of, is_reviewed, namespace_object, request,
    settle, with_selected,
};
use super::authorizer::Authorizer;
use super::policies::{is_about, params};
use super::registered::Bound;
use crate::admission::Review;

/// Lets the policies change the object, in order, and those that want to know once more after later ones.
pub async fn mutate(review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
    let registered = Arc::clone(&review.request.core.hooks.current());
    let policies = &registered.mutations;
    if policies.is_empty() || !is_reviewed(review) || review.request.subresource == "scale" {
        return Ok(());
    }
    // Behind a pointer, so that writes that no policy is about do not carry its state.
    Box::pin(in_order(review, policies, object)).await
}

async fn in_order(review: &Review<'_>, policies: &[Bound<MutatingPolicy>], object: &mut Value) -> Result<(), Status> {
    let mut budget = REQUEST_STEPS_MAX;
    let (mut again, mut stale) = (Vec::new(), Vec::new());
    for (index, bound) in policies.iter().enumerate() {
        let before = object.clone();
        one(review, bound, object, &mut budget).await?;
        if *object != before {
            stale.clone_from(&again);
        }
        if bound.policy.reinvoked {
            again.push(index);
        }
    }
    for index in stale {
        one(review, &policies[index], object, &mut budget).await?;
    }
    Ok(())
}

async fn one(
    review: &Review<'_>,
    bound: &Bound<MutatingPolicy>,
    object: &mut Value,
    budget: &mut u64,
) -> Result<(), Status> {
    let policy = &bound.policy;
    let Some(kind) = policy.matching.kind_of(&asked(review), &equivalents(review)) else { return Ok(()) };
    if !with_selected(review, Some(object), |selected| policy.matching.selects(selected)) {
        return Ok(());
    }
    for binding in &bound.bindings {
        if !is_about(binding, review, Some(object)) {
            continue;
        }
        let shown = in_form_of(review, kind, object).await?;
        let old = form_of(review, kind, review.old).await?;
        let changed = match changed(review, policy, (binding, kind), (shown, &old), budget) {
            Ok(Some(mut shown)) => {
                from_form_of(review, kind, &mut shown).await?;
                settle(review, &mut shown).map(|()| Some(shown)).map_err(|status| status.message)
            }
            unchanged => unchanged,
        };
        match changed {
            Ok(Some(new)) => *object = new,
            Ok(None) => {}
            Err(why) if policy.ignores_failures => {
                tracing::info!(policy = policy.name, binding = binding.name, why, "a policy failed, failing open");
            }
            Err(why) => {
                let (policy, binding) = (&policy.name, &binding.name);
                let why = format!("policy '{policy}' with binding '{binding}' denied request: {why}");
                let mut status = review.refuse(&why);
                status.message = why;
                return Err(status);
            }
        }
    }
    Ok(())
}

/// The object, as the policy sees it, after every mutation; `None` where its conditions do not hold.
fn changed(
    review: &Review<'_>,
    policy: &MutatingPolicy,
    (binding, kind): (&Binding, &'static Kind),
    (mut shown, old): (Value, &Value),
    budget: &mut u64,
) -> Result<Option<Value>, String> {
    let all = match &policy.params {
        Some(kind) => params(review, kind, binding).map_err(|why| format!("failed to configure binding: {why}"))?,
        None => vec![Value::Null],
    };
    let (request, namespace) = (request(review, kind, ""), namespace_object(review));
    let user = review.request.user.clone();
    let authorizer = Rc::new(Authorizer::new(review.request.core.rbac.current(), user, &authorization(review)));
    let before = shown.clone();
    for params in &all {
        let inputs = Inputs {
            object: &Value::Null,
            old,
            request: &request,
            namespace: &namespace,
            params,
            authorizer: authorizer.clone(),
        };
        if !policy.applies(&Inputs { object: &shown, ..inputs.clone() }, budget)? {
            continue;
        }
        // One that does not compile has none, and says so when it is asked for the first.
        for index in 0..policy.len().max(1) {
            let patch = policy.patch(index, &Inputs { object: &shown, ..inputs.clone() }, budget)?;
            shown = patched(review, kind, &shown, &patch)?;
        }
    }
    if shown == before {
        return Ok(None);
    }
    Ok(Some(shown))
}

fn patched(review: &Review<'_>, kind: &'static Kind, object: &Value, patch: &Patch) -> Result<Value, String> {
    match patch {
        Patch::Json(operations) => {
            json_patch(object, operations).map_err(|error| format!("error applying patch: {error}"))
        }
        Patch::Apply(config) => {
            let typing = match &review.request.custom {
                Some(custom) => Typing::Custom(&custom.definition, custom.at),
                None => Typing::Kind(kind),
            };
            laid_over(typing, object, config).map_err(|why| format!("error applying configuration: {}", why.join(", ")))
        }
    }
}

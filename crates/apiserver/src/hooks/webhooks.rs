//! Mutating and validating webhooks: who is called, in which order, and what follows.
//!
//! Follows `admission/plugin/webhook/{mutating,validating}/dispatcher.go`. Mutating ones are called one after another,
//! and once more when a later one changed what an earlier one had seen and that one wants to know; validating ones are
//! called at once.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::admission::policy::{Conditions, Inputs, REQUEST_STEPS_MAX};
use api::admission::rules::Matching;
use api::kinds::Kind;
use api::patch::json_patch;
use api::status::Status;
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use serde_json::Value;

use super::attributes::{
    asked, authorization, equivalents, form_of, from_form_of, is_reviewed, operation, request, settle, with_selected,
};
use super::authorizer::Authorizer;
use super::client::WebhookClient;
use super::function::{self, FunctionHook};
use super::review::{Verdict, question, read, version_of};
use crate::admission::Review;
use crate::reach::Dialer;

const TIMEOUT_SECONDS: u64 = 10;

/// One webhook, ready to be called.
pub struct Webhook {
    name: String,
    mutating: bool,
    matching: Matching,
    conditions: Result<Conditions, String>,
    ignores_failures: bool,
    /// It does nothing else when it is told that nothing will be written.
    allows_dry_run: bool,
    reinvoked: bool,
    timeout_seconds: u64,
    version: Option<&'static str>,
    called: Result<Called, String>,
}

/// What is asked.
enum Called {
    Server(Box<WebhookClient>),
    Function(FunctionHook),
}

impl Webhook {
    /// From a member of `webhooks`. What is wrong with it fails its calls.
    pub fn compile(configuration: &Value, hook: &Value, mutating: bool, dialer: &Dialer) -> Self {
        let text = |field: &str| hook.get(field).and_then(Value::as_str).unwrap_or("");
        let versions = hook.get("admissionReviewVersions").and_then(Value::as_array).into_iter().flatten();
        let versions: Vec<String> = versions.filter_map(Value::as_str).map(str::to_owned).collect();
        let config = hook.get("clientConfig").unwrap_or(&Value::Null);
        let called = if function::is_named(configuration, text("name")) {
            FunctionHook::read(config, function::EXPORT).map(Called::Function)
        } else {
            WebhookClient::new(config, dialer).map(|client| Called::Server(Box::new(client)))
        };
        if let Err(why) = &called {
            let configuration = api::meta::name(configuration);
            tracing::warn!(configuration, webhook = text("name"), why, "a webhook cannot be called");
        }
        Self {
            name: text("name").to_owned(),
            mutating,
            matching: Matching::of_webhook(hook),
            conditions: Conditions::compile(hook, false),
            ignores_failures: text("failurePolicy") == "Ignore",
            allows_dry_run: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            reinvoked: text("reinvocationPolicy") == "IfNeeded",
            timeout_seconds: hook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(TIMEOUT_SECONDS),
            version: version_of(&versions),
            called,
        }
    }

    /// The kind that the webhook is to be shown, if it is to be called.
    async fn concerns(&self, review: &Review<'_>, object: Option<&Value>) -> Result<Option<&'static Kind>, Status> {
        let Some(kind) = self.matching.kind_of(&asked(review), &equivalents(review)) else { return Ok(None) };
        if !with_selected(review, object, |selected| self.matching.selects(selected)) {
            return Ok(None);
        }
        let holds = match &self.conditions {
            Ok(conditions) if conditions.is_empty() => return Ok(Some(kind)),
            Ok(conditions) => {
                let shown = form_of(review, kind, object).await?;
                let old = form_of(review, kind, review.old).await?;
                self.conditions_hold(conditions, review, kind, (&shown, &old))
            }
            Err(why) => Err(why.clone()),
        };
        match holds {
            Ok(true) => Ok(Some(kind)),
            Ok(false) => Ok(None),
            Err(_) if self.ignores_failures => Ok(None),
            Err(why) => Err(review.refuse(&why)),
        }
    }

    fn conditions_hold(
        &self,
        conditions: &Conditions,
        review: &Review<'_>,
        kind: &'static Kind,
        (object, old): (&Value, &Value),
    ) -> Result<bool, String> {
        let request = request(review, kind, "");
        let index = review.request.core.rbac.current();
        let authorizer = Authorizer::new(index, review.request.user.clone(), &authorization(review));
        let inputs = Inputs {
            object,
            old,
            request: &request,
            namespace: &Value::Null,
            params: &Value::Null,
            authorizer: Rc::new(authorizer),
        };
        conditions.hold(&inputs, &mut { REQUEST_STEPS_MAX })
    }

    /// Calls the webhook with the object in the form of `kind`. `Ok(None)`: it failed, and that does not matter.
    async fn call(&self, review: &Review<'_>, kind: &'static Kind, object: Value) -> Result<Option<Verdict>, Status> {
        if review.dry_run && !self.allows_dry_run {
            let why = format!("admission webhook {:?} does not support dry run", self.name);
            return Err(Status::bad_request(why));
        }
        let old = form_of(review, kind, review.old).await?;
        match self.ask(review, kind, (object, old)).await {
            Ok(verdict) => Ok(Some(verdict)),
            Err(why) if self.ignores_failures => {
                tracing::warn!(webhook = self.name, why, "failed calling webhook, failing open");
                Ok(None)
            }
            Err(why) => {
                tracing::warn!(webhook = self.name, why, "failed calling webhook, failing closed");
                Err(Status::internal(format!("failed calling webhook {:?}: {why}", self.name)))
            }
        }
    }

    async fn ask(
        &self,
        review: &Review<'_>,
        kind: &'static Kind,
        (object, old): (Value, Value),
    ) -> Result<Verdict, String> {
        let uid = uuid::Uuid::new_v4().to_string();
        let none =
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        let version = self.version.ok_or_else(|| none.to_owned())?;
        let asked = question(version, request(review, kind, &uid), object, old);
        let called = self.called.as_ref().map_err(|why| format!("could not get REST client: {why}"))?;
        let limit = Duration::from_secs(self.timeout_seconds);
        let answer = match called {
            Called::Server(client) => client.post(Bytes::from(asked.to_string()), self.timeout_seconds).await,
            Called::Function(function) => {
                let asking = function.ask(&review.request.core, (version, &uid), &asked);
                let answer = tokio::time::timeout(limit, asking).await;
                answer.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
            }
        };
        let answer = answer.map_err(|why| format!("failed to call webhook: {why}"))?;
        read(&self.name, self.mutating, (version, &uid), &answer)
            .map_err(|why| format!("received invalid webhook response: {why}"))
    }
}

/// Whether any webhook may be called for this request; what they answer is not asked for twice without need.
pub fn may_call(request: &crate::core::Request) -> bool {
    let registered = request.core.hooks.current();
    !registered.mutating.is_empty() || !registered.validating.is_empty()
}

/// Lets the mutating webhooks change the object; gives their warnings. On delete there is no object.
pub async fn mutate(review: &Review<'_>, object: Option<&mut Value>) -> Result<Vec<String>, Status> {
    let registered = Arc::clone(&review.request.core.hooks.current());
    if registered.mutating.is_empty() || !is_reviewed(review) || review.request.subresource == "scale" {
        return Ok(Vec::new());
    }
    mutate_all(&registered.mutating, review, object).await
}

/// Behind a pointer, so that writes that no webhook is about do not carry its state.
fn mutate_all<'a>(
    hooks: &'a [Arc<Webhook>],
    review: &'a Review<'_>,
    object: Option<&'a mut Value>,
) -> BoxFuture<'a, Result<Vec<String>, Status>> {
    Box::pin(mutate_in_order(hooks, review, object))
}

async fn mutate_in_order(
    hooks: &[Arc<Webhook>],
    review: &Review<'_>,
    mut object: Option<&mut Value>,
) -> Result<Vec<String>, Status> {
    let mut warnings = Vec::new();
    // Those that were called and want to know what others change later.
    let mut again: Vec<usize> = Vec::new();
    let mut stale: Vec<usize> = Vec::new();
    for (index, hook) in hooks.iter().enumerate() {
        let changed = mutate_one(hook, review, &mut object, &mut warnings).await?;
        let Some(changed) = changed else { continue };
        if changed {
            stale.clone_from(&again);
        }
        if hook.reinvoked {
            again.push(index);
        }
    }
    for index in stale {
        mutate_one(&hooks[index], review, &mut object, &mut warnings).await?;
    }
    Ok(warnings)
}

/// Whether the webhook changed the object; `None` when it was not called.
async fn mutate_one(
    hook: &Webhook,
    review: &Review<'_>,
    object: &mut Option<&mut Value>,
    warnings: &mut Vec<String>,
) -> Result<Option<bool>, Status> {
    let Some(kind) = hook.concerns(review, object.as_deref()).await? else { return Ok(None) };
    let shown = form_of(review, kind, object.as_deref()).await?;
    let patch = match hook.call(review, kind, shown.clone()).await? {
        None => return Ok(Some(false)),
        Some(Verdict::Denied { status, .. }) => return Err(status),
        Some(Verdict::Allowed { patch, warnings: more }) => {
            warnings.extend(more);
            patch
        }
    };
    let Some(patch) = patch else { return Ok(Some(false)) };
    let Some(object) = object.as_deref_mut() else {
        return Err(Status::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    };
    let mut patched = json_patch(&shown, &patch).map_err(Status::internal)?;
    if patched == shown {
        return Ok(Some(false));
    }
    from_form_of(review, kind, &mut patched).await?;
    settle(review, &mut patched)?;
    *object = patched;
    Ok(Some(true))
}

/// Asks the validating webhooks, all at once; gives their warnings.
pub async fn validate(review: &Review<'_>, object: Option<&Value>) -> Result<Vec<String>, Status> {
    let registered = Arc::clone(&review.request.core.hooks.current());
    if registered.validating.is_empty() || !is_reviewed(review) {
        return Ok(Vec::new());
    }
    validate_all(&registered.validating, review, object).await
}

/// As [`mutate_all`].
fn validate_all<'a>(
    hooks: &'a [Arc<Webhook>],
    review: &'a Review<'_>,
    object: Option<&'a Value>,
) -> BoxFuture<'a, Result<Vec<String>, Status>> {
    Box::pin(validate_at_once(hooks, review, object))
}

async fn validate_at_once(
    hooks: &[Arc<Webhook>],
    review: &Review<'_>,
    object: Option<&Value>,
) -> Result<Vec<String>, Status> {
    let mut calls: Vec<BoxFuture<'_, _>> = Vec::new();
    for hook in hooks {
        if let Some(kind) = hook.concerns(review, object).await? {
            let shown = form_of(review, kind, object).await?;
            calls.push(Box::pin(hook.call(review, kind, shown)));
        }
    }
    let mut warnings = Vec::new();
    let mut refusal = None;
    for outcome in join_all(calls).await {
        match outcome {
            Ok(None) => {}
            Ok(Some(Verdict::Allowed { warnings: more, .. })) => warnings.extend(more),
            Ok(Some(Verdict::Denied { status, .. })) | Err(status) => drop(refusal.get_or_insert(status)),
        }
    }
    tracing::debug!(operation = operation(review), name = review.name, "validating webhooks asked");
    match refusal {
        Some(status) => Err(status),
        None => Ok(warnings),
    }
}

//! Delete: preconditions, grace, propagation, finalizers.
//!
//! Follows `rest.BeforeDelete` and `registry.Store.Delete` of k8s.io/apiserver.

use api::meta;
use api::status::{FieldError, Status, Subject};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use store::{Guard, Op, Txn};

use super::attempts::{Attempts, busy};
use super::meta::format_time;
use super::strategy_of;
use super::write::{Proposed, propose};
use crate::admission::{self, Operation, Review};
use crate::core::{Entry, Request, Snapshot};
use crate::custom::form::opened;
use crate::object::encode::{decode, encode};
use crate::wire::query::{Parameters, dry_run};

/// Finalizers that stand for a propagation policy.
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What happens to the objects that this one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// `meta/v1 DeleteOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
}

fn propagation(policy: &str, orphan: Option<bool>) -> Result<Option<Propagation>, Status> {
    match (policy, orphan) {
        ("", None) => Ok(None),
        ("", Some(true)) | ("Orphan", None) => Ok(Some(Propagation::Orphan)),
        ("", Some(false)) | ("Background", None) => Ok(Some(Propagation::Background)),
        ("Foreground", None) => Ok(Some(Propagation::Foreground)),
        (policy, orphan) => {
            let error = if orphan.is_some() {
                FieldError::invalid(
                    "propagationPolicy",
                    policy,
                    "orphanDependents and deletionPropagation cannot be both set",
                )
            } else {
                FieldError::not_supported("propagationPolicy", policy, &["Background", "Foreground", "Orphan"])
            };
            Err(Status::invalid(&Subject { group: "meta.k8s.io", resource: "DeleteOptions", name: "" }, &[error]))
        }
    }
}

impl DeleteOptions {
    /// From the query; a body, when there is one, replaces it.
    pub fn new(parameters: &Parameters, body: Option<&Value>) -> Result<Self, Status> {
        let Some(body) = body else {
            return Ok(Self {
                grace_period_seconds: parameters.grace_period_seconds,
                propagation: propagation(&parameters.propagation_policy, parameters.orphan_dependents)?,
                dry_run: parameters.dry_run,
                ..Self::default()
            });
        };
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let policy = text("/propagationPolicy").unwrap_or_default();
        let dry = text("/dryRun/0").unwrap_or_default();
        Ok(Self {
            grace_period_seconds: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: propagation(&policy, body.get("orphanDependents").and_then(Value::as_bool))?,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            dry_run: dry_run(&dry)? || parameters.dry_run,
        })
    }

    /// Whether the object is the one that the preconditions mean.
    pub fn check(&self, subject: &Subject<'_>, object: &Value) -> Result<(), Status> {
        for (what, field, asked, present) in [
            ("UID", "UID in object meta", &self.uid, meta::uid(object)),
            (
                "ResourceVersion",
                "ResourceVersion in object meta",
                &self.resource_version,
                meta::resource_version(object),
            ),
        ] {
            if let Some(asked) = asked
                && asked != present
            {
                let why = format!("Precondition failed: {what} in precondition: {asked}, {field}: {present}");
                return Err(Status::conflict(subject, &why));
            }
        }
        Ok(())
    }
}

/// What a delete came to.
pub enum Deleted {
    /// The object is gone; its last form.
    Gone(Bytes),
    /// It waits for its grace period, its finalizers or its content.
    Waits(Bytes),
}

/// What a delete came to, and what is to be said about it.
pub struct Deletion {
    pub deleted: Deleted,
    pub warnings: Vec<String>,
}

/// Deletes one object, or begins to.
pub async fn delete(request: &Request, options: &DeleteOptions) -> Result<Deletion, Status> {
    let mut attempts = Attempts::new(&request.core);
    while let Some(view) = attempts.next() {
        let mut warnings = Vec::new();
        match delete_once(request, options, &view, &mut warnings).await {
            Ok(Attempt::Done(deleted)) => return Ok(Deletion { deleted, warnings }),
            Ok(Attempt::Unwritten(deleted)) if attempts.suffices().await? => return Ok(Deletion { deleted, warnings }),
            Ok(Attempt::Unwritten(_) | Attempt::Raced) => {}
            Err(status) => attempts.refused(status).await?,
        }
    }
    Err(busy(request))
}

enum Attempt {
    Done(Deleted),
    /// It is on its way as asked, or it is a dry run.
    Unwritten(Deleted),
    Raced,
}

async fn delete_once(
    request: &Request,
    options: &DeleteOptions,
    view: &Snapshot,
    warnings: &mut Vec<String>,
) -> Result<Attempt, Status> {
    let entry = request.find(view)?;
    let old = decode(&entry.value);
    let shown = opened(request, &entry).await?;
    options.check(&request.subject(), &old)?;
    let review = Review {
        request,
        view,
        operation: Operation::Delete,
        name: &request.name,
        old: Some(&shown),
        dry_run: options.dry_run,
    };
    let admission::Consequences { guards, warnings: told, .. } = admission::validate(&review, None).await?;
    warnings.extend(told);
    match next(request, options, &old, Timestamp::now()) {
        Next::Nothing => Ok(Attempt::Unwritten(Deleted::Waits(entry.value.clone()))),
        Next::Remove => remove(request, options, &entry, guards, &old).await,
        Next::Mark(new) => mark(request, options, &entry, guards, &new).await,
    }
}

enum Next {
    /// It is already on its way as asked.
    Nothing,
    Remove,
    Mark(Value),
}

/// Decides the next state of an object that someone wants deleted.
fn next(request: &Request, options: &DeleteOptions, old: &Value, now: Timestamp) -> Next {
    let strategy = strategy_of(request.kind);
    let grace = strategy.grace_period_seconds(old, options.grace_period_seconds);
    let finalizers = finalizers(options, old);
    let held = !finalizers.is_empty() || strategy.holds_back(old);
    let mut new = old.clone();
    let metadata = meta::metadata_mut(&mut new);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
    let marked = metadata.contains_key("deletionTimestamp");
    let present = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    if marked {
        // Only a shorter grace than the present one changes anything.
        let asked = options.grace_period_seconds.map(|_| grace);
        match asked {
            Some(0) if !held => return Next::Remove,
            Some(asked) if asked < present => set_deadline(metadata, asked, Some(present), now),
            _ if present == 0 && !held => return Next::Remove,
            _ => {}
        }
        return if new == *old { Next::Nothing } else { Next::Mark(new) };
    }
    if grace == 0 && !held {
        return Next::Remove;
    }
    set_deadline(metadata, grace, None, now);
    if request.kind.keeps_generation {
        let generation = meta::generation(old) + 1;
        meta::set(&mut new, "generation", generation);
    }
    strategy.begin_deletion(&mut new);
    Next::Mark(new)
}

/// Sets when the object shall be gone; a shortened grace counts from when the deletion began.
fn set_deadline(metadata: &mut serde_json::Map<String, Value>, grace: i64, before: Option<i64>, now: Timestamp) {
    let began = before
        .and_then(|seconds| {
            let deadline: Timestamp = metadata.get("deletionTimestamp")?.as_str()?.parse().ok()?;
            deadline.checked_sub(SignedDuration::from_secs(seconds)).ok()
        })
        .unwrap_or(now);
    let deadline = began.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    metadata.insert("deletionTimestamp".to_owned(), format_time(deadline).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
}

fn finalizers(options: &DeleteOptions, object: &Value) -> Vec<String> {
    let mut list: Vec<String> = meta::finalizers(object).map(str::to_owned).collect();
    let wanted = match options.propagation {
        None => return list,
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) => None,
    };
    list.retain(|f| f != ORPHAN && f != FOREGROUND);
    list.extend(wanted.map(str::to_owned));
    list
}

async fn remove(
    request: &Request,
    options: &DeleteOptions,
    entry: &Entry,
    guards: Vec<Guard>,
    old: &Value,
) -> Result<Attempt, Status> {
    if options.dry_run {
        return Ok(Attempt::Unwritten(Deleted::Gone(entry.value.clone())));
    }
    let strategy = strategy_of(request.kind);
    let mut ops = vec![Op::Delete { key: entry.key.clone() }];
    ops.extend(strategy.release(old));
    Ok(match commit(request, entry, guards, ops).await? {
        Proposed::Applied(bytes) => Attempt::Done(Deleted::Gone(bytes)),
        Proposed::Guard(_) => Attempt::Raced,
    })
}

async fn mark(
    request: &Request,
    options: &DeleteOptions,
    entry: &Entry,
    guards: Vec<Guard>,
    new: &Value,
) -> Result<Attempt, Status> {
    let encoded = encode(new);
    if options.dry_run {
        return Ok(Attempt::Unwritten(Deleted::Waits(encoded.stamped(meta::resource_version(new)))));
    }
    let put = Op::Put { key: entry.key.clone(), value: encoded.bytes, stamp_at: Some(encoded.stamp_at) };
    Ok(match commit(request, entry, guards, vec![put]).await? {
        Proposed::Applied(bytes) => Attempt::Done(Deleted::Waits(bytes)),
        Proposed::Guard(_) => Attempt::Raced,
    })
}

async fn commit(request: &Request, entry: &Entry, guards: Vec<Guard>, ops: Vec<Op>) -> Result<Proposed, Status> {
    let mut all = vec![Guard::ModRevision { key: entry.key.clone(), revision: entry.mod_revision }];
    all.extend(guards);
    propose(request, Txn { guards: all, ops, durability: strategy_of(request.kind).durability() }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_from_body_or_query() {
        let query = Parameters {
            grace_period_seconds: Some(3),
            propagation_policy: "Foreground".to_owned(),
            ..Parameters::default()
        };
        let from_query = DeleteOptions::new(&query, None).unwrap();
        assert_eq!((from_query.grace_period_seconds, from_query.propagation), (Some(3), Some(Propagation::Foreground)));
        let body = json!({ "propagationPolicy": "Background", "dryRun": ["All"], "preconditions": { "uid": "u" } });
        let from_body = DeleteOptions::new(&query, Some(&body)).unwrap();
        let expect = DeleteOptions {
            propagation: Some(Propagation::Background),
            uid: Some("u".to_owned()),
            dry_run: true,
            ..DeleteOptions::default()
        };
        assert_eq!(from_body, expect);
        assert_eq!(propagation("Nope", None).unwrap_err().code, 422);
        assert_eq!(propagation("Orphan", Some(true)).unwrap_err().code, 422);
    }

    #[test]
    fn propagation_becomes_a_finalizer() {
        let check = |wanted: Option<Propagation>, expect: &[&str]| {
            let object = json!({ "metadata": { "finalizers": ["mine", "orphan"] } });
            let options = DeleteOptions { propagation: wanted, ..DeleteOptions::default() };
            assert_eq!(finalizers(&options, &object), expect, "{wanted:?}");
        };
        check(None, &["mine", "orphan"]);
        check(Some(Propagation::Background), &["mine"]);
        check(Some(Propagation::Foreground), &["mine", "foregroundDeletion"]);
        check(Some(Propagation::Orphan), &["mine", "orphan"]);
    }

    #[test]
    fn preconditions() {
        let subject = Subject { group: "", resource: "pods", name: "p" };
        let object = json!({ "metadata": { "uid": "u", "resourceVersion": "4" } });
        let check = |uid: Option<&str>, revision: Option<&str>, expect: bool| {
            let options = DeleteOptions {
                uid: uid.map(str::to_owned),
                resource_version: revision.map(str::to_owned),
                ..DeleteOptions::default()
            };
            assert_eq!(options.check(&subject, &object).is_ok(), expect, "{uid:?} {revision:?}");
        };
        check(None, None, true);
        check(Some("u"), Some("4"), true);
        check(Some("v"), None, false);
        check(None, Some("3"), false);
    }
}

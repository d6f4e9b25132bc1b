//! Create and update: the steps every write takes, in order.
//!
//! decode (before) → type and schema → strategy → defaults → ownership → admission → identity → validation →
//! allocation → one transaction guarded by what the decision was based on → on a lost race, again.

use api::kinds::convert::convert;
use api::meta;
use api::status::{Status, Subject};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use store::{Guard, Op, Txn, TxnOutcome};

use super::attempts::{Attempts, busy};
use super::meta::{
    carry_over, check_identity, check_namespace, check_type, generated_name, may_go, mint, one_reference_per_owner,
};
use super::{Strategy, ownership, strategy_of};
use crate::admission::{self, Operation, Review};
use crate::aggregation;
use crate::core::{Request, Snapshot, key, unwritten};
use crate::custom::form;
use crate::hooks;
use crate::object::encode::{OBJECT_BYTES_MAX, encode, encode_within};

/// A write that is done (or would be, on a dry run).
pub struct Written {
    /// In the stored form.
    pub bytes: Bytes,
    pub warnings: Vec<String>,
}

impl Written {
    /// With what was to be said before.
    fn warned_before(mut self, mut warnings: Vec<String>) -> Self {
        warnings.append(&mut self.warnings);
        Self { warnings, ..self }
    }
}

/// What of an object an update may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The status only.
    Status,
    /// Whatever the change does: the server's own subresources (binding, finalize, scale).
    Whole,
}

fn invalid(request: &Request, object: &Value, errors: &[api::status::FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let subject = Subject { group: request.kind.group, resource: request.kind.kind, name: meta::name(object) };
    Err(Status::invalid(&subject, errors))
}

/// Creates an object from a decoded body; `duplicates` are the decoder's complaints about doubled keys.
pub async fn create(request: &Request, mut object: Value, duplicates: Vec<String>) -> Result<Written, Status> {
    let kind = request.kind;
    form::check_creatable(request)?;
    check_type(kind, &mut object)?;
    let mut warnings = form::admit(request, &mut object, duplicates)?;
    warnings.extend(one_reference_per_owner(&mut object));
    check_namespace(kind, &mut object, &request.namespace)?;
    convert(kind, kind.stored(), &mut object);
    let kind = kind.stored();
    let strategy = strategy_of(kind);
    strategy.prepare_for_create(kind, &mut object);
    strategy.attribute(&request.user, &mut object)?;
    api::defaults::apply(kind, &mut object);
    let mut attempts = attempts(request).await?;
    let mut turn = None;
    while let Some(view) = attempts.next() {
        let mut candidate = object.clone();
        let generated = meta::name(&candidate).is_empty() && !meta::generate_name(&candidate).is_empty();
        if generated {
            let name = generated_name(meta::generate_name(&candidate), &mut rand::rng());
            meta::set(&mut candidate, "name", name);
        }
        // A strategy may look at the name, so that of a generated one is prepared again.
        if generated {
            strategy.prepare_for_create(kind, &mut candidate);
        }
        match create_once(request, strategy, &view, candidate).await {
            Ok(Attempt::Done(written)) => return Ok(written.warned_before(warnings)),
            Ok(Attempt::Exists(name)) if !generated => {
                attempts.refused(Status::already_exists(&Subject { name: &name, ..request.subject() })).await?;
            }
            Ok(Attempt::Dry(written)) if attempts.suffices().await? => return Ok(written.warned_before(warnings)),
            // Many that want the same quota would lose against each other for long.
            Ok(Attempt::Raced) if turn.is_none() => turn = Some(request.core.turns.take(&request.namespace).await),
            Ok(Attempt::Dry(_) | Attempt::Exists(_) | Attempt::Raced) => {}
            Err(status) => attempts.refused(status).await?,
        }
    }
    Err(busy(request))
}

/// Webhooks are not asked about a state that may turn out to be an old one.
async fn attempts(request: &Request) -> Result<Attempts<'_>, Status> {
    let mut attempts = Attempts::new(&request.core);
    if hooks::webhooks::may_call(request) {
        attempts.suffices().await?;
    }
    Ok(attempts)
}

enum Attempt {
    Done(Written),
    /// A dry run came this far.
    Dry(Written),
    /// An object of this name is there.
    Exists(String),
    Raced,
}

async fn create_once(
    request: &Request,
    strategy: &dyn Strategy,
    view: &Snapshot,
    object: Value,
) -> Result<Attempt, Status> {
    let kind = request.kind.stored();
    // Before admission: what it adds belongs to nobody, as in Kubernetes.
    let mut object = ownership::created(request, object).await?;
    mint(kind, &mut object, Timestamp::now())?;
    strategy.identify(&mut object);
    let name = meta::name(&object).to_owned();
    let review = Review {
        request,
        view,
        operation: Operation::Create,
        name: &name,
        old: None,
        dry_run: request.parameters.dry_run,
    };
    let mut warnings = admission::mutate(&review, &mut object).await?;
    let mut errors = api::validate::create(kind, &object);
    errors.extend(form::violations(request, &object, None));
    invalid(request, &object, &errors)?;
    let mut admitted = admission::validate(&review, Some(&object)).await?;
    warnings.append(&mut admitted.warnings);
    let key = key(kind, &request.namespace, &name);
    if view.get(&key).is_some() {
        return Ok(Attempt::Exists(name));
    }
    let allocation = strategy.allocate(&request.core, view, &mut object, None)?;
    form::close(request, &mut object).await?;
    let encoded = encode_within(&mut object, OBJECT_BYTES_MAX)?;
    if request.parameters.dry_run {
        return Ok(Attempt::Dry(Written { bytes: encoded.stamped(""), warnings }));
    }
    let mut txn =
        Txn { guards: vec![Guard::Absent { key: key.clone() }], ops: Vec::new(), durability: strategy.durability() };
    txn.ops.push(Op::Put { key, value: encoded.bytes, stamp_at: Some(encoded.stamp_at) });
    txn.guards.extend(admitted.guards.into_iter().chain(allocation.guards));
    txn.ops.extend(admitted.ops.into_iter().chain(allocation.ops));
    Ok(match propose(request, txn).await? {
        Proposed::Applied(bytes) => Attempt::Done(Written { bytes, warnings }),
        Proposed::Guard(0) => Attempt::Exists(name),
        Proposed::Guard(_) => Attempt::Raced,
    })
}

/// Changes an object: `change` maps the present one (in the served form) to the wanted one.
///
/// `change` runs again when the object changed meanwhile; a `resourceVersion` in its answer that is
/// not the present one is a conflict.
pub async fn update(
    request: &Request,
    part: Part,
    duplicates: Vec<String>,
    change: impl Fn(&Value) -> Result<Value, Status>,
) -> Result<Written, Status> {
    let mut attempts = attempts(request).await?;
    while let Some(view) = attempts.next() {
        match update_once(request, part, (&view, &duplicates), &change).await {
            Ok(Update::Done(written)) => return Ok(written),
            Ok(Update::Unwritten(answer)) if attempts.suffices().await? => return Ok(answer),
            Ok(Update::Unwritten(_) | Update::Raced) => {}
            Err(status) => attempts.refused(status).await?,
        }
    }
    Err(busy(request))
}

enum Update {
    Done(Written),
    /// Nothing changes, or it is a dry run.
    Unwritten(Written),
    Raced,
}

async fn update_once(
    request: &Request,
    part: Part,
    (view, duplicates): (&Snapshot, &[String]),
    change: &impl Fn(&Value) -> Result<Value, Status>,
) -> Result<Update, Status> {
    let entry = request.find(view)?;
    let old = form::opened(request, &entry).await?;
    let prepare = || prepare_update(request, part, (&old, duplicates), change);
    let (new, mut warnings) = ownership::with_conversions(request, prepare).await?;
    let review = Review {
        request,
        view,
        operation: Operation::Update,
        name: &request.name,
        old: Some(&old),
        dry_run: request.parameters.dry_run,
    };
    let outdated = form::is_outdated(request, &entry.value);
    let Decided { change, warnings: told } = decide_update(&review, part, (new, &old), outdated).await?;
    warnings.extend(told);
    let Some((mut txn, answer)) = change else {
        return Ok(Update::Unwritten(Written { bytes: entry.value.clone(), warnings }));
    };
    if request.parameters.dry_run {
        return Ok(Update::Unwritten(Written { bytes: answer, warnings }));
    }
    txn.guards.insert(0, Guard::ModRevision { key: entry.key.clone(), revision: entry.mod_revision });
    Ok(match propose(request, txn).await? {
        Proposed::Applied(bytes) => Update::Done(Written { bytes, warnings }),
        Proposed::Guard(_) => Update::Raced,
    })
}

fn prepare_update(
    request: &Request,
    part: Part,
    (old, duplicates): (&Value, &[String]),
    change: &impl Fn(&Value) -> Result<Value, Status>,
) -> Result<(Value, Vec<String>), Status> {
    let (served, kind) = (request.kind, request.kind.stored());
    let mut shown = old.clone();
    convert(kind, served, &mut shown);
    let mut new = change(&shown)?;
    check_type(served, &mut new)?;
    let mut warnings = form::admit(request, &mut new, duplicates.to_vec())?;
    warnings.extend(one_reference_per_owner(&mut new));
    check_namespace(served, &mut new, &request.namespace)?;
    check_identity(&request.subject(), &new, old)?;
    convert(served, kind, &mut new);
    meta::set(&mut new, "name", meta::name(old));
    let strategy = strategy_of(kind);
    let managed_fields = meta::metadata_mut(&mut new).remove("managedFields");
    match part {
        Part::Main => strategy.prepare_for_update(kind, &mut new, old),
        Part::Status => strategy.prepare_for_status_update(kind, &mut new, old),
        Part::Whole => {}
    }
    api::defaults::apply(kind, &mut new);
    carry_over(kind, &mut new, old);
    meta::set(&mut new, "resourceVersion", meta::resource_version(old));
    ownership::offer(&mut new, managed_fields);
    ownership::settle(request, part, Some(old), &mut new);
    Ok((new, warnings))
}

struct Decided {
    /// The transaction and the answer of a dry run; `None` when nothing would change.
    change: Option<(Txn, Bytes)>,
    warnings: Vec<String>,
}

/// An object that is kept in an outdated version is written again even if it stays as it is.
async fn decide_update(
    review: &Review<'_>,
    part: Part,
    (mut new, old): (Value, &Value),
    outdated: bool,
) -> Result<Decided, Status> {
    let (request, kind) = (review.request, review.request.kind.stored());
    let mut warnings = admission::mutate(review, &mut new).await?;
    api::apply::forget_idle_times(&mut new, old);
    let admission::Consequences { mut guards, ops: charged, warnings: told } =
        admission::validate(review, Some(&new)).await?;
    warnings.extend(told);
    if new == *old && !outdated {
        return Ok(Decided { change: None, warnings });
    }
    let strategy = strategy_of(kind);
    let mut errors = match part {
        Part::Main => api::validate::update(kind, &new, old),
        // What the server's own subresources change is fixed for everybody else.
        Part::Status | Part::Whole => api::validate::update_status(kind, &new, old),
    };
    errors.extend(form::violations(request, &new, Some(old)));
    invalid(request, &new, &errors)?;
    let (mut ops, durability) = (Vec::new(), strategy.durability());
    let key = request.key();
    if may_go(&new) && !strategy.holds_back(&new) {
        ops.push(Op::Delete { key });
        ops.extend(strategy.release(&new));
        let change = Some((Txn { guards, ops, durability }, encode(&new).stamped("")));
        return Ok(Decided { change, warnings });
    }
    let allocation = strategy.allocate(&request.core, review.view, &mut new, Some(old))?;
    form::close(request, &mut new).await?;
    let encoded = encode_within(&mut new, OBJECT_BYTES_MAX)?;
    let answer = encoded.stamped(meta::resource_version(old));
    ops.push(Op::Put { key, value: encoded.bytes, stamp_at: Some(encoded.stamp_at) });
    ops.extend(charged.into_iter().chain(allocation.ops));
    guards.extend(allocation.guards);
    Ok(Decided { change: Some((Txn { guards, ops, durability }, answer)), warnings })
}

/// What became of a transaction.
pub enum Proposed {
    /// The bytes of the first op's entry: the new object, or the deleted one.
    Applied(Bytes),
    /// The index of the guard that did not hold.
    Guard(usize),
}

pub async fn propose(request: &Request, txn: Txn) -> Result<Proposed, Status> {
    let store = &request.core.store;
    let outcome = if request.as_leader { store.propose_leading(txn).await } else { store.propose(txn).await };
    match outcome.map_err(|e| unwritten(&e))? {
        TxnOutcome::Applied { entries, revision } => {
            // Whoever is told that a policy or a webhook is registered finds it in force.
            if request.kind.group == hooks::GROUP {
                request.core.hooks.reached(revision).await;
            }
            if request.kind.group == aggregation::GROUP {
                request.core.aggregation.reached(revision).await;
            }
            let bytes = entries.first().and_then(Option::as_ref).map(|entry| entry.value.clone()).unwrap_or_default();
            Ok(Proposed::Applied(bytes))
        }
        TxnOutcome::GuardFailed { index, .. } => Ok(Proposed::Guard(index)),
    }
}

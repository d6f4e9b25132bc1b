//! Server-side apply: a manager says all it wants of an object, and gets that, or a conflict.
//!
//! Owns: merging, giving up what is not applied any more, conflicts. May not know: HTTP, storage, defaults.
//! Follows structured-merge-diff `merge.Updater.Apply` and apimachinery `managedfields`.

use std::borrow::Cow;

use serde_json::Value;

use super::check::complaints;
use super::compare::compare;
use super::conflict::Conflicts;
use super::fields_v1;
use super::last_applied;
use super::managers::{Entry, Identity, Managers, Operation};
use super::merge::{canonical, merge};
use super::owned::{owned, with_named_fields};
use super::place::{Place, Typing};
use super::remove::remove;
use super::set::Set;
use super::writer::{NOTHING, Writer, give_up};
use crate::meta;

/// Stands for everything that was written before anybody was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// kubectl may have applied the object on the client's side before; see [`last_applied`].
const KUBECTL: &str = "kubectl";

/// Why nothing is applied.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// `metadata.managedFields` is the server's.
    ManagedFields,
    /// The configuration does not fit its type.
    Untyped(Vec<String>),
    Conflicts(Conflicts),
}

/// The object with the configuration applied, `managedFields` and all; `live` is `None` when there is none yet.
///
/// Everything is in the version that the client speaks. Nulls in the answer mean absence.
///
/// # Errors
/// See [`Refusal`].
pub fn apply(writer: &Writer<'_>, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, Refusal> {
    if config.pointer("/metadata/managedFields").is_some_and(|value| !value.is_null()) {
        return Err(Refusal::ManagedFields);
    }
    let place = writer.typing.root();
    let complaints = complaints(place, config);
    if !complaints.is_empty() {
        return Err(Refusal::Untyped(complaints));
    }
    let config = &in_canonical_form(writer.typing, config);
    let mut shown = live.cloned().unwrap_or_else(|| NOTHING.clone());
    meta::unset(&mut shown, "managedFields");
    let mut managers = live.map(Managers::stored).unwrap_or_default();
    if live.is_some() && managers.is_empty() {
        let everything = writer.ownable(&compare(place, &NOTHING, &shown).written());
        let identity = Identity { manager: BEFORE_FIRST_APPLY, ..writer.identity(Operation::Update) };
        managers.entries.push(Entry::new(identity, &everything, writer.now));
    }
    let attempt = Attempt { writer, shown: &shown, config };
    let mut applied = match attempt.run(managers.clone(), force) {
        Err(conflicts) if writer.manager == KUBECTL => {
            let rest = conflicts.except(&last_applied::unchanged(writer, &shown));
            if !rest.is_empty() {
                return Err(Refusal::Conflicts(rest));
            }
            attempt.run(managers, true).map_err(Refusal::Conflicts)?
        }
        outcome => outcome.map_err(Refusal::Conflicts)?,
    };
    if writer.manager == KUBECTL {
        last_applied::renew(&mut applied, config);
    }
    Ok(applied)
}

/// `1000m` of a configuration is the `1` that the object has. (Kubernetes compares texts and sees a conflict.)
fn in_canonical_form<'a>(typing: Typing<'_>, config: &'a Value) -> Cow<'a, Value> {
    let Typing::Kind(kind) = typing else { return Cow::Borrowed(config) };
    let mut decoded = config.clone();
    match crate::schema::decode(kind, &mut decoded) {
        Ok(_) => Cow::Owned(canonical(config, &decoded)),
        // The steps that follow a write's decision refuse it, in the decoder's words.
        Err(_) => Cow::Borrowed(config),
    }
}

struct Attempt<'a> {
    writer: &'a Writer<'a>,
    /// The present object without `managedFields`.
    shown: &'a Value,
    config: &'a Value,
}

impl Attempt<'_> {
    fn run(&self, mut managers: Managers, force: bool) -> Result<Value, Conflicts> {
        let Self { writer, shown, config } = *self;
        let place = writer.typing.root();
        let wanted = owned(place, config).without(writer.unowned);
        let identity = writer.identity(Operation::Apply);
        let last = managers.position(identity).map(|index| managers.entries.remove(index));
        let mut object = merge(place, shown, config);
        if let Some(last) = &last {
            object = prune(writer, object, last, &managers, &wanted);
            if writer.is_waiting() {
                return Ok(object);
            }
            // Pruning leaves nothing of a list that lost its last item. Where an empty one is wanted, it comes back.
            object = merge(place, &object, config);
        }
        surrender(writer, &mut managers, (shown, &object), force)?;
        let mut entry = Entry::new(identity, &writer.ownable(&wanted), writer.now);
        if let Some(last) = last
            && object == *shown
            && (&last.fields, &last.api_version) == (&entry.fields, &entry.api_version)
        {
            entry.time = last.time;
        }
        managers.entries.push(entry);
        if let Some(list) = managers.encode() {
            meta::set(&mut object, "managedFields", list);
        }
        Ok(object)
    }
}

/// The other managers lose what changed, if that is allowed.
fn surrender(
    writer: &Writer<'_>,
    managers: &mut Managers,
    (old, new): (&Value, &Value),
    force: bool,
) -> Result<(), Conflicts> {
    let mut changes = writer.changes(old, new);
    let mut conflicts = Conflicts::default();
    managers.entries.sort_by(|a, b| a.identity().manager.cmp(b.identity().manager));
    for entry in &mut managers.entries {
        let Some(change) = changes.at(&entry.api_version) else {
            entry.fields = NOTHING.clone();
            continue;
        };
        if !force && fields_v1::touches(&entry.fields, &change.written) {
            conflicts.add(entry, &entry.set().intersection(&change.written));
        }
        give_up(entry, &change.lost);
    }
    if conflicts.is_empty() { Ok(()) } else { Err(conflicts) }
}

/// Takes out what this manager applied last time and does not apply now, unless somebody else owns it.
fn prune(writer: &Writer<'_>, merged: Value, last: &Entry, others: &Managers, wanted: &Set) -> Value {
    let last_set = last.set();
    if last_set.difference(wanted).is_empty() {
        return merged;
    }
    // Another version than the last one: what was owned is named in that one's fields.
    let Some(version) = writer.typing.in_version(&last.api_version) else { return merged };
    let place = version.root();
    let convert =
        |from: Typing<'_>, object: &Value, to: Typing<'_>| writer.convert(from, object, to).map(Cow::into_owned);
    let Some(before) = convert(writer.typing, &merged, version) else { return merged };
    let last_set = with_named_fields(place, &last_set);
    let mut pruned = remove(place, &before, &last_set);
    for (typing, managed) in owned_by_version(writer, others, wanted) {
        let (Some(all), Some(few)) = (convert(version, &before, typing), convert(version, &pruned, typing)) else {
            return merged;
        };
        let kept = add_back(typing.root(), &all, &few, &managed);
        let Some(back) = convert(typing, &kept, version) else { return merged };
        pruned = back;
    }
    // What nobody owns and was not applied last time stays as well.
    let gone = named(place, &before).difference(&named(place, &pruned)).intersection(&last_set);
    match convert(version, &remove(place, &before, &gone), writer.typing) {
        Some(left) if !left.is_null() => left,
        Some(_) => NOTHING.clone(),
        None => merged,
    }
}

fn named(place: Place, value: &Value) -> Set {
    with_named_fields(place, &owned(place, value))
}

fn owned_by_version<'a>(writer: &Writer<'a>, others: &Managers, wanted: &Set) -> Vec<(Typing<'a>, Set)> {
    let mut versions = vec![(writer.api_version.to_owned(), wanted.clone())];
    for entry in &others.entries {
        match versions.iter_mut().find(|(version, _)| *version == entry.api_version) {
            Some((_, set)) => *set = std::mem::take(set).union(&entry.set()),
            None => versions.push((entry.api_version.clone(), entry.set())),
        }
    }
    versions.into_iter().filter_map(|(version, set)| Some((writer.typing.in_version(&version)?, set))).collect()
}

/// Everything that is still there or that somebody owns.
fn add_back(place: Place, all: &Value, few: &Value, managed: &Set) -> Value {
    let kept = named(place, few).union(&with_named_fields(place, managed));
    remove(place, all, &named(place, all).difference(&kept))
}

//! Create, update and patch: whoever writes a field owns it from then on.
//!
//! Owns: `managedFields` after every write but apply. May not know: how the new object came to be.

use serde_json::Value;

use super::fields_v1;
use super::managers::{Entry, Managers, Operation, listed};
use super::writer::{NOTHING, Writer, give_up};
use crate::meta;

/// Sets `metadata.managedFields` of `new`; `old` is `None` on create. Both are in one version.
pub fn track(writer: &Writer<'_>, old: Option<&Value>, new: &mut Value) {
    let sent = meta::metadata_mut(new).remove("managedFields");
    let managers = before(writer, old, sent);
    if let Some(list) = after(writer, managers, old, new) {
        meta::set(new, "managedFields", list);
    }
}

/// Who owns what before the write, as far as the client has a say in it.
///
/// An empty list (or a list of one empty entry) means: forget. No list, or nonsense, means: as it was.
fn before(writer: &Writer<'_>, old: Option<&Value>, sent: Option<Value>) -> Managers {
    let present = || old.map(Managers::stored).unwrap_or_default();
    let Some(Value::Array(sent)) = sent else { return present() };
    if old.and_then(listed) == Some(&sent) {
        return Managers::of(sent);
    }
    match sent.as_slice() {
        _ if !writer.subresource.is_empty() => present(),
        [] => Managers::default(),
        [Value::Object(only)] if only.is_empty() => Managers::default(),
        list => Managers::sent(list).unwrap_or_else(|_| present()),
    }
}

fn after(writer: &Writer<'_>, mut managers: Managers, old: Option<&Value>, new: &Value) -> Option<Value> {
    if managers.is_empty() {
        // Nobody was tracked so far. Of an object that was there, that begins with an apply.
        return if old.is_none() { first(writer, new) } else { None };
    }
    let mut changes = writer.changes(old.unwrap_or(&NOTHING), new);
    let own = writer.identity(Operation::Update);
    let position = managers.position(own);
    for (index, entry) in managers.entries.iter_mut().enumerate() {
        match changes.at(&entry.api_version) {
            None => entry.fields = NOTHING.clone(),
            Some(change) if Some(index) == position => give_up(entry, &change.removed),
            Some(change) => give_up(entry, &change.lost),
        }
    }
    let written = changes.at(writer.api_version).map(|change| writer.ownable(&change.written)).unwrap_or_default();
    if !written.is_empty() {
        match position.map(|index| &mut managers.entries[index]) {
            None => managers.entries.push(Entry::new(own, &written, writer.now)),
            Some(entry) => {
                entry.time = Some(writer.now.to_owned());
                if !fields_v1::covers(&entry.fields, &written) {
                    entry.put(&entry.set().union(&written));
                }
            }
        }
    }
    managers.cap();
    managers.encode()
}

/// Of a new object: whoever creates it owns what is in it.
fn first(writer: &Writer<'_>, new: &Value) -> Option<Value> {
    let fields = Value::Object(writer.created(new));
    let entry = Entry::with(writer.identity(Operation::Update), fields, writer.now);
    Managers { entries: vec![entry] }.encode()
}

/// Puts the old times back when nothing but times differs, so that a write that changes nothing is none.
pub fn forget_idle_times(new: &mut Value, old: &Value) {
    let (Some(new_list), Some(old_list)) = (listed(new), listed(old)) else { return };
    if new_list == old_list || new_list.len() != old_list.len() {
        return;
    }
    let same_but_time = |(a, b): (&Value, &Value)| without(a, "time").eq(without(b, "time"));
    let entries_same = new_list.iter().zip(old_list).all(same_but_time);
    let metadata = (new.get("metadata").unwrap_or(&Value::Null), old.get("metadata").unwrap_or(&Value::Null));
    let metadata_same = || without(metadata.0, "managedFields").eq(without(metadata.1, "managedFields"));
    let rest_same = || without(new, "metadata").eq(without(old, "metadata"));
    if entries_same && metadata_same() && rest_same() {
        let list = old_list.to_vec();
        meta::set(new, "managedFields", list);
    }
}

fn without<'a>(object: &'a Value, field: &'static str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.as_object().into_iter().flatten().filter(move |(name, _)| *name != field)
}

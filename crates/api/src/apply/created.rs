//! What a new object's first writer owns, straight in the form that `managedFields` holds.
//!
//! The same as comparing with nothing and encoding what was added (a test holds the two against each other), in one
//! walk without a set in between: every create pays for it.
//!
//! Owns: that walk. May not know: managers.

use serde_json::map::Entry as Slot;
use serde_json::{Map, Value};

use super::element::Element;
use super::fields_v1::{Owned, SELF, close};
use super::place::{Form, Place};
use super::set::Set;
use super::writer::NOTHING;

/// FieldsV1 of an object that was not there before. What is in one of the sets is left out with all below it.
pub fn created(place: Place<'_>, object: &Value, left_out: [&Set; 2]) -> Map<String, Value> {
    let mut below = value(place, Some(&NOTHING), object, left_out.map(Some)).below;
    // Nobody owns the metadata themselves, but what is below them.
    if let Slot::Occupied(mut slot) = below.entry("f:metadata") {
        let metadata = slot.get_mut().as_object_mut().expect("FieldsV1 is made of objects");
        metadata.remove(SELF);
        if metadata.is_empty() {
            slot.remove();
        }
    }
    below
}

type LeftOut<'a> = [Option<&'a Set>; 2];

/// `before` is what Go has where JSON has nothing, if there is such a thing.
fn value(place: Place<'_>, before: Option<&Value>, new: &Value, left_out: LeftOut<'_>) -> Owned {
    if before == Some(new) {
        return Owned::default();
    }
    let form = place.form(if new.is_null() { before.unwrap_or(&Value::Null) } else { new });
    if place.form(before.filter(|before| !before.is_null()).unwrap_or(new)) != form {
        let below = new.as_object().map(|new| fields(place, before.is_some(), new, left_out)).unwrap_or_default();
        return Owned { member: true, below };
    }
    let is_leaf = match form {
        Form::Whole => true,
        Form::Fields => new.as_object().is_none_or(Map::is_empty),
        Form::Set | Form::Keyed(_) => new.as_array().is_none_or(Vec::is_empty),
    };
    if is_leaf {
        return Owned { member: true, below: Map::new() };
    }
    let below = match new {
        Value::Object(new) => fields(place, before.is_some(), new, left_out),
        Value::Array(new) => items(place, form, new, left_out),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Map::new(),
    };
    Owned { member: before.is_none(), below }
}

fn fields(place: Place<'_>, was: bool, new: &Map<String, Value>, left_out: LeftOut<'_>) -> Map<String, Value> {
    let mut below = Map::new();
    for (name, new) in new {
        let at = left_out.iter().any(Option::is_some).then(|| Element::field(name));
        let Some(left_out) = at.map_or(Some([None; 2]), |element| further(left_out, &element)) else { continue };
        let field = place.field(name).unwrap_or(Place::Whole);
        let filler = if was { field.filler() } else { None };
        let owned = value(field, filler, new, left_out);
        if let Some(encoded) = close(owned) {
            below.insert(format!("f:{name}"), encoded);
        }
    }
    below
}

fn items(place: Place<'_>, form: Form, new: &[Value], left_out: LeftOut<'_>) -> Map<String, Value> {
    let mut below = Map::new();
    for item in new {
        let Ok(element) = place.element(form, item) else { continue };
        let Some(left_out) = further(left_out, &element) else { continue };
        match below.entry(element.encode()) {
            Slot::Vacant(slot) => {
                if let Some(encoded) = close(value(place.item(), None, item, left_out)) {
                    slot.insert(encoded);
                }
            }
            // Of what is there several times only that is owned.
            Slot::Occupied(mut slot) => drop(slot.insert(Value::Object(Map::new()))),
        }
    }
    below
}

/// The sets below a step; `None` when the step is in one of them.
fn further<'a>(left_out: LeftOut<'a>, element: &Element) -> Option<LeftOut<'a>> {
    let mut below = [None; 2];
    for (below, set) in below.iter_mut().zip(left_out) {
        let Some(node) = set.and_then(|set| set.node(element)) else { continue };
        if node.member {
            return None;
        }
        *below = Some(&node.below);
    }
    Some(below)
}

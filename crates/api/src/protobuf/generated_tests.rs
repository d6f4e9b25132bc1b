//! Every kind, there and back, over generated objects.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use super::generate::{Generator, type_name};
use super::messages::{self, FieldKind, Message, Repeat};
use super::{decode, encode};
use crate::kinds::KINDS;
use crate::schema::{self, FieldValidation};

/// Fields that Kubernetes publishes and the table does not have yet: answers as protobuf would lack them.
const NOT_IN_THE_TABLE: &[&str] = &[];

/// JSON names of a message's fields, those of inline messages among them.
fn names(message: &'static Message, out: &mut BTreeSet<&'static str>) {
    for field in message.fields() {
        match (&field.kind, field.repeat) {
            (FieldKind::Message(inner), Repeat::Inline) => {
                names(messages::by_name(inner).expect("closed"), out);
            }
            _ => drop(out.insert(&field.json)),
        }
    }
}

#[test]
fn the_table_has_every_published_field() {
    let mut missing = Vec::new();
    for message in messages::all() {
        let of = type_name(message);
        let mut known = BTreeSet::from(["apiVersion", "kind"]);
        names(message, &mut known);
        let published = schema::field_names(&of).unwrap_or_default();
        missing.extend(
            published.iter().filter(|field| !known.contains(field.as_str())).map(|field| format!("{of} {field}")),
        );
    }
    missing.sort();
    assert_eq!(missing, NOT_IN_THE_TABLE);
}

/// Where something of `part` is not in `whole`, which may say more (a required field that was absent).
fn lost(part: &Value, whole: &Value) -> Option<String> {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part.iter().find_map(|(key, value)| match whole.get(key) {
            None => Some(format!("/{key}")),
            Some(other) => lost(value, other).map(|rest| format!("/{key}{rest}")),
        }),
        (Value::Array(part), Value::Array(whole)) if part.len() == whole.len() => {
            part.iter().zip(whole).enumerate().find_map(|(at, (a, b))| Some(format!("/{at}{}", lost(a, b)?)))
        }
        (part, whole) => (part != whole).then(|| format!(" {part} became {whole}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn protobuf_stands_for_its_json(seed: u64) {
        for kind in KINDS {
            let Some((bytes, json)) = Generator::new(seed).object(kind) else { continue };
            prop_assert_eq!(decode(&bytes), Ok(json), "{:?}", kind);
        }
    }

    #[test]
    fn what_is_encoded_is_what_clients_decode(seed: u64) {
        for kind in KINDS {
            let Some((_, json)) = Generator::new(seed).object(kind) else { continue };
            let encoded = encode(&json);
            let encoded = encoded.map_err(|error| TestCaseError::fail(format!("{kind:?} {json}: {error}")))?;
            prop_assert_eq!(decode(&encoded), Ok(json), "{:?}", kind);
        }
    }

    #[test]
    fn nothing_known_is_pruned(seed: u64) {
        for kind in KINDS {
            let Some((_, json)) = Generator::new(seed).object(kind) else { continue };
            let mut checked = json.clone();
            let warnings = schema::check(kind, &mut checked, FieldValidation::Strict);
            prop_assert_eq!(warnings, Ok(Vec::new()), "{:?} {}", kind, &json);
            prop_assert_eq!(checked, json, "{:?}", kind);
        }
    }

    #[test]
    fn types_keep_what_json_says(seed: u64) {
        // Measurements are made whole and sent by nobody: their type does without no field.
        for kind in KINDS.iter().filter(|kind| kind.group != crate::usage::GROUP) {
            let Some((_, json)) = Generator::new(seed).object(kind) else { continue };
            let typed = kind.through_its_type(&json);
            let typed = typed.map_err(|error| TestCaseError::fail(format!("{kind:?} {json}: {error}")))?;
            prop_assert_eq!(lost(&json, &typed), None, "{:?} {}", kind, json);
        }
    }

    #[test]
    fn defaults_validation_and_tables_stand_anything(seed: u64) {
        let mut random = Generator::new(seed);
        for kind in KINDS {
            let Some((_, mut json)) = Generator::new(seed).object(kind) else { continue };
            // Rules expect objects of the right types, but those with any values.
            crate::defaults::apply(kind, &mut json);
            let again = { let mut again = json.clone(); crate::defaults::apply(kind, &mut again); again };
            prop_assert_eq!(&again, &json, "defaults of {:?} are idempotent", kind);
            let _ = crate::validate::create(kind, &json);
            let Some((_, other)) = Generator::new(random.next()).object(kind) else { continue };
            let _ = crate::validate::update(kind, &json, &other);
            let _ = crate::validate::update_status(kind, &json, &other);
            let _ = crate::table::table(kind, &[&json], jiff::Timestamp::UNIX_EPOCH, crate::table::IncludeObject::None);
        }
    }

    #[test]
    fn damaged_bodies_never_panic(seed: u64) {
        let mut random = Generator::new(seed);
        for kind in KINDS {
            let Some((mut bytes, _)) = Generator::new(seed).object(kind) else { continue };
            for _ in 0..4 {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next() as u8;
            }
            let _ = decode(&bytes);
            bytes.truncate(random.below(bytes.len() as u64) as usize);
            let _ = decode(&bytes);
        }
    }
}

//! Objects for tests, made from the field table by a seed: the bytes a Go client would send, and the JSON they stand for.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::messages::{self, Field, FieldKind, Message, Repeat};
use super::{MAGIC, ZERO_IS_ABSENT};
use crate::kinds::Kind;
use crate::schema;

/// Messages below this depth have plain fields only.
const DEPTH_MAX: u32 = 7;

pub(crate) struct Generator {
    state: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// SplitMix64: every seed, 0 too, gives a sequence of its own.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn word(&mut self) -> String {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
        let length = 1 + self.below(6);
        let letters = (0..length).map(|_| char::from(LETTERS[self.below(LETTERS.len() as u64) as usize]));
        letters.collect()
    }

    /// An object of a kind, enveloped; `None` for kinds that have no message.
    pub fn object(&mut self, kind: &Kind) -> Option<(Vec<u8>, Value)> {
        let message = messages::of_kind(&kind.api_version(), kind.kind)?;
        let (raw, mut json) = self.message(message, 0);
        let fields = json.as_object_mut()?;
        fields.insert("apiVersion".to_owned(), kind.api_version().into());
        fields.insert("kind".to_owned(), kind.kind.into());
        let type_meta = [delimited(1, kind.api_version().as_bytes()), delimited(2, kind.kind.as_bytes())].concat();
        Some(([MAGIC.to_vec(), delimited(1, &type_meta), delimited(2, &raw)].concat(), json))
    }

    fn message(&mut self, message: &'static Message, depth: u32) -> (Vec<u8>, Value) {
        if let Some(special) = self.special(message, depth) {
            return special;
        }
        let (mut bytes, mut object) = (Vec::new(), Map::new());
        self.fields(message, &type_name(message), depth, (&mut bytes, &mut object));
        (bytes, Value::Object(object))
    }

    /// `owner` is the type whose JSON has the fields.
    fn fields(
        &mut self,
        message: &'static Message,
        owner: &str,
        depth: u32,
        out: (&mut Vec<u8>, &mut Map<String, Value>),
    ) {
        let (bytes, object) = out;
        for field in message.fields() {
            if let (Repeat::Inline, FieldKind::Message(inner)) = (field.repeat, &field.kind) {
                let mut written = Vec::new();
                self.fields(messages::by_name(inner).expect("closed"), owner, depth, (&mut written, object));
                bytes.extend(delimited(field.tag, &written));
                continue;
            }
            // What Kubernetes no longer publishes is no loss.
            let is_published = schema::has_field(owner, &field.json).unwrap_or(true);
            // Times that the Rust types of a condition and of a series of Events do not do without.
            let is_required = matches!(field.json.as_str(), "lastObservedTime" | "lastTransitionTime");
            let is_deep = depth >= DEPTH_MAX && matches!(field.kind, FieldKind::Message(_));
            if !is_required && (!is_published || is_deep || self.below(3) == 0) {
                continue;
            }
            let (written, value) = self.field(field, depth);
            bytes.extend(written);
            object.insert(field.json.clone(), value);
        }
    }

    fn field(&mut self, field: &'static Field, depth: u32) -> (Vec<u8>, Value) {
        match field.repeat {
            Repeat::Once | Repeat::Inline => self.value(field, field.tag, depth),
            Repeat::List => {
                let count = 1 + self.below(2);
                let items: Vec<_> = (0..count).map(|_| self.value(field, field.tag, depth)).collect();
                let (bytes, values): (Vec<_>, Vec<_>) = items.into_iter().unzip();
                (bytes.concat(), values.into())
            }
            Repeat::Map => {
                let (mut bytes, mut map) = (Vec::new(), Map::new());
                for index in 0..1 + self.below(2) {
                    let key = format!("{}{index}", self.word());
                    let (value, json) = self.value(field, 2, depth);
                    bytes.extend(delimited(field.tag, &[delimited(1, key.as_bytes()), value].concat()));
                    map.insert(key, json);
                }
                (bytes, map.into())
            }
        }
    }

    fn value(&mut self, field: &'static Field, tag: u32, depth: u32) -> (Vec<u8>, Value) {
        let zero_is_absent = ZERO_IS_ABSENT.contains(&field.json.as_str());
        match &field.kind {
            FieldKind::String => {
                let word = self.word();
                (delimited(tag, word.as_bytes()), word.into())
            }
            FieldKind::Bytes => {
                let bytes = self.next().to_le_bytes();
                (delimited(tag, &bytes), super::special::base64(&bytes).into())
            }
            FieldKind::Bool => {
                let value = zero_is_absent || self.below(2) == 0;
                (number(tag, u64::from(value)), value.into())
            }
            FieldKind::Integer => {
                let value = self.below(2000).cast_signed() - 1000;
                let value = if value == 0 && zero_is_absent { 1 } else { value };
                (number(tag, value.cast_unsigned()), value.into())
            }
            FieldKind::Double => {
                let value = self.below(1000) as f64 / 4.0 + 0.25;
                ([varint(u64::from(tag) << 3 | 1), value.to_bits().to_le_bytes().to_vec()].concat(), value.into())
            }
            FieldKind::Message(name) => {
                // Schemas have schemas in many places: fewer levels of them do.
                let deeper = if name == super::special::SCHEMA { 2 } else { 1 };
                let (bytes, value) = self.message(messages::by_name(name).expect("closed"), depth + deeper);
                (delimited(tag, &bytes), value)
            }
        }
    }

    /// Messages with a JSON form of their own.
    fn special(&mut self, message: &'static Message, depth: u32) -> Option<(Vec<u8>, Value)> {
        let seconds = 1 + self.below(4_000_000_000).cast_signed();
        let at = |nanos: i32| Timestamp::new(seconds, nanos).expect("within this century and the next");
        Some(match message.name.rsplit('.').next()? {
            "Time" | "Timestamp" => (number(1, seconds.cast_unsigned()), at(0).to_string().into()),
            "MicroTime" => {
                let nanos = self.below(1_000_000) * 1000;
                let text = format!("{:.6}", at(i32::try_from(nanos).ok()?));
                ([number(1, seconds.cast_unsigned()), number(2, nanos)].concat(), text.into())
            }
            "Duration" => {
                let seconds = self.below(10_000);
                (number(1, seconds * 1_000_000_000), format!("{seconds}s").into())
            }
            "Quantity" => {
                let text = format!("{}{}", 1 + self.below(500), ["", "m", "Gi", "k"][self.below(4) as usize]);
                (delimited(1, text.as_bytes()), text.into())
            }
            "IntOrString" if self.below(2) == 0 => {
                let value = self.below(65_535);
                ([number(1, 0), number(2, value)].concat(), value.into())
            }
            "IntOrString" => {
                let word = self.word();
                ([number(1, 1), delimited(3, word.as_bytes())].concat(), word.into())
            }
            "RawExtension" | "FieldsV1" | "JSON" => {
                let raw = json!({ self.word(): { "n": self.below(9), "list": [true, "x"] } });
                (delimited(1, raw.to_string().as_bytes()), raw)
            }
            "Verbs" | "ExtraValue" => {
                let words = [self.word(), self.word()];
                (words.iter().flat_map(|word| delimited(1, word.as_bytes())).collect(), json!(words))
            }
            "JSONSchemaPropsOrBool" if depth >= DEPTH_MAX || self.below(2) == 0 => (number(1, 1), true.into()),
            "JSONSchemaPropsOrStringArray" if depth >= DEPTH_MAX || self.below(2) == 0 => {
                let word = self.word();
                (delimited(2, word.as_bytes()), json!([word]))
            }
            "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => {
                let tag = if message.name.ends_with("Bool") { 2 } else { 1 };
                let schema = messages::by_name(super::special::SCHEMA).expect("the type of schemas");
                let (bytes, value) = self.message(schema, depth + 1);
                (delimited(tag, &bytes), value)
            }
            _ => return None,
        })
    }
}

/// The name under which a message's JSON form is published.
pub(super) fn type_name(message: &Message) -> String {
    message
        .name
        .replace("apiextensions_apiserver", "apiextensions-apiserver")
        .replace("kube_aggregator", "kube-aggregator")
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn number(tag: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(tag) << 3), varint(value)].concat()
}

fn delimited(tag: u32, bytes: &[u8]) -> Vec<u8> {
    [varint(u64::from(tag) << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

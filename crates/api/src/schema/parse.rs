//! Text to a JSON value, noticing keys that are given twice (the last one wins, as in Go).
//!
//! Owns: duplicate detection. May not know: types.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The value, and one complaint (`duplicate field "spec.replicas"`) per doubled key.
///
/// # Errors
/// When the text is no JSON, or nested deeper than serde_json's limit of 128.
pub fn parse(text: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let parsed = parse_from(&mut deserializer)?;
    deserializer.end()?;
    Ok(parsed)
}

/// [`parse`] for any format, such as YAML.
///
/// # Errors
/// When the text is none of that format.
pub fn parse_from<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(Value, Vec<String>), D::Error> {
    let mut duplicates = Vec::new();
    let seed = Seed { path: &mut String::new(), duplicates: &mut duplicates };
    let value = seed.deserialize(deserializer)?;
    Ok((value, duplicates))
}

struct Seed<'a> {
    path: &'a mut String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        let base = self.path.len();
        loop {
            self.path.push_str(&format!("[{}]", list.len()));
            let seed = Seed { path: &mut *self.path, duplicates: &mut *self.duplicates };
            let item = items.next_element_seed(seed)?;
            self.path.truncate(base);
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let base = self.path.len();
        while let Some(key) = entries.next_key::<String>()? {
            if base > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            let seed = Seed { path: &mut *self.path, duplicates: &mut *self.duplicates };
            let value = entries.next_value_seed(seed)?;
            if map.insert(key, value).is_some() {
                self.duplicates.push(format!("duplicate field {:?}", self.path));
            }
            self.path.truncate(base);
        }
        Ok(Value::Object(map))
    }
}

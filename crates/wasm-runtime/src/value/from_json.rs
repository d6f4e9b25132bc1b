//! JSON to a value of a given type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use wasmtime::component::{Type, Val};

use super::{DEPTH_MAX, may_be_null, wit};

/// Longest excerpt of a value that an error shows.
const SEEN_CHARS_MAX: usize = 80;

/// The JSON is no value of the type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Where: `order.items[2].count`; starts with the parameter's name.
    pub path: String,
    /// The type in WIT, or what else was expected.
    pub expected: String,
    /// The JSON that is there, cut short.
    pub seen: String,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}, got {}", self.path, self.expected, self.seen)
    }
}

/// Reads `json` as a value of `ty`; `name` is what errors call the place.
pub fn from_json(ty: &Type, json: &Value, name: &str) -> Result<Val, Mismatch> {
    Place { above: None, step: Step::Name(name), depth: 0 }.read(ty, json)
}

/// Where in the argument; becomes text only when something is wrong.
#[derive(Clone, Copy)]
struct Place<'a> {
    above: Option<&'a Place<'a>>,
    step: Step<'a>,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

impl Place<'_> {
    fn path(&self) -> String {
        let mut path = self.above.map(Self::path).unwrap_or_default();
        match self.step {
            Step::Name(name) if path.is_empty() => path.push_str(name),
            Step::Name(name) => {
                path.push('.');
                path.push_str(name);
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
        path
    }

    fn below<'c>(&'c self, step: Step<'c>) -> Place<'c> {
        Place { above: Some(self), step, depth: self.depth + 1 }
    }

    fn mismatch(&self, expected: impl Into<String>, seen: &Value) -> Mismatch {
        let mut text = seen.to_string();
        if let Some((at, _)) = text.char_indices().nth(SEEN_CHARS_MAX) {
            text.truncate(at);
            text.push('…');
        }
        Mismatch { path: self.path(), expected: expected.into(), seen: text }
    }

    fn read(&self, ty: &Type, json: &Value) -> Result<Val, Mismatch> {
        if self.depth > DEPTH_MAX {
            return Err(self.mismatch(format!("at most {DEPTH_MAX} levels of nesting"), json));
        }
        let wrong = || self.mismatch(wit(ty), json);
        match ty {
            Type::Bool => json.as_bool().map(Val::Bool).ok_or_else(wrong),
            Type::S8 => signed(json).and_then(|n| n.try_into().ok()).map(Val::S8).ok_or_else(wrong),
            Type::S16 => signed(json).and_then(|n| n.try_into().ok()).map(Val::S16).ok_or_else(wrong),
            Type::S32 => signed(json).and_then(|n| n.try_into().ok()).map(Val::S32).ok_or_else(wrong),
            Type::S64 => signed(json).or_else(|| json.as_str()?.parse().ok()).map(Val::S64).ok_or_else(wrong),
            Type::U8 => unsigned(json).and_then(|n| n.try_into().ok()).map(Val::U8).ok_or_else(wrong),
            Type::U16 => unsigned(json).and_then(|n| n.try_into().ok()).map(Val::U16).ok_or_else(wrong),
            Type::U32 => unsigned(json).and_then(|n| n.try_into().ok()).map(Val::U32).ok_or_else(wrong),
            Type::U64 => unsigned(json).or_else(|| json.as_str()?.parse().ok()).map(Val::U64).ok_or_else(wrong),
            Type::Float32 => float(json).map(|n| Val::Float32(n as f32)).ok_or_else(wrong),
            Type::Float64 => float(json).map(Val::Float64).ok_or_else(wrong),
            Type::Char => json.as_str().and_then(one_char).map(Val::Char).ok_or_else(wrong),
            Type::String => json.as_str().map(|text| Val::String(text.to_owned())).ok_or_else(wrong),
            Type::Enum(of) => {
                let name = json.as_str().ok_or_else(wrong)?;
                of.names().any(|known| known == name).then(|| Val::Enum(name.to_owned())).ok_or_else(wrong)
            }
            Type::Flags(of) => {
                let given = json.as_array().ok_or_else(wrong)?;
                let mut names = Vec::with_capacity(given.len());
                for item in given {
                    let name = item.as_str().filter(|name| of.names().any(|known| known == *name));
                    names.push(name.ok_or_else(wrong)?.to_owned());
                }
                Ok(Val::Flags(names))
            }
            Type::List(_)
            | Type::FixedLengthList(_)
            | Type::Tuple(_)
            | Type::Record(_)
            | Type::Variant(_)
            | Type::Option(_)
            | Type::Result(_) => self.read_compound(ty, json),
            Type::Map(_) | Type::Own(_) | Type::Borrow(_) | Type::Future(_) | Type::Stream(_) | Type::ErrorContext => {
                Err(self.mismatch("a type that can be written as JSON", json))
            }
        }
    }

    fn read_compound(&self, ty: &Type, json: &Value) -> Result<Val, Mismatch> {
        let wrong = || self.mismatch(wit(ty), json);
        match ty {
            Type::List(of) => match (of.ty(), json) {
                (Type::U8, Value::String(text)) => {
                    let bytes = STANDARD.decode(text).map_err(|_| self.mismatch("list<u8> as base64", json))?;
                    Ok(Val::List(bytes.into_iter().map(Val::U8).collect()))
                }
                (item, Value::Array(items)) => self.items(items, |_| item.clone()).map(Val::List),
                _ => Err(wrong()),
            },
            Type::FixedLengthList(of) => match json {
                Value::Array(items) if items.len() == of.len() as usize => {
                    self.items(items, |_| of.ty()).map(Val::FixedLengthList)
                }
                _ => Err(wrong()),
            },
            Type::Tuple(of) => match json {
                Value::Array(items) if items.len() == of.types().len() => {
                    let types: Vec<Type> = of.types().collect();
                    self.items(items, |index| types[index].clone()).map(Val::Tuple)
                }
                _ => Err(wrong()),
            },
            Type::Record(of) => self.record(of, json, &wrong),
            Type::Variant(of) => {
                let (name, payload) = case(json).ok_or_else(wrong)?;
                let found = of.cases().find(|case| case.name == name).ok_or_else(wrong)?;
                let payload = self.payload(found.ty.as_ref(), name, payload, &wrong)?;
                Ok(Val::Variant(name.to_owned(), payload))
            }
            Type::Option(of) => match (json, may_be_null(&of.ty())) {
                (Value::Null, _) => Ok(Val::Option(None)),
                (_, false) => Ok(Val::Option(Some(Box::new(self.read(&of.ty(), json)?)))),
                (Value::Object(fields), true) if fields.len() == 1 && fields.contains_key("some") => {
                    let inner = self.below(Step::Name("some")).read(&of.ty(), &fields["some"])?;
                    Ok(Val::Option(Some(Box::new(inner))))
                }
                (_, true) => Err(self.mismatch(format!("null or {{\"some\": {}}}", wit(&of.ty())), json)),
            },
            Type::Result(of) => {
                let (name, payload) = case(json).ok_or_else(wrong)?;
                match name {
                    "ok" => Ok(Val::Result(Ok(self.payload(of.ok().as_ref(), name, payload, &wrong)?))),
                    "err" => Ok(Val::Result(Err(self.payload(of.err().as_ref(), name, payload, &wrong)?))),
                    _ => Err(wrong()),
                }
            }
            _ => Err(wrong()),
        }
    }

    fn items(&self, items: &[Value], ty: impl Fn(usize) -> Type) -> Result<Vec<Val>, Mismatch> {
        let read = |(index, item)| self.below(Step::Index(index)).read(&ty(index), item);
        items.iter().enumerate().map(read).collect()
    }

    fn record(
        &self,
        of: &wasmtime::component::types::Record,
        json: &Value,
        wrong: &dyn Fn() -> Mismatch,
    ) -> Result<Val, Mismatch> {
        let given = json.as_object().ok_or_else(wrong)?;
        let mut fields = Vec::with_capacity(given.len());
        let mut known = 0;
        for field in of.fields() {
            let place = self.below(Step::Name(field.name));
            let value = match (given.get(field.name), &field.ty) {
                (Some(value), ty) => {
                    known += 1;
                    place.read(ty, value)?
                }
                (None, Type::Option(_)) => Val::Option(None),
                (None, ty) => {
                    let missing = Mismatch { path: place.path(), expected: wit(ty), seen: "nothing".to_owned() };
                    return Err(missing);
                }
            };
            fields.push((field.name.to_owned(), value));
        }
        if known < given.len() {
            return Err(self.unknown_field(of, given));
        }
        Ok(Val::Record(fields))
    }

    fn unknown_field(&self, of: &wasmtime::component::types::Record, given: &Map<String, Value>) -> Mismatch {
        let names: Vec<&str> = of.fields().map(|field| field.name).collect();
        let extra = given.keys().find(|key| !names.contains(&key.as_str())).map_or("", String::as_str);
        let expected = format!("one of the fields {}", names.join(", "));
        Mismatch { path: self.path(), expected, seen: format!("the field {extra:?}") }
    }

    fn payload(
        &self,
        ty: Option<&Type>,
        case: &str,
        json: Option<&Value>,
        wrong: &dyn Fn() -> Mismatch,
    ) -> Result<Option<Box<Val>>, Mismatch> {
        match (ty, json) {
            (None, None | Some(Value::Null)) => Ok(None),
            (Some(ty), Some(json)) => Ok(Some(Box::new(self.below(Step::Name(case)).read(ty, json)?))),
            // `"case"` alone, where the payload may be left out as null.
            (Some(ty), None) if may_be_null(ty) => Ok(Some(Box::new(Val::Option(None)))),
            (None, Some(_)) | (Some(_), None) => Err(wrong()),
        }
    }
}

/// `"name"` or `{"name": payload}`.
fn case(json: &Value) -> Option<(&str, Option<&Value>)> {
    match json {
        Value::String(name) => Some((name, None)),
        Value::Object(fields) if fields.len() == 1 => {
            fields.iter().next().map(|(name, payload)| (name.as_str(), Some(payload)))
        }
        _ => None,
    }
}

/// Whole numbers, also when written as `2.0`.
fn signed(json: &Value) -> Option<i64> {
    json.as_i64().or_else(|| json.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| n as i64))
}

fn unsigned(json: &Value) -> Option<u64> {
    json.as_u64().or_else(|| signed(json)?.try_into().ok())
}

fn float(json: &Value) -> Option<f64> {
    match json {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "nan" => Some(f64::NAN),
            "inf" => Some(f64::INFINITY),
            "-inf" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn one_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    let first = chars.next()?;
    chars.next().is_none().then_some(first)
}

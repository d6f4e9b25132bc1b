//! Values, and how JSON becomes one: lazily, beside its schema.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::rc::Rc;

use jiff::Timestamp;
use serde_json::Value;

use crate::custom::{ListType, Schema, Type, format};
use crate::quantity::Quantity;

/// What `url()` makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub scheme: String,
    pub host: String,
    pub path: String,
    pub query: String,
}

#[derive(Debug, Clone)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Rc<str>),
    Bytes(Rc<[u8]>),
    /// An object or a list of JSON.
    Json(&'a Value, Option<&'a Schema>),
    List(Rc<Vec<Val<'a>>>),
    Map(Rc<Vec<(Val<'a>, Val<'a>)>>),
    /// Nanoseconds.
    Duration(i64),
    Time(Timestamp),
    Optional(Option<Rc<Val<'a>>>),
    Type(&'static str),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Url(Rc<Url>),
    /// A named format.
    Format(Rc<str>),
    /// Something of the caller's.
    Foreign(Rc<dyn Foreign>),
    /// A value that could not be made; whoever looks at it fails for this reason.
    Failure(Rc<str>),
}

/// Something of the caller's that expressions may ask.
pub trait Foreign: std::fmt::Debug {
    fn type_name(&self) -> &'static str;

    /// Calls a method with texts; `None` when there is none of this name.
    fn call(&self, name: &str, args: &[&str]) -> Option<Answer>;

    /// A member.
    fn member(&self, _name: &str) -> Option<Answer> {
        None
    }
}

/// What a method of something foreign gives.
pub enum Answer {
    Bool(bool),
    Text(String),
    Foreign(Rc<dyn Foreign>),
}

impl From<Answer> for Val<'_> {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Bool(value) => Self::Bool(value),
            Answer::Text(text) => Self::text(&text),
            Answer::Foreign(foreign) => Self::Foreign(foreign),
        }
    }
}

impl<'a> Val<'a> {
    pub fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(items))
    }

    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// JSON as the schema says it is meant.
    pub fn lift(value: &'a Value, schema: Option<&'a Schema>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => {
                let as_double = schema.is_some_and(|schema| schema.kind == Type::Number);
                match number.as_i64() {
                    Some(n) if !as_double => Self::Int(n),
                    None if schema.is_some_and(|schema| schema.kind == Type::Integer) => {
                        Self::Int(number.as_f64().unwrap_or(0.0) as i64)
                    }
                    _ => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
                }
            }
            Value::String(text) => lift_text(text, schema),
            Value::Array(_) | Value::Object(_) => Self::Json(value, schema),
        }
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Json(Value::Array(_), _) | Self::List(_) => "list",
            Self::Json(..) | Self::Map(_) => "map",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Time(_) => "google.protobuf.Timestamp",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Foreign(foreign) => foreign.type_name(),
            Self::Failure(_) => "error",
        }
    }

    /// The items of a list.
    pub fn items(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items.as_ref().clone()),
            Self::Json(Value::Array(items), schema) => {
                let of = schema.and_then(|schema| schema.items.as_deref());
                Some(items.iter().map(|item| Self::lift(item, of)).collect())
            }
            _ => None,
        }
    }

    /// The entries of a map.
    pub fn entries(&self) -> Option<Vec<(Self, Self)>> {
        match self {
            Self::Map(entries) => Some(entries.as_ref().clone()),
            Self::Json(Value::Object(fields), schema) => Some(
                fields
                    .iter()
                    .map(|(name, value)| (Self::text(name), Self::lift(value, schema.and_then(|s| s.field(name)))))
                    .collect(),
            ),
            _ => None,
        }
    }

    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.chars().count()),
            Self::Bytes(bytes) => Some(bytes.len()),
            Self::List(items) => Some(items.len()),
            Self::Map(entries) => Some(entries.len()),
            Self::Json(Value::Array(items), _) => Some(items.len()),
            Self::Json(Value::Object(fields), _) => Some(fields.len()),
            _ => None,
        }
    }

    /// The value under a key of a map, or a field of an object; `None` when it is not there.
    pub fn get(&self, key: &Self) -> Option<Self> {
        match (self, key) {
            (Self::Json(Value::Object(fields), schema), Self::Text(name)) => {
                let value = fields.get(&**name)?;
                Some(Self::lift(value, schema.and_then(|schema| schema.field(name))))
            }
            (Self::Map(entries), key) => {
                entries.iter().find(|(found, _)| found.same(key)).map(|(_, value)| value.clone())
            }
            _ => None,
        }
    }

    /// The value of a named field, whose name may be escaped.
    pub fn field(&self, name: &str) -> Option<Self> {
        self.get(&Self::text(name)).or_else(|| self.get(&Self::text(&unescape(name)?)))
    }

    /// As JSON; `None` for what has no form there.
    pub fn to_json(&self) -> Option<Value> {
        Some(match self {
            Self::Null | Self::Optional(None) => Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => serde_json::Number::from_f64(*value)?.into(),
            Self::Text(text) => (&**text).into(),
            Self::Json(value, _) => (*value).clone(),
            Self::List(items) => items.iter().map(Self::to_json).collect::<Option<Vec<_>>>()?.into(),
            Self::Map(entries) => {
                let entry = |(key, value): &(Self, Self)| match key {
                    Self::Text(key) => Some((key.to_string(), value.to_json()?)),
                    _ => None,
                };
                Value::Object(entries.iter().map(entry).collect::<Option<_>>()?)
            }
            Self::Optional(Some(inner)) => inner.to_json()?,
            Self::Quantity(quantity) => quantity.to_string().into(),
            Self::Time(at) => at.to_string().into(),
            Self::Bytes(bytes) => {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            }
            Self::Duration(_)
            | Self::Type(_)
            | Self::Ip(_)
            | Self::Cidr(..)
            | Self::Url(_)
            | Self::Format(_)
            | Self::Foreign(_)
            | Self::Failure(_) => return None,
        })
    }

    /// `==`: numbers compare by value, lists that are sets without regard to order.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Time(a), Self::Time(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, m), Self::Cidr(b, n)) => a == b && m == n,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Format(a), Self::Format(b)) => a == b,
            (Self::Optional(None), Self::Optional(None)) => true,
            (Self::Optional(Some(a)), Self::Optional(Some(b))) => a.same(b),
            (Self::Json(a, _), Self::Json(b, _)) if std::ptr::eq(*a, *b) => true,
            _ => match (self.entries(), other.entries(), self.items(), other.items()) {
                (Some(a), Some(_), ..) => {
                    self.len() == other.len()
                        && a.iter().all(|(key, value)| other.get(key).is_some_and(|found| found.same(value)))
                }
                (_, _, Some(a), Some(b)) if self.is_set() && other.is_set() => {
                    a.len() == b.len() && a.iter().all(|item| b.iter().any(|found| found.same(item)))
                }
                (_, _, Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.same(b)),
                _ => self.compare(other) == Some(Ordering::Equal),
            },
        }
    }

    fn is_set(&self) -> bool {
        matches!(self, Self::Json(_, Some(schema)) if schema.list != ListType::Atomic)
    }

    /// `<` and its kin; `None` for what has no order. Numbers of different types are compared as doubles.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Double(a), Self::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Int(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Double(a), Self::Uint(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Uint(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Time(a), Self::Time(b)) => Some(a.cmp(b)),
            (Self::Quantity(a), Self::Quantity(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// A text, or what its format makes of it.
fn lift_text<'a>(text: &str, schema: Option<&Schema>) -> Val<'a> {
    let named = schema.filter(|s| s.kind == Type::String).and_then(|s| s.checks.as_deref()?.format.as_deref());
    let special = match named {
        Some("date-time") => text.parse().ok().map(Val::Time),
        Some("date") => text
            .parse::<jiff::civil::Date>()
            .ok()
            .and_then(|date| Some(Val::Time(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()))),
        Some("duration") => format::duration(text).map(Val::Duration),
        Some("byte") => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(text).ok().map(|bytes| Val::Bytes(bytes.into()))
        }
        _ => None,
    };
    special.unwrap_or_else(|| Val::text(text))
}

/// `__namespace__` is `namespace`, `a__dash__b` is `a-b`; `None` when nothing is escaped.
pub fn unescape(name: &str) -> Option<String> {
    if !name.contains("__") {
        return None;
    }
    const KEYWORDS: [&str; 20] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
    ];
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(inner) = inner.filter(|inner| KEYWORDS.contains(inner) || *inner == "while") {
        return Some(inner.to_owned());
    }
    let mut out = name.to_owned();
    for (escaped, plain) in [("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__")] {
        out = out.replace(escaped, plain);
    }
    Some(out)
}

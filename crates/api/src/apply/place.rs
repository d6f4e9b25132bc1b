//! A place in a type, as ownership sees it: is what is here owned as a whole, field by field or item by item?
//!
//! Owns: reading `list_rules` for apply, and the types of what no schema describes. May not know: managers.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::element::{Atom, Element};
use crate::custom::{self, ListType, Type};
use crate::kinds::convert::convert;
use crate::kinds::{Kind, by_kind};
use crate::list_rules::Apply;
use crate::schema::{Cursor, Shape};

#[derive(Clone, Copy)]
pub enum Place<'a> {
    Known(Cursor),
    /// In the schema of a custom kind.
    Custom(&'a custom::Schema),
    /// No schema: maps are owned field by field, everything else as a whole.
    Deduced,
    /// No schema, and owned as a whole.
    Whole,
}

/// How the value at a place is owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Whole,
    /// A struct or a map.
    Fields,
    /// A list of scalars that are all different.
    Set,
    /// A list of items told apart by these fields.
    Keyed(&'static [&'static str]),
}

static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static NULL: Value = Value::Null;

impl<'a> Place<'a> {
    pub fn form(self, value: &Value) -> Form {
        if let Self::Custom(schema) = self {
            return custom_form(schema, value);
        }
        let Self::Known(at) = self else {
            return match (self, value) {
                (Self::Deduced, Value::Object(_)) => Form::Fields,
                _ => Form::Whole,
            };
        };
        let apply = at.rule().map_or(Apply::Default, |rule| rule.apply);
        match (at.shape(), apply) {
            (Shape::Struct { atomic: true } | Shape::Scalar, _) | (Shape::Map, Apply::AtomicMap) => Form::Whole,
            (Shape::Struct { atomic: false } | Shape::Map, _) => Form::Fields,
            (Shape::List, Apply::Set) => Form::Set,
            (Shape::List, Apply::MapByKeys(keys)) => Form::Keyed(keys),
            (Shape::List, _) => Form::Whole,
            (Shape::Raw, _) if value.is_object() => Form::Fields,
            (Shape::Raw, _) => Form::Whole,
        }
    }

    /// Whether the fields here are named by the type. Those of a map are not.
    pub fn is_struct(self) -> bool {
        match self {
            Self::Known(at) => matches!(at.shape(), Shape::Struct { .. }),
            Self::Custom(schema) => schema.is_resource || !schema.properties.is_empty(),
            Self::Deduced | Self::Whole => false,
        }
    }

    /// `None`: the type has no such field.
    pub fn field(self, name: &str) -> Option<Self> {
        match self {
            Self::Known(at) if at.shape() == Shape::Raw => Some(Self::Whole),
            Self::Known(at) => at.field(name).map(Self::Known),
            Self::Custom(schema) => custom_field(schema, name),
            Self::Deduced | Self::Whole => Some(self),
        }
    }

    pub fn item(self) -> Self {
        match self {
            Self::Known(at) => at.item().map_or(Self::Whole, Self::Known),
            Self::Custom(schema) => schema.items.as_deref().map_or(Self::Whole, Self::Custom),
            Self::Deduced | Self::Whole => Self::Whole,
        }
    }

    /// The place that a step leads to.
    pub fn step(self, element: &Element) -> Self {
        match element {
            Element::Field(name) => self.field(name).unwrap_or(Self::Whole),
            Element::Key(_) | Element::Value(_) | Element::Index(_) => self.item(),
        }
    }

    /// What Go has here when JSON has nothing.
    pub fn filler(self) -> Option<&'static Value> {
        match self {
            Self::Known(at) if at.is_never_absent() && at.shape() == Shape::List => Some(&NULL),
            Self::Known(at) if at.is_never_absent() => Some(&EMPTY),
            _ => None,
        }
    }

    /// Which item of a list this is; the place is that of the list.
    ///
    /// # Errors
    /// When it cannot be told, in structured-merge-diff's words.
    pub fn element(self, form: Form, item: &Value) -> Result<Element, String> {
        match form {
            Form::Keyed(keys) => self.keyed(keys, item),
            Form::Set => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(Element::Value(Atom(scalar.clone()))),
            },
            Form::Whole | Form::Fields => Err("invalid indexing of non-associative list".to_owned()),
        }
    }

    fn keyed(self, keys: &[&str], item: &Value) -> Result<Element, String> {
        let fields = match item {
            Value::Object(fields) => fields,
            Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        let parts = keys.iter().filter_map(|key| {
            let value = fields.get(*key).cloned().or_else(|| self.key_default(key))?;
            Some(((*key).into(), Atom(value)))
        });
        let parts: Vec<(Box<str>, Atom)> = parts.collect();
        if parts.is_empty() {
            return Err(format!("associative list with keys has an element that omits all key fields {keys:?}"));
        }
        Ok(Element::key(parts))
    }

    /// A key may be left out. The only one with a default of its own is the protocol of a port.
    fn key_default(self, key: &str) -> Option<Value> {
        let item = match self.item() {
            Self::Known(item) => item,
            Self::Custom(item) => return item.properties.get(key)?.default.clone(),
            Self::Deduced | Self::Whole => return None,
        };
        if key == "protocol" { Some("TCP".into()) } else { item.field(key)?.zero() }
    }
}

fn custom_form(schema: &custom::Schema, value: &Value) -> Form {
    match schema.kind {
        Type::Object if schema.atomic => Form::Whole,
        Type::Object => Form::Fields,
        Type::Array => match schema.list {
            ListType::Atomic => Form::Whole,
            ListType::Set => Form::Set,
            ListType::Map(keys) => Form::Keyed(keys),
        },
        Type::Any if value.is_object() => Form::Fields,
        Type::Any | Type::String | Type::Integer | Type::Number | Type::Boolean | Type::IntOrString => Form::Whole,
    }
}

fn custom_field<'a>(schema: &'a custom::Schema, name: &str) -> Option<Place<'a>> {
    match name {
        "metadata" if schema.is_resource => return Some(Place::Known(Cursor::object_meta())),
        "apiVersion" | "kind" if schema.is_resource => return Some(Place::Whole),
        _ => {}
    }
    match schema.field(name) {
        Some(field) => Some(Place::Custom(field)),
        None if schema.preserves || schema.kind != Type::Object => Some(Place::Deduced),
        None => None,
    }
}

/// The type of an object in the version in which it comes, and how to see it in others.
#[derive(Clone, Copy)]
pub enum Typing<'a> {
    Kind(&'static Kind),
    /// A version, by index, of a custom kind.
    Custom(&'a custom::Definition, usize),
    /// Nothing is known about it.
    Deduced,
}

impl<'a> Typing<'a> {
    /// The same in another version; `None` when that is not served.
    pub fn in_version(self, api_version: &str) -> Option<Self> {
        let kind = match self {
            Self::Kind(kind) => kind,
            Self::Custom(of, _) => return of.by_api_version(api_version).map(|at| Self::Custom(of, at)),
            Self::Deduced => return Some(self),
        };
        if kind.is_api_version(api_version) {
            return Some(self);
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let other = by_kind(group, version, kind.kind)?;
        std::ptr::eq(other.stored(), kind.stored()).then_some(Self::Kind(other))
    }

    pub fn root(self) -> Place<'a> {
        match self {
            Self::Kind(kind) => Place::Known(Cursor::of_kind(kind)),
            Self::Custom(of, at) => Place::Custom(&of.versions[at].schema),
            Self::Deduced => Place::Deduced,
        }
    }

    /// `apiVersion` of its objects, where that is known.
    pub fn api_version(self) -> Option<String> {
        match self {
            Self::Kind(kind) => Some(kind.api_version()),
            Self::Custom(of, at) => Some(of.versions[at].kind.api_version()),
            Self::Deduced => None,
        }
    }

    /// The object as it is in the other's version, for kinds whose versions all say the same.
    pub fn convert<'v>(self, object: &'v Value, to: Self) -> Cow<'v, Value> {
        match (self, to) {
            (Self::Kind(from), Self::Kind(to)) if !std::ptr::eq(from, to) => {
                let mut object = object.clone();
                convert(from, to, &mut object);
                Cow::Owned(object)
            }
            (Self::Custom(_, from), Self::Custom(of, to)) if from != to && object.is_object() => {
                let mut object = object.clone();
                object["apiVersion"] = of.versions[to].kind.api_version().into();
                Cow::Owned(object)
            }
            _ => Cow::Borrowed(object),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(kind: (&str, &str, &str), path: &[&str]) -> Place<'static> {
        let kind = by_kind(kind.0, kind.1, kind.2).unwrap();
        path.iter().fold(Place::Known(Cursor::of_kind(kind)), |place, step| match *step {
            "[]" => place.item(),
            field => place.field(field).unwrap(),
        })
    }

    const POD: (&str, &str, &str) = ("", "v1", "Pod");

    #[test]
    fn forms() {
        let cases = [
            (POD, &["metadata", "labels"][..], Form::Fields),
            (POD, &["metadata", "finalizers"], Form::Set),
            (POD, &["metadata", "ownerReferences"], Form::Keyed(&["uid"])),
            (POD, &["metadata", "ownerReferences", "[]"], Form::Whole),
            (POD, &["spec", "nodeSelector"], Form::Whole),
            (POD, &["spec", "tolerations"], Form::Whole),
            (POD, &["spec", "containers"], Form::Keyed(&["name"])),
            (POD, &["spec", "containers", "[]", "ports"], Form::Keyed(&["containerPort", "protocol"])),
            (POD, &["spec", "containers", "[]", "command"], Form::Whole),
            (POD, &["spec", "containers", "[]", "resources", "limits"], Form::Fields),
            (("apps", "v1", "Deployment"), &["spec", "selector"], Form::Whole),
            (("apps", "v1", "Deployment"), &["spec", "replicas"], Form::Whole),
        ];
        for (kind, path, expect) in cases {
            assert_eq!(at(kind, path).form(&Value::Null), expect, "{path:?}");
        }
        assert_eq!(Place::Deduced.form(&json!({})), Form::Fields);
        assert_eq!(Place::Deduced.form(&json!([])), Form::Whole);
        let raw = at(("apps", "v1", "ControllerRevision"), &["data"]);
        assert_eq!((raw.form(&json!({})), raw.field("x").unwrap().form(&json!({}))), (Form::Fields, Form::Whole));
    }

    #[test]
    fn items() {
        let ports = at(POD, &["spec", "containers", "[]", "ports"]);
        let check = |place: Place, item: Value, expect: &str| {
            let found = place.element(place.form(&Value::Null), &item).map(|element| element.to_string());
            assert_eq!(found.unwrap_or_else(|why| why), expect, "{item}");
        };
        check(ports, json!({ "containerPort": 80 }), "[containerPort=80,protocol=\"TCP\"]");
        check(ports, json!({ "containerPort": 80, "protocol": "UDP" }), "[containerPort=80,protocol=\"UDP\"]");
        check(ports, json!({}), "[containerPort=0,protocol=\"TCP\"]");
        check(ports, json!(null), "associative list with keys may not have a null element");
        check(ports, json!(80), "associative list with keys may not have non-map elements");
        let finalizers = at(POD, &["metadata", "finalizers"]);
        check(finalizers, json!("a"), "[=\"a\"]");
        check(finalizers, json!({}), "associative list without keys has an element that's a map type");
    }

    #[test]
    fn versions() {
        let v2 = Typing::Kind(by_kind("autoscaling", "v2", "HorizontalPodAutoscaler").unwrap());
        let stored = json!({ "apiVersion": "autoscaling/v2", "spec": { "maxReplicas": 3 } });
        let version =
            |api_version: &str| v2.in_version(api_version).map(|to| v2.convert(&stored, to)["apiVersion"].clone());
        assert_eq!(version("autoscaling/v1"), Some(json!("autoscaling/v1")));
        assert_eq!(version("autoscaling/v2"), Some(json!("autoscaling/v2")));
        assert_eq!(version("autoscaling/v2beta2"), None);
        assert_eq!(version("apps/v1"), None);
    }
}

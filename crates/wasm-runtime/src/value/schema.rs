//! Types as JSON Schema, in the mapping of this module.

use serde_json::{Map, Value, json};
use wasmtime::component::Type;

use super::{DEPTH_MAX, may_be_null};

/// Whether values of the type can be written down at all: no handles, streams or futures in it.
pub fn is_plain(ty: &Type) -> bool {
    plain(ty, 0)
}

fn plain(ty: &Type, depth: usize) -> bool {
    if depth > DEPTH_MAX {
        return false;
    }
    let inner = |ty: Type| plain(&ty, depth + 1);
    match ty {
        Type::Bool
        | Type::S8
        | Type::U8
        | Type::S16
        | Type::U16
        | Type::S32
        | Type::U32
        | Type::S64
        | Type::U64
        | Type::Float32
        | Type::Float64
        | Type::Char
        | Type::String
        | Type::Enum(_)
        | Type::Flags(_) => true,
        Type::List(of) => inner(of.ty()),
        Type::FixedLengthList(of) => inner(of.ty()),
        Type::Option(of) => inner(of.ty()),
        Type::Tuple(of) => of.types().all(inner),
        Type::Record(of) => of.fields().all(|field| inner(field.ty)),
        Type::Variant(of) => of.cases().filter_map(|case| case.ty).all(inner),
        Type::Result(of) => of.ok().into_iter().chain(of.err()).all(inner),
        Type::Map(_) | Type::Own(_) | Type::Borrow(_) | Type::Future(_) | Type::Stream(_) | Type::ErrorContext => false,
    }
}

/// The schema of a plain type.
pub fn schema(ty: &Type) -> Value {
    match ty {
        Type::Bool => json!({ "type": "boolean" }),
        Type::S8 => integer(i64::from(i8::MIN), i64::from(i8::MAX)),
        Type::S16 => integer(i64::from(i16::MIN), i64::from(i16::MAX)),
        Type::S32 => integer(i64::from(i32::MIN), i64::from(i32::MAX)),
        Type::U8 => integer(0, i64::from(u8::MAX)),
        Type::U16 => integer(0, i64::from(u16::MAX)),
        Type::U32 => integer(0, i64::from(u32::MAX)),
        Type::S64 => json!({ "type": "integer", "format": "int64" }),
        Type::U64 => json!({ "type": "integer", "format": "uint64", "minimum": 0 }),
        Type::Float32 | Type::Float64 => json!({ "anyOf": [{ "type": "number" }, one_of(["nan", "inf", "-inf"])] }),
        Type::Char => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
        Type::String => json!({ "type": "string" }),
        Type::Enum(of) => one_of(of.names()),
        Type::Flags(of) => json!({ "type": "array", "items": one_of(of.names()), "uniqueItems": true }),
        Type::List(of) => match of.ty() {
            Type::U8 => json!({ "type": "string", "contentEncoding": "base64" }),
            item => json!({ "type": "array", "items": schema(&item) }),
        },
        Type::FixedLengthList(of) => {
            json!({ "type": "array", "items": schema(&of.ty()), "minItems": of.len(), "maxItems": of.len() })
        }
        Type::Tuple(of) => {
            let items: Vec<Value> = of.types().map(|ty| schema(&ty)).collect();
            json!({ "type": "array", "prefixItems": items, "minItems": items.len(), "maxItems": items.len() })
        }
        Type::Record(of) => object(of.fields().map(|field| (field.name, field.ty))),
        Type::Variant(of) => {
            let bare: Vec<&str> = of.cases().filter(|case| case.ty.is_none()).map(|case| case.name).collect();
            let payloads = of.cases().filter_map(|case| Some(single(case.name, case.ty?)));
            let choices: Vec<Value> = (!bare.is_empty()).then(|| one_of(bare)).into_iter().chain(payloads).collect();
            json!({ "oneOf": choices })
        }
        Type::Option(of) => {
            let inner = of.ty();
            let some = if may_be_null(&inner) { single("some", inner) } else { schema(&inner) };
            json!({ "anyOf": [{ "type": "null" }, some] })
        }
        Type::Result(of) => json!({ "oneOf": [side("ok", of.ok()), side("err", of.err())] }),
        Type::Map(_) | Type::Own(_) | Type::Borrow(_) | Type::Future(_) | Type::Stream(_) | Type::ErrorContext => {
            json!({ "not": {} })
        }
    }
}

/// An object of named values, as records and parameters are.
pub fn object<'a>(fields: impl Iterator<Item = (&'a str, Type)>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, ty) in fields {
        if !matches!(ty, Type::Option(_)) {
            required.push(name.to_owned());
        }
        properties.insert(name.to_owned(), schema(&ty));
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn integer(minimum: i64, maximum: i64) -> Value {
    json!({ "type": "integer", "minimum": minimum, "maximum": maximum })
}

fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    json!({ "type": "string", "enum": names.into_iter().collect::<Vec<_>>() })
}

fn single(name: &str, ty: Type) -> Value {
    wrapped(name, schema(&ty))
}

fn side(name: &str, ty: Option<Type>) -> Value {
    wrapped(name, ty.map_or_else(|| json!({ "type": "null" }), |ty| schema(&ty)))
}

fn wrapped(name: &str, schema: Value) -> Value {
    json!({ "type": "object", "properties": { name: schema }, "required": [name], "additionalProperties": false })
}

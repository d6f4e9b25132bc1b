//! A value of a given type to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};
use wasmtime::component::{Type, Val};

use super::{DEPTH_MAX, may_be_null};

/// The JSON of `value`, which is of type `ty`. What JSON has no form for (handles, streams) is null; such functions
/// are not offered.
pub fn to_json(ty: &Type, value: &Val) -> Value {
    write(ty, value, 0)
}

fn write(ty: &Type, value: &Val, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    let inner = |ty: &Type, value: &Val| write(ty, value, depth + 1);
    match (ty, value) {
        (_, Val::Bool(value)) => (*value).into(),
        (_, Val::S8(value)) => (*value).into(),
        (_, Val::S16(value)) => (*value).into(),
        (_, Val::S32(value)) => (*value).into(),
        (_, Val::S64(value)) => (*value).into(),
        (_, Val::U8(value)) => (*value).into(),
        (_, Val::U16(value)) => (*value).into(),
        (_, Val::U32(value)) => (*value).into(),
        (_, Val::U64(value)) => (*value).into(),
        // Through its own shortest text: 0.1 stays 0.1 and does not become 0.10000000149011612.
        (_, Val::Float32(value)) => float(value.to_string().parse().unwrap_or(f64::from(*value))),
        (_, Val::Float64(value)) => float(*value),
        (_, Val::Char(value)) => value.to_string().into(),
        (_, Val::String(value)) => value.as_str().into(),
        (_, Val::Enum(name)) => name.as_str().into(),
        (_, Val::Flags(names)) => names.iter().map(String::as_str).collect(),
        (Type::List(of), Val::List(items)) => match of.ty() {
            Type::U8 => STANDARD.encode(items.iter().filter_map(byte).collect::<Vec<u8>>()).into(),
            item => items.iter().map(|value| inner(&item, value)).collect(),
        },
        (Type::FixedLengthList(of), Val::FixedLengthList(items)) => {
            let item = of.ty();
            items.iter().map(|value| inner(&item, value)).collect()
        }
        (Type::Tuple(of), Val::Tuple(items)) => of.types().zip(items).map(|(ty, value)| inner(&ty, value)).collect(),
        (Type::Record(of), Val::Record(fields)) => {
            let object: Map<String, Value> =
                of.fields().zip(fields).map(|(field, (name, value))| (name.clone(), inner(&field.ty, value))).collect();
            object.into()
        }
        (Type::Variant(of), Val::Variant(name, payload)) => {
            let ty = of.cases().find(|case| case.name == name).and_then(|case| case.ty);
            match (ty, payload) {
                (Some(ty), Some(payload)) => one(name, inner(&ty, payload)),
                _ => name.as_str().into(),
            }
        }
        (Type::Option(of), Val::Option(Some(value))) => {
            let json = inner(&of.ty(), value);
            if may_be_null(&of.ty()) { one("some", json) } else { json }
        }
        (Type::Result(of), Val::Result(result)) => {
            let (name, ty, payload) = match result {
                Ok(payload) => ("ok", of.ok(), payload),
                Err(payload) => ("err", of.err(), payload),
            };
            one(name, ty.zip(payload.as_deref()).map_or(Value::Null, |(ty, payload)| inner(&ty, payload)))
        }
        _ => Value::Null,
    }
}

fn one(name: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(name.to_owned(), value)]))
}

fn float(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "nan".into(),
        None if value > 0.0 => "inf".into(),
        None => "-inf".into(),
    }
}

fn byte(value: &Val) -> Option<u8> {
    match value {
        Val::U8(byte) => Some(*byte),
        _ => None,
    }
}

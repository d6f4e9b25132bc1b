//! Given a type in WIT, values in JSON; and that whatever comes out goes back in.

use proptest::prelude::*;
use serde_json::{Value, json};
use wasmtime::component::{Component, Type, Val, types::ComponentItem};

use super::{from_json, is_plain, schema, to_json, wit};
use crate::engine::compile_engine;

/// The parameter types of an exported function, whose type is given as Wasm text. Compound types are named first,
/// as components must.
fn types(definitions: &str, params: &[&str]) -> Vec<Type> {
    let list: String = params.iter().enumerate().map(|(n, ty)| format!("(param \"p{n}\" {ty})")).collect();
    let engine = compile_engine().unwrap();
    let text = format!(r#"(component {definitions} (import "f" (func {list})))"#);
    let component = Component::new(&engine, text).unwrap();
    let ty = component.component_type();
    let function = ty.get_import(&engine, "f").unwrap();
    let ComponentItem::ComponentFunc(function) = function.ty else { panic!("f is a function") };
    function.params().map(|(_, ty)| ty).collect()
}

fn ty(definitions: &str, param: &str) -> Type {
    types(definitions, &[param]).remove(0)
}

const ORDER: &str = r#"
    (type $side' (enum "buy" "sell")) (import "side" (type $side (eq $side')))
    (type $order' (record (field "item" string) (field "count" u32) (field "note" (option string)) (field "side" $side)))
    (import "order" (type $order (eq $order')))
    (type $shape' (variant (case "circle" f64) (case "unit") (case "maybe" (option u8))))
    (import "shape" (type $shape (eq $shape')))
    (type $rights' (flags "read" "write")) (import "rights" (type $rights (eq $rights')))"#;

#[test]
fn json_becomes_values_and_back() {
    let check = |param: &str, given: Value, back: Value| {
        let ty = ty(ORDER, param);
        let value = from_json(&ty, &given, "a").unwrap_or_else(|error| panic!("{param} {given}: {error}"));
        assert_eq!(to_json(&ty, &value), back, "{param}");
        assert!(is_plain(&ty));
    };
    let same = |param: &str, given: Value| check(param, given.clone(), given);
    same("bool", json!(true));
    same("u64", json!(u64::MAX));
    check("u64", json!("18446744073709551615"), json!(u64::MAX));
    check("s64", json!("-5"), json!(-5));
    check("s8", json!(-3.0), json!(-3));
    same("f32", json!(0.1));
    same("f64", json!("-inf"));
    same("char", json!("⛵"));
    same("string", json!("a\nb"));
    same("(list u8)", json!("AAH/"));
    check("(list u8)", json!([0, 1, 255]), json!("AAH/"));
    same("(list u16)", json!([1, 2]));
    same("(tuple u8 string)", json!([1, "x"]));
    same("$order", json!({"item": "rope", "count": 2, "note": "soon", "side": "buy"}));
    check(
        "$order",
        json!({"item": "rope", "count": 2, "side": "buy"}),
        json!({"item": "rope", "count": 2, "note": null, "side": "buy"}),
    );
    same("$shape", json!({"circle": 1.5}));
    same("$shape", json!("unit"));
    check("$shape", json!({"unit": null}), json!("unit"));
    check("$shape", json!("maybe"), json!({"maybe": null}));
    same("$rights", json!(["read", "write"]));
    same("(option u8)", json!(null));
    same("(option u8)", json!(7));
    same("(option (option u8))", json!({"some": null}));
    same("(option (option u8))", json!({"some": 1}));
    same("(result u8 (error string))", json!({"err": "no"}));
    same("(result)", json!({"ok": null}));
    check("(result)", json!("ok"), json!({"ok": null}));
}

#[test]
fn what_does_not_fit_is_named_with_its_place() {
    let check = |param: &str, given: Value, expect: &str| {
        let error = from_json(&ty(ORDER, param), &given, "a").unwrap_err();
        assert_eq!(error.to_string(), expect);
    };
    check("u32", json!("x"), "a: expected u32, got \"x\"");
    check("u8", json!(256), "a: expected u8, got 256");
    check("s32", json!(1.5), "a: expected s32, got 1.5");
    check("char", json!("ab"), "a: expected char, got \"ab\"");
    check("(list u16)", json!([1, -2]), "a[1]: expected u16, got -2");
    check("(list u8)", json!("?"), "a: expected list<u8> as base64, got \"?\"");
    check("$order", json!({"item": "x", "side": "buy"}), "a.count: expected u32, got nothing");
    check(
        "$order",
        json!({"item": "x", "count": 1, "side": "keep"}),
        "a.side: expected enum { buy, sell }, got \"keep\"",
    );
    check(
        "$order",
        json!({"item": "x", "count": 1, "side": "buy", "colour": 1}),
        "a: expected one of the fields item, count, note, side, got the field \"colour\"",
    );
    check("(list $order)", json!([{"item": 3}]), "a[0].item: expected string, got 3");
    check("$shape", json!({"circle": true}), "a.circle: expected f64, got true");
    check("(option (option u8))", json!(3), "a: expected null or {\"some\": option<u8>}, got 3");
    check("string", json!(["y".repeat(200)]), &format!("a: expected string, got [\"{}…", "y".repeat(78)));
}

#[test]
fn schemas() {
    let check = |param: &str, expect: Value| assert_eq!(schema(&ty(ORDER, param)), expect, "{param}");
    check("u8", json!({"type": "integer", "minimum": 0, "maximum": 255}));
    check("(list u8)", json!({"type": "string", "contentEncoding": "base64"}));
    check(
        "$rights",
        json!({"type": "array", "items": {"type": "string", "enum": ["read", "write"]}, "uniqueItems": true}),
    );
    let order = schema(&ty(ORDER, "$order"));
    assert_eq!(order["required"], json!(["item", "count", "side"]));
    assert_eq!(order["properties"]["note"], json!({"anyOf": [{"type": "null"}, {"type": "string"}]}));
    assert_eq!(
        wit(&ty(ORDER, "(option $order)")),
        "option<record { item: string, count: u32, note: option<string>, side: enum { buy, sell } }>"
    );
}

/// One type that has all of them, and values of it.
const EVERYTHING: &str = r#"(tuple bool s8 u8 s16 u16 s32 u32 s64 u64 f32 f64 char string (list u8) (list s16)
    (option (option u32)) (result string (error u8)) $order (list $shape) $rights)"#;

fn shape() -> impl Strategy<Value = Val> {
    prop_oneof![
        any::<f64>().prop_map(|n| Val::Variant("circle".into(), Some(Box::new(Val::Float64(n))))),
        Just(Val::Variant("unit".into(), None)),
        any::<Option<u8>>().prop_map(|n| {
            let inner = Val::Option(n.map(|n| Box::new(Val::U8(n))));
            Val::Variant("maybe".into(), Some(Box::new(inner)))
        }),
    ]
}

fn order() -> impl Strategy<Value = Val> {
    (any::<String>(), any::<u32>(), any::<Option<String>>(), any::<bool>()).prop_map(|(item, count, note, buy)| {
        Val::Record(vec![
            ("item".into(), Val::String(item)),
            ("count".into(), Val::U32(count)),
            ("note".into(), Val::Option(note.map(|note| Box::new(Val::String(note))))),
            ("side".into(), Val::Enum(if buy { "buy" } else { "sell" }.into())),
        ])
    })
}

fn everything() -> impl Strategy<Value = Val> {
    let small = (any::<bool>(), any::<i8>(), any::<u8>(), any::<i16>(), any::<u16>(), any::<i32>(), any::<u32>());
    let large = (any::<i64>(), any::<u64>(), any::<f32>(), any::<f64>(), any::<char>(), any::<String>());
    let lists = (any::<Vec<u8>>(), any::<Vec<i16>>(), any::<Option<Option<u32>>>(), any::<Result<String, u8>>());
    let named = (order(), proptest::collection::vec(shape(), 0..4), any::<(bool, bool)>());
    (small, large, lists, named).prop_map(|(small, large, lists, named)| {
        let flags = [("read", named.2.0), ("write", named.2.1)];
        let boxed = |value: Val| Some(Box::new(value));
        Val::Tuple(vec![
            Val::Bool(small.0),
            Val::S8(small.1),
            Val::U8(small.2),
            Val::S16(small.3),
            Val::U16(small.4),
            Val::S32(small.5),
            Val::U32(small.6),
            Val::S64(large.0),
            Val::U64(large.1),
            Val::Float32(large.2),
            Val::Float64(large.3),
            Val::Char(large.4),
            Val::String(large.5),
            Val::List(lists.0.into_iter().map(Val::U8).collect()),
            Val::List(lists.1.into_iter().map(Val::S16).collect()),
            Val::Option(lists.2.map(|inner| Box::new(Val::Option(inner.map(|n| Box::new(Val::U32(n))))))),
            Val::Result(match lists.3 {
                Ok(text) => Ok(boxed(Val::String(text))),
                Err(code) => Err(boxed(Val::U8(code))),
            }),
            named.0,
            Val::List(named.1),
            Val::Flags(flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()).collect()),
        ])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Through text as well, because that is what travels.
    #[test]
    fn any_value_survives_json(value in everything()) {
        thread_local!(static TYPE: Type = ty(ORDER, EVERYTHING));
        TYPE.with(|ty| {
            let text = to_json(ty, &value).to_string();
            let back = from_json(ty, &serde_json::from_str(&text).unwrap(), "a");
            let again = back.map(|back| to_json(ty, &back).to_string());
            prop_assert_eq!(again, Ok(text));
            Ok(())
        })?;
    }

    /// No JSON makes it panic.
    #[test]
    fn any_json_is_read_or_refused(text in "[\\[\\]{}\":,0-9a-z ]{0,40}") {
        thread_local!(static TYPE: Type = ty(ORDER, "(list $order)"));
        if let Ok(json) = serde_json::from_str::<Value>(&text) {
            TYPE.with(|ty| drop(from_json(ty, &json, "a")));
        }
    }
}

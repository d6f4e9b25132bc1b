//! The language by tables: what is true, what fails, what is refused.

use serde_json::{Value, json};

use super::*;
use crate::custom::Schema;

/// A schema with one rule at the field `f`, whose schema is given.
fn schema(mut field: Value, rule: Value) -> Schema {
    field["x-kubernetes-validations"] = json!([rule]);
    Schema::root(&json!({ "type": "object", "properties": { "f": field } }))
}

fn run(field: Value, rule: Value, value: &Value, old: Option<&Value>) -> Vec<String> {
    let mut bare = field.clone();
    bare["x-kubernetes-validations"] = json!([]);
    let read = Schema::root(&json!({ "type": "object", "properties": { "f": bare } }));
    let refused = check_rule(&rule, &Scope::of(&read.properties["f"]), "r");
    assert!(refused.is_empty(), "{rule}: {}", refused[0]);
    let wrap = |value: &Value| json!({ "f": value });
    let old = old.map(wrap);
    validate(&schema(field, rule), &wrap(value), old.as_ref()).iter().map(ToString::to_string).collect()
}

const ANY: &str = "x-kubernetes-preserve-unknown-fields";

#[test]
fn true_expressions() {
    let value = json!({ "i": 3, "d": 1.5, "s": "héllo", "b": true, "list": [1, 2, 3], "texts": ["a", "b"],
        "m": { "x": 1, "y": 2 }, "none": null, "ports": [{ "name": "http", "port": 80 }, { "name": "x", "port": 90 }] });
    let cases = [
        "1 + 2 * 3 == 7 && 7 / 2 == 3 && -7 % 4 == -3",
        "self.i == 3 && self.i < 4 && self.d > 1",
        "1u + 2u == 3u && 0x10 == 16 && 1e3 == 1000.0",
        "'a' + \"b\" == 'ab' && r'\\d' == '\\\\d' && '''x''' == 'x' && '\\u00e9' == 'é'",
        "self.s.size() == 5 && size(self.s) == 5 && self.s.contains('éll')",
        "self.s.startsWith('h') && self.s.endsWith('o') && self.s.matches('^h.*o$')",
        "self.s.indexOf('l') == 2 && self.s.lastIndexOf('l') == 3 && self.s.charAt(1) == 'é'",
        "self.s.substring(1, 3) == 'él' && self.s.upperAscii() == 'HéLLO' && ' x '.trim() == 'x'",
        "'a,b,c'.split(',') == ['a','b','c'] && 'a,b'.split(',', 1) == ['a,b'] && ['a','b'].join('-') == 'ab'.replace('ab', 'a-b')",
        "'abc 123 de 45'.find('[0-9]+') == '123' && 'abc 1 2'.findAll('[0-9]') == ['1', '2']",
        "has(self.i) && !has(self.missing) && self.none == null",
        "self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x == 2)",
        "self.list.filter(x, x > 1) == [2, 3] && self.list.map(x, x * 2) == [2, 4, 6] && self.list.map(x, x > 1, x) == [2, 3]",
        "self.list.isSorted() && self.list.sum() == 6 && self.list.min() == 1 && self.list.max() == 3 && self.list.indexOf(3) == 2",
        "2 in self.list && 'x' in self.m && !('z' in self.m) && self.m['x'] == 1 && self.m.all(k, self.m[k] > 0)",
        "self.list.all(i, v, v == i + 1) && self.m.exists(k, v, k == 'y' && v == 2)",
        "self.list.transformList(i, v, i * v) == [0, 2, 6]",
        "self.ports.all(p, p.port > 0) && self.ports.exists(p, p.name == 'http') && self.ports[0].port == 80",
        "self.b ? true : false",
        "false && self.missing == 1 || true",
        "self.missing == 1 || true",
        "true || self.missing == 1",
        "type(self.i) == int && type(self.s) == string && int('3') == 3 && string(3) == '3' && double(3) == 3.0",
        "duration('1h') > duration('30m') && timestamp('2026-01-01T00:00:00Z') + duration('1h') < timestamp('2026-01-02T00:00:00Z')",
        "timestamp('2026-03-04T05:06:07Z').getMonth() == 2 && duration('90m').getMinutes() == 90",
        "quantity('1Gi').isGreaterThan(quantity('500Mi')) && isQuantity('1') && !isQuantity('x') && quantity('1500m').add(quantity('500m')).asInteger() == 2",
        "isIP('10.0.0.1') && ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))",
        "isURL('https://example.com:8080/a?b=c') && url('https://example.com:8080/a?b=c').getPort() == '8080' && url('https://example.com/a').getHostname() == 'example.com'",
        "self.?missing.orValue(3) == 3 && self.?i.hasValue() && optional.none().orValue(1) == 1 && self.m[?'z'].or(self.m[?'x']).value() == 1",
        "self.?i.optMap(x, x + 1).orValue(0) == 4",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 3])",
        "'%s is %d and %.2f'.format(['x', 3, 1.5]) == 'x is 3 and 1.50'",
        "!format.dns1123Label().validate('abc').hasValue() && format.dns1123Label().validate('A_').hasValue()",
        "{'a': 1, 'b': 2}.size() == 2 && [1, 2] + [3] == self.list",
        "self == self && self.list != [1, 2]",
        "!(1 == 2) && !false",
        "// a comment\n true",
    ];
    for rule in cases {
        let rule = json!({ "rule": rule, "message": "m" });
        assert_eq!(run(json!({ ANY: true }), rule.clone(), &value, None), [""; 0], "{rule}");
    }
}

#[test]
fn failures_say_what_and_where() {
    let field = json!({ "type": "object", "properties": {
        "min": { "type": "integer" }, "max": { "type": "integer" }, "when": { "type": "string", "format": "date-time" } } });
    let check = |rule: Value, value: Value, expect: &str| {
        assert_eq!(run(field.clone(), rule.clone(), &value, None), [expect], "{rule}");
    };
    let low = || json!({ "min": 5, "max": 3 });
    check(
        json!({ "rule": "self.min <= self.max" }),
        low(),
        "f: Invalid value: \"object\": failed rule: self.min <= self.max",
    );
    check(
        json!({ "rule": "self.min <= self.max", "message": "min must not exceed max", "reason": "FieldValueForbidden",
            "fieldPath": ".min" }),
        low(),
        "f.min: Forbidden: min must not exceed max",
    );
    check(
        json!({ "rule": "self.min <= self.max", "messageExpression": "'max is ' + string(self.max)" }),
        low(),
        "f: Invalid value: \"object\": max is 3",
    );
    check(
        json!({ "rule": "self.min <= self.max" }),
        json!({ "min": 5 }),
        "f: Invalid value: \"object\": no such key: max evaluating rule: self.min <= self.max",
    );
    assert!(
        run(
            field.clone(),
            json!({ "rule": "self.when < timestamp('2027-01-01T00:00:00Z')" }),
            &json!({ "when": "2026-01-01T00:00:00Z" }),
            None
        )
        .is_empty()
    );
}

#[test]
fn transitions() {
    let field = json!({ "type": "integer" });
    let rule = json!({ "rule": "self >= oldSelf", "message": "only up" });
    let check = |rule: &Value, value: i64, old: Option<i64>, expect: usize| {
        let old = old.map(Value::from);
        assert_eq!(
            run(field.clone(), rule.clone(), &json!(value), old.as_ref()).len(),
            expect,
            "{rule} {value} {old:?}"
        );
    };
    check(&rule, 1, None, 0);
    check(&rule, 2, Some(1), 0);
    check(&rule, 1, Some(2), 1);
    let optional = json!({ "rule": "oldSelf.hasValue() || self == 0", "optionalOldSelf": true });
    check(&optional, 1, None, 1);
    check(&optional, 1, Some(2), 0);
    // What stays as it was is not looked at again.
    check(&json!({ "rule": "self < 5" }), 9, Some(9), 0);
    check(&json!({ "rule": "self < 5" }), 8, Some(9), 1);
}

#[test]
fn what_cannot_work_is_refused() {
    let schema = Schema::root(&json!({ "type": "object", "properties": {
        "a": { "type": "integer" }, "s": { "type": "string" }, "l": { "type": "array", "items": { "type": "integer" } } } }));
    let cases = [
        ("self.b == 1", "undefined field 'b'"),
        ("self.a == 's'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.a + 1", "must evaluate to a bool"),
        ("nonsense(self.a)", "undeclared reference to 'nonsense'"),
        ("self.s.semver()", "undeclared reference to 'semver'"),
        ("other == 1", "undeclared reference to 'other'"),
        ("self.a ==", "Syntax error"),
        ("self.s.matches('(')", "invalid matches argument"),
        ("self.a.all(x, x)", "cannot be range of a comprehension"),
        ("self.l.all(x, x == 'a')", "found no matching overload"),
        ("self.a.startsWith('a')", "found no matching overload for 'startsWith'"),
        ("self.a && true", "found no matching overload for '_&&_'"),
        ("has(self)", "invalid argument to has() macro"),
        ("'unterminated", "unterminated string"),
    ];
    for (rule, expect) in cases {
        let errors = check_rule(&json!({ "rule": rule }), &Scope::of(&schema), "r");
        assert!(errors.iter().any(|error| error.to_string().contains(expect)), "{rule}: {errors:?}");
    }
    let deep = format!("{}true{}", "(".repeat(200), ")".repeat(200));
    assert!(!check_rule(&json!({ "rule": deep }), &Scope::of(&schema), "r").is_empty());
}

#[test]
fn a_rule_that_takes_too_long_is_stopped() {
    let list: Vec<u32> = (0..2000).collect();
    let rule = json!({ "rule": "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))" });
    let found = run(json!({ "type": "array", "items": { "type": "integer" } }), rule, &json!(list), None);
    assert!(found[0].contains("call cost exceeds limit"), "{found:?}");
}

//! Arithmetic, conversions, and the functions on texts and lists; the rest is in `library`.

use std::rc::Rc;

use super::ast::Operator;
use super::eval::{Evaluator, Outcome, no_overload};
use super::library;
use super::value::Val;

/// Every function: name, is it called on something, fewest and most arguments.
pub const FUNCTIONS: &[(&str, bool, usize, usize)] = &[
    ("bool", false, 1, 1),
    ("bytes", false, 1, 1),
    ("cidr", false, 1, 1),
    ("double", false, 1, 1),
    ("duration", false, 1, 1),
    ("dyn", false, 1, 1),
    ("int", false, 1, 1),
    ("ip", false, 1, 1),
    ("isCIDR", false, 1, 1),
    ("isIP", false, 1, 1),
    ("isQuantity", false, 1, 1),
    ("isURL", false, 1, 1),
    ("matches", false, 2, 2),
    ("quantity", false, 1, 1),
    ("size", false, 1, 1),
    ("string", false, 1, 1),
    ("timestamp", false, 1, 1),
    ("type", false, 1, 1),
    ("uint", false, 1, 1),
    ("url", false, 1, 1),
    ("ip.isCanonical", false, 1, 1),
    ("optional.none", false, 0, 0),
    ("optional.of", false, 1, 1),
    ("optional.ofNonZeroValue", false, 1, 1),
    ("sets.contains", false, 2, 2),
    ("sets.equivalent", false, 2, 2),
    ("sets.intersects", false, 2, 2),
    ("jsonpatch.escapeKey", false, 1, 1),
    ("format.named", false, 1, 1),
    ("format.dns1123Label", false, 0, 0),
    ("format.dns1123Subdomain", false, 0, 0),
    ("format.dns1035Label", false, 0, 0),
    ("format.qualifiedName", false, 0, 0),
    ("format.labelValue", false, 0, 0),
    ("format.uri", false, 0, 0),
    ("format.uuid", false, 0, 0),
    ("format.byte", false, 0, 0),
    ("format.date", false, 0, 0),
    ("format.datetime", false, 0, 0),
    ("charAt", true, 1, 1),
    ("contains", true, 1, 1),
    ("endsWith", true, 1, 1),
    ("find", true, 1, 1),
    ("findAll", true, 1, 2),
    ("format", true, 1, 1),
    ("indexOf", true, 1, 2),
    ("join", true, 0, 1),
    ("lastIndexOf", true, 1, 2),
    ("lowerAscii", true, 0, 0),
    ("matches", true, 1, 1),
    ("replace", true, 2, 3),
    ("size", true, 0, 0),
    ("split", true, 1, 2),
    ("startsWith", true, 1, 1),
    ("substring", true, 1, 2),
    ("trim", true, 0, 0),
    ("upperAscii", true, 0, 0),
    ("isSorted", true, 0, 0),
    ("max", true, 0, 0),
    ("min", true, 0, 0),
    ("sum", true, 0, 0),
    ("hasValue", true, 0, 0),
    ("or", true, 1, 1),
    ("orValue", true, 1, 1),
    ("value", true, 0, 0),
    ("validate", true, 1, 1),
    ("getDate", true, 0, 0),
    ("getDayOfMonth", true, 0, 0),
    ("getDayOfWeek", true, 0, 0),
    ("getDayOfYear", true, 0, 0),
    ("getFullYear", true, 0, 0),
    ("getHours", true, 0, 0),
    ("getMilliseconds", true, 0, 0),
    ("getMinutes", true, 0, 0),
    ("getMonth", true, 0, 0),
    ("getSeconds", true, 0, 0),
    ("getEscapedPath", true, 0, 0),
    ("getHost", true, 0, 0),
    ("getHostname", true, 0, 0),
    ("getPort", true, 0, 0),
    ("getQuery", true, 0, 0),
    ("getScheme", true, 0, 0),
    ("containsCIDR", true, 1, 1),
    ("containsIP", true, 1, 1),
    ("family", true, 0, 0),
    ("ip", true, 0, 0),
    ("isGlobalUnicast", true, 0, 0),
    ("isLinkLocalMulticast", true, 0, 0),
    ("isLinkLocalUnicast", true, 0, 0),
    ("isLoopback", true, 0, 0),
    ("isUnspecified", true, 0, 0),
    ("masked", true, 0, 0),
    ("prefixLength", true, 0, 0),
    ("add", true, 1, 1),
    ("asApproximateFloat", true, 0, 0),
    ("asInteger", true, 0, 0),
    ("compareTo", true, 1, 1),
    ("isGreaterThan", true, 1, 1),
    ("isInteger", true, 0, 0),
    ("isLessThan", true, 1, 1),
    ("sign", true, 0, 0),
    ("sub", true, 1, 1),
];

/// Types are values as well: `type(x) == string`.
pub fn type_of_name(name: &str) -> Option<&'static str> {
    let known = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];
    known.into_iter().find(|known| *known == name)
}

/// A value in messages.
pub fn shown(value: &Val<'_>) -> String {
    match value {
        Val::Text(text) => text.to_string(),
        Val::Int(n) | Val::Duration(n) => n.to_string(),
        Val::Uint(n) => n.to_string(),
        Val::Double(n) => n.to_string(),
        Val::Bool(b) => b.to_string(),
        other => other.type_name().to_owned(),
    }
}

pub fn arithmetic<'v>(operator: Operator, a: &Val<'v>, b: &Val<'v>) -> Outcome<'v> {
    use Operator::{Add, Divide, Modulo, Multiply, Subtract};
    let overflow = || "integer overflow".to_owned();
    match (operator, a, b) {
        (Divide, Val::Int(_), Val::Int(0)) | (Divide, Val::Uint(_), Val::Uint(0)) => Err("division by zero".to_owned()),
        (Modulo, Val::Int(_), Val::Int(0)) | (Modulo, Val::Uint(_), Val::Uint(0)) => Err("modulus by zero".to_owned()),
        (_, Val::Int(a), Val::Int(b)) => {
            let result = match operator {
                Add => a.checked_add(*b),
                Subtract => a.checked_sub(*b),
                Multiply => a.checked_mul(*b),
                Divide => a.checked_div(*b),
                _ => a.checked_rem(*b),
            };
            result.map(Val::Int).ok_or_else(overflow)
        }
        (_, Val::Uint(a), Val::Uint(b)) => {
            let result = match operator {
                Add => a.checked_add(*b),
                Subtract => a.checked_sub(*b),
                Multiply => a.checked_mul(*b),
                Divide => a.checked_div(*b),
                _ => a.checked_rem(*b),
            };
            result.map(Val::Uint).ok_or_else(overflow)
        }
        (Add, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        (Subtract, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
        (Multiply, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
        (Divide, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
        (Add, Val::Text(a), Val::Text(b)) => Ok(Val::text(&format!("{a}{b}"))),
        (Add, Val::Bytes(a), Val::Bytes(b)) => Ok(Val::Bytes([&a[..], &b[..]].concat().into())),
        (Add, Val::Duration(a), Val::Duration(b)) => a.checked_add(*b).map(Val::Duration).ok_or_else(overflow),
        (Subtract, Val::Duration(a), Val::Duration(b)) => a.checked_sub(*b).map(Val::Duration).ok_or_else(overflow),
        (Add, Val::Time(at), Val::Duration(n)) | (Add, Val::Duration(n), Val::Time(at)) => {
            at.checked_add(jiff::SignedDuration::from_nanos(*n)).map(Val::Time).map_err(|e| e.to_string())
        }
        (Subtract, Val::Time(at), Val::Duration(n)) => {
            at.checked_sub(jiff::SignedDuration::from_nanos(*n)).map(Val::Time).map_err(|e| e.to_string())
        }
        (Subtract, Val::Time(a), Val::Time(b)) => {
            i64::try_from(a.duration_since(*b).as_nanos()).map(Val::Duration).map_err(|_| overflow())
        }
        (Add, a, b) => match (a.items(), b.items()) {
            (Some(mut items), Some(more)) => {
                items.extend(more);
                Ok(Val::list(items))
            }
            _ => Err(no_overload("_+_", &[a, b])),
        },
        (operator, a, b) => Err(no_overload(&format!("_{}_", operator.name()), &[a, b])),
    }
}

/// Calls a function; the first value is what it is called on, if it is a method.
pub fn call<'v>(with: &mut Evaluator<'_, 'v>, name: &str, is_method: bool, args: &[Val<'v>]) -> Outcome<'v> {
    let unknown = || no_overload(name, &args.iter().collect::<Vec<_>>());
    let found = match (is_method, args) {
        (_, [of]) if name == "size" => of.len().map(|n| Val::Int(i64::try_from(n).unwrap_or(i64::MAX))),
        (_, [Val::Text(text), Val::Text(pattern)]) if name == "matches" => {
            return library::regex(with, pattern).map(|regex| Val::Bool(regex.is_match(text)));
        }
        (false, [value]) => convert(name, value)?,
        (true, [Val::Text(text), rest @ ..]) => text_method(with, name, text, rest)?,
        (true, [list, rest @ ..]) if list.items().is_some() => {
            list_method(with, name, &list.items().unwrap_or_default(), rest)?
        }
        _ => None,
    };
    match found {
        Some(value) => Ok(value),
        None => library::call(name, is_method, args)?.ok_or_else(unknown),
    }
}

fn convert<'v>(name: &str, value: &Val<'v>) -> Result<Option<Val<'v>>, String> {
    let range = |type_name: &str| format!("type conversion error from '{}' to '{type_name}'", value.type_name());
    Ok(Some(match (name, value) {
        ("dyn", value) => value.clone(),
        // A step of a JSON pointer.
        ("jsonpatch.escapeKey", Val::Text(key)) => Val::text(&key.replace('~', "~0").replace('/', "~1")),
        ("type", value) => Val::Type(value.type_name()),
        ("bool", Val::Bool(_)) | ("int", Val::Int(_)) | ("uint", Val::Uint(_)) | ("double", Val::Double(_)) => {
            value.clone()
        }
        ("string", Val::Text(_)) | ("bytes", Val::Bytes(_)) => value.clone(),
        ("duration", Val::Duration(_)) | ("timestamp", Val::Time(_)) => value.clone(),
        ("bool", Val::Text(text)) => Val::Bool(text.to_lowercase().parse().map_err(|_| range("bool"))?),
        ("int", Val::Uint(n)) => Val::Int(i64::try_from(*n).map_err(|_| "integer overflow".to_owned())?),
        ("int", Val::Double(n)) if n.abs() < 9.2e18 => Val::Int(*n as i64),
        ("int", Val::Text(text)) => Val::Int(text.parse().map_err(|_| range("int"))?),
        ("int", Val::Time(at)) => Val::Int(at.as_second()),
        ("uint", Val::Int(n)) => Val::Uint(u64::try_from(*n).map_err(|_| "unsigned integer overflow".to_owned())?),
        ("uint", Val::Double(n)) if (0.0..1.8e19).contains(n) => Val::Uint(*n as u64),
        ("uint", Val::Text(text)) => Val::Uint(text.parse().map_err(|_| range("uint"))?),
        ("double", Val::Int(n)) => Val::Double(*n as f64),
        ("double", Val::Uint(n)) => Val::Double(*n as f64),
        ("double", Val::Text(text)) => Val::Double(text.parse().map_err(|_| range("double"))?),
        ("string", Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Bool(_)) => Val::text(&shown(value)),
        ("string", Val::Bytes(bytes)) => Val::text(std::str::from_utf8(bytes).map_err(|_| range("string"))?),
        ("string", Val::Time(at)) => Val::text(&at.to_string()),
        ("string", Val::Duration(n)) => Val::text(&format!("{}s", *n as f64 / 1e9)),
        ("string", Val::Quantity(quantity)) => Val::text(&quantity.to_string()),
        ("string", Val::Ip(ip)) => Val::text(&ip.to_string()),
        ("string", Val::Cidr(ip, length)) => Val::text(&format!("{ip}/{length}")),
        ("bytes", Val::Text(text)) => Val::Bytes(text.as_bytes().into()),
        ("duration", Val::Text(text)) => {
            Val::Duration(crate::custom::format::duration(text).ok_or_else(|| range("duration"))?)
        }
        ("timestamp", Val::Text(text)) => Val::Time(text.parse().map_err(|_| range("timestamp"))?),
        ("timestamp", Val::Int(n)) => Val::Time(jiff::Timestamp::from_second(*n).map_err(|_| range("timestamp"))?),
        _ => return Ok(None),
    }))
}

fn at(text: &str, index: i64) -> Result<usize, String> {
    let wrong = || format!("index out of range: {index}");
    let wanted = usize::try_from(index).map_err(|_| wrong())?;
    let count = text.chars().count();
    if wanted > count {
        return Err(wrong());
    }
    Ok(text.char_indices().nth(wanted).map_or(text.len(), |(at, _)| at))
}

fn position(text: &str, byte: Option<usize>) -> i64 {
    byte.map_or(-1, |byte| i64::try_from(text[..byte].chars().count()).unwrap_or(-1))
}

fn text_method<'v>(
    with: &mut Evaluator<'_, 'v>,
    name: &str,
    text: &str,
    args: &[Val<'v>],
) -> Result<Option<Val<'v>>, String> {
    let list = |parts: Vec<&str>| Val::list(parts.into_iter().map(Val::text).collect());
    Ok(Some(match (name, args) {
        ("contains", [Val::Text(part)]) => Val::Bool(text.contains(&**part)),
        ("startsWith", [Val::Text(part)]) => Val::Bool(text.starts_with(&**part)),
        ("endsWith", [Val::Text(part)]) => Val::Bool(text.ends_with(&**part)),
        ("lowerAscii", []) => Val::text(&text.to_ascii_lowercase()),
        ("upperAscii", []) => Val::text(&text.to_ascii_uppercase()),
        ("trim", []) => Val::text(text.trim()),
        ("charAt", [Val::Int(index)]) => {
            let from = at(text, *index)?;
            Val::text(&text[from..].chars().take(1).collect::<String>())
        }
        ("indexOf", [Val::Text(part)]) => Val::Int(position(text, text.find(&**part))),
        ("indexOf", [Val::Text(part), Val::Int(from)]) => {
            let from = at(text, *from)?;
            Val::Int(position(text, text[from..].find(&**part).map(|found| from + found)))
        }
        ("lastIndexOf", [Val::Text(part)]) => Val::Int(position(text, text.rfind(&**part))),
        ("lastIndexOf", [Val::Text(part), Val::Int(until)]) => {
            let until = at(text, *until)?;
            Val::Int(position(text, text.match_indices(&**part).map(|(at, _)| at).take_while(|at| *at <= until).last()))
        }
        ("substring", [Val::Int(from)]) => Val::text(&text[at(text, *from)?..]),
        ("substring", [Val::Int(from), Val::Int(to)]) => {
            let (from, to) = (at(text, *from)?, at(text, *to)?);
            Val::text(text.get(from..to).ok_or_else(|| format!("invalid substring range. start: {from}, end: {to}"))?)
        }
        ("replace", [Val::Text(old), Val::Text(new)]) => {
            with.spend(text.matches(&**old).count() * new.len() / 10)?;
            Val::text(&text.replace(&**old, new))
        }
        ("replace", [Val::Text(old), Val::Text(new), Val::Int(count)]) => {
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            with.spend(text.matches(&**old).count().min(count) * new.len() / 10)?;
            Val::text(&text.replacen(&**old, new, count))
        }
        ("split", [Val::Text(separator)]) => list(split(text, separator, usize::MAX)),
        ("split", [Val::Text(_), Val::Int(0)]) => Val::list(Vec::new()),
        ("split", [Val::Text(separator), Val::Int(count)]) => {
            list(split(text, separator, usize::try_from(*count).unwrap_or(usize::MAX)))
        }
        ("find", [Val::Text(pattern)]) => {
            let regex = library::regex(with, pattern)?;
            Val::text(regex.find(text).map_or("", |found| found.as_str()))
        }
        ("findAll", [Val::Text(pattern), rest @ ..]) => {
            let count = match rest {
                [Val::Int(count)] => usize::try_from(*count).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let regex = library::regex(with, pattern)?;
            list(regex.find_iter(text).take(count).map(|found| found.as_str()).collect())
        }
        ("format", [args]) => Val::text(&library::format(text, &args.items().ok_or("format needs a list")?)?),
        _ => return Ok(None),
    }))
}

fn split<'a>(text: &'a str, separator: &str, count: usize) -> Vec<&'a str> {
    if separator.is_empty() {
        let ends = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
        return ends.take(count).collect();
    }
    text.splitn(count, separator).collect()
}

fn list_method<'v>(
    with: &mut Evaluator<'_, 'v>,
    name: &str,
    items: &[Val<'v>],
    args: &[Val<'v>],
) -> Result<Option<Val<'v>>, String> {
    with.spend(items.len())?;
    let index = |found: Option<usize>| Val::Int(found.map_or(-1, |at| i64::try_from(at).unwrap_or(-1)));
    let best = |wanted: std::cmp::Ordering| {
        let mut best = items.first().cloned().ok_or_else(|| format!("{name} called on empty list"))?;
        for item in items {
            if item.compare(&best).ok_or_else(|| no_overload(name, &[item]))? == wanted {
                best = item.clone();
            }
        }
        Ok::<_, String>(best)
    };
    Ok(Some(match (name, args) {
        ("isSorted", []) => {
            Val::Bool(items.windows(2).all(|pair| pair[0].compare(&pair[1]).is_some_and(std::cmp::Ordering::is_le)))
        }
        ("min", []) => best(std::cmp::Ordering::Less)?,
        ("max", []) => best(std::cmp::Ordering::Greater)?,
        ("sum", []) => match items.split_first() {
            None => Val::Int(0),
            Some((first, rest)) => {
                rest.iter().try_fold(first.clone(), |sum, item| arithmetic(Operator::Add, &sum, item))?
            }
        },
        ("indexOf", [wanted]) => index(items.iter().position(|item| item.same(wanted))),
        ("lastIndexOf", [wanted]) => index(items.iter().rposition(|item| item.same(wanted))),
        ("join", rest) => {
            let separator: Rc<str> = match rest {
                [] => "".into(),
                [Val::Text(separator)] => separator.clone(),
                _ => return Ok(None),
            };
            let mut parts = Vec::with_capacity(items.len());
            for item in items {
                let Val::Text(part) = item else { return Err(no_overload("join", &[item])) };
                parts.push(&**part);
            }
            with.spend(parts.iter().map(|part| part.len() + separator.len()).sum::<usize>() / 10)?;
            Val::text(&parts.join(&separator))
        }
        _ => return Ok(None),
    }))
}

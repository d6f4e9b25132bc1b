//! Kubernetes' additions to CEL: regular expressions, addresses, URLs, quantities, named formats, sets; and CEL's own
//! times, durations, optionals and `format`.

use std::net::IpAddr;
use std::rc::Rc;

use jiff::tz::TimeZone;
use regex::Regex;

use super::eval::{Evaluator, no_overload};
use super::functions::shown;
use super::value::{Url, Val};
use crate::custom::{format as formats, pattern};
use crate::meta;
use crate::quantity::Quantity;

/// What compiling a pattern costs that the rule did not name literally.
const PATTERN_STEPS: usize = 2_000;

/// A pattern of the rule, or one that was made while it runs.
pub fn regex(with: &mut Evaluator<'_, '_>, text: &str) -> Result<Regex, String> {
    if let Some(regex) = with.patterns.get(text) {
        return Ok(regex.clone());
    }
    with.spend(PATTERN_STEPS + text.len() * 10)?;
    pattern(text)
}

type Found<'v> = Result<Option<Val<'v>>, String>;

pub fn call<'v>(name: &str, is_method: bool, args: &[Val<'v>]) -> Found<'v> {
    match (is_method, args) {
        (false, _) => function(name, args),
        (true, [Val::Optional(inner), ..]) => Ok(match (name, inner) {
            ("hasValue", inner) => Some(Val::Bool(inner.is_some())),
            ("value", Some(inner)) => Some(inner.as_ref().clone()),
            ("value", None) => return Err("optional.none() dereference".to_owned()),
            _ => None,
        }),
        (true, [Val::Time(at), ..]) => Ok(time(name, *at)),
        (true, [Val::Duration(nanos), ..]) => Ok(duration(name, *nanos)),
        (true, [Val::Url(url), ..]) => Ok(of_url(name, url)),
        (true, [Val::Ip(ip), ..]) => Ok(of_ip(name, *ip)),
        (true, [Val::Cidr(ip, length), rest @ ..]) => of_cidr(name, (*ip, *length), rest),
        (true, [Val::Quantity(quantity), rest @ ..]) => of_quantity(name, *quantity, rest),
        (true, [Val::Format(format), Val::Text(text)]) if name == "validate" => Ok(Some(validate(format, text))),
        _ => Ok(None),
    }
}

fn function<'v>(name: &str, args: &[Val<'v>]) -> Found<'v> {
    let bad = |what: &str, text: &str| format!("{what} {text:?} does not parse");
    Ok(Some(match (name, args) {
        ("quantity", [Val::Text(text)]) => Val::Quantity(Quantity::parse(text).map_err(|error| error.to_string())?),
        ("isQuantity", [Val::Text(text)]) => Val::Bool(Quantity::parse(text).is_ok()),
        ("ip", [Val::Text(text)]) => Val::Ip(text.parse().map_err(|_| bad("IP Address", text))?),
        ("isIP", [Val::Text(text)]) => Val::Bool(text.parse::<IpAddr>().is_ok()),
        ("ip.isCanonical", [Val::Text(text)]) => {
            let ip: IpAddr = text.parse().map_err(|_| bad("IP Address", text))?;
            Val::Bool(ip.to_string() == **text)
        }
        ("cidr", [Val::Text(text)]) => {
            let (ip, length) = formats::cidr(text).ok_or_else(|| bad("CIDR", text))?;
            Val::Cidr(ip, length)
        }
        ("isCIDR", [Val::Text(text)]) => Val::Bool(formats::cidr(text).is_some()),
        ("url", [Val::Text(text)]) => Val::Url(Rc::new(url(text).ok_or_else(|| bad("URL", text))?)),
        ("isURL", [Val::Text(text)]) => Val::Bool(url(text).is_some()),
        ("optional.none", []) => Val::Optional(None),
        ("optional.of", [value]) => Val::some(value.clone()),
        ("optional.ofNonZeroValue", [value]) => {
            let is_zero = match value {
                Val::Null => true,
                Val::Bool(value) => !value,
                Val::Int(n) | Val::Duration(n) => *n == 0,
                Val::Uint(n) => *n == 0,
                Val::Double(n) => *n == 0.0,
                other => other.len() == Some(0),
            };
            if is_zero { Val::Optional(None) } else { Val::some(value.clone()) }
        }
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [a, b]) => {
            let (Some(a), Some(b)) = (a.items(), b.items()) else { return Ok(None) };
            let holds = |list: &[Val<'v>], item: &Val<'v>| list.iter().any(|found| found.same(item));
            Val::Bool(match name {
                "sets.contains" => b.iter().all(|item| holds(&a, item)),
                "sets.equivalent" => b.iter().all(|item| holds(&a, item)) && a.iter().all(|item| holds(&b, item)),
                _ => a.iter().any(|item| holds(&b, item)),
            })
        }
        ("format.named", [Val::Text(name)]) => {
            if is_format(name) {
                Val::some(Val::Format(name.clone()))
            } else {
                Val::Optional(None)
            }
        }
        (name, []) => match name.strip_prefix("format.") {
            Some(format) => Val::Format(format.into()),
            None => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

fn is_format(name: &str) -> bool {
    let known = [
        "dns1123Label",
        "dns1123Subdomain",
        "dns1035Label",
        "qualifiedName",
        "labelValue",
        "uri",
        "uuid",
        "byte",
        "date",
        "datetime",
    ];
    known.contains(&name)
}

/// `optional.none()` when it fits, else what is wrong.
fn validate<'v>(format: &str, text: &str) -> Val<'v> {
    let fits = match format {
        "dns1123Label" => meta::is_dns_label(text),
        "dns1123Subdomain" => meta::is_dns_subdomain(text),
        "dns1035Label" => meta::is_dns_1035_label(text),
        "qualifiedName" => meta::is_qualified_name(text),
        "labelValue" => meta::is_label_value(text),
        other => formats::text_fits(other, text),
    };
    if fits {
        return Val::Optional(None);
    }
    let why = match format {
        "dns1123Label" => meta::LABEL_RULE.to_owned(),
        "dns1123Subdomain" => meta::SUBDOMAIN_RULE.to_owned(),
        "dns1035Label" => meta::RFC1035_RULE.to_owned(),
        other => format!("invalid {other}"),
    };
    Val::some(Val::list(vec![Val::text(&why)]))
}

fn time<'v>(name: &str, at: jiff::Timestamp) -> Option<Val<'v>> {
    let at = at.to_zoned(TimeZone::UTC);
    let number = match name {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return None,
    };
    Some(Val::Int(number))
}

fn duration<'v>(name: &str, nanos: i64) -> Option<Val<'v>> {
    let unit = match name {
        "getHours" => 3_600_000_000_000,
        "getMinutes" => 60_000_000_000,
        "getSeconds" => 1_000_000_000,
        "getMilliseconds" => 1_000_000,
        _ => return None,
    };
    Some(Val::Int(nanos / unit))
}

/// An absolute URL, or an absolute path.
fn url(text: &str) -> Option<Url> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let (whole, query) = text.split('#').next()?.split_once('?').unwrap_or((text.split('#').next()?, ""));
    if let Some(path) = whole.strip_prefix('/') {
        let path = format!("/{path}");
        return Some(Url { scheme: String::new(), host: String::new(), path, query: query.to_owned() });
    }
    let (scheme, rest) = whole.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !is_scheme {
        return None;
    }
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or((rest, ""), |at| rest.split_at(at)),
        None => ("", rest),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let url =
        Url { scheme: scheme.to_lowercase(), host: host.to_owned(), path: path.to_owned(), query: query.to_owned() };
    let port = port(&url.host);
    (port.is_empty() || port.parse::<u16>().is_ok()).then_some(url)
}

fn port(host: &str) -> &str {
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after.rsplit_once(':').map_or("", |(_, port)| port)
}

fn of_url<'v>(name: &str, url: &Url) -> Option<Val<'v>> {
    Some(match name {
        "getScheme" => Val::text(&url.scheme),
        "getHost" => Val::text(&url.host),
        "getPort" => Val::text(port(&url.host)),
        "getHostname" => {
            let port = port(&url.host);
            let host = if port.is_empty() { url.host.as_str() } else { &url.host[..url.host.len() - port.len() - 1] };
            Val::text(host.trim_start_matches('[').trim_end_matches(']'))
        }
        "getEscapedPath" => Val::text(&url.path),
        "getQuery" => {
            let mut map: Vec<(Val<'v>, Vec<Val<'v>>)> = Vec::new();
            for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                let (key, value) = (Val::text(key), Val::text(value));
                match map.iter_mut().find(|(known, _)| known.same(&key)) {
                    Some((_, values)) => values.push(value),
                    None => map.push((key, vec![value])),
                }
            }
            Val::Map(Rc::new(map.into_iter().map(|(key, values)| (key, Val::list(values))).collect()))
        }
        _ => return None,
    })
}

fn of_ip<'v>(name: &str, ip: IpAddr) -> Option<Val<'v>> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let link_local_multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    };
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    Some(match name {
        "family" => Val::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Val::Bool(ip.is_unspecified()),
        "isLoopback" => Val::Bool(ip.is_loopback()),
        "isLinkLocalUnicast" => Val::Bool(link_local),
        "isLinkLocalMulticast" => Val::Bool(link_local_multicast),
        "isGlobalUnicast" => {
            Val::Bool(!ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local && !is_broadcast)
        }
        _ => return None,
    })
}

/// The first address of a network.
fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

fn of_cidr<'v>(name: &str, (ip, length): (IpAddr, u8), args: &[Val<'v>]) -> Found<'v> {
    let contains = |other: IpAddr| other.is_ipv4() == ip.is_ipv4() && masked(other, length) == masked(ip, length);
    Ok(Some(match (name, args) {
        ("ip", []) => Val::Ip(ip),
        ("masked", []) => Val::Cidr(masked(ip, length), length),
        ("prefixLength", []) => Val::Int(i64::from(length)),
        ("containsIP", [Val::Ip(other)]) => Val::Bool(contains(*other)),
        ("containsIP", [Val::Text(text)]) => {
            Val::Bool(contains(text.parse().map_err(|_| format!("IP Address {text:?} does not parse"))?))
        }
        ("containsCIDR", [Val::Cidr(other, bits)]) => Val::Bool(*bits >= length && contains(*other)),
        ("containsCIDR", [Val::Text(text)]) => {
            let (other, bits) = formats::cidr(text).ok_or_else(|| format!("CIDR {text:?} does not parse"))?;
            Val::Bool(bits >= length && contains(other))
        }
        _ => return Ok(None),
    }))
}

fn of_quantity<'v>(name: &str, quantity: Quantity, args: &[Val<'v>]) -> Found<'v> {
    let is_whole = Quantity::from_units(quantity.as_units()) == quantity;
    let sign = match (quantity.is_zero(), quantity.is_negative()) {
        (true, _) => 0,
        (false, true) => -1,
        (false, false) => 1,
    };
    let other = match args {
        [Val::Quantity(other)] => Some(*other),
        [Val::Int(units)] => Some(Quantity::from_units(*units)),
        _ => None,
    };
    Ok(Some(match (name, other) {
        ("isInteger", None) => Val::Bool(is_whole),
        ("asInteger", None) if is_whole => Val::Int(quantity.as_units()),
        ("asInteger", None) => return Err("cannot convert value to integer".to_owned()),
        ("asApproximateFloat", None) => Val::Double(quantity.as_millis() as f64 / 1000.0),
        ("sign", None) => Val::Int(sign),
        ("add", Some(other)) => Val::Quantity(quantity.add(other)),
        ("sub", Some(other)) => Val::Quantity(quantity.sub(other)),
        ("isLessThan", Some(other)) => Val::Bool(quantity < other),
        ("isGreaterThan", Some(other)) => Val::Bool(quantity > other),
        ("compareTo", Some(other)) => Val::Int(quantity.cmp(&other) as i64),
        _ => return Ok(None),
    }))
}

/// `"%s is %d".format([…])`
pub fn format(text: &str, args: &[Val<'_>]) -> Result<String, String> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = match after.strip_prefix('.') {
            Some(after) => {
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                (after[..end].parse::<usize>().unwrap_or(6).min(30), &after[end..])
            }
            None => (6, after),
        };
        let letter = after.chars().next().ok_or("unexpected end of format string")?;
        let value = args.next().ok_or("index out of range: there are fewer arguments than verbs")?;
        out.push_str(&formatted(letter, precision, value)?);
        rest = &after[letter.len_utf8()..];
    }
    out.push_str(rest);
    Ok(out)
}

fn formatted(letter: char, precision: usize, value: &Val<'_>) -> Result<String, String> {
    Ok(match (letter, value) {
        ('s', value) => deep(value),
        ('d', Val::Int(_) | Val::Uint(_) | Val::Double(_)) => shown(value),
        ('f', Val::Double(n)) => format!("{n:.precision$}"),
        ('f', Val::Int(n)) => format!("{:.precision$}", *n as f64),
        ('e', Val::Double(n)) => format!("{n:.precision$e}"),
        ('b', Val::Int(n)) => format!("{n:b}"),
        ('o', Val::Int(n)) => format!("{n:o}"),
        ('x', Val::Int(n)) => format!("{n:x}"),
        ('X', Val::Int(n)) => format!("{n:X}"),
        (letter, value) => return Err(no_overload(&format!("format %{letter}"), &[value])),
    })
}

fn deep(value: &Val<'_>) -> String {
    if let Some(items) = value.items() {
        return format!("[{}]", items.iter().map(deep).collect::<Vec<_>>().join(", "));
    }
    if let Some(entries) = value.entries() {
        let entries: Vec<String> =
            entries.iter().map(|(key, value)| format!("{}: {}", deep(key), deep(value))).collect();
        return format!("{{{}}}", entries.join(", "));
    }
    match value {
        Val::Null => "null".to_owned(),
        Val::Time(at) => at.to_string(),
        Val::Quantity(quantity) => quantity.to_string(),
        other => shown(other),
    }
}

//! The formats that kube-apiserver checks. One that it does not know is not checked, as there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use jiff::civil::Date;

/// Whether a number fits `int32`, `int64` and so on.
pub fn number_fits(format: &str, number: f64) -> bool {
    match format {
        "int32" => number.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number),
        "int64" => number.fract() == 0.0 && number.abs() <= 9_223_372_036_854_775_807.0,
        "float" => number.abs() <= f64::from(f32::MAX),
        _ => true,
    }
}

pub fn text_fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "duration" => duration(text).is_some(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "ip" => text.parse::<IpAddr>().is_ok(),
        "cidr" => cidr(text).is_some(),
        "uuid" => uuid(text).is_some(),
        "uuid3" => uuid(text) == Some(b'3'),
        "uuid4" => uuid(text) == Some(b'4'),
        "uuid5" => uuid(text) == Some(b'5'),
        "byte" => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(text.replace(['\r', '\n'], "")).is_ok()
        }
        "email" => {
            text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !text.contains(' '))
        }
        "hostname" => text.len() <= 255 && crate::meta::is_dns_subdomain(&text.to_lowercase()),
        "mac" => {
            text.split([':', '-']).count() == 6
                && text.split([':', '-']).all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
        }
        "uri" => text
            .split_once(':')
            .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty() && !text.contains(' ')),
        "k8s-short-name" | "dns1123label" => crate::meta::is_dns_label(text),
        "k8s-long-name" | "dns1123subdomain" => crate::meta::is_dns_subdomain(text),
        _ => true,
    }
}

/// The version digit of a UUID.
fn uuid(text: &str) -> Option<u8> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let is_hex = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| digits.as_bytes()[12])
}

/// Address and prefix length.
pub fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// `1h30m`, as Go writes durations, in nanoseconds.
pub fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        // Longer units first: `ms` is not `m`.
        let units = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        nanos += number * factor;
        rest = &rest[unit.len()..];
    }
    let nanos = sign * nanos;
    (nanos.abs() < 9.2e18).then(|| nanos.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let cases = [
            ("date-time", "2026-01-02T03:04:05Z", true),
            ("date-time", "2026-01-02", false),
            ("date", "2026-01-02", true),
            ("date", "2026-13-02", false),
            ("duration", "1h30m", true),
            ("duration", "5 apples", false),
            ("ipv4", "10.0.0.1", true),
            ("ipv4", "::1", false),
            ("cidr", "10.0.0.0/8", true),
            ("cidr", "10.0.0.0/33", false),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", true),
            ("byte", "YQ==", true),
            ("byte", "!", false),
            ("unheard-of", "x", true),
        ];
        for (format, text, expect) in cases {
            assert_eq!(text_fits(format, text), expect, "{format} {text}");
        }
        assert!(number_fits("int32", 2_147_483_647.0) && !number_fits("int32", 2_147_483_648.0));
        assert_eq!(duration("1.5s"), Some(1_500_000_000));
        assert_eq!(duration("-2ms"), Some(-2_000_000));
    }
}

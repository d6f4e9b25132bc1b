//! Rules for single texts, with Kubernetes' explanation of each (`apimachinery/pkg/util/validation`).

use std::net::IpAddr;

use crate::meta;

const LABEL_BYTES_MAX: usize = 63;
const SUBDOMAIN_BYTES_MAX: usize = 253;
const PORT_NAME_BYTES_MAX: usize = 15;

const QUALIFIED_NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY_RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const PERCENT_RULE: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

pub(super) fn dns_label(text: &str) -> Option<String> {
    if text.len() > LABEL_BYTES_MAX {
        return Some(too_long(LABEL_BYTES_MAX));
    }
    (!meta::is_dns_label(text)).then(|| meta::LABEL_RULE.to_owned())
}

pub(super) fn dns_1035_label(text: &str) -> Option<String> {
    if text.len() > LABEL_BYTES_MAX {
        return Some(too_long(LABEL_BYTES_MAX));
    }
    (!meta::is_dns_1035_label(text)).then(|| meta::RFC1035_RULE.to_owned())
}

pub(super) fn dns_subdomain(text: &str) -> Option<String> {
    if text.len() > SUBDOMAIN_BYTES_MAX {
        return Some(too_long(SUBDOMAIN_BYTES_MAX));
    }
    (!meta::is_dns_subdomain(text)).then(|| meta::SUBDOMAIN_RULE.to_owned())
}

/// Names that only have to fit into a path: RBAC.
pub(super) fn path_segment(text: &str) -> Option<String> {
    match text {
        "." => Some("may not be '.'".to_owned()),
        ".." => Some("may not be '..'".to_owned()),
        _ => ["/", "%"].iter().find(|bad| text.contains(**bad)).map(|bad| format!("may not contain '{bad}'")),
    }
}

/// `[prefix/]name`
pub(super) fn qualified_name(text: &str) -> Option<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if name.contains('/') {
        return Some(format!(
            "a qualified name {QUALIFIED_NAME_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ));
    }
    match prefix {
        Some("") => return Some("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            if let Some(why) = dns_subdomain(prefix) {
                return Some(format!("prefix part {why}"));
            }
        }
        None => {}
    }
    if name.is_empty() {
        Some("name part must be non-empty".to_owned())
    } else if name.len() > LABEL_BYTES_MAX {
        Some(format!("name part {}", too_long(LABEL_BYTES_MAX)))
    } else if !meta::is_qualified_name(name) {
        Some(format!("name part {QUALIFIED_NAME_RULE}"))
    } else {
        None
    }
}

pub(super) fn label_value(text: &str) -> Option<String> {
    if text.len() > LABEL_BYTES_MAX {
        return Some(too_long(LABEL_BYTES_MAX));
    }
    (!meta::is_label_value(text)).then(|| LABEL_VALUE_RULE.to_owned())
}

/// A key of a ConfigMap or Secret; it becomes a file name.
pub(super) fn config_key(text: &str) -> Option<String> {
    if text.len() > SUBDOMAIN_BYTES_MAX {
        return Some(too_long(SUBDOMAIN_BYTES_MAX));
    }
    let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    match text {
        _ if !fits => Some(CONFIG_KEY_RULE.to_owned()),
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

pub(super) fn env_name(text: &str) -> Option<String> {
    let fits = text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    (!fits).then(|| {
        "a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()
    })
}

/// IANA service name, as ports have it.
pub(super) fn port_name(text: &str) -> Option<String> {
    let why = if text.len() > PORT_NAME_BYTES_MAX {
        return Some(too_long(PORT_NAME_BYTES_MAX));
    } else if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    } else if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        "must contain at least one letter (a-z)"
    } else if text.contains("--") {
        "must not contain consecutive hyphens"
    } else if text.starts_with('-') || text.ends_with('-') {
        "must not begin or end with a hyphen"
    } else {
        return None;
    };
    Some(why.to_owned())
}

pub(super) fn ip(text: &str) -> Option<String> {
    text.parse::<IpAddr>().is_err().then(|| "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned())
}

pub(super) fn percent(text: &str) -> Option<String> {
    let digits = text.strip_suffix('%').unwrap_or("");
    let fits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (!fits).then(|| PERCENT_RULE.to_owned())
}

/// A path inside a volume.
pub(super) fn relative_path(text: &str) -> Option<String> {
    if text.starts_with('/') { Some("must be a relative path".to_owned()) } else { no_backsteps(text) }
}

pub(super) fn no_backsteps(text: &str) -> Option<String> {
    text.split('/').any(|part| part == "..").then(|| "must not contain '..'".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        type Rule = fn(&str) -> Option<String>;
        let cases: [(Rule, &[&str], &[&str]); 9] = [
            (dns_label, &["a", "a-1"], &["", "A", "a.b", "-a"]),
            (dns_1035_label, &["a1"], &["1a", ""]),
            (dns_subdomain, &["a.b"], &["a..b", "A"]),
            (path_segment, &["system:node", "A b"], &[".", "..", "a/b", "50%"]),
            (qualified_name, &["a", "x.io/a_B"], &["", "/a", "X/a", "x/", "x/y/z", "x/-"]),
            (config_key, &["a.b", "_x"], &["", "a/b", "..a", "..", "ä"]),
            (env_name, &["A", "a b", "1-x.y"], &["A=B", "é"]),
            (port_name, &["http", "a-1"], &["80", "a--b", "-a", "HTTP", "abcdefghijklmnop"]),
            (percent, &["5%"], &["5", "%", "a%"]),
        ];
        for (rule, good, bad) in cases {
            for text in good {
                assert_eq!(rule(text), None, "{text:?}");
            }
            for text in bad {
                assert!(rule(text).is_some(), "{text:?}");
            }
        }
        assert!(relative_path("/a").is_some() && relative_path("a/../b").is_some() && relative_path("a/b..").is_none());
        assert!(ip("10.0.0.1").is_none() && ip("fd00::1").is_none() && ip("010.1.1.1").is_some());
        assert!(label_value(&"a".repeat(64)).is_some() && label_value("").is_none());
    }
}

//! Bootstrap tokens: `ID.SECRET`, kept in a Secret of kube-system, by which a machine is somebody before it has a
//! certificate.
//!
//! Owns: the form, and what the Secret must say. The Secret is read as this server has it, as kube-apiserver does: one
//! made a moment ago on another server may still be unknown. What has expired is refused at once and deleted by the
//! controller `tokencleaner`.
//!
//! Follows `plugin/pkg/auth/authenticator/token/bootstrap`.

use api::meta;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use jiff::Timestamp;
use serde_json::Value;

use super::secret_text;
use crate::core::{Core, core_kind, key};
use crate::identity::UserInfo;
use crate::object::encode::decode;

pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";
const NAME_PREFIX: &str = "bootstrap-token-";
const USER_PREFIX: &str = "system:bootstrap:";
const GROUP: &str = "system:bootstrappers";
const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;
/// Longest name of a group after the prefix, as Kubernetes has it.
const GROUP_BYTES_MAX: usize = 256;

/// Its two halves, when a text has the form of one.
pub fn halves(token: &str) -> Option<(&str, &str)> {
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let (id, secret) = token.split_once('.')?;
    (id.len() == ID_LEN && secret.len() == SECRET_LEN && is_word(id) && is_word(secret)).then_some((id, secret))
}

/// The user of a token, or in a word why there is none.
pub fn user_of(core: &Core, (id, secret): (&str, &str)) -> Result<UserInfo, &'static str> {
    let view = core.store.view();
    let entry = view.get(&key(core_kind("secrets"), NAMESPACE, &format!("{NAME_PREFIX}{id}")));
    let object = entry.map(|entry| decode(&entry.value)).ok_or("there is no such bootstrap token")?;
    user(&object, id, secret, Timestamp::now())
}

fn user(object: &Value, id: &str, secret: &str, now: Timestamp) -> Result<UserInfo, &'static str> {
    if object["type"] != SECRET_TYPE || !meta::deletion_timestamp(object).is_empty() {
        return Err("there is no such bootstrap token");
    }
    let text = |key: &str| secret_text(object, key).unwrap_or_default();
    let held = text("token-secret");
    // An empty one is nobody's.
    if held.is_empty() || verify_slices_are_equal(held.as_bytes(), secret.as_bytes()).is_err() {
        return Err("it is not the bootstrap token of its id");
    }
    if text("token-id") != id {
        return Err("the Secret of its id is about another");
    }
    if has_expired(&text("expiration"), now) {
        return Err("it has expired");
    }
    if text("usage-bootstrap-authentication") != "true" {
        return Err("it is not for authentication");
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in text("auth-extra-groups").split(',').map(str::trim).filter(|group| !group.is_empty()) {
        if !is_group(group) {
            return Err("one of its groups is not below system:bootstrappers");
        }
        groups.push(group.to_owned());
    }
    Ok(UserInfo::authenticated(format!("{USER_PREFIX}{id}"), groups))
}

/// What cannot be read has.
fn has_expired(expiration: &str, now: Timestamp) -> bool {
    !expiration.is_empty() && expiration.parse::<Timestamp>().map_or(true, |at| at <= now)
}

/// `system:bootstrappers:` and then letters, digits, `:` and `-`, of which the last two are not at the end.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= GROUP_BYTES_MAX
        && rest.bytes().last().is_some_and(is_plain)
        && rest.bytes().all(|byte| is_plain(byte) || matches!(byte, b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    #[test]
    fn the_form_of_a_token() {
        assert_eq!(halves("abc123.0123456789abcdef"), Some(("abc123", "0123456789abcdef")));
        for bad in ["", "abc123", "abc123.", "ABC123.0123456789abcdef", "abc12.0123456789abcdef", "a.b.c"] {
            assert_eq!(halves(bad), None, "{bad}");
        }
        assert_eq!(halves("abc123.0123456789abcdef.x"), None);
    }

    fn secret(data: &[(&str, &str)]) -> Value {
        let given =
            [("token-id", "abc123"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-authentication", "true")];
        let mut object = json!({ "type": SECRET_TYPE, "metadata": {}, "data": {} });
        for (key, value) in given.iter().chain(data) {
            object["data"][key] = STANDARD.encode(value).into();
        }
        object
    }

    #[test]
    fn whose_a_token_is() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let check = |data: &[(&str, &str)], expect: Result<&[&str], &str>| {
            let found = user(&secret(data), "abc123", "0123456789abcdef", now);
            let groups: Result<Vec<&str>, &str> = match &found {
                Ok(user) => {
                    assert_eq!(user.name, "system:bootstrap:abc123");
                    Ok(user.groups.iter().map(String::as_str).collect())
                }
                Err(why) => Err(why),
            };
            assert_eq!(groups, expect.map(<[&str]>::to_vec), "{data:?}");
        };
        let plain: &[&str] = &["system:bootstrappers", "system:authenticated"];
        check(&[], Ok(plain));
        check(&[("expiration", "2026-01-01T12:00:01Z")], Ok(plain));
        check(&[("expiration", "2026-01-01T13:00:01+01:00")], Ok(plain));
        check(&[("expiration", "2026-01-01T12:00:00Z")], Err("it has expired"));
        check(&[("expiration", "tomorrow")], Err("it has expired"));
        check(&[("usage-bootstrap-authentication", "yes")], Err("it is not for authentication"));
        check(&[("token-id", "abc124")], Err("the Secret of its id is about another"));
        check(&[("token-secret", "0123456789abcdee")], Err("it is not the bootstrap token of its id"));
        check(&[("token-secret", "")], Err("it is not the bootstrap token of its id"));
        let groups = "system:bootstrappers:nodes, system:bootstrappers:a-b:c";
        let expect: &[&str] = &[
            "system:bootstrappers",
            "system:bootstrappers:nodes",
            "system:bootstrappers:a-b:c",
            "system:authenticated",
        ];
        check(&[("auth-extra-groups", groups)], Ok(expect));
        for bad in ["system:masters", "system:bootstrappers:", "system:bootstrappers:x-", "system:bootstrappersx"] {
            check(&[("auth-extra-groups", bad)], Err("one of its groups is not below system:bootstrappers"));
        }
        let mut other = secret(&[]);
        other["type"] = "Opaque".into();
        assert!(user(&other, "abc123", "0123456789abcdef", now).is_err());
    }
}

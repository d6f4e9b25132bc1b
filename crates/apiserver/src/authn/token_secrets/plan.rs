//! What a Secret of a service account's token needs. Pure.

use api::meta;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::claims::Named;
use super::super::secret_text;
use super::{ACCOUNT, ACCOUNT_UID, CA, NAMESPACE, TOKEN};

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Nothing,
    /// For this account.
    Fill(Named),
    /// Why.
    Delete(&'static str),
}

/// `account`: the one that the Secret names, if there is one.
pub fn verdict(secret: &Value, account: Option<&Value>, ca_pem: &str) -> Verdict {
    if !meta::deletion_timestamp(secret).is_empty() {
        return Verdict::Nothing;
    }
    let Some(account) = account else { return Verdict::Delete("its service account is gone") };
    let account = Named { name: meta::name(account).to_owned(), uid: meta::uid(account).to_owned() };
    match meta::annotation(secret, ACCOUNT_UID) {
        Some(uid) if !uid.is_empty() && uid != account.uid => {
            return Verdict::Delete("it is of an earlier service account of that name");
        }
        _ => {}
    }
    let text = |key: &str| secret_text(secret, key).unwrap_or_default();
    let is_complete = !text(TOKEN).is_empty()
        && (ca_pem.is_empty() || text(CA) == ca_pem)
        && text(NAMESPACE) == meta::namespace(secret)
        && meta::annotation(secret, ACCOUNT_UID) == Some(&account.uid);
    if is_complete { Verdict::Nothing } else { Verdict::Fill(account) }
}

/// The Secret with all that it needs; a token that it has stays.
pub fn filled(secret: &Value, account: &Named, token: &str, ca_pem: &str) -> Value {
    let mut new = secret.clone();
    let mut data = new["data"].as_object().cloned().unwrap_or_default();
    if secret_text(secret, TOKEN).unwrap_or_default().is_empty() {
        data.insert(TOKEN.to_owned(), STANDARD.encode(token).into());
    }
    if !ca_pem.is_empty() {
        data.insert(CA.to_owned(), STANDARD.encode(ca_pem).into());
    }
    data.insert(NAMESPACE.to_owned(), STANDARD.encode(meta::namespace(secret)).into());
    new["data"] = data.into();
    let mut annotations = new["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    annotations.insert(ACCOUNT_UID.to_owned(), account.uid.clone().into());
    annotations.insert(ACCOUNT.to_owned(), account.name.clone().into());
    meta::set(&mut new, "annotations", json!(annotations));
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Value {
        json!({ "metadata": { "name": "s", "namespace": "team", "annotations": { ACCOUNT: "bot" } } })
    }

    fn account(uid: &str) -> Value {
        json!({ "metadata": { "name": "bot", "uid": uid } })
    }

    fn bot(uid: &str) -> Named {
        Named { name: "bot".to_owned(), uid: uid.to_owned() }
    }

    #[test]
    fn a_secret_is_filled_once_and_goes_with_its_account() {
        let check = |secret: &Value, account: Option<&Value>, expect: Verdict| {
            assert_eq!(verdict(secret, account, "PEM"), expect, "{secret}");
        };
        let gone = || Verdict::Delete("its service account is gone");
        check(&secret(), Some(&account("u")), Verdict::Fill(bot("u")));
        check(&secret(), None, gone());
        let full = filled(&secret(), &bot("u"), "TOKEN", "PEM");
        check(&full, Some(&account("u")), Verdict::Nothing);
        check(&full, Some(&account("v")), Verdict::Delete("it is of an earlier service account of that name"));
        check(&full, None, gone());
        let mut dying = full.clone();
        dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        check(&dying, None, Verdict::Nothing);
        // Whoever takes the token out wants another one.
        let mut emptied = full.clone();
        emptied["data"].as_object_mut().unwrap().remove(TOKEN);
        check(&emptied, Some(&account("u")), Verdict::Fill(bot("u")));
        assert_eq!(secret_text(&filled(&emptied, &bot("u"), "NEW", "PEM"), TOKEN).as_deref(), Some("NEW"));
        // Another authority is written over, the token stays.
        assert_eq!(verdict(&full, Some(&account("u")), "OTHER"), Verdict::Fill(bot("u")));
        let again = filled(&full, &bot("u"), "NEW", "OTHER");
        assert_eq!(secret_text(&again, TOKEN).as_deref(), Some("TOKEN"));
        assert_eq!(secret_text(&again, CA).as_deref(), Some("OTHER"));
        assert_eq!(secret_text(&again, NAMESPACE).as_deref(), Some("team"));
    }
}

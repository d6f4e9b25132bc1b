//! Tokens of service accounts: good for as long as what they are bound to is there.
//!
//! Owns: what is looked at for each request. That one of our keys signed a token is remembered; its times, and whether
//! its account and what it is bound to are still there, are looked at each time.
//!
//! Follows `pkg/registry/core/serviceaccount/storage/token.go` and `pkg/serviceaccount/{claims,legacy}.go`.

use std::borrow::Cow;
use std::sync::Arc;

use api::meta;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use store::Revision;

use super::claims::{Bound, Claims, Named, SecretClaims, Signed};
use super::recent::{Recent, fingerprint};
use super::{Reviewed, common_audiences, secret_text, token_secrets};
use crate::core::{Core, Snapshot, core_kind, key};
use crate::object::encode::decode;

/// How long a pod that is being deleted may still use its token.
const AFTER_DELETION: SignedDuration = SignedDuration::from_secs(60);

/// Signatures that were found good, and of which record of keys.
pub type VerifiedTokens = Recent<(Revision, Arc<Signed>)>;

/// The user, and for which of the audiences the token is; or in a word why not.
pub async fn review(core: &Core, token: &str, audiences: &[&str]) -> Result<Reviewed, &'static str> {
    let unavailable = |_| "the store does not answer";
    let keys = core.token_keys.current(core).await.map_err(unavailable)?;
    let print = fingerprint(token);
    let kept = core.authn.verified.get(&print).filter(|(revision, _)| *revision == keys.revision());
    let signed = match kept {
        Some((_, signed)) => signed,
        None => {
            let signed = Arc::new(keys.verify(token)?);
            core.authn.verified.put(print, (keys.revision(), Arc::clone(&signed)));
            signed
        }
    };
    let now = Timestamp::now();
    let reviewed = match &*signed {
        Signed::Bound(claims) => Reviewed { audiences: claims.check(audiences, now)?, user: claims.user() },
        Signed::OfSecret(claims) => {
            claims.check()?;
            Reviewed { audiences: common_audiences(audiences)?, user: claims.user() }
        }
    };
    let holds = |view: &Snapshot| match &*signed {
        Signed::Bound(claims) => still_there(view, claims, now),
        Signed::OfSecret(claims) => still_its_token(view, claims, token),
    };
    // This member may not have applied yet what another has answered.
    if holds(&core.store.view()).is_err() {
        holds(&core.fresh().await.map_err(unavailable)?)?;
    }
    Ok(reviewed)
}

/// Of an object no more than is needed here.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: HeadMeta<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HeadMeta<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    deletion_timestamp: Cow<'a, str>,
}

impl HeadMeta<'_> {
    fn lives(&self, now: Timestamp) -> bool {
        match self.deletion_timestamp.parse::<Timestamp>() {
            Ok(deleted) => now.duration_since(deleted) <= AFTER_DELETION,
            Err(_) => true,
        }
    }
}

fn head(bytes: &[u8]) -> HeadMeta<'_> {
    serde_json::from_slice::<Head<'_>>(bytes).map(|head| head.metadata).unwrap_or_default()
}

fn still_there(view: &Snapshot, claims: &Claims, now: Timestamp) -> Result<(), &'static str> {
    let Bound { namespace, serviceaccount, pod, secret, node } = &claims.bound;
    let is_there = |resource: &str, namespace: &str, named: &Named| {
        view.get(&key(core_kind(resource), namespace, &named.name)).is_some_and(|entry| {
            let head = head(&entry.value);
            head.uid == named.uid && head.lives(now)
        })
    };
    if !is_there("serviceaccounts", namespace, serviceaccount) {
        return Err("its service account is gone");
    }
    let bound = [("pods", namespace.as_str(), pod), ("secrets", namespace, secret), ("nodes", "", node)];
    for (resource, namespace, named) in bound {
        // A pod's node may go while the pod is still there: only a token of the node's own is bound to it.
        if resource == "nodes" && pod.is_some() {
            continue;
        }
        if named.as_ref().is_some_and(|named| !is_there(resource, namespace, named)) {
            return Err("what it is bound to is gone");
        }
    }
    Ok(())
}

/// The token of a Secret is good while it is in the Secret.
fn still_its_token(view: &Snapshot, claims: &SecretClaims, token: &str) -> Result<(), &'static str> {
    let find = |resource: &str, name: &str| view.get(&key(core_kind(resource), &claims.namespace, name));
    let secret = find("secrets", &claims.secret).ok_or("its Secret is gone")?;
    let secret = decode(&secret.value);
    if !meta::deletion_timestamp(&secret).is_empty() {
        return Err("its Secret is gone");
    }
    let held = secret_text(&secret, token_secrets::TOKEN).unwrap_or_default();
    if verify_slices_are_equal(held.as_bytes(), token.as_bytes()).is_err() {
        return Err("it is no more in its Secret");
    }
    let account = find("serviceaccounts", &claims.account).ok_or("its service account is gone")?;
    let account = head(&account.value);
    if account.uid != claims.account_uid || !account.deletion_timestamp.is_empty() {
        return Err("its service account is gone");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_deleted_object_lives_a_minute() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let check = |metadata: Value, expect| {
            let object = json!({ "spec": { "x": [1] }, "metadata": metadata }).to_string();
            let head = head(object.as_bytes());
            assert_eq!((&*head.uid, head.lives(now)), ("u", expect), "{object}");
        };
        check(json!({ "uid": "u" }), true);
        check(json!({ "uid": "u", "deletionTimestamp": "2026-01-01T11:59:30Z" }), true);
        check(json!({ "uid": "u", "deletionTimestamp": "2026-01-01T11:58:59Z" }), false);
        check(json!({ "uid": "u", "deletionTimestamp": "2026-01-01T12:10:00Z" }), true);
        assert_eq!(head(b"nothing").uid, "");
    }
}

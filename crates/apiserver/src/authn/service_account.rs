//! Tokens of service accounts: made for whoever may, good for as long as what they are bound to is there.
//!
//! Follows `pkg/registry/core/serviceaccount/storage/token.go` and `pkg/serviceaccount/claims.go`.

use api::meta;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::claims::{Bound, Claims, Named};
use crate::core::{Core, Snapshot, core_kind, key};
use crate::identity::UserInfo;
use crate::object::encode::decode;

/// How long a pod that is being deleted may still use its token.
const AFTER_DELETION: SignedDuration = SignedDuration::from_secs(60);

/// The user of a token for one of the audiences, or in a word why not.
pub async fn user_of(core: &Core, token: &str, audiences: &[&str]) -> Result<UserInfo, &'static str> {
    review(core, token, audiences).await.map(|(user, _)| user)
}

/// The user, and for which of the audiences the token is.
pub async fn review(core: &Core, token: &str, audiences: &[&str]) -> Result<(UserInfo, Vec<String>), &'static str> {
    let unavailable = |_| "the store does not answer";
    let keys = core.token_keys.current(core).await.map_err(unavailable)?;
    let claims = keys.verify(token)?;
    let now = Timestamp::now();
    let audiences = claims.check(audiences, now)?;
    // This member may not have applied yet what another has answered.
    if still_there(&core.store.view(), &claims, now).is_err() {
        still_there(&core.fresh().await.map_err(unavailable)?, &claims, now)?;
    }
    Ok((claims.user(), audiences))
}

fn still_there(view: &Snapshot, claims: &Claims, now: Timestamp) -> Result<(), &'static str> {
    let Bound { namespace, serviceaccount, pod, secret, node } = &claims.bound;
    let find = |resource: &str, namespace: &str, named: &Named| -> Option<Value> {
        let entry = view.get(&key(core_kind(resource), namespace, &named.name))?;
        let object = decode(&entry.value);
        (meta::uid(&object) == named.uid && lives(&object, now)).then_some(object)
    };
    find("serviceaccounts", namespace, serviceaccount).ok_or("its service account is gone")?;
    let bound = [("pods", namespace.as_str(), pod), ("secrets", namespace, secret), ("nodes", "", node)];
    for (resource, namespace, named) in bound {
        // A pod's node may go while the pod is still there: only a token of the node's own is bound to it.
        if resource == "nodes" && pod.is_some() {
            continue;
        }
        if let Some(named) = named {
            find(resource, namespace, named).ok_or("what it is bound to is gone")?;
        }
    }
    Ok(())
}

fn lives(object: &Value, now: Timestamp) -> bool {
    match meta::deletion_timestamp(object).parse::<Timestamp>() {
        Ok(deleted) => now.duration_since(deleted) <= AFTER_DELETION,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deleted_object_lives_a_minute() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let check = |metadata: Value, expect| assert_eq!(lives(&json!({ "metadata": metadata }), now), expect);
        check(json!({}), true);
        check(json!({ "deletionTimestamp": "2026-01-01T11:59:30Z" }), true);
        check(json!({ "deletionTimestamp": "2026-01-01T11:58:59Z" }), false);
        check(json!({ "deletionTimestamp": "2026-01-01T12:10:00Z" }), true);
    }
}

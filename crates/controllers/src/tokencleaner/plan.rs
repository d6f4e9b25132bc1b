//! Whether a bootstrap token has expired, or when it will. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use reconcile::clock::elapsed;
use reconcile::{ApiAction, Plan};

const EXPIRATION: &str = "expiration";

#[must_use]
pub fn plan(token: &Secret, now: Timestamp) -> Plan {
    if token.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("it is being deleted");
    }
    let expiration = token.data.as_ref().and_then(|data| data.get(EXPIRATION)).map(|bytes| bytes.0.as_slice());
    let Some(expiration) = expiration.filter(|bytes| !bytes.is_empty()) else {
        return Plan::nothing("it does not expire");
    };
    // What cannot be read authenticates nobody; it goes too, as with Kubernetes.
    let at = std::str::from_utf8(expiration).ok().and_then(|text| text.parse::<Timestamp>().ok());
    match at.filter(|at| *at > now) {
        None => Plan::of(vec![ApiAction::delete(token)], "it has expired"),
        Some(at) => {
            let mut plan = Plan::nothing("it is good still");
            plan.requeue_within(elapsed(now, at));
            plan
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::model::at;

    #[test]
    fn plans() {
        let check = |expiration: Option<&str>, expect: &str| {
            let mut token = Secret::default();
            token.metadata.name = Some("bootstrap-token-abc123".into());
            token.metadata.namespace = Some("kube-system".into());
            let data = expiration.map(|text| [(EXPIRATION.to_owned(), ByteString(text.into()))].into());
            token.data = data;
            assert_eq!(plan(&token, at(100)).render(), expect, "{expiration:?}");
        };
        let deleted = "it has expired\n  delete secrets/kube-system/bootstrap-token-abc123";
        check(None, "it does not expire");
        check(Some(""), "it does not expire");
        check(Some("soon"), deleted);
        check(Some(&at(100).to_string()), deleted);
        check(Some(&at(160).to_string()), "it is good still\n  again after 60s");
    }
}

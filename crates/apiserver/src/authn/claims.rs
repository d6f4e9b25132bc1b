//! What a service account's token says. Pure: time comes in as a value.
//!
//! Follows `pkg/serviceaccount/claims.go` of Kubernetes, so that whoever reads our tokens reads theirs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::identity::UserInfo;

/// Who signs. The name is that of the API server inside a cluster, as Kubernetes' default is.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// For whom a token is that names no other.
pub const AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

const USER_PREFIX: &str = "system:serviceaccount:";
const GROUP: &str = "system:serviceaccounts";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    /// Seconds since 1970, as are the next two.
    pub exp: i64,
    pub iat: i64,
    pub nbf: i64,
    pub iss: String,
    pub jti: String,
    pub sub: String,
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
}

/// What has to be there still for the token to be good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub namespace: String,
    pub serviceaccount: Named,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Named>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    pub uid: String,
}

impl Claims {
    pub fn new(bound: Bound, audiences: Vec<String>, now: Timestamp, seconds: i64, id: String) -> Self {
        let now = now.as_second();
        Self {
            aud: audiences,
            exp: now.saturating_add(seconds),
            iat: now,
            nbf: now,
            iss: ISSUER.to_owned(),
            jti: id,
            sub: user_name(&bound.namespace, &bound.serviceaccount.name),
            bound,
        }
    }

    /// Whether issuer, times and names are as they should be, and which of the audiences are both wanted and named.
    pub fn check(&self, wanted: &[&str], now: Timestamp) -> Result<Vec<String>, &'static str> {
        let now = now.as_second();
        if self.iss != ISSUER {
            return Err("it has another issuer");
        }
        if now >= self.exp {
            return Err("it has expired");
        }
        if now < self.nbf {
            return Err("it is not good yet");
        }
        if self.sub != user_name(&self.bound.namespace, &self.bound.serviceaccount.name) {
            return Err("its subject is not its service account");
        }
        let common: Vec<String> = self.aud.iter().filter(|named| wanted.contains(&named.as_str())).cloned().collect();
        if common.is_empty() { Err("it is for another audience") } else { Ok(common) }
    }

    pub fn user(&self) -> UserInfo {
        let Bound { namespace, serviceaccount, pod, node, .. } = &self.bound;
        let mut extra = BTreeMap::new();
        let mut add = |key: &str, value: &str| {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        add("credential-id", &format!("JTI={}", self.jti));
        for (kind, named) in [("pod", pod), ("node", node)] {
            if let Some(named) = named {
                add(&format!("{kind}-name"), &named.name);
                add(&format!("{kind}-uid"), &named.uid);
            }
        }
        let groups = [GROUP.to_owned(), format!("{GROUP}:{namespace}")];
        UserInfo {
            uid: serviceaccount.uid.clone(),
            extra,
            ..UserInfo::authenticated(user_name(namespace, &serviceaccount.name), groups)
        }
    }
}

fn user_name(namespace: &str, name: &str) -> String {
    format!("{USER_PREFIX}{namespace}:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Named {
        Named { name: name.to_owned(), uid: format!("uid-of-{name}") }
    }

    fn claims() -> Claims {
        let bound = Bound {
            namespace: "team".to_owned(),
            serviceaccount: named("bot"),
            pod: Some(named("bot-1")),
            secret: None,
            node: Some(named("n1")),
        };
        let audiences = vec![AUDIENCE.to_owned(), "vault".to_owned()];
        Claims::new(bound, audiences, Timestamp::from_second(1000).unwrap(), 600, "j1".to_owned())
    }

    #[test]
    fn only_a_token_of_ours_for_now_and_for_us_is_good() {
        let check = |change: fn(&mut Claims), wanted: &[&str], second: i64, expect: Result<usize, &str>| {
            let mut claims = claims();
            change(&mut claims);
            let checked = claims.check(wanted, Timestamp::from_second(second).unwrap());
            assert_eq!(checked.as_ref().map(Vec::len).map_err(|why| *why), expect);
        };
        check(|_| {}, &[AUDIENCE], 1000, Ok(1));
        check(|_| {}, &[AUDIENCE, "vault", "x"], 1599, Ok(2));
        check(|_| {}, &[AUDIENCE], 1600, Err("it has expired"));
        check(|_| {}, &[AUDIENCE], 999, Err("it is not good yet"));
        check(|_| {}, &["x"], 1000, Err("it is for another audience"));
        check(|claims| claims.iss = "https://elsewhere".to_owned(), &[AUDIENCE], 1000, Err("it has another issuer"));
        let other = "its subject is not its service account";
        check(|claims| claims.bound.namespace = "kube-system".to_owned(), &[AUDIENCE], 1000, Err(other));
    }

    #[test]
    fn the_user_is_the_service_account() {
        let user = claims().user();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:team:bot", "uid-of-bot"));
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:team", "system:authenticated"]);
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["bot-1"]);
        assert_eq!(user.extra["authentication.kubernetes.io/node-uid"], ["uid-of-n1"]);
    }

    #[test]
    fn the_claims_have_kubernetes_form() {
        let value = serde_json::to_value(claims()).unwrap();
        assert_eq!(value["kubernetes.io"]["serviceaccount"]["name"], "bot");
        assert_eq!(value["kubernetes.io"]["pod"]["uid"], "uid-of-bot-1");
        assert!(value["kubernetes.io"].get("secret").is_none());
        assert_eq!(value["exp"], 1600);
    }
}

//! What a service account's token says. Pure: time comes in as a value.
//!
//! Follows `pkg/serviceaccount/claims.go` of Kubernetes, so that whoever reads our tokens reads theirs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::identity::UserInfo;

/// Who signs. The name is that of the API server inside a cluster, as Kubernetes' default is.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Who signs the tokens of Secrets, as it was before tokens were bound to anything.
pub const SECRET_ISSUER: &str = "kubernetes/serviceaccount";
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
        UserInfo {
            uid: serviceaccount.uid.clone(),
            extra,
            ..UserInfo::authenticated(user_name(namespace, &serviceaccount.name), groups(namespace))
        }
    }
}

/// What the token of a Secret says: nothing that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretClaims {
    pub iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub account_uid: String,
    pub sub: String,
}

impl SecretClaims {
    pub fn new(namespace: &str, secret: &str, account: Named) -> Self {
        Self {
            iss: SECRET_ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            sub: user_name(namespace, &account.name),
            account: account.name,
            account_uid: account.uid,
        }
    }

    /// Whether issuer and names are as they should be.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.iss != SECRET_ISSUER {
            return Err("it has another issuer");
        }
        if self.sub != user_name(&self.namespace, &self.account) {
            return Err("its subject is not its service account");
        }
        Ok(())
    }

    pub fn user(&self) -> UserInfo {
        let user = UserInfo::authenticated(user_name(&self.namespace, &self.account), groups(&self.namespace));
        UserInfo { uid: self.account_uid.clone(), ..user }
    }
}

/// What any token says that one of our keys signed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Signed {
    Bound(Claims),
    OfSecret(SecretClaims),
}

fn user_name(namespace: &str, name: &str) -> String {
    format!("{USER_PREFIX}{namespace}:{name}")
}

fn groups(namespace: &str) -> [String; 2] {
    [GROUP.to_owned(), format!("{GROUP}:{namespace}")]
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
    fn the_token_of_a_secret_has_kubernetes_form() {
        let claims = SecretClaims::new("team", "bot-token", named("bot"));
        let value = serde_json::to_value(&claims).unwrap();
        assert_eq!(value["kubernetes.io/serviceaccount/secret.name"], "bot-token");
        assert_eq!(value["sub"], "system:serviceaccount:team:bot");
        assert_eq!(serde_json::from_value::<Signed>(value).unwrap(), Signed::OfSecret(claims.clone()));
        assert_eq!((claims.check(), claims.user().uid.as_str()), (Ok(()), "uid-of-bot"));
        let other = SecretClaims { namespace: "kube-system".to_owned(), ..claims.clone() };
        assert_eq!(other.check(), Err("its subject is not its service account"));
        assert_eq!(SecretClaims { iss: ISSUER.to_owned(), ..claims }.check(), Err("it has another issuer"));
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

//! JSON Web Tokens of issuers that the authentication file names (OpenID Connect).
//!
//! Owns: which issuer a token is of, its times and audience, and what is remembered of it until it ends. What a token
//! says becomes a user in `mapping`; keys are `remote` and `key_set`.

mod key_set;
pub mod mapping;
mod remote;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use self::key_set::Unverified;
use self::mapping::{Mapping, audiences};
use self::remote::{Known, RemoteKeys};
use super::Refusal;
use super::claims;
use super::config::{AuthenticationConfig, IssuerConfig};
use super::recent::{Recent, fingerprint};
use crate::config_file::{ConfigFileError, wrong};
use crate::identity::UserInfo;

/// By how much an issuer's clock may be ahead.
const AHEAD_MAX_SECONDS: i64 = 300;

/// All issuers of the file.
#[derive(Default)]
pub struct Issuers {
    by_url: BTreeMap<String, Issuer>,
    /// Tokens that were good.
    accepted: Recent<Accepted>,
}

struct Issuer {
    audiences: Vec<String>,
    mapping: Arc<Mapping>,
    keys: RemoteKeys,
}

#[derive(Clone)]
struct Accepted {
    /// Of the keys that it was verified with.
    serial: u64,
    ends: i64,
    begins: i64,
    user: Arc<UserInfo>,
}

#[derive(Deserialize)]
struct Claimed {
    #[serde(default)]
    iss: String,
}

/// Who a token says it is of. Nothing is verified.
fn claimed_issuer(token: &str) -> Option<String> {
    let claimed: Claimed = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    Some(claimed.iss)
}

impl Issuers {
    /// Starts to read the issuers' keys; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Which issuer can never be reached, and why.
    pub fn spawn(config: &AuthenticationConfig, shutdown: &CancellationToken) -> Result<Self, ConfigFileError> {
        let mut by_url = BTreeMap::new();
        for (at, (issuer, mapping)) in config.issuers.iter().enumerate() {
            let IssuerConfig { url, audiences, .. } = issuer.clone();
            let keys =
                RemoteKeys::spawn(issuer, shutdown.clone()).map_err(|why| wrong(format!("jwt[{at}].issuer"), why))?;
            by_url.insert(url, Issuer { audiences, mapping: Arc::clone(mapping), keys });
        }
        Ok(Self { by_url, accepted: Recent::default() })
    }

    /// The user of a token, when it says that it is of one of the issuers.
    pub async fn user_of(&self, token: &str) -> Option<Result<UserInfo, Refusal>> {
        if self.by_url.is_empty() {
            return None;
        }
        let url =
            claimed_issuer(token).filter(|url| ![claims::ISSUER, claims::SECRET_ISSUER].contains(&url.as_str()))?;
        let issuer = self.by_url.get(&url)?;
        Some(self.review(issuer, token).await)
    }

    async fn review(&self, issuer: &Issuer, token: &str) -> Result<UserInfo, Refusal> {
        let now = Timestamp::now().as_second();
        let print = fingerprint(token);
        let serial = issuer.keys.current().map(|known| known.serial);
        if let Some(accepted) = self.accepted.get(&print).filter(|accepted| Some(accepted.serial) == serial) {
            check_times(accepted.begins, accepted.ends, now)?;
            return Ok(accepted.user.as_ref().clone());
        }
        let (claims, serial) = issuer.verified(token).await?;
        let (begins, ends) = times(&claims)?;
        check_times(begins, ends, now)?;
        if !audiences(&claims).iter().any(|audience| issuer.audiences.iter().any(|ours| ours == audience)) {
            return Err("it is for another audience".into());
        }
        let user = issuer.mapping.user(&Value::Object(claims))?;
        self.accepted.put(print, Accepted { serial, ends, begins, user: Arc::new(user.clone()) });
        Ok(user)
    }
}

impl Issuer {
    /// The claims, by the keys that are known or, when none of them signed, by newer ones.
    async fn verified(&self, token: &str) -> Result<(Map<String, Value>, u64), Refusal> {
        let by = |known: &Known| known.keys.verify(token).map(|claims| (claims, known.serial));
        let first = self.keys.current();
        match first.as_ref().map(by) {
            Some(Ok(verified)) => return Ok(verified),
            Some(Err(Unverified::Refused(why))) => return Err(why.into()),
            Some(Err(Unverified::UnknownKey)) | None => {}
        }
        match self.keys.newer().await.or(first).as_ref().map(by) {
            Some(Ok(verified)) => Ok(verified),
            Some(Err(Unverified::Refused(why))) => Err(why.into()),
            Some(Err(Unverified::UnknownKey)) => Err("its issuer has no such key".into()),
            None => Err("its issuer's keys cannot be read".into()),
        }
    }
}

/// From when and until when it is good.
fn times(claims: &Map<String, Value>) -> Result<(i64, i64), Refusal> {
    let second = |name: &str| claims.get(name).and_then(Value::as_f64).map(|at| at as i64);
    let ends = second("exp").ok_or("it does not say when it ends")?;
    Ok((second("nbf").unwrap_or(i64::MIN), ends))
}

fn check_times(begins: i64, ends: i64, now: i64) -> Result<(), Refusal> {
    if now >= ends {
        return Err("it has expired".into());
    }
    if now.saturating_add(AHEAD_MAX_SECONDS) < begins { Err("it is not good yet".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_is_good_from_then_to_then() {
        let check = |claims: Value, now: i64, expect: Result<(), &'static str>| {
            let found = times(claims.as_object().expect("fields")).and_then(|(from, to)| check_times(from, to, now));
            assert_eq!(found, expect.map_err(Refusal::from), "{claims} at {now}");
        };
        check(json!({ "exp": 100 }), 99, Ok(()));
        check(json!({ "exp": 100.5 }), 100, Err("it has expired"));
        check(json!({ "exp": "100" }), 1, Err("it does not say when it ends"));
        check(json!({ "exp": 1000, "nbf": 400 }), 100, Ok(()));
        check(json!({ "exp": 1000, "nbf": 401 }), 100, Err("it is not good yet"));
    }

    #[test]
    fn what_is_no_token_is_of_nobody() {
        assert_eq!(claimed_issuer("abc"), None);
        assert_eq!(claimed_issuer("e30.e30.x").unwrap_or_default(), "");
    }
}

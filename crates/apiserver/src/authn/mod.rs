//! Authentication: whose request is it?
//!
//! Owns: the order. A verified client certificate comes first (`identity`), or what a proxy says whose certificate is
//! one of those that are believed (`request_header`), then a bearer token: that of a bootstrap Secret
//! (`bootstrap_token`), of an issuer that the authentication file names (`oidc`) or of a service account
//! (`service_account`). A request with none of them is anonymous, where that is allowed (`config`). May not know: what
//! the user may do.

mod bootstrap_token;
pub mod claims;
mod config;
pub mod discovery;
pub mod keys;
mod oidc;
mod recent;
pub mod request_header;
pub mod service_account;
pub mod token_secrets;

use std::borrow::Cow;
use std::sync::Arc;

use api::status::Status;
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use serde_json::Value;

use tokio_util::sync::CancellationToken;

use self::claims::AUDIENCE;
use self::config::Anonymous;
pub use self::config::AuthenticationConfig;
use self::oidc::Issuers;
use self::service_account::VerifiedTokens;
use crate::config_file::ConfigFileError;
use crate::core::Core;
use crate::identity::UserInfo;
use crate::reloads::Reloads;

/// Longest bearer token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What is kept between requests.
pub struct Authn {
    verified: VerifiedTokens,
    /// What the file says; replaced as a whole when it changes.
    configured: ArcSwap<Configured>,
    shutdown: CancellationToken,
    pub reloads: Reloads,
}

struct Configured {
    issuers: Issuers,
    anonymous: Anonymous,
    /// Of the tasks that read the issuers' keys.
    end: CancellationToken,
}

impl Configured {
    fn start(config: &AuthenticationConfig, shutdown: &CancellationToken) -> Result<Self, ConfigFileError> {
        let end = shutdown.child_token();
        match Issuers::spawn(config, &end) {
            Ok(issuers) => Ok(Self { issuers, anonymous: config.anonymous.clone(), end }),
            Err(error) => {
                end.cancel();
                Err(error)
            }
        }
    }
}

/// The last request that is looked at by these rules lets go of them.
impl Drop for Configured {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Authn {
    /// Starts to read the keys of the issuers; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What of the configuration can never work.
    pub fn start(config: &AuthenticationConfig, shutdown: &CancellationToken) -> Result<Self, ConfigFileError> {
        Ok(Self {
            verified: VerifiedTokens::default(),
            configured: ArcSwap::from_pointee(Configured::start(config, shutdown)?),
            shutdown: shutdown.clone(),
            reloads: Reloads::default(),
        })
    }

    /// Goes on with another configuration. Tokens of issuers are verified anew, with keys that are read again.
    ///
    /// # Errors
    /// What of it can never work; the one before stays.
    pub fn reload(&self, config: &AuthenticationConfig) -> Result<(), ConfigFileError> {
        let configured = Configured::start(config, &self.shutdown)?;
        self.configured.store(Arc::new(configured));
        Ok(())
    }

    /// Whether a request without an identity is looked at.
    pub fn may_be_anonymous(&self, path: &str) -> bool {
        self.configured.load().anonymous.may_ask(path)
    }
}

/// Whose a token is, and for which of the audiences that were asked for.
#[derive(Debug)]
pub struct Reviewed {
    pub user: UserInfo,
    pub audiences: Vec<String>,
}

/// In a word why a token is no good.
pub type Refusal = Cow<'static, str>;

/// The user of a request. `certified`: of its connection's certificate, or of a client in this process.
pub async fn user_of(core: &Core, certified: Option<UserInfo>, headers: &HeaderMap) -> Result<UserInfo, Status> {
    if let Some(user) = certified {
        return Ok(user);
    }
    match bearer_token(headers) {
        None => Ok(UserInfo::anonymous()),
        // Whoever shows a token that is no good is not served as if he had shown none.
        Some(token) => review(core, token, &[AUDIENCE]).await.map(|reviewed| reviewed.user).map_err(|why| {
            tracing::debug!(%why, "a bearer token is refused");
            Status::unauthorized()
        }),
    }
}

/// Whose a token is that is good for one of these audiences.
pub async fn review(core: &Core, token: &str, audiences: &[&str]) -> Result<Reviewed, Refusal> {
    if let Some(halves) = bootstrap_token::halves(token) {
        let user = bootstrap_token::user_of(core, halves)?;
        return Ok(Reviewed { user, audiences: common_audiences(audiences)? });
    }
    let configured = core.authn.configured.load_full();
    if let Some(found) = configured.issuers.user_of(token).await {
        return Ok(Reviewed { user: found?, audiences: common_audiences(audiences)? });
    }
    Ok(service_account::review(core, token, audiences).await?)
}

/// Of a token that names no audience, which is for this server.
fn common_audiences(asked: &[&str]) -> Result<Vec<String>, &'static str> {
    if asked.contains(&AUDIENCE) { Ok(vec![AUDIENCE.to_owned()]) } else { Err("it is for another audience") }
}

/// A value of a Secret, when it is text.
fn secret_text(secret: &Value, key: &str) -> Option<String> {
    let value = secret.get("data")?.get(key)?.as_str()?;
    String::from_utf8(STANDARD.decode(value).ok()?).ok()
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_from_the_header() {
        let check = |value: &str, expect: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer_token(&headers), expect, "{value}");
        };
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check("Bearer ", None);
        check("Basic abc", None);
        check("Bearer", None);
        check(&format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1)), None);
    }
}

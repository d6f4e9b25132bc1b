//! Authentication: whose request is it?
//!
//! Owns: the order. A verified client certificate comes first (`identity`), or what a proxy says whose certificate is one
//! of those that are believed (`request_header`), then a bearer token (`service_account`); a request with neither is anonymous. May not know: what the user may do.

pub mod claims;
pub mod discovery;
pub mod keys;
pub mod request_header;
pub mod service_account;

use api::status::Status;
use http::{HeaderMap, header};

use crate::core::Core;
use crate::identity::UserInfo;

/// Longest bearer token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The user of a request. `certified`: of its connection's certificate, or of a client in this process.
pub async fn user_of(core: &Core, certified: Option<UserInfo>, headers: &HeaderMap) -> Result<UserInfo, Status> {
    if let Some(user) = certified {
        return Ok(user);
    }
    match bearer_token(headers) {
        None => Ok(UserInfo::anonymous()),
        // Whoever shows a token that is no good is not served as if he had shown none.
        Some(token) => service_account::user_of(core, token, &[claims::AUDIENCE]).await.map_err(|why| {
            tracing::debug!(why, "a bearer token is refused");
            Status::unauthorized()
        }),
    }
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

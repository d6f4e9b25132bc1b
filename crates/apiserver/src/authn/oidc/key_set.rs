//! The public keys of an issuer, and verifying by them. Pure.

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Keys of one set that are looked at.
const KEYS_MAX: usize = 100;

/// What a token must be signed with: nothing that whoever verifies could sign with as well.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// A JSON Web Key Set (RFC 7517), as far as it can be used.
pub struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, when it says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// Why a set does not verify a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Unverified {
    /// A newer set may have its key.
    UnknownKey,
    Refused(&'static str),
}

impl KeySet {
    /// Keys of kinds that are not known here are passed over, as the standard asks.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(bytes).map_err(|error| format!("it is no key set: {error}"))?;
        let keys: Vec<Key> = document.keys.into_iter().take(KEYS_MAX).filter_map(key).collect();
        if keys.is_empty() { Err("it holds no key that can be used".to_owned()) } else { Ok(Self { keys }) }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The claims of a token that one of the keys signed. What they say is not judged here.
    pub fn verify(&self, token: &str) -> Result<Map<String, Value>, Unverified> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Unverified::Refused("it is no signed token"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Unverified::Refused("it is signed in a way that is not taken"));
        }
        let mut validation = Validation::new(header.alg);
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.required_spec_claims.clear();
        let mut tried = false;
        for key in self.keys.iter().filter(|key| key.may_have_signed(header.kid.as_deref(), header.alg)) {
            tried = true;
            if let Ok(decoded) = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation) {
                return Ok(decoded.claims);
            }
        }
        // With the name of a key that is here, no newer set will say otherwise.
        let is_known = tried && header.kid.is_some();
        Err(if is_known { Unverified::Refused("its signature is not the issuer's") } else { Unverified::UnknownKey })
    }
}

impl Key {
    fn may_have_signed(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        let is_named = match (id, self.id.as_deref()) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        is_named && self.algorithm.is_none_or(|only| only == algorithm) && self.key.family() == algorithm.family()
    }
}

fn key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature)
        || matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_))
    {
        return None;
    }
    let algorithm = match &jwk.common.key_algorithm {
        None => None,
        Some(named) => Some(named.to_string().parse().ok().filter(|named| ALGORITHMS.contains(named))?),
    };
    let key = DecodingKey::from_jwk(&jwk).ok().filter(|key| key.family() != AlgorithmFamily::Hmac)?;
    Some(Key { id: jwk.common.key_id, algorithm, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_keys_that_can_be_used_are_taken() {
        let check = |keys: Value, expect: Result<usize, &str>| {
            let found = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes());
            assert_eq!(found.map(|set| set.len()), expect.map_err(str::to_owned), "{keys}");
        };
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
        let ec = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "a" });
        let with = |field: &str, value: &str| {
            let mut key = ec.clone();
            key[field] = value.into();
            key
        };
        let none = Err("it holds no key that can be used");
        check(json!([ec]), Ok(1));
        check(json!([with("alg", "ES256"), with("use", "sig")]), Ok(2));
        check(json!([with("use", "enc")]), none);
        check(json!([with("alg", "HS256")]), none);
        check(json!([{ "kty": "oct", "k": "AAAA", "kid": "a" }]), none);
        check(json!([{ "kty": "new" }, 7]), none);
        check(json!([]), none);
        assert!(KeySet::parse(b"<html>").is_err());
    }
}

//! The keys that sign service accounts' tokens.
//!
//! Owns: one record in the store beside the objects, which no request can read: every server has the keys, a backup
//! too, and on a disk they are sealed as all state is. The first key signs, all of them verify. May not know: what a
//! token says.

use std::sync::Arc;

use api::status::Status;
use arc_swap::ArcSwapOption;
use aws_lc_rs::encoding::{AsBigEndian, EcPublicKeyUncompressedBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Durability, Guard, Op, Revision, Txn};

use super::claims::Signed;
use crate::core::{Core, unwritten};

const RECORD: &str = "/authentication/service-account-keys";

/// As stored.
#[derive(Serialize, Deserialize)]
struct Record {
    keys: Vec<Stored>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    /// PKCS #8, in base64 without padding.
    private: String,
}

/// Ready for use.
pub struct Keys {
    /// Of the record.
    revision: Revision,
    all: Vec<Key>,
}

struct Key {
    id: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    /// The point's two coordinates, in base64 without padding.
    point: [String; 2],
}

/// The keys as last read; read again when the record has changed.
#[derive(Default)]
pub struct KeptKeys(ArcSwapOption<Keys>);

impl KeptKeys {
    /// The cluster's keys, made now when it has none.
    pub async fn current(&self, core: &Core) -> Result<Arc<Keys>, Status> {
        if let Some(keys) = self.read(core)? {
            return Ok(keys);
        }
        // Another server may have made some: `Absent` is judged by the newest state.
        let txn = Txn {
            guards: vec![Guard::Absent { key: RECORD.into() }],
            ops: vec![Op::Put { key: RECORD.into(), value: new_record()?, stamp_at: None }],
            durability: Durability::Synced,
        };
        core.store.propose(txn).await.map_err(|error| unwritten(&error))?;
        core.fresh().await?;
        self.read(core)?
            .ok_or_else(|| Status::internal("the keys of service accounts were deleted while they were made"))
    }

    fn read(&self, core: &Core) -> Result<Option<Arc<Keys>>, Status> {
        let view = core.store.view();
        let Some(entry) = view.get(RECORD.as_bytes()) else { return Ok(None) };
        if let Some(kept) = self.0.load_full().filter(|kept| kept.revision == entry.mod_revision) {
            return Ok(Some(kept));
        }
        let keys = Keys::parse(&entry.value, entry.mod_revision).map_err(Status::internal)?;
        let keys = Arc::new(keys);
        self.0.store(Some(keys.clone()));
        Ok(Some(keys))
    }
}

fn new_record() -> Result<Bytes, Status> {
    let failed = |_| Status::internal("no key for service accounts can be made: the system's random source failed");
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map_err(failed)?;
    let key = Stored { id: uuid::Uuid::new_v4().to_string(), private: URL_SAFE_NO_PAD.encode(made.as_ref()) };
    Ok(serde_json::to_vec(&Record { keys: vec![key] }).expect("a record is plain data").into())
}

impl Keys {
    fn parse(bytes: &[u8], revision: Revision) -> Result<Self, String> {
        let damaged = |why: &dyn std::fmt::Display| format!("the record of service accounts' keys is damaged: {why}");
        let record: Record = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
        let all: Vec<Key> =
            record.keys.into_iter().map(|stored| key(stored).map_err(|why| damaged(&why))).collect::<Result<_, _>>()?;
        if all.is_empty() { Err(damaged(&"it holds no key")) } else { Ok(Self { revision, all }) }
    }

    /// Of the record: with another one, other keys may be good.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn sign(&self, claims: &impl Serialize) -> Result<String, Status> {
        let key = self.all.first().expect("parsed keys are never none");
        let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &key.signing)
            .map_err(|error| Status::internal(format!("cannot sign a token: {error}")))
    }

    /// The claims of a token that one of the keys signed. What they say is not judged here.
    pub fn verify(&self, token: &str) -> Result<Signed, &'static str> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| "it is no signed token")?;
        let key = self.all.iter().find(|key| Some(&key.id) == header.kid.as_ref()).ok_or("its key is not ours")?;
        let mut validation = Validation::new(Algorithm::ES256);
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.set_required_spec_claims::<&str>(&[]);
        let decoded = jsonwebtoken::decode::<Signed>(token, &key.verifying, &validation);
        decoded.map(|token| token.claims).map_err(|_| "its signature or its claims are not as ours are")
    }

    /// The public halves as a JSON Web Key Set (RFC 7517).
    pub fn public(&self) -> Value {
        let all = self.all.iter().map(|Key { id, point: [x, y], .. }| {
            json!({ "use": "sig", "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": id, "x": x, "y": y })
        });
        json!({ "keys": all.collect::<Vec<_>>() })
    }
}

fn key(stored: Stored) -> Result<Key, &'static str> {
    let private = URL_SAFE_NO_PAD.decode(&stored.private).map_err(|_| "a key is not in base64")?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private).map_err(|_| "a key is no key")?;
    let public: EcPublicKeyUncompressedBin<'_> =
        pair.public_key().as_be_bytes().map_err(|_| "a key has no public half")?;
    // 4, then the two coordinates of 32 bytes each (SEC 1, section 2.3.3).
    let (x, y) = public.as_ref().get(1..).and_then(|point| point.split_at_checked(32)).ok_or("a key is no point")?;
    let point = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
    let verifying = DecodingKey::from_ec_components(&point[0], &point[1]).map_err(|_| "a key is no point")?;
    Ok(Key { id: stored.id, signing: EncodingKey::from_ec_der(&private), verifying, point })
}

#[cfg(test)]
mod tests {
    use super::super::claims::{AUDIENCE, Bound, Claims, Named, SecretClaims};
    use super::*;

    fn keys() -> Keys {
        Keys::parse(&new_record().unwrap(), Revision(1)).unwrap()
    }

    fn claims() -> Claims {
        let serviceaccount = Named { name: "default".to_owned(), uid: "u".to_owned() };
        let bound = Bound { namespace: "a".to_owned(), serviceaccount, pod: None, secret: None, node: None };
        Claims::new(bound, vec![AUDIENCE.to_owned()], jiff::Timestamp::UNIX_EPOCH, 600, "j".to_owned())
    }

    #[test]
    fn what_was_signed_is_verified_and_nothing_else() {
        let (ours, others) = (keys(), keys());
        let token = ours.sign(&claims()).unwrap();
        assert_eq!(ours.verify(&token), Ok(Signed::Bound(claims())));
        let of_secret = SecretClaims::new("a", "s", Named { name: "default".to_owned(), uid: "u".to_owned() });
        assert_eq!(ours.verify(&ours.sign(&of_secret).unwrap()), Ok(Signed::OfSecret(of_secret)));
        assert_eq!(others.verify(&token), Err("its key is not ours"));
        assert_eq!(ours.verify("abc"), Err("it is no signed token"));
        // Any change of any part.
        for index in [10, token.len() / 2, token.len() - 3] {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            assert!(ours.verify(std::str::from_utf8(&bytes).unwrap()).is_err(), "byte {index}");
        }
        // Unsigned, with our key's name.
        let id = &ours.all[0].id;
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"none","kid":"{id}"}}"#));
        let body = token.split('.').nth(1).unwrap();
        assert!(ours.verify(&format!("{header}.{body}.")).is_err());
    }

    #[test]
    fn a_damaged_record_is_an_error() {
        let check = |text: &str, expect: &str| {
            let error = Keys::parse(text.as_bytes(), Revision(1)).err().unwrap();
            assert!(error.contains(expect), "{error}");
        };
        check("{}", "missing field");
        check(r#"{"keys":[]}"#, "no key");
        check(r#"{"keys":[{"id":"a","private":"!"}]}"#, "base64");
        check(r#"{"keys":[{"id":"a","private":"AAAA"}]}"#, "no key");
    }

    #[test]
    fn the_public_halves_are_published() {
        let set = keys().public();
        assert_eq!(set["keys"][0]["x"].as_str().map(str::len), Some(43));
        assert!(!set.to_string().contains("private"));
    }
}

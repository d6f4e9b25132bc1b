//! By what extension servers know that it is this cluster's API that names a user to them.
//!
//! Owns: one record in the store beside the objects, which no request can read: an authority of its own, the same for
//! all servers. Each server has a client's certificate of it, made anew at every start. The authority's certificate is
//! published in the ConfigMap `extension-apiserver-authentication`. May not know: how certificates are made.

use api::status::Status;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use store::{Durability, Guard, Op, Store, Txn, TxnOutcome};

use crate::core::unwritten;
use crate::object::facets::ObjectFacets;
use crate::reach::Identity;

const RECORD: &str = "/authentication/front-proxy-authority";
/// The name in the client's certificate, which extension servers are told to accept.
pub const NAME: &str = "front-proxy-client";
/// How often two servers that begin at once may be in each other's way.
const ATTEMPTS_MAX: usize = 4;

/// Makes certificates.
pub trait FrontProxyMint: Send + Sync {
    /// A new authority.
    ///
    /// # Errors
    /// Why there is none.
    fn authority(&self) -> Result<Identity, String>;

    /// A client's certificate of an authority, for this common name.
    ///
    /// # Errors
    /// Why there is none.
    fn client(&self, authority: &Identity, name: &str) -> Result<Identity, String>;
}

/// What this server shows, and whose it is.
#[derive(Debug, Clone)]
pub struct FrontProxy {
    pub authority_pem: String,
    pub identity: Identity,
}

/// As stored.
#[derive(Serialize, Deserialize)]
struct Record {
    certificate: String,
    key: String,
}

/// The cluster's authority, made now when it has none, and a certificate of it.
pub async fn open(store: &Store<ObjectFacets>, mint: &dyn FrontProxyMint) -> Result<FrontProxy, Status> {
    let failed = |why: String| Status::internal(format!("the front proxy's certificates: {why}"));
    for _ in 0..ATTEMPTS_MAX {
        store.linearize().await.map_err(|error| unwritten(&error))?;
        if let Some(entry) = store.view().get(RECORD.as_bytes()) {
            let record: Record = serde_json::from_slice(&entry.value).map_err(|error| failed(error.to_string()))?;
            let authority = Identity { certificate_pem: record.certificate, key_pem: record.key };
            let identity = mint.client(&authority, NAME).map_err(failed)?;
            return Ok(FrontProxy { authority_pem: authority.certificate_pem, identity });
        }
        let made = mint.authority().map_err(failed)?;
        let record = Record { certificate: made.certificate_pem, key: made.key_pem };
        let value = serde_json::to_vec(&record).map_err(|error| failed(error.to_string()))?;
        let key = Bytes::from_static(RECORD.as_bytes());
        let txn = Txn {
            guards: vec![Guard::Absent { key: key.clone() }],
            ops: vec![Op::Put { key, value: value.into(), stamp_at: None }],
            durability: Durability::Synced,
        };
        match store.propose(txn).await.map_err(|error| unwritten(&error))? {
            TxnOutcome::Applied { .. } | TxnOutcome::GuardFailed { .. } => {}
        }
    }
    Err(failed("others keep changing them".to_owned()))
}

//! Secrets of type `kubernetes.io/service-account-token`: filled with a token that lasts as long as they do, and removed
//! with their service account.
//!
//! Owns: when to look, and writing. It is here and not among the controllers because the keys that sign leave the
//! server for nobody. Every server watches; only the one that leads writes.
//!
//! Follows `pkg/controller/serviceaccount/tokens_controller.go`.

mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::meta;
use api::status::Status;
use serde_json::Value;
use store::{Change, Revision, WatchClosed};

use self::plan::{Verdict, filled, verdict};
use super::claims::{Named, SecretClaims};
use crate::core::{Core, Entry, Request, core_kind, key, prefix};
use crate::object::encode::decode;
use crate::object::facets::ObjectFacets;
use crate::registry::delete::{DeleteOptions, delete};
use crate::registry::write::{Part, update};

pub const SECRET_TYPE: &str = "kubernetes.io/service-account-token";
pub const TOKEN: &str = "token";
const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// How soon a new leader notices that it is one, and what was not written is tried again.
const LOOK: Duration = Duration::from_secs(1);

/// Namespace and name.
type SecretName = (String, String);

pub fn spawn_keeper(core: Arc<Core>) {
    let shutdown = core.config.shutdown.clone();
    let keeper = Keeper { core, unsettled: BTreeSet::new(), led: false };
    tokio::spawn(shutdown.run_until_cancelled_owned(keeper.run()));
}

struct Keeper {
    core: Arc<Core>,
    unsettled: BTreeSet<SecretName>,
    led: bool,
}

fn is_ours(entry: &Entry) -> bool {
    entry.facets.field("type") == SECRET_TYPE
}

/// `/registry/core/secrets/default/x` → default, x
fn name_in(key: &[u8]) -> Option<SecretName> {
    let mut steps = std::str::from_utf8(key).ok()?.rsplitn(3, '/');
    let (name, namespace) = (steps.next()?, steps.next()?);
    Some((namespace.to_owned(), name.to_owned()))
}

impl Keeper {
    async fn run(mut self) {
        let [secrets, accounts] = ["secrets", "serviceaccounts"].map(|resource| prefix(core_kind(resource), ""));
        loop {
            let after = self.read("");
            let watches = [&secrets, &accounts].map(|prefix| self.core.store.watch(prefix.clone(), after));
            let [Ok(mut secrets), Ok(mut accounts)] = watches else { continue };
            loop {
                self.settle().await;
                let seen = tokio::select! {
                    event = secrets.next() => event.map(|event| self.see_secret(&event.change)),
                    event = accounts.next() => event.map(|event| self.see_account(&event.change)),
                    () = tokio::time::sleep(LOOK) => Ok(()),
                };
                match seen {
                    Ok(()) => {}
                    Err(WatchClosed::Shutdown) => return,
                    Err(WatchClosed::Lagged(_)) => break,
                }
            }
        }
    }

    /// All of a namespace, or of every one, are to be looked at.
    fn read(&mut self, namespace: &str) -> Revision {
        let view = self.core.store.view();
        let folder = prefix(core_kind("secrets"), namespace);
        let ours = view.range(&folder, None).filter(|entry| is_ours(entry));
        self.unsettled.extend(ours.filter_map(|entry| name_in(&entry.key)));
        view.revision()
    }

    fn see_secret(&mut self, change: &Change<ObjectFacets>) {
        if let Change::Put { entry, .. } = change
            && is_ours(entry)
        {
            self.unsettled.extend(name_in(&entry.key));
        }
    }

    fn see_account(&mut self, change: &Change<ObjectFacets>) {
        // One that is made anew is another one; what changes in one that stays does not matter.
        if let Change::Put { previous: Some(_), .. } = change {
            return;
        }
        if let Some((namespace, _)) = name_in(change.key()) {
            self.read(&namespace);
        }
    }

    async fn settle(&mut self) {
        let leads = *self.core.store.leadership().borrow();
        if leads && !self.led {
            self.read("");
        }
        self.led = leads;
        if !leads {
            self.unsettled.clear();
        }
        for secret in self.unsettled.clone() {
            let (namespace, name) = &secret;
            match self.settle_one(namespace, name).await {
                // It went, or is another one meanwhile.
                Ok(()) => drop(self.unsettled.remove(&secret)),
                Err(status) if status.code == 404 => drop(self.unsettled.remove(&secret)),
                Err(status) if status.code == 409 || status.code >= 500 => {
                    tracing::debug!(namespace, name, why = status.message, "a token's Secret is tried again");
                }
                Err(status) => {
                    tracing::warn!(
                        namespace,
                        name,
                        why = status.message,
                        "a token's Secret cannot be filled or removed"
                    );
                    self.unsettled.remove(&secret);
                }
            }
        }
    }

    async fn settle_one(&self, namespace: &str, name: &str) -> Result<(), Status> {
        // An account that another server has just made is no missing one.
        let view = self.core.fresh().await?;
        let request = Request::by_server(&self.core, core_kind("secrets"), namespace, name);
        let request = Request { as_leader: true, ..request };
        let Some(entry) = view.get(&request.key()).filter(|entry| is_ours(entry)) else { return Ok(()) };
        let secret = decode(&entry.value);
        let account = meta::annotation(&secret, ACCOUNT).unwrap_or_default();
        let account = view.get(&key(core_kind("serviceaccounts"), namespace, account));
        let account = account.map(|entry| decode(&entry.value));
        match verdict(&secret, account.as_ref(), &self.core.config.cluster_ca_pem) {
            Verdict::Nothing => Ok(()),
            Verdict::Fill(account) => self.fill(&request, meta::uid(&secret), account).await,
            Verdict::Delete(why) => {
                tracing::info!(namespace, name, why, "a token's Secret is removed");
                let options = DeleteOptions { uid: Some(meta::uid(&secret).to_owned()), ..DeleteOptions::default() };
                delete(&request, &options).await.map(drop)
            }
        }
    }

    async fn fill(&self, request: &Request, uid: &str, account: Named) -> Result<(), Status> {
        let claims = SecretClaims::new(&request.namespace, &request.name, account.clone());
        let token = self.core.token_keys.current(&self.core).await?.sign(&claims)?;
        let change = |present: &Value| {
            if meta::uid(present) != uid || meta::annotation(present, ACCOUNT) != Some(&account.name) {
                return Err(Status::conflict(&request.subject(), "it is another Secret meanwhile"));
            }
            Ok(filled(present, &account, &token, &self.core.config.cluster_ca_pem))
        };
        update(request, Part::Main, Vec::new(), change).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_keys() {
        let expect = Some(("default".to_owned(), "x".to_owned()));
        assert_eq!(name_in(b"/registry/core/secrets/default/x"), expect);
    }
}

//! Service accounts' tokens for the pods of this node: asked for once, kept, and replaced before they end.
//!
//! Owns: the tokens in memory. May not know: where in a pod's files they go (`volume`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::pod::spec::PodView;

const SECONDS_DEFAULT: i64 = 3600;
/// Of a token's life, in hundredths, after which it is replaced when somebody looks; Kubernetes' nodes wait for 80.
const REPLACE_AFTER_PERCENT: u32 = 70;
/// Of a token's life, after which somebody is told to look.
const LOOK_AFTER_PERCENT: u32 = 75;
/// No pod looks more often.
const LOOK_EVERY_MIN: Duration = Duration::from_secs(60);

/// What a projection asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenKind {
    /// Empty: the API server's own.
    pub audience: String,
    pub seconds: i64,
}

impl TokenKind {
    pub fn new(audience: Option<&String>, seconds: Option<i64>) -> Self {
        Self { audience: audience.cloned().unwrap_or_default(), seconds: seconds.unwrap_or(SECONDS_DEFAULT) }
    }

    fn part_of_life(&self, percent: u32) -> Duration {
        Duration::from_secs(u64::try_from(self.seconds).unwrap_or(0)) / 100 * percent
    }
}

#[derive(Debug, Error)]
pub enum TokenError {
    #[error("cannot have a token of service account {account:?}")]
    Ask {
        account: String,
        #[source]
        cause: kube::Error,
    },
    #[error("the API server answered without a token for service account {account:?}")]
    Empty { account: String },
}

/// A pod's tokens.
pub type TokenTexts = BTreeMap<TokenKind, Arc<str>>;

pub struct Tokens {
    client: Client,
    kept: Mutex<BTreeMap<(String, TokenKind), Kept>>,
}

#[derive(Clone)]
struct Kept {
    text: Arc<str>,
    replace_at: Instant,
}

impl Tokens {
    pub fn new(client: Client) -> Self {
        Self { client, kept: Mutex::default() }
    }

    /// Good ones of all these kinds. One that is old is replaced, or taken once more when that fails and it is still
    /// good.
    pub async fn of_pod(&self, pod: &Pod, kinds: &[TokenKind]) -> Result<TokenTexts, TokenError> {
        let uid = PodView::new(pod).uid().to_owned();
        let mut texts = TokenTexts::new();
        for kind in kinds {
            let key = (uid.clone(), kind.clone());
            let kept = self.kept.lock().expect("no holder of this lock panics").get(&key).cloned();
            let text = match kept {
                Some(kept) if Instant::now() < kept.replace_at => kept.text,
                kept => match (self.ask(pod, kind).await, kept) {
                    (Ok(text), _) => {
                        let replace_at = Instant::now() + kind.part_of_life(REPLACE_AFTER_PERCENT);
                        let fresh = Kept { text: text.clone(), replace_at };
                        self.kept.lock().expect("no holder of this lock panics").insert(key, fresh);
                        text
                    }
                    (Err(error), Some(kept)) => {
                        tracing::warn!(%error, pod = uid, "cannot replace a token yet");
                        kept.text
                    }
                    (Err(error), None) => return Err(error),
                },
            };
            texts.insert(kind.clone(), text);
        }
        Ok(texts)
    }

    async fn ask(&self, pod: &Pod, kind: &TokenKind) -> Result<Arc<str>, TokenError> {
        let view = PodView::new(pod);
        let account = view.spec().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(view.name().to_owned()),
            uid: Some(view.uid().to_owned()),
        };
        let audiences = (!kind.audience.is_empty()).then(|| vec![kind.audience.clone()]);
        let spec =
            TokenRequestSpec { audiences, bound_object_ref: Some(bound), expiration_seconds: Some(kind.seconds) };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), view.namespace());
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.map_err(|cause| TokenError::Ask { account: account.to_owned(), cause })?;
        let token = answer.status.and_then(|status| status.token).filter(|token| !token.is_empty());
        token.map(Into::into).ok_or_else(|| TokenError::Empty { account: account.to_owned() })
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &str) {
        self.kept.lock().expect("no holder of this lock panics").retain(|(of, _), _| of != uid);
    }
}

/// Tells whenever a token of these kinds is due to be replaced, until nobody listens.
pub async fn tell_when_due(kinds: Vec<TokenKind>, changed: mpsc::Sender<()>) {
    let Some(shortest) = kinds.iter().map(|kind| kind.part_of_life(LOOK_AFTER_PERCENT)).min() else { return };
    loop {
        tokio::select! {
            () = tokio::time::sleep(shortest.max(LOOK_EVERY_MIN)) => {}
            () = changed.closed() => return,
        }
        if changed.send(()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_told_before_its_token_ends() {
        let (changed, mut told) = mpsc::channel(1);
        let kinds = vec![TokenKind::new(None, Some(3607)), TokenKind::new(Some(&"vault".to_owned()), Some(600))];
        let task = tokio::spawn(tell_when_due(kinds, changed));
        let began = Instant::now();
        for round in 1..4 {
            told.recv().await.unwrap();
            assert_eq!(began.elapsed().as_secs(), 450 * round);
        }
        drop(told);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn without_tokens_there_is_nothing_to_tell() {
        let (changed, mut told) = mpsc::channel(1);
        tell_when_due(Vec::new(), changed).await;
        assert_eq!(told.recv().await, None);
    }
}

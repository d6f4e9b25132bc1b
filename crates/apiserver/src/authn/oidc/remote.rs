//! An issuer's keys, fetched and kept in step.
//!
//! Owns: one task for each issuer that reads the discovery document and the keys it names: at the start, from time to
//! time, and when a token comes with a key that is not known. The server does not wait for it: until there are keys,
//! the issuer's tokens are refused. May not know: what tokens say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::config::IssuerConfig;
use super::key_set::KeySet;

/// Longest document of an issuer.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at keys that nobody misses.
const REFRESH: Duration = Duration::from_secs(600);
/// Between two looks at most, whoever asks.
const PAUSE_MIN: Duration = Duration::from_secs(3);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);
/// How long a request waits for keys that may be newer.
const WAIT_MAX: Duration = Duration::from_secs(5);
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Keys, and how many sets there were before: what was found out by an older set counts no more.
#[derive(Clone)]
pub struct Known {
    pub serial: u64,
    pub keys: Arc<KeySet>,
}

/// What the task has found.
#[derive(Clone, Default)]
struct Found {
    known: Option<Known>,
    /// Attempts so far.
    attempts: u64,
}

/// A handle on the keys of one issuer.
pub struct RemoteKeys {
    found: watch::Receiver<Found>,
    missed: Arc<Notify>,
}

impl RemoteKeys {
    /// Starts the task; it ends with `shutdown`.
    ///
    /// # Errors
    /// What of the configuration makes it impossible to reach the issuer.
    pub fn spawn(issuer: &IssuerConfig, shutdown: CancellationToken) -> Result<Self, String> {
        let (sender, found) = watch::channel(Found::default());
        let missed = Arc::new(Notify::new());
        let worker = Worker { source: Source::new(issuer)?, found: sender, missed: Arc::clone(&missed), bytes: None };
        tokio::spawn(async move { shutdown.run_until_cancelled(worker.run()).await });
        Ok(Self { found, missed })
    }

    pub fn current(&self) -> Option<Known> {
        self.found.borrow().known.clone()
    }

    /// Asks for newer keys and waits a while for them.
    pub async fn newer(&self) -> Option<Known> {
        let mut found = self.found.clone();
        let before = found.borrow_and_update().attempts;
        self.missed.notify_one();
        let waited = tokio::time::timeout(WAIT_MAX, found.wait_for(|found| found.attempts > before)).await;
        waited.ok()?.ok()?.known.clone()
    }
}

/// Where keys come from.
struct Source {
    issuer: String,
    discovery: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Source {
    fn new(issuer: &IssuerConfig) -> Result<Self, String> {
        let beside = || format!("{}{WELL_KNOWN}", issuer.url.trim_end_matches('/'));
        let url = issuer.discovery_url.clone().filter(|url| !url.is_empty()).unwrap_or_else(beside);
        let discovery = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(issuer.certificate_authority.as_deref().unwrap_or_default())?)
            .with_no_client_auth();
        let connector =
            hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { issuer: issuer.url.clone(), discovery, client })
    }

    /// The bytes of the key set.
    async fn fetch(&self) -> Result<Bytes, String> {
        let document = self.get(self.discovery.clone()).await?;
        let discovery: Discovery = serde_json::from_slice(&document)
            .map_err(|error| format!("{} is no discovery document: {error}", self.discovery))?;
        if discovery.issuer != self.issuer {
            return Err(format!("{} is about the issuer {:?}", self.discovery, discovery.issuer));
        }
        let keys: Uri = discovery
            .jwks_uri
            .parse()
            .map_err(|error| format!("the jwks_uri {:?} is no URL: {error}", discovery.jwks_uri))?;
        self.get(keys).await
    }

    async fn get(&self, uri: Uri) -> Result<Bytes, String> {
        let failed = |why: &dyn std::fmt::Display| format!("GET {uri}: {why}");
        let request = Request::get(uri.clone()).header(http::header::ACCEPT, "application/json");
        let request = request.body(Empty::new()).map_err(|error| failed(&error))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| failed(&root_cause(&error)))?;
            if !answer.status().is_success() {
                return Err(failed(&format!("the server answered {}", answer.status())));
            }
            let body = Limited::new(answer.into_body(), DOCUMENT_BYTES_MAX).collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| failed(&error))
        };
        let late = |_| failed(&format!("no answer in {FETCH_TIMEOUT:?}"));
        tokio::time::timeout(FETCH_TIMEOUT, exchange).await.map_err(late)?
    }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |cause| cause.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

/// The authorities that the issuer's certificate may be of.
fn roots(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if pem.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    }
    for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("certificateAuthority is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("a certificate of certificateAuthority: {error}"))?;
    }
    if roots.is_empty() {
        return Err("certificateAuthority holds no certificate".to_owned());
    }
    Ok(roots)
}

struct Worker {
    source: Source,
    found: watch::Sender<Found>,
    missed: Arc<Notify>,
    /// Of the set that is known.
    bytes: Option<Bytes>,
}

impl Worker {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            match self.look().await {
                Ok(()) => failures = 0,
                Err(why) => {
                    let (issuer, again) = (&self.source.issuer, retry_after(failures));
                    let effect =
                        if self.bytes.is_some() { "the keys known so far are used" } else { "its tokens are refused" };
                    tracing::warn!(%issuer, %why, "the keys of a token issuer cannot be read; {effect}; again in {again:?}");
                    failures += 1;
                }
            }
            let after = if failures == 0 { REFRESH } else { retry_after(failures - 1) };
            tokio::select! {
                () = tokio::time::sleep(after) => {}
                () = self.missed.notified() => tokio::time::sleep_until(began + PAUSE_MIN.min(after)).await,
            }
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let looked = self.source.fetch().await.and_then(|bytes| {
            let is_new = self.bytes.as_ref() != Some(&bytes);
            is_new.then(|| KeySet::parse(&bytes).map(|keys| (bytes, keys))).transpose()
        });
        self.found.send_modify(|found| found.attempts += 1);
        let Some((bytes, keys)) = looked? else { return Ok(()) };
        tracing::info!(issuer = %self.source.issuer, keys = keys.len(), "the keys of a token issuer are known");
        self.bytes = Some(bytes);
        self.found.send_modify(|found| {
            let serial = found.known.as_ref().map_or(0, |known| known.serial + 1);
            found.known = Some(Known { serial, keys: Arc::new(keys) });
        });
        Ok(())
    }
}

/// Twice as long after each failure.
fn retry_after(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(RETRY_LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_ever_later() {
        for (failures, seconds) in [(0, 1), (1, 2), (5, 32), (6, 60), (1000, 60)] {
            assert_eq!(retry_after(failures), Duration::from_secs(seconds), "{failures}");
        }
    }

    #[test]
    fn authorities() {
        assert_eq!(roots("nothing").err().as_deref(), Some("certificateAuthority holds no certificate"));
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(roots(broken).is_err_and(|why| why.starts_with("certificateAuthority is no PEM")));
    }
}

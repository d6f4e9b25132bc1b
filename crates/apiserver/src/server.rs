//! The API server as one value: opened over a store, bootstrapped, turned into a router or a client.

use std::sync::Arc;

use api::status::Status;
use axum::Router;
use http::HeaderMap;
use jiff::Timestamp;
use store::Store;
use thiserror::Error;

use crate::admission::config::AdmissionConfig;
use crate::aggregation::{self, front_proxy};
use crate::authn::{self, AuthenticationConfig, Authn, token_secrets};
use crate::authz::{Attributes, authorize, spawn_rbac_upkeep};
use crate::bootstrap::{self, BootstrapError};
use crate::bucket;
use crate::client::InProcessClient;
use crate::config::ApiServerConfig;
use crate::config_file::ConfigFileError;
use crate::core::{Core, Kept};
use crate::custom::catalog::spawn_catalog_upkeep;
use crate::custom::keeper::spawn_keeper;
use crate::dispatch::dispatch;
use crate::endpoints;
use crate::hooks::upkeep::spawn_hooks_upkeep;
use crate::housekeeping::spawn_housekeeping;
use crate::identity::UserInfo;
use crate::object::facets::ObjectFacets;
use crate::quota;
use crate::reach::Dialer;

#[derive(Debug, Error)]
pub enum ApiServerError {
    #[error("the service range {range} has no room: at least 16 addresses are needed")]
    ServiceRange { range: String },
    #[error("opening what extension servers know this server by")]
    FrontProxy(#[source] Status),
    #[error("the authentication configuration cannot be used")]
    Authentication(#[from] ConfigFileError),
}

/// A file that may change while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Configuration {
    Authentication,
    Admission,
}

/// A cheap handle.
#[derive(Clone)]
pub struct ApiServer {
    core: Arc<Core>,
}

impl ApiServer {
    /// Starts the background tasks; they end with `config.shutdown`. Must be called inside a tokio runtime.
    pub async fn open(store: Store<ObjectFacets>, config: ApiServerConfig) -> Result<Self, ApiServerError> {
        if config.service_cidr.size() < 16 {
            return Err(ApiServerError::ServiceRange { range: config.service_cidr.to_string() });
        }
        let authn = Authn::start(&config.authentication, &config.shutdown)?;
        let rbac = spawn_rbac_upkeep(store.clone(), config.shutdown.clone());
        let dialer = Dialer { store: store.clone(), nodes: Arc::clone(&config.nodes) };
        let catalog = spawn_catalog_upkeep(store.clone(), dialer.clone(), config.shutdown.clone());
        let hooks = spawn_hooks_upkeep(store.clone(), dialer.clone(), config.shutdown.clone());
        let front_proxy = match &config.front_proxy {
            Some(mint) => Some(front_proxy::open(&store, &**mint).await.map_err(ApiServerError::FrontProxy)?),
            None => None,
        };
        let core = Arc::new(Core::new(store, config, Kept { authn, rbac, catalog, hooks }, front_proxy));
        aggregation::upkeep::spawn_upkeep(&core, dialer);
        spawn_housekeeping(core.clone());
        spawn_keeper(core.clone());
        endpoints::spawn_upkeep(core.clone());
        bucket::upkeep::spawn_upkeep(&core);
        quota::keeper::spawn_keeper(core.clone());
        token_secrets::spawn_keeper(core.clone());
        Ok(Self { core })
    }

    /// Creates what every cluster has; does nothing where it is there. Returns when it is in effect.
    pub async fn bootstrap(&self) -> Result<(), BootstrapError> {
        bootstrap::run(&self.core).await
    }

    /// Goes on with another authentication configuration, from the next request on. A part of the file that can never
    /// work leaves everything as it is. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Which part that is.
    pub fn reload_authentication(&self, config: &AuthenticationConfig) -> Result<(), ConfigFileError> {
        let outcome = self.core.authn.reload(config);
        self.core.authn.reloads.note(outcome.is_ok(), Timestamp::now());
        outcome
    }

    /// Goes on with another admission configuration, from the next request on.
    pub fn reload_admission(&self, config: AdmissionConfig) {
        self.core.admission.store(Arc::new(config));
        self.core.admission_reloads.note(true, Timestamp::now());
    }

    /// A file changed and cannot be used; only counted.
    pub fn note_bad_configuration(&self, which: Configuration) {
        let reloads = match which {
            Configuration::Authentication => &self.core.authn.reloads,
            Configuration::Admission => &self.core.admission_reloads,
        };
        reloads.note(false, Timestamp::now());
    }

    /// May the user do this to a path that is no resource (the embedded registry's, for one)?
    pub fn authorize_path(&self, user: &UserInfo, verb: &str, path: &str) -> Result<(), Status> {
        let attributes = Attributes { verb, path, ..Attributes::default() };
        authorize(&self.core.rbac.current(), user, &attributes)
    }

    /// Whose request it is: `certified` by its connection, or by a bearer token.
    ///
    /// # Errors
    /// 401 for a token that is no good.
    pub async fn user_of(&self, certified: Option<UserInfo>, headers: &HeaderMap) -> Result<UserInfo, Status> {
        authn::user_of(&self.core, certified, headers).await
    }

    /// The whole REST surface. A request without a `UserInfo` extension is anonymous.
    pub fn router(&self) -> Router {
        Router::new().fallback(dispatch).with_state(self.core.clone())
    }

    /// A client inside this process, acting as `user`.
    pub fn client(&self, user: UserInfo) -> InProcessClient {
        InProcessClient::new(self.router(), user)
    }
}

//! The Kubernetes REST surface, and the only door to the store.
//!
//! A request goes `dispatch` → `authz` → `rest` (verbs) or `subresource` → `registry` (the steps of a
//! write, one strategy per kind) → `admission` → one transaction of the store. Reads and watches hand
//! out the stored bytes.
//!
//! May not know: nodes' insides, controllers, how the store agrees and keeps.

mod admission;
mod aggregation;
mod authn;
mod authz;
mod bootstrap;
mod bucket;
mod client;
mod config;
mod config_file;
mod core;
mod custom;
mod discovery;
mod dispatch;
mod endpoints;
mod follow;
mod health;
mod hooks;
mod housekeeping;
mod identity;
mod object;
mod quota;
mod reach;
mod registry;
mod reloads;
mod rest;
mod serve;
mod server;
mod subresource;
mod traffic;
mod wire;

pub use admission::config::AdmissionConfig;
pub use aggregation::HeaderNames;
pub use aggregation::front_proxy::FrontProxyMint;
pub use authn::AuthenticationConfig;
pub use authn::request_header::RequestHeader;
pub use bootstrap::BootstrapError;
pub use client::InProcessClient;
pub use config::{ApiServerConfig, Cidr, Version};
pub use config_file::ConfigFileError;
pub use identity::{AUTHENTICATED, CertificateError, MASTERS, UserInfo, from_certificate};
pub use object::facets::ObjectFacets;
pub use reach::Identity;
pub use serve::{PeerAddress, serve};
pub use server::{ApiServer, ApiServerError, Configuration};
pub use subresource::node_connector::{NoNodes, NodeAddress, NodeConnectError, NodeConnector, TlsNodeConnector};
pub use traffic::audit::{AuditError, AuditLog, Policy as AuditPolicy, PolicyError as AuditPolicyError};

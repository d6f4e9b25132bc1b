//! One generic registry: every kind is a row of the kinds table and a [`Strategy`].
//!
//! Owns: the order of the steps of a write. May not know: HTTP.

pub mod attempts;
pub mod certificates;
pub mod delete;
pub mod meta;
pub mod ownership;
pub mod strategy;
pub mod write;

mod api_services;
mod buckets;
mod definitions;
mod jobs;
mod namespaces;
mod nodes;
mod pods;
mod quotas;
mod services;

use api::kinds::Kind;

pub use strategy::Strategy;

/// The visible list: which strategy serves which resource. Everything else takes the default.
pub fn strategy_of(kind: &Kind) -> &'static dyn Strategy {
    match (kind.group, kind.resource) {
        ("", "pods") => &pods::Pods,
        ("batch", "jobs") => &jobs::Jobs,
        ("", "services") => &services::Services,
        ("", "namespaces") => &namespaces::Namespaces,
        ("", "nodes") => &nodes::Nodes,
        ("", "events") | ("events.k8s.io", "events") => &strategy::Cheap,
        ("knarr.dev", "buckets") => &buckets::Buckets,
        ("coordination.k8s.io", "leases") => &strategy::Cheap,
        ("", "persistentvolumeclaims" | "persistentvolumes" | "serviceaccounts") => &strategy::ReturnsDeleted,
        ("apiregistration.k8s.io", "apiservices") => &api_services::ApiServices,
        ("certificates.k8s.io", "certificatesigningrequests") => &certificates::CertificateRequests,
        ("", "resourcequotas") => &quotas::Quotas,
        ("apiextensions.k8s.io", "customresourcedefinitions") => &definitions::Definitions,
        _ if kind.is_custom() => &definitions::Customs,
        _ => &strategy::Plain,
    }
}

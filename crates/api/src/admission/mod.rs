//! What admission decides without looking at the cluster: limits, quotas, levels of pod security, matching of rules.
//!
//! Owns: the rules and their words. May not know: how objects are found, the order of plugins, requests over HTTP.

pub mod amounts;
pub mod limit_range;
pub mod mutation;
pub mod pod_security;
pub mod policy;
pub mod quota;
pub mod rules;

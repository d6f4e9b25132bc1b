//! The life of one pod: `spec` reads it, `resources` has what it may use, `resize` what it was granted of that, `state` is
//! what is known, `lifecycle` and `plan` decide (pure), `execute` does, `status` tells, `worker` joins them in one task
//! per pod.

pub mod action;
pub mod backoff;
pub mod container_config;
pub mod event;
pub mod execute;
pub mod last_status;
pub mod lifecycle;
mod lifecycle_hook;
pub mod plan;
pub mod resize;
pub mod resources;
pub mod spec;
pub mod state;
pub mod status;
pub mod status_writer;
pub mod watched;
pub mod worker;

#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod status_tests;

//! End to end: one file per property of the whole system, one cluster at a time.

mod crash;
mod examples;
mod kubectl;
mod limits;
mod mistakes;
mod registry;
mod rollout;
mod runtimes;
mod teardown;

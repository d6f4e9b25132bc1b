//! End to end: one file per property of the whole system, one cluster at a time.

mod access;
mod backup;
mod clients;
mod crash;
mod custom;
mod examples;
mod full_disk;
mod functions;
mod keys;
mod keyvalue;
mod kubectl;
mod languages;
mod limits;
mod mistakes;
mod network;
mod registry;
mod rollout;
mod run;
mod runtimes;
mod scale_to_zero;
mod streams;
mod teardown;
mod tokens;
mod transcript;
mod workloads;

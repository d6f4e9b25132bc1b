//! The store from outside, on real files and real streams: one file for each property. They are one program, because
//! raft is compiled into every program that drives a store, and that takes longer than the tests.

#![allow(clippy::unwrap_used)] // in helpers of tests, where it is allowed as it is in tests

mod at_rest;
mod backup;
mod basics;
mod cluster;
mod durability;
mod faults;
mod kill;
mod members;
mod power_cut;
mod watches;

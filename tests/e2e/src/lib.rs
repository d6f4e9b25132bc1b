//! What the end-to-end tests stand on: the built `knarr` as a process, the real kubectl, plain HTTP
//! and a look at the machine. Knows the program only by its command line and its API.
//!
//! The tests need Linux, root and kubectl. Where one is missing they say so and pass, except with
//! `KNARR_E2E=require`, as on the build machine, where a skipped test is a failed one. The binary
//! is `$KNARR_BIN`, else the one beside the tests; `cargo xtask test` builds it.

pub mod cluster;
pub mod eventually;
pub mod http;
pub mod images;
pub mod kubectl;
pub mod layout;
pub mod machine;
pub mod needs;
pub mod transcript;

pub use cluster::{Cluster, Options};
pub use eventually::{PATIENCE, eventually, try_within, within};
pub use kubectl::{Background, Said};

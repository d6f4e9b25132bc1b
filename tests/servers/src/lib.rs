//! Several `knarr server` processes (and `knarr agent`, where a test wants nodes), each on a machine of its own made of Linux namespaces, under load
//! and with faults. Knows the program only by its command line and its API.
//!
//! A test takes a [`Campaign`]: it starts servers, and for each round a [`load`], lets a fault happen,
//! waits until all is well again, and has everything the clients saw judged (`verdict`).
//!
//! | variable | is |
//! | --- | --- |
//! | `KNARR_FAULT_ROUNDS` | how often each fault happens; 1 if not set |
//! | `KNARR_FAULT_SEED` | what all chance follows from; a failure prints it |
//! | `KNARR_FAULT_ONLY` | a part of the names of the faults that shall happen; all if not set |
//! | `KNARR_FAULT_SERVERS` | how many servers there are; 3 if not set |
//! | `KNARR_FAULT_REPORT` | a file that gets one line of JSON for each round |
//! | `KNARR_FAULT_KEEP` | if set, logs and data of a test that fails are kept |

pub mod agent;
pub mod campaign;
pub mod client;
pub mod disk;
pub mod fabric;
pub mod host;
pub mod load;
pub mod nodes;
pub mod report;
pub mod server;
pub mod servers;
pub mod verdict;

pub use campaign::{Campaign, Fault, Scene};
pub use server::Storage;
pub use servers::Servers;

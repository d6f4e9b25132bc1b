//! Agreement and durability: the only place that names openraft. Drives a [`Machine`](crate::machine::Machine)
//! with committed transactions; knows neither facets nor watches.
//!
//! - [`types`]: openraft's type parameters, and how they look on the disk
//! - [`log_store`]: openraft's log on our write-ahead log
//! - [`state_machine`]: openraft's state machine on our `Machine`, and snapshots
//! - [`progress`], [`registry`]: what it has applied, and which member ids were given out
//! - [`message`]: what members say to each other
//! - [`network`], [`answer`], [`incoming`]: asking, answering, receiving snapshots
//! - [`address_book`]: where members are
//! - [`members`], [`forward`]: changing who is a member; writes and reads asked of any member
//! - [`forward_rounds`]: many writes that go to the leader in one request
//! - [`read_rounds`]: many reads that wait for one round
//! - [`audit`]: members compare their states
//! - [`node`], [`upkeep`]: one running member, and what it does by itself
//! - [`founding`]: a cluster that begins with a state from elsewhere
//! - [`rotation`]: getting rid of files under old keys
//! - [`runtime`], [`watch_channel`]: what openraft runs on

mod address_book;
mod alone;
mod answer;
mod audit;
#[cfg(test)]
mod contract_test;
mod forward;
mod forward_rounds;
mod founding;
mod incoming;
mod log_store;
mod members;
mod message;
mod network;
mod node;
mod progress;
mod read_rounds;
mod registry;
mod rotation;
mod runtime;
mod state_machine;
#[cfg(test)]
mod suite_test;
mod types;
mod upkeep;
mod watch_channel;

pub use audit::Alarm;
pub(crate) use forward::{Answer, Proposer, WriteError};
pub(crate) use founding::Founding;
pub use members::{Member, MemberError, Members, Role};
pub(crate) use message::MemberChange;
pub use node::NodeError;
pub(crate) use node::{Node, Typed};
pub use rotation::RotateError;
pub use runtime::seed_randomness;
pub use state_machine::RestoreError;

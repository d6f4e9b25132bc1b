//! HTTP in and out: what a request says, and how an answer is written.
//!
//! May not know: storage, users, kinds beyond their table.

pub mod accept;
pub mod body;
pub mod event;
pub mod path;
pub mod query;
pub mod respond;
pub mod unread;

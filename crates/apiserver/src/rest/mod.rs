//! The verbs of the API over HTTP.

pub mod apply;
pub mod components;
pub mod list;
pub mod present;
pub mod selection;
pub mod usage;
pub mod watch;
pub mod write;

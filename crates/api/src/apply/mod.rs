//! Who owns which field: `managedFields` and server-side apply.
//!
//! Owns: sets of fields and their form ([`fields_v1`]), the walks that compare, merge and prune objects, what every
//! write does to the entries of all managers ([`track`]), and [`apply`].
//! May not know: storage, HTTP, clocks ("now" is a value), defaults, validation.
//!
//! ```text
//! list_rules, schema ─► place ─► check, owned, compare, merge, remove      one object or two, no managers
//!                                        └─► writer ─► track, applied      who owns what
//! ```
//!
//! Behaves like structured-merge-diff v6 and apimachinery's `managedfields`; where it does not, a comment says so.

mod applied;
mod check;
mod compare;
mod conflict;
mod conversions;
mod created;
mod element;
mod fields_v1;
mod last_applied;
mod managers;
mod merge;
mod owned;
mod place;
mod remove;
mod set;
mod track;
mod writer;

use serde_json::Value;

pub use applied::{Refusal, apply};
pub use conflict::{Conflict, Conflicts};
pub use conversions::{Conversions, Question};
pub use element::{Element, Path};
pub use managers::{Entry, Identity, Managers, Operation, UPDATERS_MAX};
pub use place::Typing;
pub use set::Set;
pub use track::{forget_idle_times, track};
pub use writer::{Writer, paths};

/// An object with a configuration laid over it, owned by nobody: what policies apply.
///
/// # Errors
/// What of the configuration does not fit the type.
pub fn laid_over(typing: Typing<'_>, object: &Value, config: &Value) -> Result<Value, Vec<String>> {
    let place = typing.root();
    let complaints = check::complaints(place, config);
    if complaints.is_empty() { Ok(merge::merge(place, object, config)) } else { Err(complaints) }
}

/// Longest name of a manager.
pub const MANAGER_BYTES_MAX: usize = 128;

/// The manager that a `User-Agent` names: what is before the first `/`, printable, not too long.
pub fn manager_of_user_agent(user_agent: &str) -> String {
    let prefix = user_agent.split('/').next().unwrap_or("");
    let mut manager = String::new();
    for character in prefix.chars().filter(|c| !c.is_control()) {
        if manager.len() + character.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        manager.push(character);
    }
    manager
}

#[cfg(test)]
mod tests;

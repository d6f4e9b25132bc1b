//! CEL, the language of `x-kubernetes-validations`, as far as Kubernetes' rules use it.
//!
//! ```text
//! text ─► lexer ─► parser ─► ast ─► check (names, functions, types; when a definition is written)
//!                                └► eval (with a budget; when an object is written) ─► functions
//! ```
//!
//! Owns: the language, its functions, and running the rules of a schema over an object. What is not known (a function,
//! a field) is refused when the rule is compiled; nothing is ever taken for true.
//! May not know: how schemas are made, storage, requests.

mod ast;
mod check;
mod eval;
mod functions;
mod lexer;
mod library;
mod parser;
mod program;
mod rule;
mod value;

pub use program::{Program, Wanted};
pub use rule::{Rule, Scope, check_rule, validate};
pub use value::{Answer, Foreign, Val};

#[cfg(test)]
mod tests;

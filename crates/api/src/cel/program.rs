//! An expression on its own: compiled once, run over names that the caller gives. For admission.
//!
//! Owns: what admission adds to the language (`authorizer`), and that an expression has the result it shall have.

use std::collections::BTreeMap;

use regex::Regex;

use super::ast::Expr;
use super::check::{Checker, Ty};
use super::eval::{Evaluator, Names, Outcome};
use super::parser::parse;
use super::rule::collect_patterns;

/// Functions of what a caller brings ([`super::Foreign`]): name, fewest and most arguments.
pub const FOREIGN_FUNCTIONS: &[(&str, usize, usize)] = &[
    ("allowed", 0, 0),
    ("check", 1, 1),
    ("error", 0, 0),
    ("errored", 0, 0),
    ("fieldSelector", 1, 1),
    ("group", 1, 1),
    ("labelSelector", 1, 1),
    ("name", 1, 1),
    ("namespace", 1, 1),
    ("path", 1, 1),
    ("reason", 0, 0),
    ("resource", 1, 1),
    ("serviceAccount", 2, 2),
    ("subresource", 1, 1),
];

/// What an expression shall evaluate to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Bool,
    Text,
    TextOrNull,
    /// A list of `JSONPatch{…}`.
    Patches,
    /// `Object{…}`, what is to be laid over an object.
    Object,
    Anything,
}

/// An expression, ready to run.
#[derive(Debug)]
pub struct Program {
    text: String,
    expr: Expr,
    patterns: BTreeMap<String, Regex>,
}

impl Program {
    /// Compiles an expression that may use these names.
    ///
    /// # Errors
    /// `compilation failed: ERROR: <input>:1:7: …`
    pub fn compile(text: &str, names: &[&str], wanted: Wanted) -> Result<Self, String> {
        let failed = |why: String| format!("compilation failed: {why}");
        let expr = parse(text).map_err(failed)?;
        let names = names.iter().map(|name| (*name, Ty::Dyn)).collect();
        let makes_structs = matches!(wanted, Wanted::Patches | Wanted::Object);
        let found = Checker { names, makes_structs, foreign: FOREIGN_FUNCTIONS }
            .check(&expr)
            .map_err(|why| failed(format!("ERROR: <input>:1:1: {why}")))?;
        let fits = match wanted {
            Wanted::Bool => found.is_bool(),
            Wanted::Text => found.is_text(),
            Wanted::TextOrNull => found.is_text() || found.is_null(),
            Wanted::Patches => found.is_list(),
            Wanted::Object => found.is_map(),
            Wanted::Anything => true,
        };
        if !fits {
            return Err(failed(match wanted {
                Wanted::Bool => "must evaluate to bool".to_owned(),
                Wanted::Text => "must evaluate to string".to_owned(),
                Wanted::TextOrNull => "must evaluate to one of [string null_type]".to_owned(),
                Wanted::Patches => "must evaluate to list(JSONPatch)".to_owned(),
                Wanted::Object | Wanted::Anything => "must evaluate to Object".to_owned(),
            }));
        }
        let mut patterns = BTreeMap::new();
        collect_patterns(&expr, &mut patterns);
        Ok(Self { text: text.to_owned(), expr, patterns })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the expression looks at a name.
    pub fn uses(&self, name: &str) -> bool {
        let mut found = false;
        self.expr.each(&mut |expr| found |= matches!(expr, Expr::Name(used) if **used == *name));
        found
    }

    /// Runs the expression; `budget` is the steps that are left for all of a request.
    ///
    /// # Errors
    /// Why it has no value.
    pub fn run<'v>(&self, names: &[(&str, super::Val<'v>)], budget: &mut u64) -> Outcome<'v> {
        let names: Names<'_, 'v> = names.iter().map(|(name, value)| (*name, value.clone())).collect();
        let mut evaluator = Evaluator { names, patterns: &self.patterns, budget: *budget };
        let outcome = evaluator.eval(&self.expr);
        *budget = evaluator.budget;
        outcome
    }
}

//! Evaluating a tree, within a budget.
//!
//! Owns: operators, macros, errors that `&&` and `||` swallow, and counting what it costs. May not know: schemas
//! beyond what a value carries, functions (see `functions`).

use std::collections::BTreeMap;
use std::rc::Rc;

use regex::Regex;

use super::ast::{Comprehension, Expr, Macro, Operator};
use super::functions;
use super::value::Val;

/// Steps of one rule; about as long as Kubernetes lets one run.
pub const RULE_STEPS_MAX: u64 = 1_000_000;

pub const TOO_COSTLY: &str = "operation cancelled: actual cost limit exceeded";

/// Names in scope.
pub type Names<'n, 'v> = Vec<(&'n str, Val<'v>)>;

pub struct Evaluator<'e, 'v> {
    pub names: Names<'e, 'v>,
    /// Patterns that were compiled with the rule.
    pub patterns: &'e BTreeMap<String, Regex>,
    /// Steps left.
    pub budget: u64,
}

pub type Outcome<'v> = Result<Val<'v>, String>;

impl<'e, 'v> Evaluator<'e, 'v> {
    pub fn spend(&mut self, steps: usize) -> Result<(), String> {
        let steps = steps as u64;
        if self.budget < steps {
            self.budget = 0;
            return Err(TOO_COSTLY.to_owned());
        }
        self.budget -= steps;
        Ok(())
    }

    pub fn eval(&mut self, expr: &'e Expr) -> Outcome<'v> {
        self.spend(1)?;
        match expr {
            Expr::Null => Ok(Val::Null),
            Expr::Bool(value) => Ok(Val::Bool(*value)),
            Expr::Int(value) => Ok(Val::Int(*value)),
            Expr::Uint(value) => Ok(Val::Uint(*value)),
            Expr::Double(value) => Ok(Val::Double(*value)),
            Expr::Text(text) => Ok(Val::text(text)),
            Expr::Bytes(bytes) => Ok(Val::Bytes(Rc::from(&**bytes))),
            Expr::Name(name) => self.name(name),
            Expr::Select { of, field, optional } => self.select(of, field, *optional),
            Expr::Has { of, field } => self.has(of, field),
            Expr::Index { of, at, optional } => self.index(of, at, *optional),
            Expr::Call { of, name, args } => self.call(of.as_deref(), name, args),
            Expr::List(items) => self.items(items),
            Expr::Map(entries) => self.entries(entries),
            Expr::Struct { fields, .. } => self.fields(fields),
            Expr::Not(of) => match self.eval(of)? {
                Val::Bool(value) => Ok(Val::Bool(!value)),
                other => Err(no_overload("!_", &[&other])),
            },
            Expr::Negate(of) => negate(&self.eval(of)?),
            Expr::Binary(operator, left, right) => self.binary(*operator, left, right),
            Expr::All(terms) => self.junction(terms, false),
            Expr::Any(terms) => self.junction(terms, true),
            Expr::Choose(condition, yes, no) => match self.eval(condition)? {
                Val::Bool(true) => self.eval(yes),
                Val::Bool(false) => self.eval(no),
                other => Err(no_overload("_?_:_", &[&other])),
            },
            Expr::Comprehension(of) => self.comprehension(of),
            Expr::OptionalMap { of, var, body, flat } => self.optional_map(of, var, body, *flat),
        }
    }

    fn name(&self, name: &str) -> Outcome<'v> {
        if let Some((_, value)) = self.names.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        functions::type_of_name(name).map(Val::Type).ok_or_else(|| format!("undeclared reference to '{name}'"))
    }

    fn select(&mut self, of: &'e Expr, field: &str, optional: bool) -> Outcome<'v> {
        let value = self.eval(of)?;
        match value {
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => Ok(Val::Optional(inner.field(field).map(Rc::new))),
            value if optional => Ok(Val::Optional(value.field(field).map(Rc::new))),
            Val::Foreign(of) => of.member(field).map(Val::from).ok_or_else(|| format!("no such key: {field}")),
            value => match value.field(field) {
                Some(Val::Failure(why)) => Err(why.to_string()),
                Some(found) => Ok(found),
                None => Err(format!("no such key: {field}")),
            },
        }
    }

    fn has(&mut self, of: &'e Expr, field: &str) -> Outcome<'v> {
        let value = match self.eval(of)? {
            Val::Optional(None) => return Ok(Val::Bool(false)),
            Val::Optional(Some(inner)) => inner.as_ref().clone(),
            value => value,
        };
        match value.entries() {
            Some(_) => Ok(Val::Bool(value.field(field).is_some())),
            None => Err(no_overload("has", &[&value])),
        }
    }

    fn index(&mut self, of: &'e Expr, at: &'e Expr, optional: bool) -> Outcome<'v> {
        let (value, at) = (self.eval(of)?, self.eval(at)?);
        let (value, optional) = match value {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => (inner.as_ref().clone(), true),
            value => (value, optional),
        };
        let found = match (value.items(), &at) {
            (Some(items), Val::Int(at)) => {
                self.spend(items.len() / 10)?;
                let item = usize::try_from(*at).ok().and_then(|at| items.get(at).cloned());
                item.ok_or_else(|| format!("index out of bounds: {at}"))
            }
            (Some(_), other) => Err(no_overload("_[_]", &[&value, other])),
            (None, at) if value.entries().is_some() => {
                value.get(at).ok_or_else(|| format!("no such key: {}", functions::shown(at)))
            }
            (None, at) => Err(no_overload("_[_]", &[&value, at])),
        };
        match (optional, found) {
            (false, found) => found,
            (true, found) => Ok(Val::Optional(found.ok().map(Rc::new))),
        }
    }

    fn call(&mut self, of: Option<&'e Expr>, name: &str, args: &'e [Expr]) -> Outcome<'v> {
        // What stands for an absent value is only looked at when it is absent.
        if let (Some(of), "or" | "orValue", [other]) = (of, name, args) {
            return match self.eval(of)? {
                Val::Optional(None) => self.eval(other),
                Val::Optional(Some(inner)) if name == "orValue" => Ok(inner.as_ref().clone()),
                present @ Val::Optional(Some(_)) => Ok(present),
                value => Err(no_overload(name, &[&value])),
            };
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        for expr in of.into_iter().chain(args) {
            values.push(self.eval(expr)?);
        }
        let size: usize = values.iter().map(weight).sum();
        self.spend(1 + size / 10)?;
        if let (true, [Val::Foreign(foreign), rest @ ..]) = (of.is_some(), values.as_slice()) {
            let texts: Option<Vec<&str>> =
                rest.iter().map(|arg| if let Val::Text(text) = arg { Some(&**text) } else { None }).collect();
            let answer = texts.and_then(|texts| foreign.call(name, &texts));
            return answer.map(Val::from).ok_or_else(|| no_overload(name, &values.iter().collect::<Vec<_>>()));
        }
        let result = functions::call(self, name, of.is_some(), &values)?;
        self.spend(weight(&result) / 10)?;
        Ok(result)
    }

    fn items(&mut self, items: &'e [(Expr, bool)]) -> Outcome<'v> {
        let mut list = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.eval(item)?, optional) {
                (Val::Optional(inner), true) => list.extend(inner.map(|inner| inner.as_ref().clone())),
                (value, _) => list.push(value),
            }
        }
        Ok(Val::list(list))
    }

    fn entries(&mut self, entries: &'e [(Expr, Expr, bool)]) -> Outcome<'v> {
        let mut map: Vec<(Val<'v>, Val<'v>)> = Vec::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let value = match (self.eval(value)?, optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => inner.as_ref().clone(),
                (value, _) => value,
            };
            if map.iter().any(|(known, _)| known.same(&key)) {
                return Err(format!("Failed with repeated key: {}", functions::shown(&key)));
            }
            map.push((key, value));
        }
        Ok(Val::Map(Rc::new(map)))
    }

    fn fields(&mut self, fields: &'e [(Box<str>, Expr, bool)]) -> Outcome<'v> {
        let mut map = Vec::with_capacity(fields.len());
        for (field, value, optional) in fields {
            let value = match (self.eval(value)?, optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => inner.as_ref().clone(),
                (value, _) => value,
            };
            map.push((Val::text(field), value));
        }
        Ok(Val::Map(Rc::new(map)))
    }

    /// `&&` and `||`: an answer that settles it counts, whatever fails elsewhere.
    fn junction(&mut self, terms: &'e [Expr], settles: bool) -> Outcome<'v> {
        let mut failure = None;
        for term in terms {
            match self.eval(term) {
                Ok(Val::Bool(value)) if value == settles => return Ok(Val::Bool(settles)),
                Ok(Val::Bool(_)) => {}
                Ok(other) => failure = failure.or(Some(no_overload(if settles { "_||_" } else { "_&&_" }, &[&other]))),
                Err(why) if why == TOO_COSTLY => return Err(why),
                Err(why) => failure = failure.or(Some(why)),
            }
        }
        failure.map_or(Ok(Val::Bool(!settles)), Err)
    }

    fn binary(&mut self, operator: Operator, left: &'e Expr, right: &'e Expr) -> Outcome<'v> {
        let (a, b) = (self.eval(left)?, self.eval(right)?);
        self.spend((weight(&a).min(weight(&b))) / 10)?;
        match operator {
            Operator::Equal => Ok(Val::Bool(a.same(&b))),
            Operator::NotEqual => Ok(Val::Bool(!a.same(&b))),
            Operator::In => self.contains(&a, &b),
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                let order = a.compare(&b);
                if order.is_none() && !matches!((&a, &b), (Val::Double(_), _) | (_, Val::Double(_))) {
                    return Err(no_overload(&format!("_{}_", operator.name()), &[&a, &b]));
                }
                Ok(Val::Bool(order.is_some_and(|order| match operator {
                    Operator::Less => order.is_lt(),
                    Operator::LessOrEqual => order.is_le(),
                    Operator::Greater => order.is_gt(),
                    _ => order.is_ge(),
                })))
            }
            _ => {
                if operator == Operator::Add {
                    self.spend((weight(&a) + weight(&b)) / 10)?;
                }
                functions::arithmetic(operator, &a, &b)
            }
        }
    }

    fn contains(&mut self, item: &Val<'v>, range: &Val<'v>) -> Outcome<'v> {
        match range.items() {
            Some(items) => {
                self.spend(items.len())?;
                Ok(Val::Bool(items.iter().any(|found| found.same(item))))
            }
            None if range.entries().is_some() => Ok(Val::Bool(range.get(item).is_some())),
            None => Err(no_overload("@in", &[item, range])),
        }
    }

    fn comprehension(&mut self, of: &'e Comprehension) -> Outcome<'v> {
        let range = self.eval(&of.range)?;
        let pairs: Vec<(Val<'v>, Val<'v>)> = match (range.items(), range.entries()) {
            (Some(items), _) => (0..).map(Val::Int).zip(items).collect(),
            (None, Some(entries)) => entries,
            (None, None) => {
                return Err(format!(
                    "found no matching overload for '{}' applied to '{}'",
                    "comprehension",
                    range.type_name()
                ));
            }
        };
        let is_map = range.entries().is_some();
        self.spend(pairs.len())?;
        let mut gathered = Gathered::default();
        for (key, value) in pairs {
            let depth = self.names.len();
            match &of.second {
                Some(second) => {
                    self.names.push((&*of.first, key.clone()));
                    self.names.push((&**second, value.clone()));
                }
                None => self.names.push((&*of.first, if is_map { key.clone() } else { value.clone() })),
            }
            let element = if is_map && of.second.is_none() { key.clone() } else { value };
            let step = self.step(of, (key, element), &mut gathered);
            self.names.truncate(depth);
            if step? {
                break;
            }
        }
        gathered.result(of.kind)
    }

    /// One element; true when the rest does not matter.
    fn step(
        &mut self,
        of: &'e Comprehension,
        (key, element): (Val<'v>, Val<'v>),
        into: &mut Gathered<'v>,
    ) -> Result<bool, String> {
        if let Some(filter) = &of.filter {
            match self.eval(filter)? {
                Val::Bool(true) => {}
                Val::Bool(false) => return Ok(false),
                other => return Err(no_overload("filter", &[&other])),
            }
        }
        let value = match (of.kind, self.eval(&of.body)) {
            // As with `&&` and `||`: an element that settles it outweighs one that fails.
            (Macro::All | Macro::Exists, Err(why)) if why != TOO_COSTLY => {
                into.failure.get_or_insert(why);
                return Ok(false);
            }
            (_, outcome) => outcome?,
        };
        match (of.kind, value) {
            (Macro::Map | Macro::TransformList, value) => into.list.push(value),
            (Macro::TransformMap, value) => into.map.push((key, value)),
            (Macro::All, Val::Bool(holds)) => {
                into.count += usize::from(!holds);
                return Ok(!holds);
            }
            (Macro::Exists, Val::Bool(holds)) => {
                into.count += usize::from(holds);
                return Ok(holds);
            }
            (Macro::ExistsOne, Val::Bool(holds)) => into.count += usize::from(holds),
            (Macro::Filter, Val::Bool(holds)) => {
                if holds {
                    into.list.push(element);
                }
            }
            (_, other) => return Err(no_overload("comprehension", &[&other])),
        }
        Ok(false)
    }

    fn optional_map(&mut self, of: &'e Expr, var: &'e str, body: &'e Expr, flat: bool) -> Outcome<'v> {
        let inner = match self.eval(of)? {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => inner,
            other => return Err(no_overload("optMap", &[&other])),
        };
        self.names.push((var, inner.as_ref().clone()));
        let outcome = self.eval(body);
        self.names.pop();
        let value = outcome?;
        match (flat, value) {
            (true, value @ Val::Optional(_)) => Ok(value),
            (true, other) => Err(no_overload("optFlatMap", &[&other])),
            (false, value) => Ok(Val::some(value)),
        }
    }
}

/// What a comprehension has so far.
#[derive(Default)]
struct Gathered<'v> {
    list: Vec<Val<'v>>,
    map: Vec<(Val<'v>, Val<'v>)>,
    count: usize,
    failure: Option<String>,
}

impl<'v> Gathered<'v> {
    fn result(self, kind: Macro) -> Outcome<'v> {
        match (kind, self.count, self.failure) {
            (Macro::All | Macro::Exists, 0, Some(why)) => Err(why),
            (Macro::All, count, _) => Ok(Val::Bool(count == 0)),
            (Macro::Exists, count, _) => Ok(Val::Bool(count > 0)),
            (Macro::ExistsOne, count, _) => Ok(Val::Bool(count == 1)),
            (Macro::TransformMap, ..) => Ok(Val::Map(Rc::new(self.map))),
            (Macro::Filter | Macro::Map | Macro::TransformList, ..) => Ok(Val::list(self.list)),
        }
    }
}

/// How much there is to look at.
fn weight(value: &Val<'_>) -> usize {
    match value {
        Val::Text(text) => text.len(),
        _ => value.len().unwrap_or(1),
    }
}

fn negate<'v>(value: &Val<'v>) -> Outcome<'v> {
    match value {
        Val::Int(n) => n.checked_neg().map(Val::Int).ok_or_else(|| "integer overflow".to_owned()),
        Val::Double(n) => Ok(Val::Double(-n)),
        Val::Duration(n) => n.checked_neg().map(Val::Duration).ok_or_else(|| "integer overflow".to_owned()),
        other => Err(no_overload("-_", &[other])),
    }
}

pub fn no_overload(name: &str, args: &[&Val<'_>]) -> String {
    let types: Vec<&str> = args.iter().map(|arg| arg.type_name()).collect();
    format!("no such overload: {name}({})", types.join(", "))
}

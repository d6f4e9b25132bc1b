//! Checking a tree when a definition is written: names, functions, fields of the schema, types as far as they are
//! known.
//!
//! Owns: what cannot work is refused here. A type that is not known for sure is let through, and an expression that
//! then fails says so when it runs; it never counts as true.

use super::ast::{Expr, Macro, Operator};
use super::functions::{FUNCTIONS, type_of_name};
use super::value::unescape;
use crate::custom::{Schema, Type};

/// What is known about a value.
#[derive(Debug, Clone, Copy)]
pub enum Ty<'s> {
    /// Anything.
    Dyn,
    /// What the schema says.
    Of(&'s Schema),
    /// `metadata` of a resource: `name` and `generateName`.
    Metadata,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    List,
    Map,
    Duration,
    Time,
}

impl<'s> Ty<'s> {
    /// As messages name it; `None` when it is not known.
    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Dyn => return None,
            Self::Metadata => "object",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::Text => "string",
            Self::Bytes => "bytes",
            Self::List => "list",
            Self::Map => "map",
            Self::Duration => "google.protobuf.Duration",
            Self::Time => "google.protobuf.Timestamp",
            Self::Of(schema) => match schema.kind {
                _ if schema.nullable => return None,
                Type::Object if schema.properties.is_empty() => "map",
                Type::Object => "object",
                Type::Array => "list",
                Type::String => match schema.checks.as_deref().and_then(|checks| checks.format.as_deref()) {
                    Some("date-time" | "date") => "google.protobuf.Timestamp",
                    Some("duration") => "google.protobuf.Duration",
                    Some("byte") => "bytes",
                    _ => "string",
                },
                Type::Integer => "int",
                Type::Number => "double",
                Type::Boolean => "bool",
                Type::IntOrString | Type::Any => return None,
            },
        })
    }

    fn is(self, wanted: &str) -> bool {
        self.name().is_none_or(|name| name == wanted)
    }

    fn field(self, field: &str) -> Result<Self, String> {
        let undefined = || format!("undefined field '{field}'");
        match self {
            Self::Metadata if matches!(field, "name" | "generateName") => Ok(Self::Text),
            Self::Metadata => Err(undefined()),
            Self::Of(schema) => {
                if schema.is_resource {
                    match field {
                        "metadata" => return Ok(Self::Metadata),
                        "apiVersion" | "kind" => return Ok(Self::Text),
                        _ => {}
                    }
                }
                let plain = unescape(field);
                let found = schema.properties.get(field).or_else(|| schema.properties.get(plain.as_deref()?));
                match found.or(schema.additional.as_deref()) {
                    Some(found) => Ok(Self::Of(found)),
                    // Kept fields that no schema names are not seen by rules, as in Kubernetes.
                    None if schema.kind == Type::Any || (schema.preserves && schema.properties.is_empty()) => {
                        Ok(Self::Dyn)
                    }
                    None if matches!(schema.kind, Type::Object) => Err(undefined()),
                    None if schema.kind == Type::IntOrString => Ok(Self::Dyn),
                    None => Err(format!("type '{}' does not support field selection", self.name().unwrap_or("dyn"))),
                }
            }
            Self::Dyn | Self::Map => Ok(Self::Dyn),
            other => Err(format!("type '{}' does not support field selection", other.name().unwrap_or("dyn"))),
        }
    }

    fn item(self) -> Self {
        match self {
            Self::Of(schema) if schema.kind == Type::Array => schema.items.as_deref().map_or(Self::Dyn, Self::Of),
            Self::Of(schema) if schema.kind == Type::Object => schema.additional.as_deref().map_or(Self::Dyn, Self::Of),
            _ => Self::Dyn,
        }
    }
}

/// Names in scope and their types.
pub struct Checker<'e, 's> {
    pub names: Vec<(&'e str, Ty<'s>)>,
    /// Whether `Object{…}` and `JSONPatch{…}` may be made.
    pub makes_structs: bool,
    /// Methods of values that the caller brings: name, fewest and most arguments.
    pub foreign: &'static [(&'static str, usize, usize)],
}

type Checked<'s> = Result<Ty<'s>, String>;

impl<'e, 's> Checker<'e, 's> {
    pub fn check(&mut self, expr: &'e Expr) -> Checked<'s> {
        match expr {
            Expr::Null => Ok(Ty::Null),
            Expr::Bool(_) => Ok(Ty::Bool),
            Expr::Int(_) => Ok(Ty::Int),
            Expr::Uint(_) => Ok(Ty::Uint),
            Expr::Double(_) => Ok(Ty::Double),
            Expr::Text(_) => Ok(Ty::Text),
            Expr::Bytes(_) => Ok(Ty::Bytes),
            Expr::Name(name) => self.name(name),
            Expr::Select { of, field, optional } => {
                let found = self.check(of)?.field(field)?;
                Ok(if *optional { Ty::Dyn } else { found })
            }
            Expr::Has { of, field } => self.check(of)?.field(field).map(|_| Ty::Bool),
            Expr::Index { of, at, optional } => {
                let of = self.check(of)?;
                self.check(at)?;
                Ok(if *optional { Ty::Dyn } else { of.item() })
            }
            Expr::Call { of, name, args } => self.call(of.as_deref(), name, args),
            Expr::List(items) => items.iter().try_for_each(|(item, _)| self.check(item).map(drop)).map(|()| Ty::List),
            Expr::Map(entries) => {
                for (key, value, _) in entries {
                    self.check(key)?;
                    self.check(value)?;
                }
                Ok(Ty::Map)
            }
            Expr::Struct { name, fields } => {
                let is_known = &**name == "JSONPatch" || &**name == "Object" || name.starts_with("Object.");
                if !self.makes_structs || !is_known {
                    return Err(format!("undeclared reference to '{name}' (in container '')"));
                }
                let members = ["op", "path", "from", "value"];
                for (field, value, _) in fields {
                    if &**name == "JSONPatch" && !members.contains(&&**field) {
                        return Err(format!("undefined field '{field}'"));
                    }
                    self.check(value)?;
                }
                Ok(Ty::Map)
            }
            Expr::Not(of) => self.wanted(of, "bool", "!_").map(|()| Ty::Bool),
            Expr::Negate(of) => self.check(of),
            Expr::Binary(operator, left, right) => self.binary(*operator, left, right),
            Expr::All(terms) | Expr::Any(terms) => {
                let name = if matches!(expr, Expr::All(_)) { "_&&_" } else { "_||_" };
                terms.iter().try_for_each(|term| self.wanted(term, "bool", name)).map(|()| Ty::Bool)
            }
            Expr::Choose(condition, yes, no) => {
                self.wanted(condition, "bool", "_?_:_")?;
                let (yes, no) = (self.check(yes)?, self.check(no)?);
                Ok(if yes.name() == no.name() { yes } else { Ty::Dyn })
            }
            Expr::Comprehension(of) => self.comprehension(of),
            Expr::OptionalMap { of, var, body, .. } => {
                self.check(of)?;
                self.names.push((var, Ty::Dyn));
                let checked = self.check(body);
                self.names.pop();
                checked.map(|_| Ty::Dyn)
            }
        }
    }

    fn name(&self, name: &str) -> Checked<'s> {
        if let Some((_, ty)) = self.names.iter().rev().find(|(known, _)| *known == name) {
            return Ok(*ty);
        }
        type_of_name(name).map(|_| Ty::Dyn).ok_or_else(|| format!("undeclared reference to '{name}' (in container '')"))
    }

    fn wanted(&mut self, expr: &'e Expr, wanted: &str, by: &str) -> Result<(), String> {
        let found = self.check(expr)?;
        if found.is(wanted) {
            return Ok(());
        }
        let name = found.name().unwrap_or("dyn");
        Err(format!("found no matching overload for '{by}' applied to '({name})'"))
    }

    fn binary(&mut self, operator: Operator, left: &'e Expr, right: &'e Expr) -> Checked<'s> {
        let (a, b) = (self.check(left)?, self.check(right)?);
        let (Some(a_name), Some(b_name)) = (a.name(), b.name()) else {
            return Ok(match operator {
                Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Modulo => {
                    Ty::Dyn
                }
                _ => Ty::Bool,
            });
        };
        let is_number = |name: &str| matches!(name, "int" | "uint" | "double");
        let is_struct = |name: &str| matches!(name, "map" | "object");
        let refuse = || {
            let text = operator.name();
            Err(format!("found no matching overload for '_{text}_' applied to '({a_name}, {b_name})'"))
        };
        match operator {
            Operator::In => {
                if matches!(b_name, "list" | "map" | "object") {
                    Ok(Ty::Bool)
                } else {
                    refuse()
                }
            }
            Operator::Equal | Operator::NotEqual => {
                let comparable = a_name == b_name
                    || (is_struct(a_name) && is_struct(b_name))
                    || "null" == b_name
                    || "null" == a_name;
                if comparable { Ok(Ty::Bool) } else { refuse() }
            }
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                let ordered = !matches!(a_name, "list" | "map" | "object" | "null");
                let fits = ordered && (a_name == b_name || (is_number(a_name) && is_number(b_name)));
                if fits { Ok(Ty::Bool) } else { refuse() }
            }
            Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Modulo => {
                let times = ["google.protobuf.Timestamp", "google.protobuf.Duration"];
                if times.contains(&a_name) && times.contains(&b_name) {
                    return Ok(Ty::Dyn);
                }
                let fits = a_name == b_name
                    && match a_name {
                        "int" | "uint" => true,
                        "double" => operator != Operator::Modulo,
                        "string" | "bytes" | "list" => operator == Operator::Add,
                        _ => false,
                    };
                if fits { Ok(a) } else { refuse() }
            }
        }
    }

    fn call(&mut self, of: Option<&'e Expr>, name: &str, args: &'e [Expr]) -> Checked<'s> {
        let of = of.map(|of| self.check(of)).transpose()?;
        for arg in args {
            self.check(arg)?;
        }
        let fits = |(known, is_method, least, most): &(&str, bool, usize, usize)| {
            *known == name && *is_method == of.is_some() && (*least..=*most).contains(&args.len())
        };
        let is_foreign = of.is_some()
            && self.foreign.iter().any(|(known, least, most)| *known == name && (*least..=*most).contains(&args.len()));
        if is_foreign && of.is_some_and(|of| of.name().is_none()) && !FUNCTIONS.iter().any(fits) {
            return Ok(Ty::Dyn);
        }
        if !FUNCTIONS.iter().any(fits) {
            return Err(if FUNCTIONS.iter().any(|(known, ..)| *known == name) {
                format!("found no matching overload for '{name}' applied to {} arguments", args.len())
            } else {
                format!("undeclared reference to '{name}' (in container '')")
            });
        }
        if matches!(name, "matches" | "find" | "findAll")
            && let Some(Expr::Text(text)) = args.get(usize::from(of.is_none()))
            && let Err(why) = crate::custom::pattern(text)
        {
            return Err(format!("invalid matches argument: {why}"));
        }
        if let Some(of) = of.and_then(Ty::name) {
            let wanted: &[&str] = match name {
                "charAt" | "contains" | "endsWith" | "find" | "findAll" | "format" | "lowerAscii" | "matches"
                | "replace" | "split" | "startsWith" | "substring" | "trim" | "upperAscii" => &["string"],
                "isSorted" | "max" | "min" | "sum" | "join" => &["list"],
                "indexOf" | "lastIndexOf" => &["string", "list"],
                "size" => &["string", "bytes", "list", "map"],
                _ => &[],
            };
            if !wanted.is_empty() && !wanted.contains(&of) {
                return Err(format!("found no matching overload for '{name}' applied to '{of}.()'"));
            }
        }
        Ok(match name {
            "size" | "indexOf" | "lastIndexOf" | "int" | "prefixLength" | "compareTo" | "sign" | "asInteger" => Ty::Int,
            "uint" => Ty::Uint,
            "double" | "asApproximateFloat" => Ty::Double,
            "string" | "charAt" | "find" | "format" | "join" | "lowerAscii" | "upperAscii" | "replace"
            | "substring" | "trim" | "getScheme" | "getHost" | "getHostname" | "getPort" | "getEscapedPath" => Ty::Text,
            "split" | "findAll" => Ty::List,
            "duration" => Ty::Duration,
            "timestamp" => Ty::Time,
            "bytes" => Ty::Bytes,
            "bool" | "matches" | "contains" | "startsWith" | "endsWith" | "isSorted" | "hasValue" | "isIP"
            | "isCIDR" | "isURL" | "isQuantity" | "isLessThan" | "isGreaterThan" | "isInteger" | "containsIP"
            | "containsCIDR" | "sets.contains" | "sets.equivalent" | "sets.intersects" => Ty::Bool,
            _ => Ty::Dyn,
        })
    }

    fn comprehension(&mut self, of: &'e super::ast::Comprehension) -> Checked<'s> {
        let range = self.check(&of.range)?;
        let is_map = match range.name() {
            None => None,
            Some("list") => Some(false),
            Some("map" | "object") => Some(true),
            Some(name) => {
                return Err(format!(
                    "expression of type '{name}' cannot be range of a comprehension (must be list, map, or dynamic)"
                ));
            }
        };
        let (key, value) = match is_map {
            None => (Ty::Dyn, Ty::Dyn),
            Some(true) => (Ty::Text, range.item()),
            Some(false) => (Ty::Int, range.item()),
        };
        let depth = self.names.len();
        match &of.second {
            Some(second) => self.names.extend([(&*of.first, key), (&**second, value)]),
            None => self.names.push((&*of.first, if is_map == Some(true) { key } else { value })),
        }
        let filter = of.filter.as_ref().map_or(Ok(()), |filter| self.wanted(filter, "bool", "filter"));
        let body = filter.and_then(|()| match of.kind {
            Macro::All | Macro::Exists | Macro::ExistsOne | Macro::Filter => self.wanted(&of.body, "bool", "_&&_"),
            Macro::Map | Macro::TransformList | Macro::TransformMap => self.check(&of.body).map(drop),
        });
        self.names.truncate(depth);
        body?;
        Ok(match of.kind {
            Macro::All | Macro::Exists | Macro::ExistsOne => Ty::Bool,
            Macro::Filter if is_map == Some(false) => range,
            Macro::Filter | Macro::Map | Macro::TransformList => Ty::List,
            Macro::TransformMap => Ty::Map,
        })
    }
}

impl Ty<'_> {
    pub fn is_bool(self) -> bool {
        self.is("bool")
    }

    pub fn is_text(self) -> bool {
        self.is("string")
    }

    pub fn is_null(self) -> bool {
        self.is("null")
    }

    pub fn is_list(self) -> bool {
        self.is("list")
    }

    pub fn is_map(self) -> bool {
        self.is("map")
    }
}

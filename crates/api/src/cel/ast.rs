//! The tree of an expression.

/// What a list macro does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
    TransformList,
    TransformMap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Operator {
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
        }
    }
}

/// A list or map macro: `range.all(var, body)`.
#[derive(Debug)]
pub struct Comprehension {
    pub kind: Macro,
    pub range: Expr,
    /// Element; or key and value.
    pub first: Box<str>,
    pub second: Option<Box<str>>,
    /// Of `map` and its kin with one more argument: only elements for which this holds.
    pub filter: Option<Expr>,
    pub body: Expr,
}

#[derive(Debug)]
pub enum Expr {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
    Name(Box<str>),
    /// `of.field`, or `of.?field`.
    Select {
        of: Box<Expr>,
        field: Box<str>,
        optional: bool,
    },
    /// `has(of.field)`
    Has {
        of: Box<Expr>,
        field: Box<str>,
    },
    /// `of[at]`, or `of[?at]`.
    Index {
        of: Box<Expr>,
        at: Box<Expr>,
        optional: bool,
    },
    Call {
        of: Option<Box<Expr>>,
        name: Box<str>,
        args: Vec<Expr>,
    },
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// `Object.spec{field: value}`, in policies that change objects.
    Struct {
        name: Box<str>,
        fields: Vec<(Box<str>, Expr, bool)>,
    },
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Choose(Box<Expr>, Box<Expr>, Box<Expr>),
    Comprehension(Box<Comprehension>),
    /// `of.optMap(var, body)`; flat when the body is optional itself.
    OptionalMap {
        of: Box<Expr>,
        var: Box<str>,
        body: Box<Expr>,
        flat: bool,
    },
}

impl Expr {
    /// Calls `visit` for this and everything in it.
    pub fn each(&self, visit: &mut impl FnMut(&Self)) {
        let mut left = vec![self];
        while let Some(expr) = left.pop() {
            visit(expr);
            expr.children(&mut left);
        }
    }

    /// The longest way down.
    pub fn height(&self) -> usize {
        let mut level = vec![self];
        let mut height = 0;
        while !level.is_empty() {
            let mut below = Vec::new();
            level.iter().for_each(|expr| expr.children(&mut below));
            level = below;
            height += 1;
        }
        height
    }

    fn children<'a>(&'a self, into: &mut Vec<&'a Self>) {
        match self {
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Uint(_) | Self::Double(_) => {}
            Self::Text(_) | Self::Bytes(_) | Self::Name(_) => {}
            Self::Select { of, .. } | Self::Has { of, .. } | Self::Not(of) | Self::Negate(of) => into.push(of),
            Self::Index { of, at, .. } => into.extend([&**of, &**at]),
            Self::Call { of, args, .. } => into.extend(of.as_deref().into_iter().chain(args)),
            Self::List(items) => into.extend(items.iter().map(|(item, _)| item)),
            Self::Map(entries) => into.extend(entries.iter().flat_map(|(key, value, _)| [key, value])),
            Self::Struct { fields, .. } => into.extend(fields.iter().map(|(_, value, _)| value)),
            Self::Binary(_, left, right) => into.extend([&**left, &**right]),
            Self::All(terms) | Self::Any(terms) => into.extend(terms),
            Self::Choose(a, b, c) => into.extend([&**a, &**b, &**c]),
            Self::Comprehension(of) => into.extend([&of.range, &of.body].into_iter().chain(&of.filter)),
            Self::OptionalMap { of, body, .. } => into.extend([&**of, &**body]),
        }
    }
}

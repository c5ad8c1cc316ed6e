//! What a file says, before it is known for which architecture.

use crate::diagnostic::Location;
use crate::rule::Op;

/// One line.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// `@include PATH`
    Include(Text),
    /// `@frequency PATH`
    Frequency(Text),
    /// `@default ACTION`
    Default(ActionText),
    /// `@denylist`
    Denylist(Location),
    /// `call: filter`
    Statement(Statement),
}

/// A word and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub text: String,
    pub at: Location,
}

/// `{name, name}: {filter, filter}`
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub names: Vec<CallName>,
    pub filters: Vec<Filter>,
}

/// `name[arch=…]`
#[derive(Clone, Debug)]
pub(crate) struct CallName {
    pub name: Text,
    /// Architectures that it is for; none: all.
    pub arches: Option<Vec<Text>>,
}

/// `arg0 == 1 && arg1 == 2 || arg0 == 3; action`
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Any of these, each of which is all of its parts; empty: always.
    pub alternatives: Vec<Vec<AtomText>>,
    pub action: ActionText,
    pub at: Location,
}

/// `arg0 == value`
#[derive(Clone, Debug)]
pub(crate) struct AtomText {
    pub arg: u8,
    pub op: Op,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(crate) struct ActionText {
    pub kind: ActionKind,
    pub at: Location,
}

#[derive(Clone, Debug)]
pub(crate) enum ActionKind {
    Allow,
    Return(Value),
    KillProcess,
    KillThread,
    Trap,
    Trace,
    Log,
    UserNotify,
}

/// A value that is known once the architecture is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Number(u64, Location),
    Name(Text),
    Not(Box<Value>),
    Negative(Box<Value>, Location),
    Or(Vec<Value>),
}

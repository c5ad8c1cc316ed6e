//! The syntax tree of a policy file. Names are not resolved here, because the same tree serves all
//! architectures.

use crate::diagnostic::Location;
use crate::rule::Op;

/// One line of a policy file.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// The line `@include PATH`.
    Include(Text),
    /// The line `@frequency PATH`.
    Frequency(Text),
    /// The line `@default ACTION`.
    Default(ActionText),
    /// The line `@denylist`.
    Denylist(Location),
    /// A statement, such as `name: filter`.
    Statement(Statement),
}

/// A word of a policy file, and its location.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub text: String,
    pub at: Location,
}

/// A statement, such as `{name, name}: {filter, filter}`.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub names: Vec<CallName>,
    pub filters: Vec<Filter>,
}

/// A system call name, such as `name` or `name[arch=…]`.
#[derive(Clone, Debug)]
pub(crate) struct CallName {
    pub name: Text,
    /// The architectures that the statement applies to. `None` means all architectures.
    pub arches: Option<Vec<Text>>,
}

/// A filter, such as `arg0 == 1 && arg1 == 2 || arg0 == 3; action`.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// The condition. It holds if all comparisons of at least one alternative hold. A condition
    /// without alternatives always holds.
    pub alternatives: Vec<Vec<AtomText>>,
    pub action: ActionText,
    pub at: Location,
}

/// A comparison, such as `arg0 == value`.
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

/// A value as written in the policy file. The number that it stands for depends on the
/// architecture.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Number(u64, Location),
    Name(Text),
    Not(Box<Value>),
    Negative(Box<Value>, Location),
    Or(Vec<Value>),
}

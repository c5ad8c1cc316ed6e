//! The parts of a policy after its names were resolved to numbers.

use std::fmt;

/// The action of the kernel for a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The kernel makes the system call.
    Allow,
    /// The kernel makes the system call and logs it.
    Log,
    /// The kernel does not make the system call. The call fails with this error number.
    Errno(u16),
    /// A tracer process decides about the system call. Without a tracer, the system call fails with
    /// ENOSYS.
    Trace,
    /// A supervisor process decides about the system call. Without a supervisor, the system call
    /// fails with ENOSYS.
    UserNotify,
    /// The kernel does not make the system call. The thread gets SIGSYS.
    Trap,
    /// The kernel ends the thread.
    KillThread,
    /// The kernel ends the process.
    KillProcess,
}

/// The largest error number that a system call can return.
pub(crate) const MAX_ERRNO: u64 = 4095;

impl Action {
    /// The value that a BPF program returns for the action: `SECCOMP_RET_*` of linux/seccomp.h.
    pub fn code(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Errno(number) => 0x0005_0000 | u32::from(number),
            Self::UserNotify => 0x7fc0_0000,
            Self::Trace => 0x7ff0_0000,
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }

    /// Whether the kernel makes the system call.
    pub fn permits(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Log => f.write_str("log"),
            Self::Errno(number) => write!(f, "return {number}"),
            Self::Trace => f.write_str("trace"),
            Self::UserNotify => f.write_str("user-notify"),
            Self::Trap => f.write_str("trap"),
            Self::KillThread => f.write_str("kill-thread"),
            Self::KillProcess => f.write_str("kill-process"),
        }
    }
}

/// The comparison of an argument with a value. Both are unsigned numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `&`: at least one bit of the value is set in the argument.
    AnyBit,
    /// `in`: the argument has no bit set outside the bits of the value.
    OnlyBits,
}

impl Op {
    /// All operators.
    pub const ALL: [Self; 8] = [
        Self::Equal,
        Self::NotEqual,
        Self::Less,
        Self::LessOrEqual,
        Self::Greater,
        Self::GreaterOrEqual,
        Self::AnyBit,
        Self::OnlyBits,
    ];

    /// Whether `left OP right` holds.
    pub fn holds(self, left: u64, right: u64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::AnyBit => left & right != 0,
            Self::OnlyBits => left & !right == 0,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::AnyBit => "&",
            Self::OnlyBits => "in",
        })
    }
}

/// One comparison of an argument of a system call with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Atom {
    /// The index of the argument, from 0 to 5.
    pub arg: u8,
    /// The comparison operator.
    pub op: Op,
    /// The value to compare with, cut to the width of a register.
    pub value: u64,
}

impl Atom {
    /// Whether the comparison holds for a system call with these arguments.
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        self.op.holds(args[usize::from(self.arg)], self.value)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arg{} {} {:#x}", self.arg, self.op, self.value)
    }
}

/// A condition that holds if all its comparisons hold. Without comparisons it always holds.
///
/// The comparisons are sorted and distinct.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clause(Vec<Atom>);

impl Clause {
    /// A clause that consists of these comparisons.
    pub fn new(mut atoms: Vec<Atom>) -> Self {
        atoms.sort_unstable();
        atoms.dedup();
        Self(atoms)
    }

    /// The comparisons of the clause, sorted and distinct.
    pub fn atoms(&self) -> &[Atom] {
        &self.0
    }

    /// Whether the clause holds for all arguments.
    pub fn is_always(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the clause holds for a system call with these arguments.
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        self.0.iter().all(|atom| atom.holds(args))
    }

    /// Whether this clause contains all comparisons of `other`. If it does, `other` holds whenever
    /// this clause holds. The method may return `false` although this clause implies `other`,
    /// because it does not find implications between different comparisons.
    pub(crate) fn implies(&self, other: &Self) -> bool {
        other.0.iter().all(|atom| self.0.contains(atom))
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let atoms: Vec<_> = self.0.iter().map(Atom::to_string).collect();
        f.write_str(&atoms.join(" && "))
    }
}

/// An action, and the condition for the action.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The condition for the action.
    pub clause: Clause,
    /// The action if the condition holds.
    pub action: Action,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.clause.is_always(), self.action) {
            (true, Action::Allow) => f.write_str("1"),
            (true, action) => write!(f, "{action}"),
            (false, Action::Allow) => write!(f, "{}", self.clause),
            (false, action) => write!(f, "{}; {action}", self.clause),
        }
    }
}

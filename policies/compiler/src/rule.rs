//! What policies are made of once names have become numbers.

use std::fmt;

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is made, and the kernel's log says so.
    Log,
    /// It is not made and returns this error.
    Errno(u16),
    /// A tracer decides, where there is one.
    Trace,
    /// A supervisor decides.
    UserNotify,
    /// It is not made, and the thread gets SIGSYS.
    Trap,
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
}

/// The largest error number that a call can return.
pub(crate) const MAX_ERRNO: u64 = 4095;

impl Action {
    /// What a program returns for it: `SECCOMP_RET_*` of linux/seccomp.h.
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

    /// Whether the call is made.
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

/// How an argument is compared, always as an unsigned number.
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
    /// `&`: some bit of the value is set.
    AnyBit,
    /// `in`: no bit outside the value is set.
    OnlyBits,
}

impl Op {
    /// All of them.
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

    /// Whether `left OP right`.
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

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Atom {
    /// Which argument, from 0 to 5.
    pub arg: u8,
    /// How.
    pub op: Op,
    /// With what, as a register holds it.
    pub value: u64,
}

impl Atom {
    /// Whether it holds for a call with these arguments.
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        self.op.holds(args[usize::from(self.arg)], self.value)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arg{} {} {:#x}", self.arg, self.op, self.value)
    }
}

/// Comparisons of which all have to hold, sorted. None: always.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clause(Vec<Atom>);

impl Clause {
    /// A clause of these comparisons.
    pub fn new(mut atoms: Vec<Atom>) -> Self {
        atoms.sort_unstable();
        atoms.dedup();
        Self(atoms)
    }

    /// Its comparisons.
    pub fn atoms(&self) -> &[Atom] {
        &self.0
    }

    /// Whether it holds whatever the arguments.
    pub fn is_always(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it holds for a call with these arguments.
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        self.0.iter().all(|atom| atom.holds(args))
    }

    /// Whether what it says makes `other` hold, as far as the comparisons are the same.
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

/// What happens when a clause holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The condition.
    pub clause: Clause,
    /// What happens.
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

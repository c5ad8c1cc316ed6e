//! Architectures.

use std::fmt;

/// An architecture that policies are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// 64-bit x86, without x32.
    X86_64,
    /// 64-bit arm.
    Aarch64,
    /// 32-bit arm, EABI.
    Arm,
}

/// Names in `[arch=…]` of architectures that no policy is compiled for here. Statements for them
/// alone are skipped; any other name is a mistake.
const OTHERS: [&str; 9] = [
    "i386",
    "loongarch64",
    "mips",
    "mips64",
    "ppc64",
    "ppc64le",
    "riscv64",
    "s390x",
    "x86",
];

impl Arch {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::X86_64, Self::Aarch64, Self::Arm];

    /// The architecture that this program was built for, if it is one of them.
    pub const HOST: Option<Self> = if cfg!(all(target_arch = "x86_64", target_pointer_width = "64"))
    {
        Some(Self::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Self::Aarch64)
    } else if cfg!(target_arch = "arm") {
        Some(Self::Arm)
    } else {
        None
    };

    /// Its name, which is also that of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
        }
    }

    /// The architecture of this name; Minijail's `arm64` is `aarch64`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = if name == "arm64" { "aarch64" } else { name };
        Self::ALL.into_iter().find(|arch| arch.name() == name)
    }

    /// Whether `name` may stand in `[arch=…]`.
    pub(crate) fn is_known(name: &str) -> bool {
        Self::from_name(name).is_some() || OTHERS.contains(&name)
    }

    /// What the kernel calls it: `AUDIT_ARCH_*` of linux/audit.h.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 64 bits.
    pub fn is_64_bit(self) -> bool {
        self != Self::Arm
    }

    /// `value` as a register of this architecture holds it.
    pub(crate) fn register(self, value: u64) -> u64 {
        match self.is_64_bit() {
            true => value,
            false => value & u64::from(u32::MAX),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

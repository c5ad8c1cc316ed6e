//! The architectures that policies are compiled for.

use std::fmt;

/// An architecture that policies are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// 64-bit x86. System calls of the x32 ABI are not included.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
    /// 32-bit Arm with the EABI.
    Arm,
}

/// Other architecture names that `[arch=…]` may contain. No policy is compiled for these
/// architectures, so a statement for them alone is skipped. Any other unknown name is an error.
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
    /// All architectures that policies are compiled for.
    pub const ALL: [Self; 3] = [Self::X86_64, Self::Aarch64, Self::Arm];

    /// The architecture that this program was built for, if policies can be compiled for it.
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

    /// The name of the architecture, which is also the name of its policy folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
        }
    }

    /// The architecture with this name. `arm64`, which is Minijail's name for `aarch64`, is
    /// accepted.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = if name == "arm64" { "aarch64" } else { name };
        Self::ALL.into_iter().find(|arch| arch.name() == name)
    }

    /// Whether `[arch=…]` in a policy may contain `name`.
    pub(crate) fn is_known(name: &str) -> bool {
        Self::from_name(name).is_some() || OTHERS.contains(&name)
    }

    /// The kernel's number for the architecture: `AUDIT_ARCH_*` of linux/audit.h.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether the arguments of system calls have 64 bits.
    pub fn is_64_bit(self) -> bool {
        self != Self::Arm
    }

    /// `value`, cut to the width of a register of this architecture.
    pub(crate) fn register(self, value: u64) -> u64 {
        if self.is_64_bit() {
            value
        } else {
            value & u64::from(u32::MAX)
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

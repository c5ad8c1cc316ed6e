//! The values of command-line options that have a fixed list of values.

use block::{Cache, EngineKind, Format};
use clap::ValueEnum;
use policies::DeviceName;

/// The values of `--format`, which correspond to [`Format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum FormatName {
    Raw,
    Qcow2,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Raw => Self::Raw,
            FormatName::Qcow2 => Self::Qcow2,
        }
    }
}

impl FormatName {
    /// The device name that selects the seccomp policy for this image format.
    pub fn device(self) -> DeviceName {
        match self {
            Self::Raw => DeviceName::Block,
            Self::Qcow2 => DeviceName::BlockQcow2,
        }
    }
}

/// The values of `--aio`, which correspond to [`EngineKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Aio {
    Auto,
    #[value(name = "io_uring")]
    IoUring,
    Threads,
}

impl From<Aio> for EngineKind {
    fn from(aio: Aio) -> Self {
        match aio {
            Aio::Auto => Self::Auto,
            Aio::IoUring => Self::Uring,
            Aio::Threads => Self::Threads,
        }
    }
}

/// The values of options that are on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Switch {
    On,
    Off,
}

/// The values of `--lock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Lock {
    /// Lock if the file system has locks.
    Auto,
    /// Do not lock.
    Off,
}

/// The values of `--cache`, which correspond to [`Cache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum CacheMode {
    Writeback,
    None,
    Writethrough,
    Unsafe,
}

impl From<CacheMode> for Cache {
    fn from(mode: CacheMode) -> Self {
        match mode {
            CacheMode::Writeback => Self::Writeback,
            CacheMode::None => Self::None,
            CacheMode::Writethrough => Self::Writethrough,
            CacheMode::Unsafe => Self::Unsafe,
        }
    }
}

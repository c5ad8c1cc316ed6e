//! The values of options that offer a choice.

use block::{Cache, EngineKind, Format};
use clap::ValueEnum;
use policies::DeviceName;

/// [`Format`] on the command line.
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
    /// The device name in the policies for this format.
    pub fn device(self) -> DeviceName {
        match self {
            Self::Raw => DeviceName::Block,
            Self::Qcow2 => DeviceName::BlockQcow2,
        }
    }
}

/// [`EngineKind`] on the command line.
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

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Switch {
    On,
    Off,
}

/// Whether images are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Lock {
    /// Lock if the file system has locks.
    Auto,
    /// Do not lock.
    Off,
}

/// [`Cache`] on the command line.
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

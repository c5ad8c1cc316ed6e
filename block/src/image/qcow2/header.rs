//! What has to be known of an image before anything else looks at it: a look may change it.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use super::Qcow2Error;
use crate::request::SECTOR_SIZE;

/// How an image begins.
pub(in crate::image) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// How much of the header is of interest; all of it in version 2, where the rest is data.
const LEN: usize = 80;

/// The most entries of the first table, as in QEMU.
const MAX_L1_ENTRIES: u64 = 4 << 20;

/// Incompatible features by their bits: what cannot be used as it is.
const DIRTY: u64 = 0b11;
const FEATURES: [(u64, &str); 3] = [
    (1 << 2, "a data file of its own"),
    (1 << 3, "a compression that is not known"),
    (1 << 4, "subclusters"),
];

/// What is known of an image that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    pub size: u64,
    /// Where the table is that says which clusters are in use, and how many clusters it has.
    refcounts: (u64, u32),
}

impl Header {
    /// Reads and checks it.
    pub fn read(file: &File) -> Result<Self, Qcow2Error> {
        let mut bytes = [0; LEN];
        file.read_exact_at(&mut bytes, 0).map_err(unreadable)?;
        Self::parse(&bytes)
    }

    /// Whether the image knows at least that its header is in use. What does not is put to use again.
    pub fn check_refcounts(&self, file: &File) -> Result<(), Qcow2Error> {
        let mut first = [0; 8];
        let (offset, clusters) = self.refcounts;
        let read = file.read_exact_at(&mut first, offset);
        match clusters > 0 && read.is_ok() && first != [0; 8] {
            true => Ok(()),
            false => Err(Qcow2Error::Corrupt("it does not know what is in use")),
        }
    }

    fn parse(bytes: &[u8; LEN]) -> Result<Self, Qcow2Error> {
        let short = |at: usize| {
            let field = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            u32::from_be_bytes(field)
        };
        let long = |at: usize| u64::from(short(at)) << 32 | u64::from(short(at + 4));
        if bytes[..4] != MAGIC {
            return Err(Qcow2Error::NotQcow2);
        }
        let header = Self {
            version: short(4),
            cluster_bits: short(20),
            size: long(24),
            refcounts: (long(48), short(56)),
        };
        let features = match header.version {
            2 => 0,
            3 => long(72),
            version => return Err(Qcow2Error::Version(version)),
        };
        if short(32) != 0 {
            return Err(Qcow2Error::Encrypted);
        }
        check_features(features)?;
        header.check(u64::from(short(36)))?;
        Ok(header)
    }

    fn check(&self, l1_entries: u64) -> Result<(), Qcow2Error> {
        if !(9..=21).contains(&self.cluster_bits) {
            return Err(Qcow2Error::Corrupt("its cluster size is out of range"));
        }
        if self.size == 0 || !self.size.is_multiple_of(SECTOR_SIZE) {
            return Err(Qcow2Error::Size(self.size));
        }
        // A table of the second kind fills a cluster with entries of 8 bytes, each for a cluster.
        let needed = self.size.div_ceil(1 << (2 * self.cluster_bits - 3));
        if l1_entries < needed {
            return Err(Qcow2Error::Corrupt("its first table is too small"));
        }
        match l1_entries {
            ..=MAX_L1_ENTRIES => Ok(()),
            _ => Err(Qcow2Error::Corrupt("its first table is too large")),
        }
    }
}

fn check_features(features: u64) -> Result<(), Qcow2Error> {
    if features & DIRTY != 0 {
        return Err(Qcow2Error::Dirty);
    }
    let named = FEATURES.iter().find(|(bit, _)| features & bit != 0);
    match (features, named) {
        (0, _) => Ok(()),
        (_, Some((_, name))) => Err(Qcow2Error::Features(name)),
        _ => Err(Qcow2Error::Features("features that are not known")),
    }
}

fn unreadable(error: std::io::Error) -> Qcow2Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => Qcow2Error::NotQcow2,
        _ => error.into(),
    }
}

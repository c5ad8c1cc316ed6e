//! Reads and checks the header of a qcow2 image. The check comes before the qcow2 library opens the
//! image, because the library may change the image.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use crate::image::Qcow2Error;
use crate::operation::SECTOR_SIZE;

/// The first bytes of a qcow2 image.
pub(in crate::image) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Number of bytes that are read from the start of an image. In version 2 of the format, the last 8
/// of these bytes are not part of the header.
const LEN: usize = 80;

/// Maximum number of entries in the L1 table. QEMU has the same limit.
const MAX_L1_ENTRIES: u64 = 4 << 20;

/// Bits of the incompatible features "dirty" and "corrupt".
const DIRTY: u64 = 0b11;
/// Bits of the incompatible features that are not supported, and their names in errors.
const FEATURES: [(u64, &str); 3] = [
    (1 << 2, "a separate data file"),
    (1 << 3, "another compression than zlib"),
    (1 << 4, "subclusters"),
];

/// The header of an image that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Qcow2Header {
    pub version: u32,
    pub cluster_bits: u32,
    pub size: u64,
    /// Offset in bytes and length in clusters of the refcount table. The table shows which clusters
    /// are in use.
    refcounts: (u64, u32),
}

impl Qcow2Header {
    /// Reads and checks the header.
    pub fn read(file: &File) -> Result<Self, Qcow2Error> {
        let mut bytes = [0; LEN];
        file.read_exact_at(&mut bytes, 0).map_err(unreadable)?;
        Self::parse(&bytes)
    }

    /// Checks that the refcount table marks the cluster of the image's header as in use. Otherwise
    /// a write could allocate this cluster and overwrite the header.
    pub fn check_refcounts(&self, file: &File) -> Result<(), Qcow2Error> {
        let mut first = [0; 8];
        let (offset, clusters) = self.refcounts;
        let read = file.read_exact_at(&mut first, offset);
        if clusters > 0 && read.is_ok() && first != [0; 8] {
            Ok(())
        } else {
            Err(Qcow2Error::Corrupt(
                "its refcount table does not cover its header",
            ))
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
        // An L2 table fills one cluster with entries of 8 bytes. Each of these entries stands for
        // one cluster. Each entry of the L1 table stands for one L2 table.
        let needed = self.size.div_ceil(1 << (2 * self.cluster_bits - 3));
        if l1_entries < needed {
            return Err(Qcow2Error::Corrupt("its L1 table is too small"));
        }
        match l1_entries {
            ..=MAX_L1_ENTRIES => Ok(()),
            _ => Err(Qcow2Error::Corrupt("its L1 table is too large")),
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
        _ => Err(Qcow2Error::Features("an unknown feature")),
    }
}

fn unreadable(error: std::io::Error) -> Qcow2Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => Qcow2Error::NotQcow2,
        _ => error.into(),
    }
}

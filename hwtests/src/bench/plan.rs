//! What is measured: where, what, with whom, how often.

use std::time::Duration;

/// Where the image is, and how it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A file in memory.
    Tmpfs,
    /// A file on disk, all of it in the page cache.
    Cached,
    /// A file on disk, past the page cache.
    Direct,
}

impl Medium {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tmpfs, Self::Cached, Self::Direct];

    /// What it is called in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Cached => "cached",
            Self::Direct => "direct",
        }
    }
}

/// A stream of requests of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What it is called in reports and filters.
    pub name: &'static str,
    /// Bytes in a request; offsets are multiples of it, at random.
    pub block: usize,
    /// Requests kept in flight.
    pub depth: usize,
    /// Writes instead of reads.
    pub write: bool,
}

const fn workload(name: &'static str, block: usize, depth: usize, write: bool) -> Workload {
    Workload {
        name,
        block,
        depth,
        write,
    }
}

/// All workloads.
pub const WORKLOADS: [Workload; 6] = [
    workload("read-4k-qd1", 4 << 10, 1, false),
    workload("read-4k-qd32", 4 << 10, 32, false),
    workload("read-4k-qd128", 4 << 10, 128, false),
    workload("write-4k-qd32", 4 << 10, 32, true),
    workload("read-1m-qd4", 1 << 20, 4, false),
    workload("read-128k-qd8", 128 << 10, 8, false),
];

/// Who serves the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// `vvu-block` on a vhost-user socket.
    Ours,
    /// qemu-storage-daemon's vhost-user-blk export with io_uring: what all are compared with.
    Qemu,
    /// The same with its thread pool.
    QemuThreads,
    /// Nobody: fio with io_uring on the file itself.
    Local,
    /// `vvu-block` on a vhost-user socket, with the front-end that [`Peer::Pci`] has: what that is
    /// compared with.
    Socket,
    /// `vvu-block --pci vfio-user:PATH` behind `vvu-proxy`.
    Pci,
    /// `vvu-block` on a vhost-user socket with a packed virtqueue; only when asked for.
    Packed,
}

impl Peer {
    /// All of them, in the order they take turns.
    pub const ALL: [Self; 7] = [
        Self::Ours,
        Self::Qemu,
        Self::QemuThreads,
        Self::Local,
        Self::Socket,
        Self::Pci,
        Self::Packed,
    ];

    /// What it is called in reports and filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "vvu-block",
            Self::Qemu => "qemu-io_uring",
            Self::QemuThreads => "qemu-threads",
            Self::Local => "local-io_uring",
            Self::Socket => "vvu-socket",
            Self::Pci => "vvu-pci",
            Self::Packed => "vvu-packed",
        }
    }

    /// The peer that this one is compared with.
    pub fn reference(self) -> Self {
        match self {
            Self::Socket | Self::Pci => Self::Socket,
            Self::Packed => Self::Ours,
            _ => Self::Qemu,
        }
    }

    /// Whether it is measured with this.
    pub fn takes(self, medium: Medium, workload: Workload) -> bool {
        match self {
            // The way of a request is the same on all media.
            Self::Socket | Self::Pci => medium == Medium::Tmpfs && !workload.write,
            _ => true,
        }
    }
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Times that each peer gets its turn.
    pub repetitions: usize,
    /// How long a turn is measured.
    pub time: Duration,
    /// How long each turn runs before that.
    pub warm_up: Duration,
    /// Only what has one of these words in `MEDIUM WORKLOAD`; everything when empty.
    pub filter: Vec<String>,
    /// Only peers that have one of these words in their names; everyone when empty.
    pub peers: Vec<String>,
    /// Whether packed virtqueues are measured, too.
    pub packed: bool,
}

impl Options {
    /// Five turns of two seconds; or three shorter ones for a `quick` look.
    pub fn new(quick: bool, filter: Vec<String>, peers: Vec<String>) -> Self {
        let (repetitions, milliseconds) = if quick { (3, 700) } else { (5, 2000) };
        Self {
            repetitions,
            time: Duration::from_millis(milliseconds),
            warm_up: Duration::from_millis(300),
            filter,
            peers,
            packed: false,
        }
    }

    /// The media that are left after filtering.
    pub fn media(&self) -> impl Iterator<Item = Medium> + '_ {
        let any = |medium: &Medium| self.workloads(*medium).next().is_some();
        Medium::ALL.into_iter().filter(any)
    }

    /// The workloads that are left after filtering.
    pub fn workloads(&self, medium: Medium) -> impl Iterator<Item = Workload> + '_ {
        WORKLOADS.into_iter().filter(move |workload| {
            matches(
                &self.filter,
                &format!("{} {}", medium.name(), workload.name),
            )
        })
    }

    /// The peers that are left on a medium after filtering.
    pub fn peers(&self, medium: Medium) -> impl Iterator<Item = Peer> + '_ {
        Peer::ALL.into_iter().filter(move |peer| {
            matches(&self.peers, peer.name())
                && (self.packed || *peer != Peer::Packed)
                && self.workloads(medium).any(|w| peer.takes(medium, w))
        })
    }
}

fn matches(words: &[String], name: &str) -> bool {
    words.is_empty() || words.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_leave_what_they_name() {
        let options = Options::new(true, vec!["tmpfs read-4k-qd1".into()], vec!["qemu".into()]);
        let media: Vec<_> = options.media().collect();
        assert_eq!(media, [Medium::Tmpfs]);
        let names: Vec<_> = options.workloads(Medium::Tmpfs).map(|w| w.name).collect();
        assert_eq!(names, ["read-4k-qd1", "read-4k-qd128"]);
        assert_eq!(options.peers(Medium::Tmpfs).count(), 2);
        assert_eq!(Options::new(false, vec![], vec![]).media().count(), 3);
    }
}

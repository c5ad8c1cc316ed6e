//! The plan of a benchmark: media, workloads, peers, and the number and length of turns
//! (measurements).

use std::path::PathBuf;
use std::time::Duration;

/// The location of the image, and the way in which it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A file in memory (tmpfs).
    Tmpfs,
    /// A file on disk, whose content is all in the page cache.
    Cached,
    /// A file on disk, opened with O_DIRECT, so that requests bypass the page cache.
    Direct,
}

impl Medium {
    /// All media.
    pub const ALL: [Self; 3] = [Self::Tmpfs, Self::Cached, Self::Direct];

    /// The name of the medium in reports.
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
    /// The name of the workload in reports and filters.
    pub name: &'static str,
    /// The number of bytes in a request. The offset of each request is a random multiple of this
    /// number.
    pub block: usize,
    /// The number of requests in flight.
    pub depth: usize,
    /// Whether the requests are writes. Otherwise they are reads.
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

/// A program that serves the image, with the transport to its front-end. The benchmark compares
/// peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// `vvu-block` on a vhost-user socket.
    Ours,
    /// `vvu-block` of another build on a vhost-user socket.
    Other,
    /// qemu-storage-daemon's vhost-user-blk export with io_uring.
    Qemu,
    /// qemu-storage-daemon's vhost-user-blk export with its thread pool.
    QemuThreads,
    /// No back-end. fio uses io_uring on the file itself.
    Local,
    /// `vvu-block` on a vhost-user socket, with the same front-end as [`Peer::Pci`].
    Socket,
    /// `vvu-block --pci vfio-user:PATH` behind `vvu-proxy`.
    Pci,
    /// `vvu-block --pci vfio-user:PATH` behind `vvu-proxy`, both from another build.
    OtherPci,
    /// `vvu-block` on a vhost-user socket with a packed virtqueue.
    Packed,
}

impl Peer {
    /// All peers, in the order in which a round measures them. Every second round has the reverse
    /// order.
    pub const ALL: [Self; 9] = [
        Self::Ours,
        Self::Other,
        Self::Qemu,
        Self::QemuThreads,
        Self::Local,
        Self::Socket,
        Self::Pci,
        Self::OtherPci,
        Self::Packed,
    ];

    /// The name of the peer in reports and filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "vvu-block",
            Self::Other => "vvu-block-other",
            Self::Qemu => "qemu-io_uring",
            Self::QemuThreads => "qemu-threads",
            Self::Local => "local-io_uring",
            Self::Socket => "vvu-socket",
            Self::Pci => "vvu-pci",
            Self::OtherPci => "vvu-pci-other",
            Self::Packed => "vvu-packed",
        }
    }

    /// Whether the programs of the peer come from another build.
    pub fn is_other(self) -> bool {
        matches!(self, Self::Other | Self::OtherPci)
    }

    /// Whether the peer serves its front-end through a VVU device.
    pub fn is_behind_proxy(self) -> bool {
        matches!(self, Self::Pci | Self::OtherPci)
    }

    /// The programs that can be the baseline for this program, in the order of preference. The
    /// baseline is the first of them that the benchmark measures.
    pub fn references(self) -> &'static [Self] {
        match self {
            Self::Ours => &[Self::Qemu, Self::Other],
            Self::Pci => &[Self::Socket, Self::OtherPci],
            Self::Packed => &[Self::Ours],
            Self::Qemu | Self::QemuThreads | Self::Local => &[Self::Qemu],
            Self::Socket | Self::Other | Self::OtherPci => &[],
        }
    }

    /// Whether the peer is measured on this medium. [`Peer::Socket`] and the peers behind
    /// `vvu-proxy` are measured only on tmpfs, because requests pass through the proxy in the same
    /// way with every medium.
    pub fn takes(self, medium: Medium) -> bool {
        medium == Medium::Tmpfs || !(self.is_behind_proxy() || self == Self::Socket)
    }
}

/// The options of a benchmark: the number and length of turns (measurements), and filters.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of turns (measurements) of each peer.
    pub turns: usize,
    /// The measured time of each turn.
    pub time: Duration,
    /// The time for which the workload runs before the measured time of each turn begins.
    pub warm_up: Duration,
    /// A workload is measured on a medium only if one of these patterns is a part of the text
    /// `MEDIUM WORKLOAD`, for instance of `tmpfs read-4k-qd1`. If there are no patterns, all
    /// workloads are measured.
    pub filter: Vec<String>,
    /// A peer is measured only if its name contains one of these patterns. If there are no
    /// patterns, all peers are measured.
    pub peers: Vec<String>,
    /// Whether packed virtqueues are measured, too.
    pub packed: bool,
    /// The folder with the programs of another build. If it is set, our programs are compared only
    /// with the programs in this folder.
    pub beside: Option<PathBuf>,
}

impl Options {
    /// Makes options for five turns of two seconds each, or for three turns of 0.7 seconds each if
    /// `quick` is set.
    pub fn new(quick: bool) -> Self {
        let (turns, milliseconds) = if quick { (3, 700) } else { (5, 2000) };
        Self {
            turns,
            time: Duration::from_millis(milliseconds),
            warm_up: Duration::from_millis(300),
            filter: Vec::new(),
            peers: Vec::new(),
            packed: false,
            beside: None,
        }
    }

    /// The media on which at least one workload passes the filter.
    pub fn media(&self) -> impl Iterator<Item = Medium> + '_ {
        let any = |medium: &Medium| self.workloads(*medium).next().is_some();
        Medium::ALL.into_iter().filter(any)
    }

    /// The workloads that pass the filter on this medium.
    pub fn workloads(&self, medium: Medium) -> impl Iterator<Item = Workload> + '_ {
        WORKLOADS.into_iter().filter(move |workload| {
            matches(
                &self.filter,
                &format!("{} {}", medium.name(), workload.name),
            )
        })
    }

    /// The peers that are measured on this medium and pass the filter.
    pub fn peers(&self, medium: Medium) -> impl Iterator<Item = Peer> + '_ {
        Peer::ALL.into_iter().filter(move |peer| {
            self.wants(*peer) && peer.takes(medium) && matches(&self.peers, peer.name())
        })
    }

    fn wants(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ours | Peer::Pci => true,
            Peer::Packed => self.packed,
            _ => self.beside.is_some() == peer.is_other(),
        }
    }
}

fn matches(words: &[String], name: &str) -> bool {
    words.is_empty() || words.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(options: &Options, medium: Medium) -> Vec<&'static str> {
        options.peers(medium).map(Peer::name).collect()
    }

    #[test]
    fn filters_leave_what_they_name() {
        let mut options = Options::new(true);
        assert_eq!(options.media().count(), 3);
        options.filter = vec!["tmpfs read-4k-qd1".into()];
        options.peers = vec!["qemu".into()];
        let media: Vec<_> = options.media().collect();
        assert_eq!(media, [Medium::Tmpfs]);
        let names: Vec<_> = options.workloads(Medium::Tmpfs).map(|w| w.name).collect();
        assert_eq!(names, ["read-4k-qd1", "read-4k-qd128"]);
        assert_eq!(
            peers(&options, Medium::Tmpfs),
            ["qemu-io_uring", "qemu-threads"]
        );
    }

    #[test]
    fn beside_another_build_only_the_two_builds_are_measured() {
        let mut options = Options::new(false);
        options.beside = Some("release".into());
        let socket = ["vvu-block", "vvu-block-other"];
        assert_eq!(peers(&options, Medium::Direct), socket);
        let both = [socket, ["vvu-pci", "vvu-pci-other"]].concat();
        assert_eq!(peers(&options, Medium::Tmpfs), both);
    }
}

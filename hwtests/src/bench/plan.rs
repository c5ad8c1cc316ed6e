//! What is measured: media, workloads, peers, and the number and length of turns.

use std::path::PathBuf;
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
    /// The same program of another build.
    Other,
    /// qemu-storage-daemon's vhost-user-blk export with io_uring.
    Qemu,
    /// The same with its thread pool.
    QemuThreads,
    /// Nobody: fio with io_uring on the file itself.
    Local,
    /// `vvu-block` on a vhost-user socket, with the front-end that [`Peer::Pci`] has.
    Socket,
    /// `vvu-block --pci vfio-user:PATH` behind `vvu-proxy`.
    Pci,
    /// Both these programs of another build.
    OtherPci,
    /// `vvu-block` on a vhost-user socket with a packed virtqueue.
    Packed,
}

impl Peer {
    /// All of them, in the order in which they take turns.
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

    /// What it is called in reports and filters.
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

    /// Whether its programs are those of another build.
    pub fn is_other(self) -> bool {
        matches!(self, Self::Other | Self::OtherPci)
    }

    /// Whether a VVU device stands between it and its front-end.
    pub fn is_behind_proxy(self) -> bool {
        matches!(self, Self::Pci | Self::OtherPci)
    }

    /// The peers that this one is compared with: with the first of them that is measured.
    pub fn references(self) -> &'static [Self] {
        match self {
            Self::Ours => &[Self::Qemu, Self::Other],
            Self::Pci => &[Self::Socket, Self::OtherPci],
            Self::Packed => &[Self::Ours],
            Self::Qemu | Self::QemuThreads | Self::Local => &[Self::Qemu],
            Self::Socket | Self::Other | Self::OtherPci => &[],
        }
    }

    /// Whether it is measured on this medium. The medium makes no difference to a request's way
    /// through a proxy.
    pub fn takes(self, medium: Medium) -> bool {
        medium == Medium::Tmpfs || !(self.is_behind_proxy() || self == Self::Socket)
    }
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many turns each peer has.
    pub turns: usize,
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
    /// The folder with the programs of another build, which is then all that ours is compared with.
    pub beside: Option<PathBuf>,
}

impl Options {
    /// Five turns of two seconds; or three shorter ones for a `quick` look.
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

//! The command line of `vvu-block`.

use std::path::PathBuf;
use std::time::Duration;

use block::OpenOptions;
use carriers::CarrierArguments;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::choices::{Aio, CacheMode, FormatName, Lock, Switch};
use crate::limits::LimitArguments;

/// Serve a disk image to a virtual machine as a virtio block device.
///
/// With --pci, vvu-block drives a virtio-vhost-user (VVU) PCI function. It then runs in a virtual
/// machine beside the virtual machine that uses the disk, or reaches the function through a
/// vfio-user socket. With --socket-path or --fd, it runs on the host and serves a vhost-user
/// front-end. With --virtio-pci-socket, it is an ordinary virtio PCI function for a VMM with a
/// vfio-user client.
///
/// When a front-end or VMM can connect, vvu-block prints one line on stdout that begins with
/// "ready: ". On SIGTERM or SIGINT, it finishes the requests in flight, flushes the image and ends.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
#[command(after_help = "\
QEMU (10.1 or newer) with the PATH of --virtio-pci-socket:
  -object memory-backend-memfd,id=ram,size=SIZE,share=on -machine memory-backend=ram
  -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"PATH\"}}'

Exit status: 0 if told to stop or, with --fd, if the front-end left; 1 on failure; 2 on wrong \
usage; 3 after a system call that the policy does not allow; 4 if it had to be killed to stop.")]
pub struct Arguments {
    #[command(flatten)]
    pub carrier: CarrierArguments,

    /// The disk: an image file or a block device.
    pub image: PathBuf,

    /// The format of the image: `raw`, or `qcow2` with its backing files. vvu-block never guesses
    /// the format, because the virtual machine can write any header to a raw image.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "raw")]
    pub format: FormatName,

    /// Let a qcow2 image use backing files in the folder PATH, or below it. May be given several
    /// times. Without this option, only the folder of the image itself is allowed, and no folder if
    /// the image is a block device. `--backing-dir=/` allows every file.
    #[arg(long, value_name = "PATH")]
    pub backing_dir: Vec<PathBuf>,

    /// Refuse writes, and open the image for reading only.
    #[arg(long)]
    pub read_only: bool,

    /// When written data reaches stable storage. `writeback`: when the virtual machine flushes its
    /// disk. `none`: the same, but without the host's page cache (O_DIRECT). `writethrough`: before
    /// each write ends, unless the virtual machine turns its write cache on. `unsafe`: at any time,
    /// so a crash of the host may destroy the disk.
    #[arg(long, value_name = "MODE", value_enum, default_value = "writeback")]
    pub cache: CacheMode,

    /// How vvu-block reads and writes the image. `auto`: with ordinary system calls if these do not
    /// block, such as for data in the page cache, and otherwise with io_uring. `io_uring`: always
    /// with io_uring. `threads`: with up to 16 threads for each queue. Threads always serve qcow2
    /// images. They serve raw images, too, if the kernel refuses io_uring.
    #[arg(long, value_name = "ENGINE", value_enum, default_value = "auto")]
    pub aio: Aio,

    /// Give the space of discarded blocks back to the file system or device.
    #[arg(long, value_name = "ON|OFF", value_enum, default_value = "on")]
    pub discard: Switch,

    /// The sector size that the virtual machine sees: 512 or 4096 bytes [default: 512 for a file,
    /// the sector size of the device for a block device].
    #[arg(long, value_name = "BYTES", value_parser = block_size)]
    pub block_size: Option<u32>,

    /// Lock the image as QEMU does, so that two programs do not write to it by mistake. If
    /// another program has the image, vvu-block waits for the time of --stop-timeout before it
    /// gives up, because the other program may be ending.
    #[arg(long, value_name = "AUTO|OFF", value_enum, default_value = "auto")]
    pub lock: Lock,

    /// The number of virtqueues to offer. A front-end may want one virtqueue for each of its
    /// processors.
    #[arg(long, value_name = "N", default_value = "16")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub num_queues: u16,

    /// The largest size of a virtqueue, in descriptors: a power of two.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = queue_size)]
    pub queue_size: u16,

    /// Offer packed virtqueues. The driver may then use packed virtqueues instead of split
    /// virtqueues.
    #[arg(long, value_name = "ON|OFF", value_enum, default_value = "on")]
    pub packed: Switch,

    /// Offer to return buffers in the order in which the driver made them available. Disks gain
    /// nothing by this order, because a finished request then waits for all earlier requests.
    #[arg(long, value_name = "ON|OFF", value_enum, default_value = "off")]
    pub in_order: Switch,

    /// The serial number that the virtual machine sees, at most 20 bytes.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = serial)]
    pub serial: String,

    #[command(flatten)]
    pub program: program::Options,

    #[command(flatten)]
    pub limits: LimitArguments,
}

impl Arguments {
    /// Checks that the options are compatible with each other.
    pub fn checked(self) -> Result<Self, clap::Error> {
        match (self.format, self.aio) {
            (FormatName::Qcow2, Aio::IoUring) => Err(Self::command().error(
                ErrorKind::ArgumentConflict,
                "--aio=io_uring does not go with --format=qcow2: threads serve qcow2 images",
            )),
            (FormatName::Raw, _) if !self.backing_dir.is_empty() => Err(Self::command().error(
                ErrorKind::ArgumentConflict,
                "--backing-dir needs --format=qcow2: raw images have no backing files",
            )),
            _ => Ok(self),
        }
    }

    /// The options for opening the image.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            format: self.format.into(),
            read_only: self.read_only,
            discard: self.discard == Switch::On,
            block_size: self.block_size,
            cache: self.cache.into(),
            lock: self.lock == Lock::Auto,
            // The supervisor of a program that was killed flushes the image within this time, if
            // that program had the same options.
            lock_patience: Duration::from_secs(self.program.stop_timeout.into()),
            backing_folders: self.backing_dir.clone(),
        }
    }
}

fn queue_size(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(size) if size.is_power_of_two() && (2..=32768).contains(&size) => Ok(size),
        _ => Err("expected a power of two from 2 to 32768".to_owned()),
    }
}

fn block_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err("expected 512 or 4096".to_owned()),
    }
}

fn serial(text: &str) -> Result<String, String> {
    match text.len() {
        0..=20 => Ok(text.to_owned()),
        length => Err(format!("the text has {length} bytes, the limit is 20")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block::{Cache, Format};

    fn parse(words: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(words.split(' '))
    }

    #[test]
    fn the_manual_page_says_what_the_help_says() {
        crate::man::check(<Arguments as clap::CommandFactory>::command());
    }

    #[test]
    fn qcow2_does_not_go_with_io_uring() {
        let fits = |words| {
            let words = format!("vvu-block --fd 3 disk.img --format=qcow2{words}");
            parse(&words).unwrap().checked().is_ok()
        };
        assert!(fits("") && fits(" --aio=threads"));
        assert!(!fits(" --aio=io_uring"));
    }

    #[test]
    fn only_qcow2_images_have_backing_folders() {
        let folders = |words| {
            let words =
                format!("vvu-block --fd 3 disk.img --backing-dir /a --backing-dir b{words}");
            let arguments = parse(&words).unwrap().checked();
            arguments.map(|arguments| arguments.open_options().backing_folders)
        };
        let expected = ["/a", "b"].map(PathBuf::from);
        assert_eq!(folders(" --format=qcow2").unwrap(), expected);
        assert!(folders("").is_err());
    }

    #[test]
    fn the_options_for_the_image_are_those_of_the_command_line() {
        let options = |words| {
            let words = format!("vvu-block --fd 3 disk.img{words}");
            parse(&words).unwrap().open_options()
        };
        let default = options("");
        assert_eq!(default.format, Format::Raw);
        assert_eq!(options(" --format=qcow2").format, Format::Qcow2);
        assert!(default.discard && default.lock && !default.read_only);
        assert_eq!(
            (default.cache, default.block_size),
            (Cache::Writeback, None)
        );
        let other =
            options(" --discard=off --block-size=4096 --cache=unsafe --read-only --lock=off");
        assert!(!other.discard && !other.lock && other.read_only);
        assert_eq!((other.cache, other.block_size), (Cache::Unsafe, Some(4096)));
    }

    #[test]
    fn wrong_values_are_refused() {
        for wrong in [
            "--queue-size 3",
            "--queue-size 0",
            "--num-queues 0",
            "--num-queues 257",
            "--block-size 1024",
            "--aio native",
            "--format vmdk",
            "--cache fast",
            "--discard maybe",
        ] {
            assert!(
                parse(&format!("vvu-block --fd 3 {wrong} disk.img")).is_err(),
                "{wrong}"
            );
        }
        assert!(parse("vvu-block --fd 3 --serial 123456789012345678901 disk.img").is_err());
    }
}

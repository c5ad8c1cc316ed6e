//! The command line.

use std::path::PathBuf;

use clap::Parser;
use vvu_block::{LogLevel, jail, parse_size};

/// Give a virtual machine a virtio-vhost-user (VVU) PCI device.
///
/// Through the device, a program in that virtual machine (the device VM) serves a virtio device to
/// another one (the sibling VM), as if it sat on the host's side of a vhost-user socket. The
/// sibling's memory is a BAR of the device, its kicks are interrupts, calls to it are doorbell
/// registers.
///
/// When both sockets can be connected to, one line that begins with "ready: " is printed on
/// stdout. Either virtual machine may come, reboot and go at any time. SIGTERM and SIGINT end the
/// program and remove the sockets.
#[derive(Debug, Parser)]
#[command(name = "vvu-proxy", version, max_term_width = 100)]
#[command(after_help = "\
Device VM (QEMU 10.1 or newer):
  -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"VFIO_USER_PATH\"}}'

Sibling VM (QEMU), with FILE and SIZE of --memory:
  -object memory-backend-file,id=mem,mem-path=FILE,size=SIZE,share=on -machine memory-backend=mem
  -chardev socket,id=vu,path=SOCKET_PATH -device vhost-user-blk-pci,chardev=vu

Exit status: 0 when asked to stop; 1 on failure; 2 on wrong usage; 3 after a system call that the
policy does not allow.")]
pub struct Arguments {
    /// Where the sibling's vhost-user front-end connects.
    #[arg(long, value_name = "PATH")]
    pub socket_path: PathBuf,

    /// Where the device VM's vfio-user client connects.
    #[arg(long, value_name = "PATH")]
    pub vfio_user_path: PathBuf,

    /// The file that is the sibling's memory, best in /dev/shm.
    ///
    /// It is made when it is not there, which needs its size, and left there at the end: it is the
    /// sibling's RAM. SIZE is in bytes, or with K, M or G in powers of 1024.
    #[arg(long, value_name = "FILE[,size=SIZE]", value_parser = memory)]
    pub memory: MemoryArgument,

    /// How many virtqueues of the sibling's device can be served.
    #[arg(long, value_name = "N", default_value = "16")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_queues: u16,

    /// Identifies the device to its driver.
    #[arg(long, value_name = "UUID", default_value = NIL_UUID, value_parser = uuid)]
    pub uuid: [u8; 16],

    #[command(flatten)]
    pub jail: jail::Options,

    /// How much to log on stderr.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub log_level: LogLevel,
}

/// The value of `--memory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryArgument {
    /// The file.
    pub path: PathBuf,
    /// How long it is to be, in bytes.
    pub size: Option<u64>,
}

const NIL_UUID: &str = "00000000-0000-0000-0000-000000000000";

fn memory(text: &str) -> Result<MemoryArgument, String> {
    let (path, size) = match text.rsplit_once(",size=") {
        Some((path, text)) => (path, Some(parse_size(text)?)),
        None => (text, None),
    };
    if path.is_empty() {
        return Err("no file is named".to_owned());
    }
    Ok(MemoryArgument {
        path: PathBuf::from(path),
        size,
    })
}

fn uuid(text: &str) -> Result<[u8; 16], String> {
    let wrong = || format!("'{text}' is no UUID; write it like {NIL_UUID}");
    let groups: Vec<_> = text.split('-').map(str::len).collect();
    let digits = text.replace('-', "");
    let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if groups != [8, 4, 4, 4, 12] || !hexadecimal {
        return Err(wrong());
    }
    let number = u128::from_str_radix(&digits, 16).map_err(|_| wrong())?;
    Ok(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_manual_page_says_what_the_help_says() {
        crate::man::check(<Arguments as clap::CommandFactory>::command());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn memory_is_a_file_and_perhaps_a_size() {
        let parsed = memory("/dev/shm/a,b,size=512M").unwrap();
        assert_eq!(parsed.path, PathBuf::from("/dev/shm/a,b"));
        assert_eq!(parsed.size, Some(512 << 20));
        assert_eq!(memory("file").unwrap().size, None);
        for bad in ["", ",size=1M", "a,size=", "a,size=0"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn uuids_are_stored_as_written() {
        let parsed = uuid("00112233-4455-6677-8899-aAbBcCdDeEfF").unwrap();
        assert_eq!(parsed[..3], [0, 0x11, 0x22]);
        assert_eq!(parsed[15], 0xff);
        for bad in [
            "",
            "0",
            "00112233445566778899aabbccddeeff",
            "+0112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert!(uuid(bad).is_err(), "{bad}");
        }
    }
}

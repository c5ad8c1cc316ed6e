//! The command line of `vvu-proxy`.

use std::path::PathBuf;

use carriers::MemoryFileArguments;
use clap::Parser;
use program::{SocketOptions, parse_size};

/// Give a virtual machine a virtio-vhost-user (VVU) PCI device.
///
/// With the device, a program in that virtual machine (the device VM) serves a virtio device to
/// another virtual machine (the sibling VM). Like a vhost-user back-end on the host, the program
/// can access the sibling's memory and gets the sibling's kicks. The memory is a BAR of the VVU
/// device, and the kicks are interrupts. To call the sibling, the program writes to a doorbell
/// register.
///
/// When both sockets accept connections, vvu-proxy prints one line on stdout that begins with
/// "ready: ". Both virtual machines may start, reboot and stop at any time. SIGTERM and SIGINT end
/// vvu-proxy, which then removes its sockets.
#[derive(Debug, Parser)]
#[command(name = "vvu-proxy", version, max_term_width = 100)]
#[command(after_help = "\
Device VM (QEMU 10.1 or newer):
  -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"VFIO_USER_PATH\"}}'

Sibling VM (QEMU), with FILE and SIZE of --memory:
  -object memory-backend-file,id=mem,mem-path=FILE,size=SIZE,share=on -machine memory-backend=mem
  -chardev socket,id=vu,path=SOCKET_PATH -device vhost-user-blk-pci,chardev=vu

Exit status: 0 if told to stop; 1 on failure; 2 on wrong usage; 3 after a system call that the
policy does not allow; 4 if it had to be killed to stop.")]
pub struct Arguments {
    /// The path of the socket for the sibling's vhost-user front-end.
    #[arg(long, value_name = "PATH")]
    pub socket_path: PathBuf,

    /// The path of the socket for the device VM's vfio-user client.
    #[arg(long, value_name = "PATH")]
    pub vfio_user_path: PathBuf,

    /// The file that is the sibling's memory, preferably in /dev/shm.
    ///
    /// If the file does not exist, vvu-proxy creates the file with the size SIZE. vvu-proxy does
    /// not remove the file at the end, because the file is the sibling's RAM. SIZE is in bytes. K,
    /// M and G stand for powers of 1024.
    ///
    /// An existing file has to belong to the user of vvu-proxy or to root, and other users must not
    /// be able to read or write the file. With trusted=on, the file may have any owner and any
    /// permissions.
    #[arg(long, value_name = "FILE[,size=SIZE][,trusted=on]", value_parser = memory)]
    pub memory: MemoryArgument,

    /// The maximum number of virtqueues that the sibling's device can have.
    #[arg(long, value_name = "N", default_value = "16")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_queues: u16,

    /// The UUID that identifies the device to its driver.
    #[arg(long, value_name = "UUID", default_value = NIL_UUID, value_parser = uuid)]
    pub uuid: [u8; 16],

    #[command(flatten)]
    pub sockets: SocketOptions,

    #[command(flatten)]
    pub memory_files: MemoryFileArguments,

    #[command(flatten)]
    pub program: program::Options,
}

/// The value of the option `--memory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryArgument {
    /// The path of the memory file.
    pub path: PathBuf,
    /// The size of the memory file in bytes. `None` accepts any size of an existing file.
    pub size: Option<u64>,
    /// Whether an existing file may have any owner and any permissions.
    pub trusted: bool,
}

const NIL_UUID: &str = "00000000-0000-0000-0000-000000000000";

fn memory(text: &str) -> Result<MemoryArgument, String> {
    let (text, trusted) = match text.strip_suffix(",trusted=on") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (path, size) = match text.rsplit_once(",size=") {
        Some((path, text)) => (path, Some(parse_size(text)?)),
        None => (text, None),
    };
    if path.is_empty() {
        return Err("the path of the file is missing".to_owned());
    }
    Ok(MemoryArgument {
        path: PathBuf::from(path),
        size,
        trusted,
    })
}

fn uuid(text: &str) -> Result<[u8; 16], String> {
    let wrong = || format!("'{text}' is not a UUID; write it like {NIL_UUID}");
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
    fn the_memory_argument_is_a_path_and_an_optional_size() {
        let parsed = memory("/dev/shm/a,b,size=512M").unwrap();
        assert_eq!(parsed.path, PathBuf::from("/dev/shm/a,b"));
        assert_eq!(parsed.size, Some(512 << 20));
        assert!(!parsed.trusted);
        assert_eq!(memory("file").unwrap().size, None);
        let parsed = memory("file,size=1M,trusted=on").unwrap();
        assert_eq!((parsed.size, parsed.trusted), (Some(1 << 20), true));
        assert!(memory("file,trusted=on").unwrap().trusted);
        for bad in ["", ",size=1M", "a,size=", "a,size=0", ",trusted=on"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_bytes_of_a_uuid_are_in_the_order_of_its_text() {
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

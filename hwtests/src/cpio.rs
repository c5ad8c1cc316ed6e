//! Writes cpio archives in the "newc" format, which the kernel unpacks as an initramfs.

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040755;
const PROGRAM: u32 = 0o100755;
const SYMLINK: u32 = 0o120777;

/// An archive that is being written.
#[derive(Debug)]
pub struct Archive<W> {
    writer: W,
    next_inode: u32,
}

impl<W: Write> Archive<W> {
    /// Starts an archive that is written to `writer`.
    pub fn new(writer: W) -> Self {
        Self {
            writer,
            next_inode: 1,
        }
    }

    /// Adds a folder. A folder has to be added before its files.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY, &[])
    }

    /// Adds an executable file.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, PROGRAM, content)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, SYMLINK, target.as_bytes())
    }

    /// Writes the end of the archive, and flushes the writer.
    pub fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.writer.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other(format!("{path} is too big for a cpio archive")))?;
        let name_size = path.len() as u32 + 1;
        // The fields are inode, mode, uid, gid, links, mtime, size, four device numbers, name size
        // and checksum.
        let fields = [
            self.next_inode,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        self.next_inode += 1;
        let mut header = String::from("070701");
        for field in fields {
            header += &format!("{field:08x}");
        }
        self.padded(format!("{header}{path}\0").as_bytes())?;
        self.padded(content)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)?;
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.writer.write_all(&[0; 3][..padding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_have_their_size() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.directory("etc").unwrap();
        archive.file("etc/x", b"hello").unwrap();
        archive.symlink("bin", "usr/bin").unwrap();
        archive.finish().unwrap();
        assert!(bytes.starts_with(b"070701"));
        assert_eq!(bytes.len() % 4, 0);
        // The header of 110 bytes and the name "etc\0" are padded to 116 bytes, so the next header
        // begins at byte 116.
        assert_eq!(&bytes[116..122], b"070701");
        assert_eq!(&bytes[116 + 54..116 + 62], b"00000005");
        assert_eq!(&bytes[116 + 116..116 + 121], b"hello");
    }
}

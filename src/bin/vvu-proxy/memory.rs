//! The file that is the front-end's memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pcidev::vvu::Window;

use crate::args::MemoryArgument;

/// Opens the file, or makes it.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub fn open(argument: &MemoryArgument) -> Result<Window, String> {
    let path = &argument.path;
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Ok(file) => {
            let file = check(file, argument)?;
            Window::new(file, path).map_err(|error| error.to_string())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = make(&mut options, argument)?;
            fill(&file, argument).inspect_err(|_| {
                let _ = std::fs::remove_file(path);
            })
        }
        Err(error) => Err(failed(path, &error)),
    }
}

fn check(file: File, argument: &MemoryArgument) -> Result<File, String> {
    let path = &argument.path;
    let metadata = file.metadata().map_err(|error| failed(path, &error))?;
    let actual = metadata.len();
    match argument.size {
        Some(size) if metadata.is_file() && size != actual => Err(format!(
            "{}: has {actual} bytes, not {size}; remove it or leave size= out",
            path.display()
        )),
        _ => Ok(file),
    }
}

fn make(options: &mut OpenOptions, argument: &MemoryArgument) -> Result<File, String> {
    let path = &argument.path;
    if argument.size.is_none() {
        return Err(format!(
            "{}: does not exist; add ,size=SIZE to have it made",
            path.display()
        ));
    }
    // It holds a virtual machine's memory: nobody else's business.
    let file = options.create_new(true).mode(0o600).open(path);
    file.map_err(|error| failed(path, &error))
}

/// Gives a new file its length; it takes room only where it is written to.
fn fill(file: &File, argument: &MemoryArgument) -> Result<Window, String> {
    let path = &argument.path;
    let size = argument.size.unwrap_or(0);
    let file = file
        .try_clone()
        .and_then(|file| file.set_len(size).map(|()| file));
    let file = file.map_err(|error| failed(path, &error))?;
    Window::new(file, path).map_err(|error| error.to_string())
}

fn failed(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(path: &Path, size: Option<u64>) -> MemoryArgument {
        MemoryArgument {
            path: path.to_owned(),
            size,
        }
    }

    #[test]
    fn the_file_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let error = open(&argument(&path, None)).unwrap_err();
        assert!(error.contains("size=SIZE"), "{error}");
        assert!(!path.exists());
        open(&argument(&path, Some(0x3000))).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 0x3000);
        open(&argument(&path, None)).unwrap();
        open(&argument(&path, Some(0x3000))).unwrap();
        let error = open(&argument(&path, Some(0x4000))).unwrap_err();
        assert!(error.contains("has 12288 bytes, not 16384"), "{error}");
    }

    #[test]
    fn what_cannot_be_memory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(&argument(dir.path(), None)).is_err());
        assert!(open(&argument(&dir.path().join("no/file"), Some(4096))).is_err());
        let error = open(&argument(Path::new("/dev/null"), None)).unwrap_err();
        assert!(error.contains("not a regular file"), "{error}");
        let path = dir.path().join("odd");
        let error = open(&argument(&path, Some(100))).unwrap_err();
        assert!(error.contains("multiple of 4096"), "{error}");
        assert!(!path.exists());
    }
}

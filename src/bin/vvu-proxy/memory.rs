//! Opens the file that is the memory of the sibling VM.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pcidev::vvu::Window;

use crate::args::MemoryArgument;

/// Opens the memory file. Creates it if it does not exist and the argument has a size.
///
/// # Errors
///
/// When the file cannot be opened or created, or cannot be the memory of a virtual machine.
pub fn open(argument: &MemoryArgument) -> Result<Window, Box<dyn Error>> {
    let path = &argument.path;
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Ok(file) => {
            check_size(&file, argument)?;
            window(file, argument)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = create(&mut options, argument)?;
            set_size(file, argument).inspect_err(|_| {
                let _ = std::fs::remove_file(path);
            })
        }
        Err(error) => Err(failed(path, &error).into()),
    }
}

fn check_size(file: &File, argument: &MemoryArgument) -> Result<(), String> {
    let path = &argument.path;
    let metadata = file.metadata().map_err(|error| failed(path, &error))?;
    let actual = metadata.len();
    match argument.size {
        Some(size) if metadata.is_file() && size != actual => Err(format!(
            "{}: the file has {actual} bytes, not {size}; remove it or leave out size=",
            path.display()
        )),
        _ => Ok(()),
    }
}

fn create(options: &mut OpenOptions, argument: &MemoryArgument) -> Result<File, String> {
    let path = &argument.path;
    if argument.size.is_none() {
        return Err(format!(
            "{}: the file does not exist; add ,size=SIZE to create it",
            path.display()
        ));
    }
    // Only the owner of the file may read the memory of a virtual machine.
    let file = options.create_new(true).mode(0o600).open(path);
    file.map_err(|error| failed(path, &error))
}

/// Sets the length of a new file. The file uses storage only where it was written to.
fn set_size(file: File, argument: &MemoryArgument) -> Result<Window, Box<dyn Error>> {
    let path = &argument.path;
    let size = argument.size.unwrap_or(0);
    file.set_len(size).map_err(|error| failed(path, &error))?;
    window(file, argument)
}

fn window(file: File, argument: &MemoryArgument) -> Result<Window, Box<dyn Error>> {
    let path = &argument.path;
    let window = Window::new(file, path)?;
    let (path, size) = (path.display(), window.size());
    Ok(window.advising(&format!(
        "start the front-end's QEMU with -object \
         memory-backend-file,id=mem,mem-path={path},size={size},share=on -machine \
         memory-backend=mem"
    )))
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

    fn message(argument: &MemoryArgument) -> String {
        program::one_line(open(argument).unwrap_err().as_ref())
    }

    #[test]
    fn a_missing_file_is_created_if_its_size_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let error = message(&argument(&path, None));
        assert!(error.contains("size=SIZE"), "{error}");
        assert!(!path.exists());
        open(&argument(&path, Some(0x3000))).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 0x3000);
        open(&argument(&path, None)).unwrap();
        open(&argument(&path, Some(0x3000))).unwrap();
        let error = message(&argument(&path, Some(0x4000)));
        assert!(error.contains("has 12288 bytes, not 16384"), "{error}");
    }

    #[test]
    fn files_that_cannot_be_memory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(&argument(dir.path(), None)).is_err());
        assert!(open(&argument(&dir.path().join("no/file"), Some(4096))).is_err());
        let error = message(&argument(Path::new("/dev/null"), None));
        assert!(error.contains("not a regular file"), "{error}");
        let path = dir.path().join("odd");
        let error = message(&argument(&path, Some(100)));
        assert!(error.contains("multiple of 4096"), "{error}");
        assert!(!path.exists());
    }
}

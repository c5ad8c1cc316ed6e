//! Opens the file that is the memory of the sibling VM.

use std::error::Error;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use pcidev::vvu::Window;
use virtio::memory::MemoryFiles;

use crate::args::MemoryArgument;

/// The permission bits that let other users read and write.
const OTHERS: u32 = 0o006;

/// Opens the memory file. Creates it if it does not exist and the argument has a size.
///
/// # Errors
///
/// When the file cannot be opened or created, or cannot be the memory of a virtual machine.
pub fn open(argument: &MemoryArgument, files: MemoryFiles) -> Result<Window, Box<dyn Error>> {
    let path = &argument.path;
    let mut options = OpenOptions::new();
    // Follow no symbolic link: another user may have replaced the file with a link to any other
    // file.
    let flags = libc::O_NOFOLLOW;
    options.read(true).write(true).custom_flags(flags);
    match options.open(path) {
        Ok(file) => {
            check(&file, argument)?;
            window(file, argument, files)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = create(&mut options, argument)?;
            set_size(file, argument, files).inspect_err(|_| {
                let _ = std::fs::remove_file(path);
            })
        }
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Err(format!(
            "{}: is a symbolic link; name the file itself",
            path.display()
        )
        .into()),
        Err(error) => Err(failed(path, &error).into()),
    }
}

/// Checks a file that existed already.
fn check(file: &File, argument: &MemoryArgument) -> Result<(), String> {
    let path = &argument.path;
    let metadata = file.metadata().map_err(|error| failed(path, &error))?;
    if !metadata.is_file() {
        return Ok(());
    }
    if !argument.trusted {
        let user = rustix::process::geteuid().as_raw();
        check_access(&metadata, user).map_err(|wrong| format!("{}: {wrong}", path.display()))?;
    }
    let actual = metadata.len();
    match argument.size {
        Some(size) if size != actual => Err(format!(
            "{}: the file has {actual} bytes, not {size}; remove it or leave out size=",
            path.display()
        )),
        _ => Ok(()),
    }
}

/// Checks that the file belongs to the user or to root, and that its permissions let other users
/// neither read nor write it.
fn check_access(metadata: &Metadata, user: u32) -> Result<(), String> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
    if owner != user && owner != 0 {
        return Err(format!(
            "the file belongs to another user (number {owner}); remove it, or add ,trusted=on if \
             you trust that user"
        ));
    }
    if mode & OTHERS != 0 {
        return Err(format!(
            "other users can access the file (mode {mode:o}); use `chmod o=` on it, or add \
             ,trusted=on"
        ));
    }
    Ok(())
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

/// Sets the length of a new file. Parts of the file that were never written use no storage.
fn set_size(
    file: File,
    argument: &MemoryArgument,
    files: MemoryFiles,
) -> Result<Window, Box<dyn Error>> {
    let path = &argument.path;
    let size = argument.size.unwrap_or(0);
    file.set_len(size).map_err(|error| failed(path, &error))?;
    window(file, argument, files)
}

fn window(
    file: File,
    argument: &MemoryArgument,
    files: MemoryFiles,
) -> Result<Window, Box<dyn Error>> {
    let path = &argument.path;
    let window = Window::new(file, path, files)?;
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
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    fn argument(path: &Path, size: Option<u64>) -> MemoryArgument {
        MemoryArgument {
            path: path.to_owned(),
            size,
            trusted: false,
        }
    }

    fn open(argument: &MemoryArgument) -> Result<Window, Box<dyn Error>> {
        super::open(argument, MemoryFiles::default())
    }

    fn message(argument: &MemoryArgument) -> String {
        program::one_line(open(argument).unwrap_err().as_ref())
    }

    /// A folder on a file system where memory files are accepted.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    #[test]
    fn an_existing_file_that_other_users_can_access_is_refused_unless_it_is_trusted() {
        let dir = folder();
        let path = dir.path().join("memory");
        let mut argument = argument(&path, Some(0x1000));
        open(&argument).unwrap();
        for (mode, good) in [(0o600, true), (0o660, true), (0o604, false), (0o666, false)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(open(&argument).is_ok(), good, "{mode:o}");
        }
        let error = message(&argument);
        assert!(
            error.contains("mode 666") && error.contains("trusted=on"),
            "{error}"
        );
        argument.trusted = true;
        open(&argument).unwrap();
    }

    #[test]
    fn a_file_has_to_belong_to_the_user_or_to_root() {
        let dir = folder();
        let path = dir.path().join("memory");
        open(&argument(&path, Some(0x1000))).unwrap();
        let metadata = path.metadata().unwrap();
        check_access(&metadata, metadata.uid()).unwrap();
        let other = check_access(&metadata, metadata.uid() + 1);
        // If the file belongs to root, it is accepted for every user.
        assert_eq!(other.is_ok(), metadata.uid() == 0);
        if metadata.uid() == 0 {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            let error = message(&argument(&path, None));
            assert!(error.contains("another user (number 12345)"), "{error}");
        }
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = folder();
        let (path, link) = (dir.path().join("memory"), dir.path().join("link"));
        open(&argument(&path, Some(0x1000))).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let error = message(&argument(&link, None));
        assert!(error.contains("symbolic link"), "{error}");
        // A link whose target does not exist is refused, and the target is not created.
        let target = dir.path().join("new");
        let link = dir.path().join("dangling");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(open(&argument(&link, Some(0x1000))).is_err());
        assert!(!target.exists());
    }

    #[test]
    fn a_file_of_another_file_system_is_refused_with_the_option_that_allows_it() {
        let Ok(dir) = tempfile::tempdir_in("/var/tmp") else {
            return;
        };
        let path = dir.path().join("memory");
        let by_default = carriers::MemoryFileArguments::default().into();
        let opened = super::open(&argument(&path, Some(0x1000)), by_default);
        // The file is accepted if the folder is in a tmpfs.
        if let Err(error) = opened {
            let error = program::one_line(error.as_ref());
            assert!(error.contains("--any-memory-file"), "{error}");
        }
        super::open(&argument(&path, Some(0x1000)), MemoryFiles::any()).unwrap();
    }

    #[test]
    fn a_missing_file_is_created_if_its_size_is_given() {
        let dir = folder();
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
        let dir = folder();
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

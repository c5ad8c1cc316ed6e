//! Replaces the root file system by an empty one, and forbids access to files.

use std::env;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use rustix::process::{chroot, fchdir, pivot_root};

use super::{JailError, namespaces};

/// Replaces the root by an empty read-only file system, in a mount namespace of this process alone.
pub fn leave_root() -> Result<(), JailError> {
    namespaces::leave_mounts()?;
    replace_root().map_err(|errno| JailError::Root(errno.into()))
}

fn replace_root() -> Result<(), Errno> {
    let empty = empty_file_system()?;
    fchdir(&empty)?;
    match pivot_to(&empty) {
        // pivot_root(2) fails in a chroot whose root is not a mount, and in an initramfs, whose
        // root cannot be moved. In both cases chroot(2) changes the root instead. The old root
        // stays in the mount namespace, but has no path.
        Err(Errno::INVAL) => chroot(".")?,
        result => result?,
    }
    env::set_current_dir("/").map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Makes an empty read-only file system that is not mounted yet. Returns the descriptor of its
/// root.
fn empty_file_system() -> Result<OwnedFd, Errno> {
    let empty = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(empty.as_fd(), "size", "0")?;
    fsconfig_set_string(empty.as_fd(), "mode", "555")?;
    fsconfig_create(empty.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(empty.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Makes the file system `empty` the root. The working directory must be the root of `empty`.
fn pivot_to(empty: &OwnedFd) -> Result<(), Errno> {
    // Prevents the following mounts from propagating to other mount namespaces.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    move_mount(empty, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    pivot_root(".", ".")?;
    // pivot_root(2) has mounted the old root on top of the new root.
    unmount(".", UnmountFlags::DETACH)
}

/// The version of Landlock that the rules are written for. An older kernel may enforce only some of
/// the rules.
const LANDLOCK: ABI = ABI::V6;

/// Forbids to open files by path, to use TCP, and to send signals or connect through abstract
/// sockets to processes outside the jail.
pub fn forbid_all() -> Result<(), JailError> {
    let ruleset = no_files_and_network().and_then(|ruleset| {
        let scoped = ruleset.scope(Scope::from_all(LANDLOCK));
        scoped.and_then(|ruleset| ruleset.create())
    });
    enforce(ruleset)
}

/// Forbids to use files by path and TCP, except that files can be removed from these folders.
pub fn forbid_all_but_removal<'a>(
    folders: impl IntoIterator<Item = &'a Path>,
) -> Result<(), JailError> {
    let ruleset = no_files_and_network().and_then(|ruleset| {
        let rules = path_beneath_rules(folders, AccessFs::RemoveFile);
        ruleset
            .create()
            .and_then(|ruleset| ruleset.add_rules(rules))
    });
    enforce(ruleset)
}

fn no_files_and_network() -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(LANDLOCK)))
}

fn enforce(ruleset: Result<RulesetCreated, RulesetError>) -> Result<(), JailError> {
    let status = ruleset.and_then(RulesetCreated::restrict_self);
    match status.map_err(JailError::Landlock)?.ruleset {
        RulesetStatus::NotEnforced => Err(JailError::NoLandlock),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, remove_file};
    use std::io;
    use std::thread;

    use super::*;

    /// Landlock holds for the thread that enters it, so another thread does.
    #[test]
    fn files_can_be_removed_from_the_named_folder_and_nothing_else_is_possible() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [named, other] = folders.each_ref().map(|folder| folder.path().join("file"));
        for file in [&named, &other] {
            File::create(file).unwrap();
        }
        let inside = || match forbid_all_but_removal([folders[0].path()]) {
            Err(JailError::NoLandlock) => println!("SKIPPED, because this kernel has no Landlock"),
            entered => {
                entered.unwrap();
                let refused = io::ErrorKind::PermissionDenied;
                assert_eq!(File::open(&named).unwrap_err().kind(), refused);
                assert_eq!(remove_file(&other).unwrap_err().kind(), refused);
                remove_file(&named).unwrap();
            }
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap());
    }
}

//! Replaces the root file system by an empty one, and forbids access to files.

use std::env;
use std::os::fd::{AsFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
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

/// Forbids to open files by path, to use TCP, and to send signals or connect through abstract
/// sockets to processes outside the jail. An older kernel may enforce only some of these rules.
pub fn forbid_all() -> Result<(), JailError> {
    let abi = ABI::V6;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(abi)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.restrict_self())
        .map_err(JailError::Landlock)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(JailError::NoLandlock),
        _ => Ok(()),
    }
}

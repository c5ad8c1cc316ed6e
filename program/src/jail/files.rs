//! The file system: an empty one, where nothing may be done.

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

/// Replaces the root, for this process alone, by an empty file system that nobody can write to.
pub fn leave_root() -> Result<(), JailError> {
    namespaces::leave_mounts()?;
    replace_root().map_err(|errno| JailError::Root(errno.into()))
}

fn replace_root() -> Result<(), Errno> {
    let empty = empty_file_system()?;
    fchdir(&empty)?;
    match pivot_to(&empty) {
        // In a chroot the root is not a mount, and the root of an initramfs cannot be moved.
        // The old root then stays in the mount namespace, but has no path.
        Err(Errno::INVAL) => chroot(".")?,
        result => result?,
    }
    env::set_current_dir("/").map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// A file system that is mounted nowhere yet.
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

/// Makes the working directory, which is the root of this file system, the root of all.
fn pivot_to(empty: &OwnedFd) -> Result<(), Errno> {
    // No mount made here is to be seen outside.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    move_mount(empty, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    pivot_root(".", ".")?;
    // The old root is now mounted over the new one.
    unmount(".", UnmountFlags::DETACH)
}

/// Forbids access to files by path and TCP, and signals and abstract sockets to the outside.
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

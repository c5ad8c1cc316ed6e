//! The subcommand `check`, which compiles every policy.

use std::io::Write;
use std::path::Path;

use policies::compiler::{Arch, Policy, compile};

use crate::tree::{PolicyTree, name};
use crate::{CommandError, CommandResult, Verdict};

pub fn run(tree: &PolicyTree, arches: &[Arch], notes: bool, out: &mut dyn Write) -> CommandResult {
    let mut verdict = Verdict::Fine;
    for arch in tree.arches(arches) {
        for path in tree.policies(arch)? {
            match check(tree, &path, arch) {
                Ok((policy, length)) => {
                    let calls = policy.calls.len();
                    let name = name(&path);
                    writeln!(out, "{arch}/{name}: {calls} calls, {length} instructions")?;
                    write_notes(&policy, notes, out)?;
                }
                Err(error) => {
                    verdict = Verdict::Findings;
                    writeln!(out, "{error}")?;
                }
            }
        }
    }
    Ok(verdict)
}

fn check(tree: &PolicyTree, path: &Path, arch: Arch) -> Result<(Policy, usize), CommandError> {
    let policy = Policy::merge(&tree.load(path)?, arch)?;
    let length = compile(&policy)?.len();
    Ok((policy, length))
}

fn write_notes(policy: &Policy, wanted: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let notes = policy.notes.iter().filter(|_| wanted);
    for note in notes {
        writeln!(out, "  note: {note}")?;
    }
    Ok(())
}

//! `check`: does every policy compile?

use std::io::Write;
use std::path::Path;

use policies::compiler::{Arch, Policy, compile};

use crate::tree::{Tree, name};
use crate::{Failure, Outcome};

pub fn run(tree: &Tree, arches: &[Arch], notes: bool, out: &mut dyn Write) -> Outcome {
    let mut fine = true;
    for arch in tree.arches(arches) {
        for path in tree.policies(arch)? {
            match check(tree, &path, arch) {
                Ok((policy, length)) => {
                    let calls = policy.calls.len();
                    let name = name(&path);
                    writeln!(out, "{arch}/{name}: {calls} calls, {length} instructions")?;
                    write_notes(&policy, notes, out)?;
                }
                Err(failure) => {
                    fine = false;
                    writeln!(out, "{failure}")?;
                }
            }
        }
    }
    Ok(fine)
}

fn check(tree: &Tree, path: &Path, arch: Arch) -> Result<(Policy, usize), Failure> {
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

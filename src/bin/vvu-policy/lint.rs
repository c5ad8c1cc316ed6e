//! `lint`: rules that allow much, or do nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use policies::compiler::{
    Arch, Atom, Clause, Loaded, Op, Options, Place, Policy, Rule, compile, load, may_overlap,
};

use crate::tree::Tree;
use crate::{Failure, Outcome};

/// Calls that open files.
const OPENS: [&str; 5] = ["open", "openat", "openat2", "creat", "open_by_handle_at"];
/// Calls that start other programs.
const EXECUTES: [&str; 2] = ["execve", "execveat"];
/// Calls that make memory executable: the access is argument 2.
const MAPS: [&str; 4] = ["mmap", "mmap2", "mprotect", "pkey_mprotect"];
const PROT_EXEC: u64 = 4;
const CLONE_THREAD: u64 = 0x10000;

/// What was found, in the order of places.
type Findings = BTreeSet<(Place, String)>;
/// Places, and whether some policy would be another without what is there.
type Needed = BTreeMap<Place, bool>;

pub fn run(tree: &Tree, arches: &[Arch], out: &mut dyn Write) -> Outcome {
    let mut findings = Findings::new();
    let mut needed = Needed::new();
    let mut includes = Needed::new();
    for arch in tree.arches(arches) {
        for path in tree.contexts(arch)? {
            let loaded = tree.load(&path)?;
            let policy = Policy::merge(&loaded, arch)?;
            permissive(&policy, &mut findings);
            note_includes(tree, &path, &loaded, &policy, &mut includes)?;
            note_needed(&loaded, &policy, &mut needed);
        }
    }
    for (places, message) in [
        (needed, "no architecture's policy needs this rule"),
        (includes, "this include adds nothing"),
    ] {
        let useless = places.into_iter().filter(|(_, needed)| !needed);
        findings.extend(useless.map(|(place, _)| (place, message.to_owned())));
    }
    for (place, message) in &findings {
        writeln!(out, "{place}: {message}")?;
    }
    Ok(findings.is_empty())
}

fn permissive(policy: &Policy, findings: &mut Findings) {
    for call in policy.calls.values() {
        for chain in &call.chains {
            let mut allowing = chain.rules.iter().filter(|rule| rule.action.permits());
            let Some(message) = allowing.find_map(|rule| complaint(call.name, rule)) else {
                continue;
            };
            let places = chain.from.iter().map(|from| from.place());
            findings.extend(places.map(|place| (place, format!("{}: {message}", call.name))));
        }
    }
}

/// What is too much about a rule that allows something.
fn complaint(call: &str, rule: &Rule) -> Option<&'static str> {
    let atoms = rule.clause.atoms();
    let has_request = atoms.iter().any(|a| (a.arg, a.op) == (1, Op::Equal));
    match call {
        "ioctl" if !has_request => Some("allowed without a list of requests (arg1 == ...)"),
        "clone" if may_hold(rule, 0, Op::OnlyBits, !CLONE_THREAD) => {
            Some("may start a process (arg0 & CLONE_THREAD)")
        }
        "clone3" | "fork" | "vfork" => Some("may start a process"),
        call if MAPS.contains(&call) && may_hold(rule, 2, Op::AnyBit, PROT_EXEC) => {
            Some("memory may become executable (arg2 in ~PROT_EXEC)")
        }
        call if OPENS.contains(&call) => Some("may open files"),
        call if EXECUTES.contains(&call) => Some("may start other programs"),
        "ptrace" => Some("may look into other processes"),
        _ => None,
    }
}

/// Whether a rule that allows something may do so where this holds, too.
fn may_hold(rule: &Rule, arg: u8, op: Op, value: u64) -> bool {
    may_overlap(&rule.clause, &Clause::new(vec![Atom { arg, op, value }]))
}

/// Notes for each include whether the program would be another without it.
fn note_includes(
    tree: &Tree,
    path: &Path,
    loaded: &Loaded,
    policy: &Policy,
    needed: &mut Needed,
) -> Result<(), Failure> {
    let program = compile(policy)?;
    for (location, _) in loaded.includes() {
        let place = location.place();
        let options = Options {
            without: Some((place.path.clone(), place.line)),
            ..Options::default()
        };
        let without = load(tree.source(), path, &options)?;
        // A policy that says nothing else is an error, and so another one.
        let other = Policy::merge(&without, policy.arch).and_then(|policy| compile(&policy));
        *needed.entry(place).or_default() |= !other.is_ok_and(|other| other == program);
    }
    Ok(())
}

/// Notes for each statement whether some policy would be another without it.
fn note_needed(loaded: &Loaded, policy: &Policy, needed: &mut Needed) {
    for location in loaded.statements() {
        needed.entry(location.place()).or_default();
    }
    for chain in policy.calls.values().flat_map(|call| &call.chains) {
        // Of several that say the same, none is needed by itself; the first counts.
        if let Some(first) = chain.from.first() {
            needed.insert(first.place(), true);
        }
    }
}

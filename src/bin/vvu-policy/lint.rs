//! The subcommand `lint`, which finds rules that allow too much, and lines that add nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use policies::compiler::{
    Arch, Atom, Clause, Loaded, Op, Options, Policy, Position, Rule, compile, load, may_overlap,
};

use crate::tree::PolicyTree;
use crate::{CommandError, CommandResult, Verdict};

/// System calls that open files.
const OPENS: [&str; 5] = ["open", "openat", "openat2", "creat", "open_by_handle_at"];
/// System calls that start other programs.
const EXECUTES: [&str; 2] = ["execve", "execveat"];
/// System calls that can make memory executable. Their argument 2 is the protection.
const MAPS: [&str; 4] = ["mmap", "mmap2", "mprotect", "pkey_mprotect"];
const PROT_EXEC: u64 = 4;
const CLONE_THREAD: u64 = 0x10000;

/// The positions and messages to print, sorted by position.
type Findings = BTreeSet<(Position, String)>;
/// The positions of statements or includes. The value tells whether at least one policy needs the
/// statement or include.
type Needed = BTreeMap<Position, bool>;

pub fn run(tree: &PolicyTree, arches: &[Arch], out: &mut dyn Write) -> CommandResult {
    let mut findings = Findings::new();
    let mut rules = Needed::new();
    let mut includes = Needed::new();
    for arch in tree.arches(arches) {
        for path in tree.contexts(arch)? {
            let loaded = tree.load(&path)?;
            let policy = Policy::merge(&loaded, arch)?;
            find_permissive_rules(&policy, &mut findings);
            note_includes(tree, &path, &loaded, &policy, &mut includes)?;
            note_rules(&loaded, &policy, &mut rules);
        }
    }
    for (positions, message) in [
        (rules, "this rule adds nothing on any architecture"),
        (includes, "this include adds nothing"),
    ] {
        let useless = positions.into_iter().filter(|(_, needed)| !needed);
        findings.extend(useless.map(|(position, _)| (position, message.to_owned())));
    }
    for (position, message) in &findings {
        writeln!(out, "{position}: {message}")?;
    }
    Ok(if findings.is_empty() {
        Verdict::Fine
    } else {
        Verdict::Findings
    })
}

fn find_permissive_rules(policy: &Policy, findings: &mut Findings) {
    for call in policy.calls.values() {
        for chain in &call.chains {
            let mut allowing = chain.rules.iter().filter(|rule| rule.action.permits());
            let Some(message) = allowing.find_map(|rule| complaint(call.name, rule)) else {
                continue;
            };
            let message = format!("{}: {message}", call.name);
            let positions = chain.from.iter().map(|from| from.position());
            findings.extend(positions.map(|position| (position, message.clone())));
        }
    }
}

/// The reason why a rule allows too much. `None` if there is no reason. The rule must permit the
/// system call `call`.
fn complaint(call: &str, rule: &Rule) -> Option<&'static str> {
    let atoms = rule.clause.atoms();
    let has_request = atoms.iter().any(|a| (a.arg, a.op) == (1, Op::Equal));
    match call {
        "ioctl" if !has_request => Some("may make any request (list them: arg1 == ...)"),
        "clone" if may_hold(rule, 0, Op::OnlyBits, !CLONE_THREAD) => {
            Some("may start a process (require arg0 & CLONE_THREAD)")
        }
        "clone3" | "fork" | "vfork" => Some("may start a process"),
        call if MAPS.contains(&call) && may_hold(rule, 2, Op::AnyBit, PROT_EXEC) => {
            Some("may make memory executable (require arg2 in ~PROT_EXEC)")
        }
        call if OPENS.contains(&call) => Some("may open files"),
        call if EXECUTES.contains(&call) => Some("may start other programs"),
        "ptrace" => Some("may control other processes"),
        _ => None,
    }
}

/// Whether the rule may apply to a system call for which `argN OP value` also holds.
fn may_hold(rule: &Rule, arg: u8, op: Op, value: u64) -> bool {
    may_overlap(&rule.clause, &Clause::new(vec![Atom { arg, op, value }]))
}

/// Records for each include whether the compiled program would differ without it.
fn note_includes(
    tree: &PolicyTree,
    path: &Path,
    loaded: &Loaded,
    policy: &Policy,
    needed: &mut Needed,
) -> Result<(), CommandError> {
    let program = compile(policy)?;
    for (location, _) in loaded.includes() {
        let position = location.position();
        let options = Options {
            without: Some((position.path.clone(), position.line)),
            ..Options::default()
        };
        let without = load(tree.source(), path, &options)?;
        // Merging fails if the remaining files name no system call. In this case, the include
        // counts as needed.
        let other = Policy::merge(&without, policy.arch).and_then(|policy| compile(&policy));
        *needed.entry(position).or_default() |= !other.is_ok_and(|other| other == program);
    }
    Ok(())
}

/// Records for each statement whether its rule remains after merging.
fn note_rules(loaded: &Loaded, policy: &Policy, needed: &mut Needed) {
    for location in loaded.statements() {
        needed.entry(location.position()).or_default();
    }
    for chain in policy.calls.values().flat_map(|call| &call.chains) {
        // If several statements have the same rule, only the first counts as needed.
        if let Some(first) = chain.from.first() {
            needed.insert(first.position(), true);
        }
    }
}

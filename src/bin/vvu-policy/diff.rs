//! The subcommand `diff`, which prints the rules that only one of two contexts has.

use std::collections::BTreeMap;
use std::io::Write;

use policies::compiler::{Arch, Policy};

use crate::show::origins;
use crate::tree::PolicyTree;
use crate::{CommandResult, Verdict, names};

pub fn run(
    tree: &PolicyTree,
    contexts: [&str; 2],
    arch: Arch,
    out: &mut dyn Write,
) -> CommandResult {
    let [first, second] = contexts;
    let (left, right) = (tree.context(first, arch)?, tree.context(second, arch)?);
    let (left_rules, right_rules) = (rules(&left), rules(&right));
    let mut all: Vec<_> = left_rules.keys().chain(right_rules.keys()).collect();
    all.sort();
    all.dedup();
    let mut verdict = Verdict::Fine;
    if left.default != right.default {
        verdict = Verdict::Findings;
        writeln!(out, "- @default {}", names::action(arch, left.default))?;
        writeln!(out, "+ @default {}", names::action(arch, right.default))?;
    }
    for rule in all {
        let (sign, from) = match (left_rules.get(rule), right_rules.get(rule)) {
            (Some(from), None) => ('-', from),
            (None, Some(from)) => ('+', from),
            _ => continue,
        };
        verdict = Verdict::Findings;
        writeln!(out, "{sign} {rule:<44} # {from}")?;
    }
    Ok(verdict)
}

/// All rules of the policy, each with the file and line of each statement that it comes from.
fn rules(policy: &Policy) -> BTreeMap<String, String> {
    let mut rules = BTreeMap::new();
    for call in policy.calls.values() {
        for chain in &call.chains {
            let rule = names::chain(policy.arch, call.name, chain);
            rules.insert(format!("{}: {rule}", call.name), origins(chain));
        }
    }
    rules
}

//! The subcommands `show` and `explain`, which print the rules of a context with their statements.

use std::io::{self, Write};

use policies::compiler::{
    Arch, Location, Policy, RuleChain, call_name, call_number, compile, decide,
};

use crate::tree::PolicyTree;
use crate::{CommandResult, Verdict, names};

pub fn show(tree: &PolicyTree, context: &str, arch: Arch, out: &mut dyn Write) -> CommandResult {
    let policy = tree.context(context, arch)?;
    let (calls, length) = (policy.calls.len(), compile(&policy)?.len());
    writeln!(
        out,
        "# {context} on {arch}: {calls} calls, {length} instructions"
    )?;
    writeln!(out, "@default {}", names::action(arch, policy.default))?;
    let mut calls: Vec<_> = policy.calls.values().collect();
    calls.sort_by_key(|call| call.name);
    for call in calls {
        for chain in &call.chains {
            let rule = format!("{}: {}", call.name, names::chain(arch, call.name, chain));
            writeln!(out, "{rule:<44} # {}", origins(chain))?;
        }
    }
    Ok(Verdict::Fine)
}

/// The file and line of each statement that the chain comes from.
pub fn origins(chain: &RuleChain) -> String {
    let origin = |location: &Location| {
        let position = location.position();
        format!("{}:{}", position.path.display(), position.line)
    };
    let origins: Vec<_> = chain.from.iter().map(origin).collect();
    origins.join(" ")
}

pub fn explain(
    tree: &PolicyTree,
    context: &str,
    (name, values): (&str, &[u64]),
    arch: Arch,
    out: &mut dyn Write,
) -> CommandResult {
    let number = call_number(arch, name).or_else(|| name.parse().ok());
    let number = number.ok_or_else(|| format!("{arch} has no system call '{name}'"))?;
    let policy = tree.context(context, arch)?;
    let name = call_name(arch, number).unwrap_or(name);
    writeln!(out, "{name} ({number} on {arch}) in {context}:")?;
    if !values.is_empty() {
        return explain_use(&policy, (name, number), values, out);
    }
    let call = policy.calls.get(&number);
    for chain in call.map(|call| call.chains.as_slice()).unwrap_or_default() {
        writeln!(out, "  {}", names::chain(arch, name, chain))?;
        write_origins(chain, out)?;
    }
    writeln!(out, "  otherwise: {}", names::action(arch, policy.default))?;
    Ok(Verdict::Fine)
}

fn explain_use(
    policy: &Policy,
    (name, number): (&str, u32),
    values: &[u64],
    out: &mut dyn Write,
) -> CommandResult {
    let mut args = [0; 6];
    args[..values.len()].copy_from_slice(values);
    let decision = decide(policy, number, &args);
    let shown: Vec<_> = values.iter().map(|value| format!("{value:#x}")).collect();
    let action = names::action(policy.arch, decision.action);
    writeln!(out, "  {name}({}): {action}", shown.join(", "))?;
    match decision.because {
        Some(chain) => {
            writeln!(out, "  because {}", names::chain(policy.arch, name, chain))?;
            write_origins(chain, out)?;
        }
        None => writeln!(out, "  by default, because no rule decides it")?,
    }
    Ok(Verdict::Fine)
}

fn write_origins(chain: &RuleChain, out: &mut dyn Write) -> io::Result<()> {
    for location in &chain.from {
        writeln!(out, "    {location}")?;
        let mut from = location.included_from();
        while let Some(location) = from {
            writeln!(out, "      included from {location}")?;
            from = location.included_from();
        }
    }
    Ok(())
}

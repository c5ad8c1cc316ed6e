//! `show` and `explain`: what a context allows, and where that is said.

use std::io::{self, Write};

use policies::compiler::{Arch, Chain, Location, Policy, call_name, call_number, compile, decide};

use crate::tree::Tree;
use crate::{Failure, Outcome, names};

pub fn show(tree: &Tree, context: &str, arch: Arch, out: &mut dyn Write) -> Outcome {
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
            writeln!(out, "{rule:<44} # {}", places(chain))?;
        }
    }
    Ok(true)
}

/// File and line of each statement that says so.
pub fn places(chain: &Chain) -> String {
    let place = |location: &Location| {
        let place = location.place();
        format!("{}:{}", place.path.display(), place.line)
    };
    let places: Vec<_> = chain.from.iter().map(place).collect();
    places.join(" ")
}

pub fn explain(
    tree: &Tree,
    context: &str,
    (name, values): (&str, &[u64]),
    arch: Arch,
    out: &mut dyn Write,
) -> Outcome {
    let number = call_number(arch, name).or_else(|| name.parse().ok());
    let number =
        number.ok_or_else(|| Failure::Other(format!("{arch} has no system call '{name}'")))?;
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
    Ok(true)
}

fn explain_use(
    policy: &Policy,
    (name, number): (&str, u32),
    values: &[u64],
    out: &mut dyn Write,
) -> Outcome {
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
        None => writeln!(out, "  because no rule decides it")?,
    }
    Ok(true)
}

fn write_origins(chain: &Chain, out: &mut dyn Write) -> io::Result<()> {
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

//! Resolves the names in a policy to numbers, for one architecture.

use crate::Arch;
use crate::ast::{ActionKind, ActionText, AtomText, CallName, Filter, Text, Value};
use crate::diagnostic::{Diagnostic, Location};
use crate::rule::{Action, Atom, Clause, MAX_ERRNO, Rule};
use crate::{MAX_INSTRUCTIONS, suggest, tables};

/// Whether a statement with this system call name applies to the architecture.
pub(crate) fn applies(arch: Arch, name: &CallName) -> bool {
    let for_arch = |text: &Text| Arch::from_name(&text.text) == Some(arch);
    name.arches
        .as_ref()
        .is_none_or(|arches| arches.iter().any(for_arch))
}

/// The number of a system call.
pub(crate) fn call(arch: Arch, name: &Text) -> Result<u32, Diagnostic> {
    tables::call_number(arch, &name.text).ok_or_else(|| {
        Diagnostic::new(format!("{arch} has no system call '{}'", name.text))
            .at(&name.at)
            .advice(suggest::call(arch, &name.text))
    })
}

/// Converts the filters of a statement to rules. The first rule whose clause holds decides the
/// action.
pub(crate) fn rules(arch: Arch, filters: &[Filter]) -> Result<Vec<Rule>, Diagnostic> {
    let mut rules = Vec::new();
    let mut always: Option<&Location> = None;
    for filter in filters {
        if let Some(before) = always {
            return Err(Diagnostic::new("this filter is never reached")
                .at(&filter.at)
                .and("this filter always applies before it:", before));
        }
        let action = action(arch, &filter.action)?;
        if filter.alternatives.is_empty() {
            always = Some(&filter.at);
            rules.push(Rule {
                clause: Clause::default(),
                action,
            });
        }
        for atoms in &filter.alternatives {
            let atoms = atoms.iter().map(|atom_text| atom(arch, atom_text));
            let clause = Clause::new(atoms.collect::<Result<_, _>>()?);
            rules.push(Rule { clause, action });
        }
        if rules.len() > MAX_INSTRUCTIONS {
            return Err(too_many_rules(&filter.at));
        }
    }
    Ok(rules)
}

/// The error for a system call with too many rules. The limit bounds the work of merging. No valid
/// policy reaches the limit, because each rule takes at least one instruction.
pub(crate) fn too_many_rules(at: &Location) -> Diagnostic {
    let message = format!("more than {MAX_INSTRUCTIONS} rules, which no filter can hold");
    Diagnostic::new(message).at(at)
}

fn atom(arch: Arch, text: &AtomText) -> Result<Atom, Diagnostic> {
    Ok(Atom {
        arg: text.arg,
        op: text.op,
        value: value(arch, &text.value)?,
    })
}

pub(crate) fn action(arch: Arch, text: &ActionText) -> Result<Action, Diagnostic> {
    Ok(match &text.kind {
        ActionKind::Allow => Action::Allow,
        ActionKind::KillProcess => Action::KillProcess,
        ActionKind::KillThread => Action::KillThread,
        ActionKind::Trap => Action::Trap,
        ActionKind::Trace => Action::Trace,
        ActionKind::Log => Action::Log,
        ActionKind::UserNotify => Action::UserNotify,
        ActionKind::Return(number) => match value(arch, number)? {
            number @ 0..=MAX_ERRNO => Action::Errno(number as u16),
            number => {
                let message = format!("{number} is not an error number");
                return Err(Diagnostic::new(message).at(&text.at).advice(format!(
                    "expected 0 to {MAX_ERRNO} or a name such as ENOENT"
                )));
            }
        },
    })
}

/// The number that represents a value in a register of the architecture.
fn value(arch: Arch, value_text: &Value) -> Result<u64, Diagnostic> {
    let raw = match value_text {
        Value::Number(number, at) => return number_in(arch, *number, at),
        Value::Name(name) => return constant(arch, name),
        Value::Not(inner) => !value(arch, inner)?,
        Value::Negative(inner, at) => negative(arch, value(arch, inner)?, at)?,
        Value::Or(parts) => {
            let mut parts = parts.iter().map(|part| value(arch, part));
            parts.try_fold(0, |all, part| Ok(all | part?))?
        }
    };
    Ok(arch.register(raw))
}

fn number_in(arch: Arch, number: u64, at: &Location) -> Result<u64, Diagnostic> {
    if arch.register(number) == number {
        return Ok(number);
    }
    let message = format!("{number:#x} does not fit into a register of {arch}");
    Err(Diagnostic::new(message).at(at))
}

/// The two's complement of `number`. An error if the negative number does not fit into a register.
fn negative(arch: Arch, number: u64, at: &Location) -> Result<u64, Diagnostic> {
    let sign = if arch.is_64_bit() { 1 << 63 } else { 1 << 31 };
    if number <= sign {
        return Ok(number.wrapping_neg());
    }
    let message = format!("-{number:#x} does not fit into a register of {arch}");
    Err(Diagnostic::new(message).at(at))
}

fn constant(arch: Arch, name: &Text) -> Result<u64, Diagnostic> {
    tables::constant(arch, &name.text).ok_or_else(|| {
        Diagnostic::new(format!("{arch} has no constant '{}'", name.text))
            .at(&name.at)
            .advice(suggest::constant(arch, &name.text))
    })
}

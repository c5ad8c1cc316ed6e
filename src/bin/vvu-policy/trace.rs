//! The subcommand `trace`, which finds the system calls of a program that a context does not allow.

use std::collections::BTreeMap;
use std::io::Write;

use policies::compiler::{Action, Arch, Policy, call_name, decide};

use crate::tree::PolicyTree;
use crate::{CommandResult, Verdict, names};

mod propose;
mod tracer;

use tracer::SeenCall;

/// Counts of the system calls that no rule allows. The key is the number of the system call and the
/// arguments that a condition could check.
type MissingCalls = BTreeMap<(u32, Vec<(u8, u64)>), u64>;

/// The system calls that the policy does not allow.
#[derive(Default)]
struct Report {
    missing: MissingCalls,
    /// Counts of the system calls that a rule refuses with an error number. The key is the name of
    /// the system call and the position of the rule.
    refused: BTreeMap<(String, String), u64>,
    /// Counts of the system calls that are made only outside the jail, so that no program in the
    /// jail needs them. The key is the name of the system call.
    outside: BTreeMap<&'static str, u64>,
}

pub fn run(
    tree: &PolicyTree,
    context: &str,
    from_output: Option<&str>,
    command: &[String],
    out: &mut dyn Write,
) -> CommandResult {
    let arch = Arch::HOST.ok_or_else(|| "cannot trace on this architecture".to_owned())?;
    let loaded = tree.load_context(context, arch)?;
    let policy = Policy::merge(&loaded, arch)?;
    let mut report = Report::default();
    let traced = tracer::run(command, arch, from_output, |seen| {
        report.note(&policy, seen)
    });
    let ended = traced.map_err(|error| format!("{}: {error}", command[0]))?;
    if !ended.started {
        let message = "the command never wrote the text of --from-output".to_owned();
        return Err(message.into());
    }
    writeln!(out, "# {context} on {arch}: the command {}", ended.how)?;
    for ((call, position), count) in &report.refused {
        writeln!(out, "# {position} refused {call} {count} times")?;
    }
    for (call, count) in &report.outside {
        writeln!(
            out,
            "# {call}, {count} times: belongs before the jail closes, or outside"
        )?;
    }
    if report.missing.is_empty() {
        writeln!(out, "# nothing is missing")?;
        return Ok(Verdict::Fine);
    }
    for (file, lines) in propose::lines(&report.missing, &loaded, arch) {
        writeln!(out, "\n# {file}: proposed lines, check each before use")?;
        for line in lines {
            writeln!(out, "{line}")?;
        }
    }
    Ok(Verdict::Findings)
}

impl Report {
    fn note(&mut self, policy: &Policy, seen: &SeenCall) {
        let decision = decide(policy, seen.number, &seen.args);
        if decision.action.permits() {
            return;
        }
        let name = call_name(policy.arch, seen.number).unwrap_or_default();
        if let (Action::Errno(_), Some(location)) = (decision.action, decision.location()) {
            let key = (name.to_owned(), location.to_string());
            *self.refused.entry(key).or_default() += 1;
            return;
        }
        if propose::is_for_outside(name) {
            *self.outside.entry(name).or_default() += 1;
            return;
        }
        let args = names::named_arguments(name);
        let args = args.map(|arg| (arg, seen.args[usize::from(arg)]));
        *self
            .missing
            .entry((seen.number, args.collect()))
            .or_default() += 1;
    }
}

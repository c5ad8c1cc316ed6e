//! `trace`: what a program does that a context does not allow.

use std::collections::BTreeMap;
use std::io::Write;

use policies::compiler::{Action, Arch, Location, Policy, call_name, decide};

use crate::tree::Tree;
use crate::{Failure, Outcome, names};

mod propose;
mod tracer;

use tracer::Seen;

/// A call that is not allowed: its number and the arguments that a condition could be about.
type Missing = BTreeMap<(u32, Vec<(u8, u64)>), u64>;

/// Calls that are not allowed, and how often each was made.
#[derive(Default)]
struct Report {
    missing: Missing,
    /// Those that a rule refuses, by the place of the rule.
    refused: BTreeMap<(String, String), u64>,
}

pub fn run(
    tree: &Tree,
    context: &str,
    from_output: Option<&str>,
    command: &[String],
    out: &mut dyn Write,
) -> Outcome {
    let arch = Arch::HOST.ok_or_else(|| "cannot trace on this architecture".to_owned())?;
    let loaded = tree.load_context(context, arch)?;
    let policy = Policy::merge(&loaded, arch)?;
    let mut report = Report::default();
    let traced = tracer::run(command, arch, from_output, |seen| {
        report.note(&policy, seen)
    });
    let ended = traced.map_err(|error| Failure::Other(format!("{}: {error}", command[0])))?;
    if !ended.started {
        return Err(Failure::Other(
            "the text of --from-output was never written".to_owned(),
        ));
    }
    writeln!(out, "# {context} on {arch}: the command {}", ended.how)?;
    for ((call, place), count) in &report.refused {
        writeln!(
            out,
            "# {call} was called {count} times, which {place} refuses"
        )?;
    }
    if report.missing.is_empty() {
        writeln!(out, "# nothing is missing")?;
        return Ok(true);
    }
    for (file, lines) in propose::lines(&report.missing, &loaded, arch) {
        writeln!(
            out,
            "\n# {file}: proposed, think about each before you take it"
        )?;
        for line in lines {
            writeln!(out, "{line}")?;
        }
    }
    Ok(false)
}

impl Report {
    fn note(&mut self, policy: &Policy, seen: &Seen) {
        let decision = decide(policy, seen.number, &seen.args);
        if decision.action.permits() {
            return;
        }
        let name = call_name(policy.arch, seen.number).unwrap_or_default();
        if let (Action::Errno(_), Some(place)) = (decision.action, decision.location()) {
            let place = Location::place(place).to_string();
            *self.refused.entry((name.to_owned(), place)).or_default() += 1;
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

//! The rows of the villain's report.

use std::time::Duration;

use super::attack::Attack;
use super::trial::Outcome;

/// The names of the columns.
pub fn heading() -> String {
    format!(
        "{:<17} {:<42} {:>6} {:>7} {:>5} {:>15} {:>7}  result",
        "target", "attack", "CPU %", "MiB", "lines", "us (usual)", "end ms"
    )
}

/// The row of an attack.
pub fn row(attack: &Attack, outcome: &Outcome) -> String {
    let latency = outcome.latency.map(|(before, during)| {
        let us = |time: Duration| time.as_micros();
        format!("{} ({})", us(during.median), us(before.median))
    });
    format!(
        "{:<17} {:<42} {:>6} {:>7} {:>5} {:>15} {:>7}  {}",
        attack.target.name(),
        attack.name,
        cell(outcome.cpu.map(|cpu| format!("{cpu:.1}"))),
        cell(
            outcome
                .memory
                .map(|bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)))
        ),
        cell(outcome.lines.map(|lines| lines.to_string())),
        cell(latency),
        cell(outcome.end.map(|end| end.as_millis().to_string())),
        result(attack, outcome),
    )
}

fn cell(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn result(attack: &Attack, outcome: &Outcome) -> String {
    let faults = outcome.faults.join("; ").replace('\n', " ");
    match (outcome.held(), attack.known) {
        (true, None) => "withstood".to_owned(),
        (true, Some(reason)) => format!("withstood, but listed as known: {reason}"),
        (false, None) => format!("BROKEN: {faults}"),
        (false, Some(reason)) => format!("known ({reason}): {faults}"),
    }
}

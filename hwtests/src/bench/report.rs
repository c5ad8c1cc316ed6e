//! Formats all results of a benchmark as a table and as JSON.

use std::fmt::Write;

use anyhow::Result;
use serde_json::{Value, json};

use super::costs::Costs;
use super::plan::Peer;
use super::summary::Summary;
use super::{Cell, Findings, usage};

/// Formats a Markdown table with a row for each medium, workload and peer.
pub fn table(cells: &[Cell]) -> String {
    let mut text = format!(
        "| medium | workload | peer | IOPS | spread | ratio | p50 us | p99 us | p99.9 us \
         | CPU us/IO | switches/IO | syscalls/IO | turns with noise |\n|{}\n",
        "---|".repeat(13)
    );
    text += &rows(cells.iter());
    let _ = writeln!(text, "\nLoad now {}.", usage::load_average());
    let references = references(cells).join(", ");
    if !references.is_empty() {
        let _ = writeln!(text, "Ratios are those of IOPS: {references}.");
    }
    text
}

/// The pairs of compared peers, formatted as "A to B". B is the peer with which A is compared.
fn references(cells: &[Cell]) -> Vec<String> {
    let Some(cell) = cells.first() else {
        return Vec::new();
    };
    let pairs = cell.peers.iter().filter_map(|(peer, _)| {
        let reference = reference(cell, *peer).filter(|reference| reference != peer)?;
        Some(format!("{} to {}", peer.name(), reference.name()))
    });
    pairs.collect()
}

/// Formats rows of the table, one row for each peer of each cell (a workload on a medium).
pub fn rows<'a>(cells: impl Iterator<Item = &'a Cell>) -> String {
    let mut text = String::new();
    for cell in cells {
        for (peer, summary) in &cell.peers {
            text += &row(cell, *peer, summary);
        }
    }
    text
}

fn row(cell: &Cell, peer: Peer, summary: &Summary) -> String {
    let median = &summary.median;
    let ratio = ratio(cell, peer).map_or("-".into(), |ratio| format!("{ratio:.2}"));
    format!(
        "| {} | {} | {} | {:.0} | {:.0} % | {ratio} | {:.1} | {:.1} | {:.1} | {:.2} | {:.3} | {} \
         | {}/{} |\n",
        cell.medium.name(),
        cell.workload.name,
        peer.name(),
        median.iops,
        summary.spread() * 100.0,
        median.p50,
        median.p99,
        median.p999,
        median.cpu,
        median.switches,
        summary
            .syscalls
            .map_or("-".into(), |count| format!("{count:.2}")),
        summary.noisy(),
        summary.turns(),
    )
}

/// The ratio of a peer's IOPS to the IOPS of the peer with which it is compared, or `None` if
/// either peer was not measured.
pub fn ratio(cell: &Cell, peer: Peer) -> Option<f64> {
    let iops = |peer| Some(cell.summary(peer)?.median.iops);
    Some(iops(peer)? / iops(reference(cell, peer)?)?)
}

fn reference(cell: &Cell, peer: Peer) -> Option<Peer> {
    let measured = |peer: &&Peer| cell.summary(**peer).is_some();
    peer.references().iter().find(measured).copied()
}

/// Formats all results as JSON, for other programs.
pub fn json(findings: &Findings) -> Result<String> {
    let machine = &findings.machine;
    let costs: Vec<_> = findings.costs.iter().map(cost).collect();
    let all = json!({
        "date": machine.date,
        "processors": machine.processors,
        "processor_model": machine.model,
        "kernel": machine.kernel,
        "turn_seconds": findings.turn.as_secs_f64(),
        "results": results(&findings.cells),
        "costs": costs,
    });
    Ok(serde_json::to_string_pretty(&all)?)
}

fn cost(costs: &Costs) -> Value {
    json!({
        "peer": costs.peer.name(),
        "start_ms": costs.start,
        "idle_cpu_ms_per_second": costs.idle,
        "memory_rss_mib": costs.rss,
        "memory_pss_mib": costs.pss,
    })
}

fn results(cells: &[Cell]) -> Vec<Value> {
    let entry = |cell: &Cell, peer: Peer, summary: &Summary| {
        json!({
            "medium": cell.medium.name(),
            "workload": cell.workload.name,
            "peer": peer.name(),
            "iops": summary.median.iops,
            "spread": summary.spread(),
            "ratio": ratio(cell, peer),
            "latency_us": {
                "p50": summary.median.p50,
                "p99": summary.median.p99,
                "p99.9": summary.median.p999,
            },
            "cpu_us_per_request": summary.median.cpu,
            "context_switches_per_request": summary.median.switches,
            "system_calls_per_request": summary.syscalls,
            "foreign_cpu": summary.median.foreign,
            "turns": summary.turns(),
            "noisy_turns": summary.noisy(),
        })
    };
    let of_cell = |cell: &Cell| {
        let peers = cell.peers.iter();
        let entries = peers.map(|(peer, summary)| entry(cell, *peer, summary));
        entries.collect::<Vec<_>>()
    };
    cells.iter().flat_map(of_cell).collect()
}

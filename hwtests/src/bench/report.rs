//! What is said about a benchmark, as a table and as JSON.

use std::fmt::Write;

use anyhow::Result;
use serde_json::json;

use super::plan::Peer;
use super::summary::Summary;
use super::{Cell, usage};

/// A Markdown table with a row for each workload and peer.
pub fn table(cells: &[Cell]) -> String {
    let mut text = format!(
        "| medium | workload | peer | IOPS | spread | to qemu | p50 us | p99 us | p99.9 us | CPU us/IO \
         | switches/IO | turns with noise |\n|{}\n",
        "---|".repeat(12)
    );
    text += &rows(cells.iter());
    let _ = writeln!(
        text,
        "\n{} processors; load now {}; \"to qemu\" is the ratio of IOPS to {}.",
        std::thread::available_parallelism().map_or(0, usize::from),
        usage::load_average(),
        Peer::Qemu.name(),
    );
    text
}

/// The rows of some cells.
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
        "| {} | {} | {} | {:.0} | {:.0} % | {ratio} | {:.1} | {:.1} | {:.1} | {:.2} | {:.3} | {}/{} |\n",
        cell.medium.name(),
        cell.workload.name,
        peer.name(),
        median.iops,
        summary.spread * 100.0,
        median.p50,
        median.p99,
        median.p999,
        median.cpu,
        median.switches,
        summary.noisy,
        summary.turns,
    )
}

/// A peer's IOPS by those of the one that all are compared with.
pub fn ratio(cell: &Cell, peer: Peer) -> Option<f64> {
    let iops = |wanted| {
        let found = cell.peers.iter().find(|(peer, _)| *peer == wanted);
        found.map(|(_, summary)| summary.median.iops)
    };
    Some(iops(peer)? / iops(Peer::Qemu)?)
}

/// Everything, for other programs.
pub fn json(cells: &[Cell]) -> Result<String> {
    let entry = |cell: &Cell, peer: Peer, summary: &Summary| {
        json!({
            "medium": cell.medium.name(),
            "workload": cell.workload.name,
            "peer": peer.name(),
            "iops": summary.median.iops,
            "spread": summary.spread,
            "ratio": ratio(cell, peer),
            "latency_us": {
                "p50": summary.median.p50,
                "p99": summary.median.p99,
                "p99.9": summary.median.p999,
            },
            "cpu_us_per_request": summary.median.cpu,
            "context_switches_per_request": summary.median.switches,
            "foreign_cpu": summary.median.foreign,
            "turns": summary.turns,
            "noisy_turns": summary.noisy,
        })
    };
    let all: Vec<_> = cells
        .iter()
        .flat_map(|cell| cell.peers.iter().map(|(peer, s)| entry(cell, *peer, s)))
        .collect();
    Ok(serde_json::to_string_pretty(&json!({ "results": all }))?)
}

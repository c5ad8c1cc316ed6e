//! Formats the part of a benchmark's results that the README shows.

use std::fmt::Write;

use super::peer::QUEUES;
use super::plan::Peer;
use super::report::ratio;
use super::summary::Summary;
use super::{Cell, Findings};

/// Formats tables of the most important numbers, and the conditions of the measurements.
pub fn text(findings: &Findings) -> String {
    let mut text = conditions(findings);
    text += &comparison(&findings.cells);
    text += &through_proxy(&findings.cells);
    text + &costs(findings)
}

/// Formats the machine and the date of all measurements, and the number of noisy turns (disturbed
/// by other programs).
pub fn conditions(findings: &Findings) -> String {
    let machine = &findings.machine;
    let all = || findings.cells.iter().flat_map(|cell| &cell.peers);
    let turns: usize = all().map(|(_, summary)| summary.turns()).sum();
    let noisy: usize = all().map(|(_, summary)| summary.noisy()).sum();
    format!(
        "Measured by `cargo xtask bench` on {} with {} processors ({}) and Linux {}: medians of {} \
         turns of {:.1} s each. In {noisy} of {turns} turns the machine was busy with something \
         else.\n",
        machine.date,
        machine.processors,
        machine.model,
        machine.kernel,
        findings.turns,
        findings.turn.as_secs_f64(),
    )
}

/// Formats a number with `digits` digits after the decimal point. `None` becomes `-`.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.digits$}"))
}

/// Formats one result of our back-end and the same result of qemu-storage-daemon, as `OURS / QEMU`.
fn pair(cell: &Cell, digits: usize, get: impl Fn(&Summary) -> Option<f64>) -> String {
    let one = |peer| number(cell.summary(peer).and_then(&get), digits);
    format!("{} / {}", one(Peer::Ours), one(Peer::Qemu))
}

fn comparison(cells: &[Cell]) -> String {
    let mut text =
        "\nIOPS as ratios to qemu-storage-daemon with io_uring; pairs are vvu-block / that.\n\n\
        | | IOPS | vvu-block | qemu's thread pool | fio on the file itself | p50 us | p99 us \
        | CPU us per I/O | system calls per I/O |\n| --- |"
            .to_owned();
    text += &" ---: |".repeat(8);
    text.push('\n');
    for cell in cells
        .iter()
        .filter(|cell| cell.summary(Peer::Ours).is_some())
    {
        let _ = writeln!(
            text,
            "| {} | {} | **{}** | {} | {} | {} | {} | {} | {} |",
            cell.name(),
            number(cell.summary(Peer::Ours).map(|s| s.median.iops), 0),
            number(ratio(cell, Peer::Ours), 2),
            number(ratio(cell, Peer::QemuThreads), 2),
            number(ratio(cell, Peer::Local), 2),
            pair(cell, 0, |s| Some(s.median.p50)),
            pair(cell, 0, |s| Some(s.median.p99)),
            pair(cell, 1, |s| Some(s.median.cpu)),
            pair(cell, 2, |s| s.syscalls),
        );
    }
    text
}

fn through_proxy(cells: &[Cell]) -> String {
    let mut rows = String::new();
    for cell in cells {
        let (Some(socket), Some(pci)) = (cell.summary(Peer::Socket), cell.summary(Peer::Pci))
        else {
            continue;
        };
        let _ = writeln!(
            rows,
            "| {} | {:.0} | {:.0} | {} |",
            cell.name(),
            socket.median.iops,
            pci.median.iops,
            number(ratio(cell, Peer::Pci), 2)
        );
    }
    if rows.is_empty() {
        return rows;
    }
    "\nThe same front-end at vvu-block's socket, and through vvu-proxy (`--pci vfio-user:`):\n\n\
     | | socket, IOPS | proxy, IOPS | ratio |\n| --- | ---: | ---: | ---: |\n"
        .to_owned()
        + &rows
}

fn costs(findings: &Findings) -> String {
    if findings.costs.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\nWith {QUEUES} queues offered and 1 in use:\n\n\
         | | start until ready, ms | idle, CPU ms per s | memory (RSS / PSS), MiB |\n\
         | --- | ---: | ---: | ---: |\n"
    );
    for costs in &findings.costs {
        let _ = writeln!(
            text,
            "| {} | {:.1} | {:.1} | {:.1} / {:.1} |",
            costs.peer.name(),
            costs.start,
            costs.idle,
            costs.rss,
            costs.pss
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::costs::Costs;
    use crate::bench::machine::Machine;
    use crate::bench::plan::{Medium, WORKLOADS};
    use crate::bench::sample::Sample;

    fn summary(iops: f64) -> Summary {
        let sample = Sample {
            iops,
            ..Sample::default()
        };
        Summary::new(vec![sample])
    }

    #[test]
    fn peers_stand_beside_each_other() {
        let peers = [
            (Peer::Ours, 300.0),
            (Peer::Qemu, 200.0),
            (Peer::Socket, 100.0),
            (Peer::Pci, 95.0),
        ];
        let cell = Cell {
            medium: Medium::Tmpfs,
            workload: WORKLOADS[0],
            peers: peers.map(|(peer, iops)| (peer, summary(iops))).to_vec(),
        };
        let costs = Costs {
            peer: Peer::Ours,
            start: 4.25,
            idle: 0.0,
            rss: 3.0,
            pss: 2.0,
        };
        let text = text(&Findings {
            machine: Machine::here(),
            turns: 5,
            turn: Duration::from_secs(2),
            cells: vec![cell],
            costs: vec![costs],
        });
        for row in [
            "| tmpfs read-4k-qd1 | 300 | **1.50** | - | - | 0 / 0 | 0 / 0 | 0.0 / 0.0 | - / - |",
            "| tmpfs read-4k-qd1 | 100 | 95 | 0.95 |",
            "| vvu-block | 4.2 | 0.0 | 3.0 / 2.0 |",
            "5 turns of 2.0 s each. In 0 of 4 turns",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
    }
}

//! Compares two builds of our back-end, this build and another build, by the benchmark's results.

use super::costs::Costs;
use super::markdown::{conditions, number};
use super::peer::QUEUES;
use super::plan::Peer;
use super::sample::Sample;
use super::summary::{Summary, range};
use super::{Cell, Findings};

/// This build counts as slower if its IOPS, divided by the other build's IOPS, are below this
/// number.
const SLOWER: f64 = 0.97;

/// This build counts as more costly if its CPU time per request or its memory, divided by the other
/// build's value, is above this number.
const DEARER: f64 = 1.03;

/// The pairs of peers to compare. Each entry has the peer of this build, the peer of the other
/// build, and the name of the transport that both peers use.
const WAYS: [(Peer, Peer, &str); 2] = [
    (Peer::Ours, Peer::Other, "socket"),
    (Peer::Pci, Peer::OtherPci, "proxy"),
];

/// The results of both builds with one workload, either through a socket or through `vvu-proxy`.
struct Column<'a> {
    name: String,
    ours: &'a Summary,
    other: &'a Summary,
    iops: Ratio,
    cpu: Ratio,
}

/// Formats tables with the results of both builds, and a list of the results in which this build is
/// worse.
pub fn text(findings: &Findings) -> String {
    let columns: Vec<_> = findings.cells.iter().flat_map(columns).collect();
    let costs = costs(findings);
    if columns.is_empty() {
        return conditions(findings) + "\nNo workload was measured with both builds.\n";
    }
    [
        conditions(findings),
        workloads(&columns),
        costs
            .iter()
            .map(Cost::row)
            .fold(head(), |text, row| text + &row),
        verdict(&columns, &costs),
    ]
    .concat()
}

fn columns(cell: &Cell) -> impl Iterator<Item = Column<'_>> {
    WAYS.into_iter().filter_map(|(ours, other, way)| {
        let (ours, other) = (cell.summary(ours)?, cell.summary(other)?);
        Some(Column {
            name: format!("{}, {way}", cell.name()),
            iops: Ratio::new(ours, other, |sample| sample.iops),
            cpu: Ratio::new(ours, other, |sample| sample.cpu),
            ours,
            other,
        })
    })
}

/// The ratio of this build's median to the other build's median, and the least and the greatest
/// ratio of single turns (measurements).
struct Ratio {
    median: f64,
    range: (f64, f64),
}

impl Ratio {
    fn new(ours: &Summary, other: &Summary, get: fn(&Sample) -> f64) -> Self {
        let turns = ours.samples.iter().zip(&other.samples);
        Self {
            median: get(&ours.median) / get(&other.median),
            range: range(turns.map(|(ours, other)| get(ours) / get(other))),
        }
    }

    fn text(&self) -> String {
        let (least, most) = self.range;
        format!("{:.2} ({least:.2} to {most:.2})", self.median)
    }
}

fn workloads(columns: &[Column<'_>]) -> String {
    let titles = [
        "",
        "IOPS",
        "the other's",
        "ratio",
        "CPU us per I/O",
        "the other's",
        "ratio",
        "p50 us",
        "the other's",
        "p99 us",
        "the other's",
        "system calls per I/O",
        "the other's",
        "turns with noise",
    ];
    let text = format!(
        "\nThis build and the other one. A ratio is that of the medians; in brackets are the least \
         and the greatest of single turns.\n\n{}| --- |{}\n",
        row(titles.map(str::to_owned)),
        " ---: |".repeat(titles.len() - 1)
    );
    columns
        .iter()
        .map(Column::row)
        .fold(text, |text, row| text + &row)
}

fn row<const N: usize>(cells: [String; N]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

impl Column<'_> {
    fn row(&self) -> String {
        let (ours, other) = (&self.ours.median, &self.other.median);
        row([
            self.name.clone(),
            format!("{:.0}", ours.iops),
            format!("{:.0}", other.iops),
            self.iops.text(),
            format!("{:.2}", ours.cpu),
            format!("{:.2}", other.cpu),
            self.cpu.text(),
            format!("{:.0}", ours.p50),
            format!("{:.0}", other.p50),
            format!("{:.0}", ours.p99),
            format!("{:.0}", other.p99),
            number(self.ours.syscalls, 2),
            number(self.other.syscalls, 2),
            self.noise(),
        ])
    }

    /// The number of noisy turns (measurements that other programs disturbed) and the number of all
    /// turns, formatted as `NOISY/ALL`. Both numbers include the turns of both builds.
    fn noise(&self) -> String {
        let both = [self.ours, self.other];
        let sum = |get: fn(&Summary) -> usize| both.into_iter().map(get).sum::<usize>();
        format!("{}/{}", sum(Summary::noisy), sum(Summary::turns))
    }
}

/// The values of one cost, such as memory, for both builds. A build has no requests while its costs
/// are measured.
struct Cost {
    name: &'static str,
    ours: f64,
    other: f64,
}

fn costs(findings: &Findings) -> Vec<Cost> {
    let of = |peer| findings.costs.iter().find(|costs| costs.peer == peer);
    let (Some(ours), Some(other)) = (of(Peer::Ours), of(Peer::Other)) else {
        return Vec::new();
    };
    let cost = |name, get: fn(&Costs) -> f64| Cost {
        name,
        ours: get(ours),
        other: get(other),
    };
    vec![
        cost("start until ready, ms", |costs| costs.start),
        cost("idle, CPU ms per s", |costs| costs.idle),
        cost("memory (RSS), MiB", |costs| costs.rss),
        cost("memory (PSS), MiB", |costs| costs.pss),
    ]
}

fn head() -> String {
    format!(
        "\nWith {QUEUES} queues offered and 1 in use:\n\n\
         | | this build | the other | ratio |\n| --- | ---: | ---: | ---: |\n"
    )
}

impl Cost {
    fn row(&self) -> String {
        row([
            self.name.to_owned(),
            format!("{:.2}", self.ours),
            format!("{:.2}", self.other),
            number(self.ratio(), 2),
        ])
    }

    /// The ratio of this build's cost to the other build's cost, or `None` if the other build's
    /// cost is 0.
    fn ratio(&self) -> Option<f64> {
        (self.other > 0.0).then(|| self.ours / self.other)
    }

    fn is_memory(&self) -> bool {
        self.name.starts_with("memory")
    }
}

/// Formats three lines, for IOPS, CPU time and memory. Each line lists the results in which this
/// build is worse than the other build.
fn verdict(columns: &[Column<'_>], costs: &[Cost]) -> String {
    let slower = columns.iter().filter(|column| column.iops.median < SLOWER);
    let slower = slower.map(|column| format!("{}: {}", column.name, column.iops.text()));
    let dearer = columns.iter().filter(|column| column.cpu.median > DEARER);
    let dearer = dearer.map(|column| format!("{}: {}", column.name, column.cpu.text()));
    let memory = costs.iter().filter(|cost| cost.is_memory());
    let larger = memory.filter(|cost| cost.ratio().is_some_and(|ratio| ratio > DEARER));
    let larger = larger.map(|cost| format!("{}: {}", cost.name, number(cost.ratio(), 2)));
    [
        "\n".to_owned(),
        line("IOPS below", SLOWER, slower.collect()),
        line("CPU time per I/O above", DEARER, dearer.collect()),
        line("Memory above", DEARER, larger.collect()),
    ]
    .concat()
}

fn line(what: &str, limit: f64, mut found: Vec<String>) -> String {
    if found.is_empty() {
        found.push("nowhere".into());
    }
    format!(
        "* {what} {limit} of the other build's: {}.\n",
        found.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::machine::Machine;
    use crate::bench::plan::{Medium, WORKLOADS};

    fn summary(turns: [(f64, f64); 3]) -> Summary {
        let samples = turns.map(|(iops, cpu)| Sample {
            iops,
            cpu,
            ..Sample::default()
        });
        Summary::new(samples.to_vec())
    }

    fn costs(peer: Peer, pss: f64) -> Costs {
        Costs {
            peer,
            start: 4.0,
            idle: 0.0,
            rss: 8.0,
            pss,
        }
    }

    #[test]
    fn the_verdict_names_each_column_in_which_this_build_is_worse() {
        let other = summary([(100.0, 10.0), (100.0, 10.0), (100.0, 10.0)]);
        let cell = Cell {
            medium: Medium::Tmpfs,
            workload: WORKLOADS[0],
            peers: vec![
                (
                    Peer::Ours,
                    summary([(96.0, 10.0), (96.0, 10.0), (110.0, 9.0)]),
                ),
                (Peer::Other, other.clone()),
                (
                    Peer::Pci,
                    summary([(98.0, 12.0), (97.0, 10.4), (97.0, 10.0)]),
                ),
                (Peer::OtherPci, other),
            ],
        };
        let text = text(&Findings {
            machine: Machine::here(),
            turns: 3,
            turn: Duration::from_secs(2),
            cells: vec![cell],
            costs: vec![costs(Peer::Ours, 4.2), costs(Peer::Other, 4.0)],
        });
        for line in [
            "| tmpfs read-4k-qd1, proxy | 97 | 100 | 0.97 (0.97 to 0.98) | 10.40 | 10.00 | \
             1.04 (1.00 to 1.20) |",
            "| idle, CPU ms per s | 0.00 | 0.00 | - |",
            "* IOPS below 0.97 of the other build's: \
             tmpfs read-4k-qd1, socket: 0.96 (0.96 to 1.10).\n",
            "* CPU time per I/O above 1.03 of the other build's: \
             tmpfs read-4k-qd1, proxy: 1.04 (1.00 to 1.20).\n",
            "* Memory above 1.03 of the other build's: memory (PSS), MiB: 1.05.\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}

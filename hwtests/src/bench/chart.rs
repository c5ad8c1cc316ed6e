//! Draws the results of a benchmark as a chart of IOPS relative to qemu-storage-daemon.

use std::fmt::Write;

use super::Cell;
use super::plan::Peer;
use super::report::ratio;

const BAR: usize = 12;
const GAP: usize = 14;
const LABEL: usize = 170;
const WIDTH: usize = 760;
/// The width in pixels of the space to the right of the longest bar. In this space, the chart shows
/// the ratio that the bar stands for.
const NUMBER: usize = 50;

fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Ours => "#1b7837",
        Peer::Qemu => "#969696",
        Peer::QemuThreads => "#cccccc",
        Peer::Local => "#4393c3",
        _ => "#5aae61",
    }
}

/// Draws the chart as SVG. Each cell (a workload on a medium) is one group of bars.
pub fn svg(cells: &[Cell]) -> String {
    let longest = cells
        .iter()
        .flat_map(|cell| bars(cell).map(|(_, ratio)| ratio))
        .fold(1.0, f64::max);
    let scale = (WIDTH - LABEL - NUMBER) as f64 / longest;
    let mut body = legend();
    let mut y = 2 * GAP + BAR;
    for cell in cells {
        y = group(&mut body, cell, scale, y) + GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// Whether the chart shows a peer. The chart shows only peers that are compared with
/// qemu-storage-daemon, because the ratios of other peers would need another scale.
fn is_shown(peer: Peer) -> bool {
    peer.references().first() == Some(&Peer::Qemu)
}

fn bars(cell: &Cell) -> impl Iterator<Item = (Peer, f64)> + '_ {
    let peers = cell.peers.iter().filter(|(peer, _)| is_shown(*peer));
    peers.filter_map(|(peer, _)| Some((*peer, ratio(cell, *peer)?)))
}

fn legend() -> String {
    let mut text = String::new();
    for (position, peer) in Peer::ALL
        .into_iter()
        .filter(|peer| is_shown(*peer))
        .enumerate()
    {
        let x = LABEL + position * 135;
        rectangle(&mut text, (x, GAP), BAR as f64, peer);
        write_at(&mut text, (x + BAR + 4, GAP + BAR - 2), peer.name());
    }
    text
}

/// Draws the bars of one cell (a workload on a medium) from the vertical position `y` downwards,
/// and returns the position below the last bar.
fn group(text: &mut String, cell: &Cell, scale: f64, mut y: usize) -> usize {
    let name = cell.name();
    write_at(text, (8, y + 2 * BAR), &name);
    for (peer, ratio) in bars(cell) {
        rectangle(text, (LABEL, y), ratio * scale, peer);
        let x = LABEL + (ratio * scale) as usize + 4;
        write_at(text, (x, y + BAR - 2), &format!("{ratio:.2}"));
        y += BAR;
    }
    y
}

fn rectangle(text: &mut String, (x, y): (usize, usize), width: f64, peer: Peer) {
    let (height, colour) = (BAR - 1, colour(peer));
    let _ = writeln!(
        text,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width:.0}\" height=\"{height}\" fill=\"{colour}\"/>"
    );
}

fn write_at(text: &mut String, (x, y): (usize, usize), words: &str) {
    let _ = writeln!(text, "<text x=\"{x}\" y=\"{y}\">{words}</text>");
}

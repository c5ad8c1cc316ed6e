//! The developers' commands: `cargo xtask demo|test|lint|bench|villain|man|setup`.

mod cargo;
mod demo;
mod lint;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hwtests::Result;
use hwtests::bench::plan::Options;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developers' commands of vvu-block")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the demo, which serves a disk from one VM to another, and print a report
    Demo,
    /// Run all tests, including the tests in nested VMs
    Test,
    /// Check code, text, documentation, manifests, dependencies and packages
    Lint,
    /// Compare the back-end with qemu-storage-daemon and the kernel alone, or with another build
    Bench(BenchArguments),
    /// Attack the programs as hostile peers do, and check that they go on serving
    Villain {
        /// Run only attacks with one of these words in "TARGET: ATTACK", such as "memory"
        words: Vec<String>,
    },
    /// Write the manual pages in docs/man
    Man,
    /// Download the programs for the demo and the tests
    Setup,
}

#[derive(clap::Args)]
struct BenchArguments {
    /// Take fewer and shorter turns, for a quick and less exact result
    #[arg(long)]
    quick: bool,
    /// The number of turns (measurements) of each peer [default: 5, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    turns: Option<u16>,
    /// Compare only with another build, whose vvu-block and vvu-proxy are in this folder
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["guest", "packed"])]
    beside: Option<PathBuf>,
    /// Compare only our disk in a guest with QEMU's own virtio disk in the same guest
    #[arg(long, conflicts_with_all = ["filter", "peer", "out", "turns"])]
    guest: bool,
    /// Measure only workloads with these words in their names, such as "tmpfs read-4k" (repeatable)
    #[arg(long, value_name = "WORDS")]
    filter: Vec<String>,
    /// Measure only peers (compared programs) with this word in their names (repeatable)
    #[arg(long, value_name = "WORD")]
    peer: Vec<String>,
    /// Measure packed virtqueues, too
    #[arg(long)]
    packed: bool,
    /// Write bench.json, bench.md and bench.svg to this folder
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo => demo::run(),
        Task::Test => test(),
        Task::Lint => lint::run(),
        Task::Bench(arguments) => bench(arguments),
        Task::Villain { words } => hwtests::villain::run(&words),
        Task::Man => man(),
        Task::Setup => hwtests::provision::provision().map(drop),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: BenchArguments) -> Result<()> {
    // If this program is a debug build, it starts the benchmark again as a release build. In a
    // debug build, the slow front-end would hide the speed of the back-end.
    if cfg!(debug_assertions) {
        let same = std::env::args().skip(1);
        let release = "run --quiet --release --package hwtests --bin xtask --".split(' ');
        return cargo::run_with(release.map(String::from).chain(same), "release");
    }
    if arguments.guest {
        return hwtests::bench::guest::run(arguments.quick);
    }
    let mut options = Options::new(arguments.quick);
    options.turns = arguments.turns.map_or(options.turns, usize::from);
    options.filter = arguments.filter;
    options.peers = arguments.peer;
    options.packed = arguments.packed;
    options.beside = arguments.beside;
    hwtests::bench::run(&options, &arguments.out)
}

fn test() -> Result<()> {
    hwtests::provision::provision()?;
    cargo::run("build --release --workspace --bins")?;
    cargo::run("test --workspace --exclude hwtests")?;
    // The tests run one at a time, because the nested VMs of one test already need all processors
    // of a small machine.
    cargo::run("test --package hwtests -- --test-threads=1")?;
    test_debug_builds()?;
    hwtests::villain::run(&[])
}

/// Runs one test for each transport, with programs of a debug build. A debug build makes other
/// system calls than a release build, and the sandbox has to allow these system calls, too.
fn test_debug_builds() -> Result<()> {
    let tests = "--test socket --test virtio_pci --test vfio_user --test vvu --test entropy";
    let names = "an_old_qemu a_guest_uses a_sibling_uses an_old_sibling bytes_over_vhost_user";
    let arguments = format!("test --package hwtests {tests} -- --test-threads=1 {names}");
    cargo::run_for(&arguments, "dev")
}

/// Writes the manual pages. The tests that compare the pages write them if VVU_WRITE_MAN is set.
fn man() -> Result<()> {
    cargo::run("test --quiet --package vvu-block --bins --config env.VVU_WRITE_MAN='1' manual_page")
}

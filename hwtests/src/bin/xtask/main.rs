//! The developers' commands: `cargo xtask demo|test|lint|bench|man|setup`.

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
    /// Serve a disk from one VM to another and show what happened
    Demo,
    /// Run all tests, those in nested VMs too
    Test,
    /// Check code, text, documentation, manifests, dependencies and packages
    Lint,
    /// Compare the back-end with qemu-storage-daemon and the kernel's own limit, or another build
    Bench(BenchArguments),
    /// Write the manual pages in docs/man
    Man,
    /// Fetch what the demo and the tests need
    Setup,
}

#[derive(clap::Args)]
struct BenchArguments {
    /// Take fewer and shorter turns: for a look, not for a result
    #[arg(long)]
    quick: bool,
    /// How many turns each peer has [default: 5, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    turns: Option<u16>,
    /// Instead, compare with another build, whose vvu-block and vvu-proxy are in this folder
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["guest", "packed"])]
    beside: Option<PathBuf>,
    /// Instead, compare with QEMU's own virtio disk in a guest
    #[arg(long, conflicts_with_all = ["filter", "peer", "out", "turns"])]
    guest: bool,
    /// Measure only what has this in "MEDIUM WORKLOAD", such as "tmpfs read-4k"; may be repeated
    #[arg(long, value_name = "WORDS")]
    filter: Vec<String>,
    /// Measure only peers with this in their names; may be repeated
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
    // In a debug build, the benchmark would measure the slow front-end instead of the back-end.
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
    // The tests run one at a time, because two processors can run only two nested VMs.
    cargo::run("test --package hwtests -- --test-threads=1")?;
    test_debug_builds()
}

/// Runs a guest for each way of serving, with programs that are not optimised. These programs make
/// other system calls, which their jail has to allow, too.
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

//! The developers' commands: `cargo xtask demo|test|lint|setup`.

mod demo;

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use hwtests::{Context, Result, ensure, progress};

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
    /// Check formatting, lints and documentation
    Lint,
    /// Fetch what the demo and the tests need
    Setup,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo => demo::run(),
        Task::Test => test(),
        Task::Lint => lint(),
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

fn test() -> Result<()> {
    hwtests::provision::provision()?;
    cargo("build --release --workspace --bins")?;
    cargo("test --workspace --exclude hwtests")?;
    // One at a time: two nested VMs are as many as two processors carry.
    cargo("test --package hwtests -- --test-threads=1")
}

fn lint() -> Result<()> {
    cargo("fmt --all -- --check")?;
    cargo("clippy --workspace --all-targets -- -D warnings")?;
    cargo("doc --workspace --no-deps")
}

fn cargo(arguments: &str) -> Result<()> {
    progress(format!("cargo {arguments}"));
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments.split(' '))
        .env("RUSTDOCFLAGS", "-D warnings")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .context("cannot run cargo")?;
    ensure!(
        status.success(),
        "cargo {arguments} failed; it says why above"
    );
    Ok(())
}

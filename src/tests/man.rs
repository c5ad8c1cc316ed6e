//! Checks that the manual pages in `docs/man/` have the same text as the `--help` of the programs.

use std::path::Path;
use std::{env, fs};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// An environment variable that `cargo xtask man` sets. If it is set, the pages are written instead
/// of compared.
const WRITE: &str = "VVU_WRITE_MAN";

/// Compares the manual page of a program with the page in `docs/man/`.
///
/// # Panics
///
/// When the two pages differ.
pub fn check(mut command: Command) {
    command.build();
    let page = page(&command);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man");
    let path = folder.join(format!("{}.1", command.get_name()));
    if env::var_os(WRITE).is_some() {
        return fs::write(path, page).expect("a page to write");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let name = path.display();
    assert!(there == page, "{name} is old: run `cargo xtask man`");
}

fn page(command: &Command) -> String {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    let rendered = man
        .render_title(&mut page)
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut page));
    rendered.expect("memory to write to");
    let mut rest = Roff::new();
    subcommands(&mut rest, command);
    rest.extend([end_of_help(command)]);
    let page = String::from_utf8(page).expect("roff in UTF-8");
    page + &rest.render()
}

/// Adds the help text of each subcommand.
fn subcommands(roff: &mut Roff, command: &Command) {
    let commands = command.get_subcommands().filter(|c| c.get_name() != "help");
    for (position, subcommand) in commands.enumerate() {
        if position == 0 {
            roff.control("SH", ["COMMANDS"]);
        }
        roff.control("SS", [subcommand.get_name()]);
        let help = subcommand.clone().term_width(80).render_long_help();
        literally(roff, &help.to_string());
    }
}

/// The sections with the exit status and the examples, which are the last part of the help text.
fn end_of_help(command: &Command) -> Roff {
    let text = command.get_after_help().map(ToString::to_string);
    let text = text.unwrap_or_default();
    let (examples, status) = text.split_once("Exit status: ").expect("an exit status");
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for case in status.replace('\n', " ").split("; ") {
        let (code, meaning) = case.split_once(' ').expect("a code and a meaning");
        roff.control("TP", []);
        roff.text([bold(code)]);
        roff.text([roman(meaning)]);
    }
    roff.control("SH", ["EXAMPLES"]);
    let examples = examples.trim_start_matches("Examples:\n");
    literally(&mut roff, examples);
    roff
}

fn literally(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    for line in text.trim_end().lines() {
        match line {
            "" => roff.control("sp", []),
            line => roff.text([roman(line)]),
        };
    }
    roff.control("fi", []);
}

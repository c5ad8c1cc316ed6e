//! The subcommand `compile`, which compiles a policy to a seccomp program for the kernel.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;

use policies::compiler::{Action, Arch, Instruction, Options, Policy, compile, load};

use crate::args::{Format, TreeArguments};
use crate::tree::{failed, folder, name};
use crate::{CommandError, CommandResult, Verdict};

/// The policy to compile, and the options for compiling it.
pub struct Job<'a> {
    pub file: &'a Path,
    pub format: Format,
    pub output: Option<&'a Path>,
    pub default_action: Option<Action>,
    pub denylist: bool,
}

pub fn run(tree: &TreeArguments, job: &Job<'_>, arch: Arch, out: &mut dyn Write) -> CommandResult {
    // Without `--tree`, a policy may include files only from its own folder and from folders below.
    let parent = job
        .file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let root = tree.tree.as_deref().or(parent).unwrap_or(Path::new("."));
    let source = folder(root, tree)?;
    let options = Options {
        denylist: job.denylist,
        ..Options::default()
    };
    if let Err(error) = fs::metadata(job.file) {
        return Err(failed(job.file, &error));
    }
    let loaded = load(&source, job.file, &options)?;
    let mut policy = Policy::merge(&loaded, arch)?;
    policy.default = job.default_action.unwrap_or(policy.default);
    let program = compile(&policy)?;
    let bytes = match job.format {
        Format::Raw => raw(&program),
        Format::C => c(&program, arch, job.file)?.into_bytes(),
    };
    match job.output {
        Some(path) => fs::write(path, bytes).map_err(|error| failed(path, &error))?,
        None => out.write_all(&bytes)?,
    }
    Ok(Verdict::Fine)
}

fn raw(program: &[Instruction]) -> Vec<u8> {
    let bytes = |i: &Instruction| {
        let [a, b] = i.code.to_le_bytes();
        let [c, d, e, f] = i.k.to_le_bytes();
        [a, b, i.jt, i.jf, c, d, e, f]
    };
    program.iter().flat_map(bytes).collect()
}

fn c(program: &[Instruction], arch: Arch, file: &Path) -> Result<String, CommandError> {
    let write = || -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let name = identifier(&name(file));
        writeln!(
            text,
            "/* Compiled by vvu-policy for {arch}; do not edit. */"
        )?;
        writeln!(text, "#include <linux/filter.h>\n")?;
        writeln!(
            text,
            "static const struct sock_filter {name}_filter[{}] = {{",
            program.len()
        )?;
        for Instruction { code, jt, jf, k } in program {
            writeln!(text, "\t{{ {code:#06x}, {jt}, {jf}, {k:#010x} }},")?;
        }
        writeln!(text, "}};")?;
        Ok(text)
    };
    write().map_err(|error| CommandError::Other(error.to_string()))
}

/// Converts `name` to a valid identifier in C.
fn identifier(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(letter).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

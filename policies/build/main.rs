//! Compiles the policies of all architectures, and writes the results as Rust code that the library
//! includes.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use policy_compiler::{Arch, Diagnostic, Folder, Instruction, Options, Policy, compile, load};

#[path = "../src/context.rs"]
#[expect(dead_code, reason = "the build needs no more than names")]
mod context;
mod missing;

use context::Context;

fn main() {
    for path in ["build", "src/context.rs"] {
        println!("cargo:rerun-if-changed={path}");
    }
    for arch in Arch::ALL {
        println!("cargo:rerun-if-changed={arch}");
    }
    if let Err(error) = run() {
        eprintln!("{error}");
        process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    missing::check(&root, &context::policy_names())?;
    let mut code = String::new();
    write_programs(&mut code, &root)?;
    write_sources(&mut code, &root)?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("embedded.rs"), code)?;
    Ok(())
}

/// Writes a function that returns the seccomp program of a context for an architecture.
fn write_programs(code: &mut String, root: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let folder = Folder::new(root)?;
    code.push_str("pub fn program(arch: Arch, context: Context) -> &'static [Instruction] {\n");
    code.push_str("match (arch, context) {\n");
    for arch in Arch::ALL {
        for context in Context::all() {
            let path = root.join(arch.name()).join(format!("{context}.policy"));
            let program = program(&folder, &path, arch)?;
            write!(code, "(Arch::{arch:?}, {}) => ", pattern(context))?;
            write_program(code, &program)?;
        }
    }
    code.push_str("}\n}\n");
    Ok(())
}

/// The Rust expression for the context.
fn pattern(context: Context) -> String {
    match context {
        Context::Device(device, transport) => {
            format!("Context::Device(DeviceName::{device:?}, TransportName::{transport:?})")
        }
        Context::VvuProxy | Context::Supervisor => format!("Context::{context:?}"),
    }
}

fn program(folder: &Folder, path: &Path, arch: Arch) -> Result<Vec<Instruction>, Diagnostic> {
    let loaded = load(folder, path, &Options::default())?;
    compile(&Policy::merge(&loaded, arch)?)
}

fn write_program(code: &mut String, program: &[Instruction]) -> std::fmt::Result {
    writeln!(code, "&[")?;
    for Instruction {
        code: op,
        jt,
        jf,
        k,
    } in program
    {
        writeln!(
            code,
            "Instruction {{ code: {op}, jt: {jt}, jf: {jf}, k: {k} }},"
        )?;
    }
    writeln!(code, "],")
}

/// Writes a constant with the text of every policy and its path, such as `x86_64/block.policy`.
fn write_sources(code: &mut String, root: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    for arch in Arch::ALL {
        for entry in fs::read_dir(root.join(arch.name()))? {
            files.push(entry?.path());
        }
    }
    files.sort();
    writeln!(
        code,
        "pub static SOURCES: [(&str, &str); {}] = [",
        files.len()
    )?;
    for file in files {
        let name = file.strip_prefix(root)?.display().to_string();
        let path = file.display().to_string();
        writeln!(code, "({name:?}, include_str!({path:?})),")?;
    }
    writeln!(code, "];")?;
    Ok(())
}

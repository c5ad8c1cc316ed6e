//! Compiles the policies of all architectures, whatever the host's, into tables to embed.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use policy_compiler::{Arch, Folder, Instruction, Options, Policy, compile, load};

#[path = "src/context.rs"]
mod context;

use context::Context;

fn main() {
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
    let folder = Folder::new(&root)?;
    let mut code = String::new();
    for arch in Arch::ALL {
        let name = arch.name().to_uppercase();
        let count = Context::ALL.len();
        writeln!(
            code,
            "pub(crate) static {name}: [&[Instruction]; {count}] = ["
        )?;
        for context in Context::ALL {
            let path = root.join(arch.name()).join(context.file());
            write_program(&mut code, &program(&folder, &path, arch)?)?;
        }
        writeln!(code, "];")?;
    }
    write_sources(&mut code, &root)?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("embedded.rs"), code)?;
    Ok(())
}

fn program(
    folder: &Folder,
    path: &Path,
    arch: Arch,
) -> Result<Vec<Instruction>, policy_compiler::Diagnostic> {
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

/// The policies' text, by path below this folder.
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
        "pub(crate) static SOURCES: [(&str, &str); {}] = [",
        files.len()
    )?;
    for file in files {
        let name = file.strip_prefix(root)?.display().to_string();
        writeln!(
            code,
            "({name:?}, include_str!({:?})),",
            file.display().to_string()
        )?;
    }
    writeln!(code, "];")?;
    Ok(())
}

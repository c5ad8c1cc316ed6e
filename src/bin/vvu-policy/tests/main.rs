//! Runs `vvu-policy` and compares its output with the files in `golden/`. With UPDATE_GOLDEN=1, the
//! tests rewrite these files. Read the changes in the files afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use policies::Context;
use policies::compiler::{Arch, Memory, Options, Policy, compile, load};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vvu-policy");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/vvu-policy/tests")
}

fn run(arguments: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments.split_whitespace())
        .current_dir(folder());
    command.output().expect("runs")
}

fn stdout(arguments: &str) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Compares stdout, stderr and the exit code with the file `golden/NAME.txt`.
fn golden(name: &str, arguments: &str) {
    let output = run(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let actual = format!("$ vvu-policy {arguments}\n{out}{err}exit {code}\n");
    let path = folder().join("golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &actual).expect("can be written");
    }
    let expected = fs::read_to_string(&path).expect("is there");
    assert_eq!(actual, expected, "{}", path.display());
}

#[test]
fn check_shows_each_program_and_each_mistake() {
    golden("check", "--tree tree check");
    golden("check-notes", "--tree loose check --notes");
    golden("check-wrong", "--tree wrong check");
    golden("check-arch", "--tree wrong check --arch arm");
}

#[test]
fn show_prints_the_merged_policy() {
    golden(
        "show",
        "--tree tree show net_device_vhost_user --arch x86_64",
    );
    golden("show-arm", "--tree tree show net_device --arch arm");
    golden(
        "show-wrong",
        "--tree wrong show conflict_device --arch x86_64",
    );
    golden("show-unknown", "--tree tree show nothing --arch arm");
}

#[test]
fn the_output_of_show_compiles_to_the_same_program() {
    for arch in Arch::ALL {
        for context in Context::all() {
            let text = stdout(&format!("show {context} --arch {arch}"));
            let mut memory = Memory::new();
            memory.add("shown", text);
            let loaded = load(&memory, Path::new("shown"), &Options::default()).expect("parses");
            let policy = Policy::merge(&loaded, arch).expect("merges");
            let program = compile(&policy).expect("compiles");
            assert_eq!(
                program,
                policies::program(arch, context),
                "{arch}/{context}"
            );
        }
    }
}

#[test]
fn explain_names_the_rules_and_their_files() {
    golden(
        "explain",
        "--tree tree explain net_device_vhost_user ioctl --arch x86_64",
    );
    golden(
        "explain-use",
        "--tree tree explain net_device mmap 0 4096 7 0x22 --arch x86_64",
    );
    golden(
        "explain-refused",
        "--tree tree explain net_device openat 0 --arch arm",
    );
    golden(
        "explain-unknown",
        "--tree tree explain net_device frobnicate --arch arm",
    );
}

#[test]
fn diff_prints_the_rules_of_only_one_context() {
    golden(
        "diff",
        "--tree tree diff net_device net_device_vhost_user --arch x86_64",
    );
    golden(
        "diff-same",
        "--tree tree diff net_device net_device --arch x86_64",
    );
}

#[test]
fn lint_reports_loose_and_useless_rules() {
    golden("lint", "--tree loose lint");
    golden("lint-clean", "--tree tree lint");
}

#[test]
fn lint_and_check_find_nothing_in_our_own_policies() {
    assert_eq!(stdout("lint"), "");
    stdout("check");
}

#[test]
fn compile_writes_a_c_header() {
    golden(
        "compile-c",
        "compile loose/x86_64/base.policy --arch aarch64 --format c",
    );
    golden(
        "compile-trap",
        "compile loose/x86_64/again.policy --arch arm --format c --default-action trap",
    );
    golden("compile-wrong", "compile wrong/arm/mmap.policy --arch arm");
    golden("compile-missing", "compile nothing.policy --arch arm");
}

#[test]
fn compile_writes_bytes_for_the_kernel() {
    let target = std::env::temp_dir().join(format!("vvu-policy-{}", std::process::id()));
    let from = "compile tree/x86_64/net_device.policy --arch x86_64 -o";
    stdout(&format!("{from} {}", target.display()));
    let bytes = fs::read(&target).expect("was written");
    fs::remove_file(&target).expect("is there");
    // The program begins with the instructions `ld [4]` and `jeq AUDIT_ARCH_X86_64`.
    assert_eq!(bytes[..10], [0x20, 0, 0, 0, 4, 0, 0, 0, 0x15, 0]);
    assert_eq!(bytes[12..16], 0xc000_003eu32.to_le_bytes());
    assert!(bytes.len().is_multiple_of(8));
}

#[test]
fn wrong_usage_exits_with_2() {
    for wrong in [
        "",
        "frobnicate",
        "show",
        "--tree nothing check",
        "check --arch z80",
        "trace x",
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong}");
    }
}

#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn trace_proposes_lines_for_missing_calls() {
    let arguments = "--tree tree trace net_device --from-output begin -- sh -c";
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments.split_whitespace())
        .arg("echo begin; echo more; umask; cd /; kill -0 $$");
    let output = command.current_dir(folder()).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text.contains("# tree/x86_64/net_device.policy: proposed") || cfg!(target_arch = "aarch64")
    );
    assert!(text.contains("\numask: 1 "), "{text}");
    for outside in ["chdir", "kill"] {
        let told = format!("\n# {outside}, 1 times: belongs before the jail closes, or outside\n");
        assert!(text.contains(&told), "{text}");
        assert!(!text.contains(&format!("\n{outside}: 1")), "{text}");
    }
    assert!(!text.contains("\nwrite:"), "{text}");
    assert!(text.contains("the command exited with 0"), "{text}");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn trace_proposes_nothing_if_no_call_is_missing() {
    let mut command = Command::new(PROGRAM);
    let arguments = "trace block_device_vhost_user --from-output begin -- sh -c";
    command
        .args(arguments.split_whitespace())
        .arg("echo begin; echo end; exit 3");
    let output = command.output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("# nothing is missing"), "{output:?}");
    assert!(text.contains("exited with 3"), "{text}");
    assert_eq!(output.status.code(), Some(0));
    let output = run("trace block_device_vhost_user --from-output never -- true");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

//! The command line of `vvu-policy`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use policies::compiler::{Action, Arch};

/// Check, explain and compile seccomp policies in Minijail's syntax.
///
/// A context is a kind of process that has its own policy, such as block_device_vvu. A tree of
/// policies has a folder for each architecture (x86_64, aarch64, arm). The folder has a file
/// NAME.policy for each context, and the files that these policies include. Without --tree,
/// vvu-policy reads the policies that are built into this project's programs. The programs enforce
/// these policies.
///
/// The order of statements does not matter. If several statements have conditions for the same
/// system call, it is enough that one condition holds. An allow without a condition makes all
/// conditions for the same system call redundant. Two different actions for a system call with the
/// same arguments are an error.
#[derive(Debug, Parser)]
#[command(name = "vvu-policy", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  vvu-policy show block_device_vvu
  vvu-policy explain block_device_vvu ioctl
  vvu-policy explain block_device_vvu mmap 0 4096 7 0x22
  vvu-policy diff block_device_vvu block_device_vhost_user
  vvu-policy --tree seccomp --map /usr/share/policy/crosvm=seccomp/x86_64 check --arch x86_64
  vvu-policy compile --arch aarch64 --format c daemon.policy -o daemon_filter.h
  vvu-policy trace block_device_vvu --from-output 'ready: ' -- vvu-block --pci 0000:00:10.0 disk

Exit status: 0 if all is well; 1 if a policy is wrong, or if lint, diff or trace found something; \
2 on wrong usage, or if a file cannot be read or written.")]
pub struct Arguments {
    #[command(flatten)]
    pub tree: TreeArguments,

    #[command(subcommand)]
    pub command: Command,
}

/// The choice of policies.
#[derive(Debug, Args)]
pub struct TreeArguments {
    /// Use the policies below this folder instead of the policies that are built in.
    #[arg(long, value_name = "FOLDER", global = true)]
    pub tree: Option<PathBuf>,

    /// Replace the folder FROM at the start of paths in @include by the folder TO.
    #[arg(long, value_name = "FROM=TO", global = true, value_parser = mapping)]
    pub map: Vec<(PathBuf, PathBuf)>,

    /// Let policies include files from outside the tree.
    #[arg(long, global = true)]
    pub anywhere: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile every policy for every architecture of the tree, and print each program's length.
    ///
    /// Files that are only included are compiled, too, because each has to be valid by itself. The
    /// first mistake of each policy is shown.
    Check {
        #[command(flatten)]
        arch: ArchArguments,
        /// Also show each statement that has no effect because another statement covers it.
        #[arg(long)]
        notes: bool,
    },

    /// Print the merged policy of a context, with the file and line of each rule.
    ///
    /// The output is a policy, too. It compiles to the same program.
    Show {
        /// The name of the context, which is the name of its file without .policy.
        context: String,
        #[command(flatten)]
        arch: ArchArgument,
    },

    /// Print the rules for one system call, with the file and line of each rule.
    ///
    /// With values for the arguments, print what happens to a call with these arguments.
    Explain {
        /// The name of the context, which is the name of its file without .policy.
        context: String,
        /// The system call: its name or number.
        call: String,
        /// The arguments as numbers, in their order. Missing arguments are 0.
        #[arg(value_name = "VALUE", value_parser = number, num_args = 0..=6)]
        values: Vec<u64>,
        #[command(flatten)]
        arch: ArchArgument,
    },

    /// Print the rules that only one of two contexts has: - for the first, + for the second.
    Diff {
        /// The first context.
        first: String,
        /// The second context.
        second: String,
        #[command(flatten)]
        arch: ArchArgument,
    },

    /// Find rules that allow too much, and lines that have no effect.
    ///
    /// lint reports each rule that allows an ioctl with any request, executable memory, the opening
    /// of files, or the start or control of other processes. It also reports an include that adds
    /// nothing, and a rule that adds nothing to any policy of any architecture.
    Lint {
        #[command(flatten)]
        arch: ArchArguments,
    },

    /// Compile any policy to a program for the kernel.
    ///
    /// The raw format is an array of struct sock_filter. Its byte order is little-endian, like that
    /// of all three architectures. The c format is a header that defines such an array.
    Compile {
        /// The policy.
        file: PathBuf,
        #[command(flatten)]
        arch: ArchArgument,
        /// The format of the program.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Write to this file [default: stdout].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The action for system calls that the policy does not name. This option replaces the
        /// @default of the policy. Without this option and without @default, the action is
        /// kill-process.
        #[arg(long, value_enum, value_name = "ACTION", conflicts_with = "denylist")]
        default_action: Option<DefaultAction>,
        /// Accept @denylist, which allows every system call that the policy does not name.
        #[arg(long)]
        denylist: bool,
    },

    /// Run a command without a filter, and propose a line for each system call that the policy of a
    /// context does not allow.
    ///
    /// trace watches all processes that the command starts, and prints the proposed lines for each
    /// file of the context. Read each line, and add it only if the program should be able to make
    /// this call. trace itself changes no policy.
    Trace {
        /// The name of the context, which is the name of its file without .policy.
        context: String,
        /// Watch nothing until a process writes this text in one call of write, and then watch only
        /// that process.
        #[arg(long, value_name = "TEXT")]
        from_output: Option<String>,
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
}

/// One architecture.
#[derive(Debug, Args)]
pub struct ArchArgument {
    /// The architecture: x86_64, aarch64 or arm [default: the architecture of this machine].
    #[arg(long, value_name = "ARCH", value_parser = arch)]
    pub arch: Option<Arch>,
}

/// Some architectures.
#[derive(Debug, Args)]
pub struct ArchArguments {
    /// Use only this architecture. The option may be given several times.
    #[arg(long, value_name = "ARCH", value_parser = arch)]
    pub arch: Vec<Arch>,
}

/// The values of `--default-action`: actions for system calls that a policy does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DefaultAction {
    /// End the process.
    KillProcess,
    /// End the thread.
    KillThread,
    /// Send SIGSYS to the thread.
    Trap,
}

impl From<DefaultAction> for Action {
    fn from(action: DefaultAction) -> Self {
        match action {
            DefaultAction::KillProcess => Self::KillProcess,
            DefaultAction::KillThread => Self::KillThread,
            DefaultAction::Trap => Self::Trap,
        }
    }
}

/// The values of `--format`: output formats of a compiled program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Bytes for the kernel.
    #[default]
    Raw,
    /// A C header.
    C,
}

impl ArchArgument {
    /// The architecture that `--arch` names, or by default the architecture of this machine.
    pub fn get(&self) -> Result<Arch, String> {
        let arch = self.arch.or(Arch::HOST);
        arch.ok_or_else(|| "no policies exist for this machine: choose one with --arch".to_owned())
    }
}

fn arch(text: &str) -> Result<Arch, String> {
    Arch::from_name(text).ok_or_else(|| "expected x86_64, aarch64 or arm".to_owned())
}

fn mapping(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (from, to) = text.split_once('=').ok_or("expected FROM=TO")?;
    Ok((from.into(), to.into()))
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected a decimal or 0x hexadecimal number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_manual_page_says_what_the_help_says() {
        crate::man::check(<Arguments as clap::CommandFactory>::command());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn values_are_decimal_or_hexadecimal_numbers() {
        assert_eq!(number("0x10"), Ok(16));
        assert_eq!(number("10"), Ok(10));
        assert!(number("ten").is_err());
    }
}

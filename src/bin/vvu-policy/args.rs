//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use policies::compiler::{Action, Arch};

/// Check, explain and compile seccomp policies in Minijail's syntax.
///
/// A tree of policies has a folder for each architecture (x86_64, aarch64, arm) with one NAME.policy
/// for each context in it, and files that these include. Without --tree, the policies that this
/// project's programs have inside are looked at, so that what is shown is what is enforced.
///
/// Statements are merged whatever their order: conditions on one call from several files are
/// alternatives, an unconditional allow absorbs them, and two different actions for one use of a
/// call are an error.
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

Exit status: 0 when all is well; 1 when a policy is wrong, or lint, diff or trace have found \
something; 2 on wrong usage or when a file cannot be read or written.")]
pub struct Arguments {
    #[command(flatten)]
    pub tree: TreeArguments,

    #[command(subcommand)]
    pub command: Command,
}

/// Which policies.
#[derive(Debug, Args)]
pub struct TreeArguments {
    /// Look at the policies below this folder instead of those that are built in.
    #[arg(long, value_name = "FOLDER", global = true)]
    pub tree: Option<PathBuf>,

    /// Read included files whose path begins with FROM from the folder TO.
    #[arg(long, value_name = "FROM=TO", global = true, value_parser = mapping)]
    pub map: Vec<(PathBuf, PathBuf)>,

    /// Let policies include files from outside the tree.
    #[arg(long, global = true)]
    pub anywhere: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile every policy, for every architecture that the tree has, and say how long each is.
    ///
    /// Files that are only included are compiled, too, as each has to make sense by itself. All
    /// mistakes are shown, one for each policy.
    Check {
        #[command(flatten)]
        arch: ArchArguments,
        /// Also say which statements add nothing to others.
        #[arg(long)]
        notes: bool,
    },

    /// Print the policy of a context in one piece, with the place that each rule comes from.
    ///
    /// What is printed is a policy itself: compiled, it is the same program.
    Show {
        /// The context: the name of a file without .policy.
        context: String,
        #[command(flatten)]
        arch: ArchArgument,
    },

    /// Say what happens to one call, and which lines of which files say so.
    ///
    /// With values for its arguments, say what happens to just that use of it.
    Explain {
        /// The context: the name of a file without .policy.
        context: String,
        /// The system call.
        call: String,
        /// The arguments, from the first on, as numbers; those left out are 0.
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

    /// Look for rules that allow much or do nothing.
    ///
    /// Told are: an ioctl without a list of requests, memory that may be executed, files that may
    /// be opened, processes that may be started; an include that adds nothing; a rule that no
    /// policy of any architecture needs.
    Lint {
        #[command(flatten)]
        arch: ArchArguments,
    },

    /// Compile any policy to a program for the kernel.
    ///
    /// The raw format is an array of struct sock_filter in the byte order of the architecture, which
    /// is little-endian for all. The c format is a header that defines such an array.
    Compile {
        /// The policy.
        file: PathBuf,
        #[command(flatten)]
        arch: ArchArgument,
        /// How to write the program.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Write to this file [default: stdout].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// What happens to calls that the policy does not name, instead of what its @default says or
        /// kill-process.
        #[arg(long, value_enum, value_name = "ACTION", conflicts_with = "denylist")]
        default_action: Option<DefaultAction>,
        /// Accept @denylist, which allows whatever it does not name.
        #[arg(long)]
        denylist: bool,
    },

    /// Run a command without a filter, and propose the lines that a context lacks for it.
    ///
    /// All processes that the command starts are looked at. The lines are split by the file that they
    /// belong into. They are proposals: read them, and take those that the program should be able
    /// to do. Nothing is changed.
    Trace {
        /// The context: the name of a file without .policy.
        context: String,
        /// Look only at the process that writes this text (with one call of write), from then on.
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
    /// The architecture: x86_64, aarch64 or arm [default: the one this runs on].
    #[arg(long, value_name = "ARCH", value_parser = arch)]
    pub arch: Option<Arch>,
}

/// Some architectures.
#[derive(Debug, Args)]
pub struct ArchArguments {
    /// Only this architecture; may be given several times.
    #[arg(long, value_name = "ARCH", value_parser = arch)]
    pub arch: Vec<Arch>,
}

/// What happens to calls that are not named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DefaultAction {
    /// The process ends.
    KillProcess,
    /// The thread ends.
    KillThread,
    /// The thread gets SIGSYS.
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

/// How a program is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Bytes for the kernel.
    #[default]
    Raw,
    /// A C header.
    C,
}

impl ArchArgument {
    /// The architecture that was chosen, or the one that this runs on.
    pub fn get(&self) -> Result<Arch, String> {
        let arch = self.arch.or(Arch::HOST);
        arch.ok_or_else(|| "there are no policies for this machine: choose with --arch".to_owned())
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
    fn values_are_numbers() {
        assert_eq!(number("0x10"), Ok(16));
        assert_eq!(number("10"), Ok(10));
        assert!(number("ten").is_err());
    }
}

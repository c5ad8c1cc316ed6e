//! The command-line options of sockets that peers connect to.

use std::fs;

use clap::Args;
use ipc::SocketAccess;

/// The permissions of a socket that is given to a group.
const GROUP_MODE: u32 = 0o660;

/// The file that names groups.
const GROUPS: &str = "/etc/group";

/// The users who may connect to the program's sockets.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct SocketOptions {
    /// The permissions of the sockets that the program makes, in octal. A user needs the permission
    /// to write to a socket to connect to it [default: 600, or 660 with --socket-group].
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub socket_mode: Option<u32>,

    /// The group of the sockets that the program makes: a name from /etc/group, or a number
    /// [default: the group of the program].
    #[arg(long, value_name = "GROUP", value_parser = group)]
    pub socket_group: Option<u32>,
}

impl From<SocketOptions> for SocketAccess {
    fn from(options: SocketOptions) -> Self {
        let default = match options.socket_group {
            Some(_) => GROUP_MODE,
            None => Self::default().mode,
        };
        Self {
            mode: options.socket_mode.unwrap_or(default),
            group: options.socket_group,
        }
    }
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("'{text}' is not a mode; write it like 660"))
}

fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = fs::read(GROUPS).map_err(|error| format!("{GROUPS}: {error}"))?;
    find_group(&String::from_utf8_lossy(&groups), text)
        .ok_or_else(|| format!("{GROUPS} has no group '{text}'; give its number"))
}

/// The number of a group, from the lines of a file such as /etc/group (see group(5)).
fn find_group(lines: &str, name: &str) -> Option<u32> {
    lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let number = fields.nth(1).filter(|_| found)?;
        number.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        sockets: SocketOptions,
    }

    fn access(words: &[&str]) -> Option<(u32, Option<u32>)> {
        let words = ["program"].iter().chain(words);
        let program = Program::try_parse_from(words).ok()?;
        let SocketAccess { mode, group } = program.sockets.into();
        Some((mode, group))
    }

    #[test]
    fn only_the_user_or_a_group_connects_by_default() {
        assert_eq!(access(&[]), Some((0o600, None)));
        assert_eq!(access(&["--socket-group=7"]), Some((0o660, Some(7))));
        assert_eq!(access(&["--socket-mode=0666"]), Some((0o666, None)));
        let both = ["--socket-group=root", "--socket-mode=620"];
        assert_eq!(access(&both), Some((0o620, Some(0))));
        for wrong in ["", "8", "1000", "rw", "-1"] {
            assert_eq!(access(&["--socket-mode", wrong]), None, "{wrong}");
        }
        assert_eq!(access(&["--socket-group=there is none"]), None);
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let lines = "root:x:0:\nkvm-users:x:9:\nbroken\nkvm:x:104:me,you\nodd:x:y:\n";
        assert_eq!(find_group(lines, "kvm"), Some(104));
        assert_eq!(find_group(lines, "root"), Some(0));
        for missing in ["kv", "broken", "odd", "x", "me"] {
            assert_eq!(find_group(lines, missing), None, "{missing}");
        }
    }
}

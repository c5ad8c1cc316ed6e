//! The description of an attack.

use std::any::Any;

use anyhow::Result;

use super::target::Target;
use super::victim::{Setting, Victim};

/// Everything that keeps an attack going: threads, connections, descriptors. Dropping it ends the
/// attack.
pub type Siege = Box<dyn Any>;

/// The work that an attack may cause. It decides which measurements have a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// No request and no message arrives while the attack goes on, so the program has to be idle.
    Idle,
    /// As idle, but each of 256 queues has to look at its ring now and then, because the front-end
    /// does not kick.
    Polling,
    /// The attack keeps sending messages. The program may use the processor to answer them.
    Busy,
}

/// An attack on a program.
#[derive(Clone, Copy)]
pub struct Attack {
    /// The name of the attack: the fault that the peer tries to cause, in a few words.
    pub name: &'static str,
    /// The program and the peer.
    pub target: Target,
    /// How the program is started.
    pub setting: Setting,
    /// The work that the attack may cause.
    pub load: Load,
    /// Begins the attack. It is an error if the peer gained by the attack, or if the attack could
    /// not be carried out.
    pub launch: fn(&Victim<'_>) -> Result<Siege>,
    /// The reason why the program is known not to withstand the attack yet. Such an attack is run
    /// and printed, but it is not a failure.
    pub known: Option<&'static str>,
}

impl Attack {
    /// An attack that leaves the program idle.
    pub const fn new(
        target: Target,
        name: &'static str,
        launch: fn(&Victim<'_>) -> Result<Siege>,
    ) -> Self {
        Self {
            name,
            target,
            setting: Setting {
                options: "",
                unread_log: false,
            },
            load: Load::Idle,
            launch,
            known: None,
        }
    }

    /// The same attack, which keeps sending messages.
    pub const fn busy(mut self) -> Self {
        self.load = Load::Busy;
        self
    }

    /// The same attack, which makes the program poll.
    pub const fn polling(mut self) -> Self {
        self.load = Load::Polling;
        self
    }

    /// The same attack on a program with these options.
    pub const fn with(mut self, options: &'static str) -> Self {
        self.setting.options = options;
        self
    }

    /// The same attack on a program whose log nobody reads.
    pub const fn unread(mut self) -> Self {
        self.setting.unread_log = true;
        self
    }

    /// The same attack, which is known to succeed for this reason.
    pub const fn known(mut self, reason: &'static str) -> Self {
        self.known = Some(reason);
        self
    }

    /// The program, the peer and the name of the attack.
    pub fn title(&self) -> String {
        format!("{}: {}", self.target.name(), self.name)
    }

    /// Whether the title has one of these words, or there are no words.
    pub fn has_one_of(&self, words: &[String]) -> bool {
        let title = self.title();
        words.is_empty() || words.iter().any(|word| title.contains(word.as_str()))
    }
}

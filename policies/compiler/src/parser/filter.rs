//! Parses filters. A filter consists of conditions on arguments and an action.

use super::Parser;
use crate::ast::{ActionKind, ActionText, AtomText, Filter, Value};
use crate::diagnostic::Diagnostic;
use crate::lexer::Token;
use crate::rule::Op;

const ACTIONS: [&str; 9] = [
    "allow",
    "return",
    "kill",
    "kill-process",
    "kill-thread",
    "trap",
    "trace",
    "log",
    "user-notify",
];

impl Parser {
    pub(super) fn filter(&mut self) -> Result<Filter, Diagnostic> {
        let at = self.at.clone();
        let mut alternatives = Vec::new();
        if self.argument().is_some() {
            alternatives.push(self.clause()?);
            while self.take("||")? {
                alternatives.push(self.clause()?);
            }
        }
        let action = if alternatives.is_empty() || self.take(";")? {
            self.action()?
        } else {
            ActionText {
                kind: ActionKind::Allow,
                at: at.clone(),
            }
        };
        Ok(Filter {
            alternatives,
            action,
            at,
        })
    }

    /// The number of the argument if the next token is an argument, such as `arg0`. A number that
    /// does not fit in 8 bits becomes 255, because callers refuse all numbers above 5.
    fn argument(&self) -> Option<u8> {
        let Token::Word(word) = &self.token else {
            return None;
        };
        let number = word.strip_prefix("arg")?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| number.parse().unwrap_or(u8::MAX))
    }

    fn clause(&mut self) -> Result<Vec<AtomText>, Diagnostic> {
        let mut atoms = vec![self.atom()?];
        while self.take("&&")? {
            atoms.push(self.atom()?);
        }
        Ok(atoms)
    }

    fn atom(&mut self) -> Result<AtomText, Diagnostic> {
        let arg = match self.argument() {
            Some(arg @ 0..=5) => arg,
            Some(_) => return Err(self.expected("arg0 to arg5")),
            None => return Err(self.expected("an argument, arg0 to arg5")),
        };
        self.advance()?;
        let op = self.op()?;
        let value = self.value()?;
        Ok(AtomText { arg, op, value })
    }

    fn op(&mut self) -> Result<Op, Diagnostic> {
        let op = match &self.token {
            Token::Sign(sign) => Op::ALL.into_iter().find(|op| op.to_string() == *sign),
            Token::Word(word) if word == "in" => Some(Op::OnlyBits),
            _ => None,
        };
        let op = op.ok_or_else(|| self.expected("one of == != < <= > >= & in"))?;
        self.advance()?;
        Ok(op)
    }

    pub(super) fn action(&mut self) -> Result<ActionText, Diagnostic> {
        let at = self.at.clone();
        let kind = match &self.token {
            Token::Number(1) => ActionKind::Allow,
            Token::Word(word) => self.named_action(word)?,
            _ => return Err(self.expected("1, an action or a condition on an argument")),
        };
        self.advance()?;
        let kind = match kind {
            ActionKind::Return(_) => ActionKind::Return(self.value()?),
            kind => kind,
        };
        Ok(ActionText { kind, at })
    }

    fn named_action(&self, word: &str) -> Result<ActionKind, Diagnostic> {
        Ok(match word {
            "allow" => ActionKind::Allow,
            // The value 0 is a placeholder. `action` replaces it with the value that follows
            // `return`.
            "return" => ActionKind::Return(Value::Number(0, self.at.clone())),
            "kill" | "kill-process" => ActionKind::KillProcess,
            "kill-thread" => ActionKind::KillThread,
            "trap" => ActionKind::Trap,
            "trace" => ActionKind::Trace,
            "log" => ActionKind::Log,
            "user-notify" => ActionKind::UserNotify,
            _ => return Err(self.unknown("action", word, word, &ACTIONS)),
        })
    }
}

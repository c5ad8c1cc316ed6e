//! From words to statements.

use std::sync::Arc;

use crate::ast::{
    ActionKind, ActionText, AtomText, CallName, Filter, Item, Statement, Text, Value,
};
use crate::diagnostic::{Diagnostic, FileText, Location};
use crate::lexer::{Lexer, Token};
use crate::rule::Op;
use crate::suggest::similar;

mod value;

const DIRECTIVES: [&str; 4] = ["include", "frequency", "default", "denylist"];
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

/// Parses a file.
///
/// # Errors
///
/// The first mistake in it.
pub(crate) fn parse(file: &Arc<FileText>) -> Result<Vec<Item>, Diagnostic> {
    let mut lexer = Lexer::new(file.clone())?;
    let (token, at) = lexer.next()?;
    let mut parser = Parser { lexer, token, at };
    let mut items = Vec::new();
    while parser.token != Token::End {
        if parser.token != Token::NewLine {
            items.push(parser.item()?);
        }
        parser.end_of_line()?;
    }
    Ok(items)
}

/// Looks one word ahead.
struct Parser {
    lexer: Lexer,
    token: Token,
    at: Location,
}

impl Parser {
    fn advance(&mut self) -> Result<(Token, Location), Diagnostic> {
        let (token, at) = self.lexer.next()?;
        let token = std::mem::replace(&mut self.token, token);
        Ok((token, std::mem::replace(&mut self.at, at)))
    }

    /// Takes `sign` if it is next.
    fn take(&mut self, sign: &'static str) -> Result<bool, Diagnostic> {
        let found = self.token == Token::Sign(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Diagnostic> {
        match self.take(sign)? {
            true => Ok(()),
            false => Err(self.expected(&format!("'{sign}'"))),
        }
    }

    fn expected(&self, what: &str) -> Diagnostic {
        let message = format!("expected {what}, found {}", self.token.describe());
        Diagnostic::new(message).at(&self.at)
    }

    fn end_of_line(&mut self) -> Result<(), Diagnostic> {
        match self.token {
            Token::End => Ok(()),
            Token::NewLine => self.advance().map(drop),
            _ => Err(self.expected("the end of the line")),
        }
    }

    fn word(&mut self, what: &str) -> Result<Text, Diagnostic> {
        if !matches!(self.token, Token::Word(_)) {
            return Err(self.expected(what));
        }
        let (token, at) = self.advance()?;
        let Token::Word(text) = token else {
            return Err(self.expected(what));
        };
        Ok(Text { text, at })
    }

    fn item(&mut self) -> Result<Item, Diagnostic> {
        let Token::Directive(directive) = &self.token else {
            return self.statement().map(Item::Statement);
        };
        match directive.clone().as_str() {
            "include" => self.path().map(Item::Include),
            "frequency" => self.path().map(Item::Frequency),
            "denylist" => Ok(Item::Denylist(self.advance()?.1)),
            "default" => {
                self.advance()?;
                self.action().map(Item::Default)
            }
            other => Err(self.unknown("directive", &format!("@{other}"), other, &DIRECTIVES)),
        }
    }

    fn unknown(&self, kind: &str, shown: &str, word: &str, known: &[&str]) -> Diagnostic {
        let advice = match similar(word, known.iter().copied()) {
            Some(name) => format!("did you mean '{name}'?"),
            None => format!("expected one of {}", known.join(", ")),
        };
        let message = format!("unknown {kind} '{shown}'");
        Diagnostic::new(message).at(&self.at).advice(advice)
    }

    /// The path after a directive, which is the word looked at.
    fn path(&mut self) -> Result<Text, Diagnostic> {
        let (text, at) = self.lexer.path()?;
        let right = ["/", "./", "../"]
            .iter()
            .any(|start| text.starts_with(start));
        if !right {
            let message = format!("expected a path, found '{text}'");
            let advice = "write it as ./NAME.policy, from this file's folder, or from / on";
            return Err(Diagnostic::new(message).at(&at).advice(advice));
        }
        self.advance()?;
        Ok(Text { text, at })
    }

    fn statement(&mut self) -> Result<Statement, Diagnostic> {
        let names = match self.take("{")? {
            true => self.list(Self::call_name)?,
            false => vec![self.call_name()?],
        };
        self.expect(":")?;
        let filters = match self.take("{")? {
            true => self.list(Self::filter)?,
            false => vec![self.filter()?],
        };
        Ok(Statement { names, filters })
    }

    /// What is inside braces, after the opening one.
    fn list<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, Diagnostic>,
    ) -> Result<Vec<T>, Diagnostic> {
        let mut list = vec![element(self)?];
        while self.take(",")? {
            list.push(element(self)?);
        }
        match self.take("}")? {
            true => Ok(list),
            false => Err(self.expected("',' or '}'")),
        }
    }

    fn call_name(&mut self) -> Result<CallName, Diagnostic> {
        let name = self.word("a system call, '{' or a directive")?;
        if matches!(self.token, Token::Directive(_)) {
            return Err(Diagnostic::new("there are no named groups of calls here")
                .at(&name.at)
                .advice("write {call, call}: filter"));
        }
        let arches = match self.take("[")? {
            true => Some(self.arches()?),
            false => None,
        };
        Ok(CallName { name, arches })
    }

    fn arches(&mut self) -> Result<Vec<Text>, Diagnostic> {
        let key = self.word("'arch'")?;
        if key.text != "arch" {
            let message = format!("expected 'arch', found '{}'", key.text);
            return Err(Diagnostic::new(message).at(&key.at));
        }
        self.expect("=")?;
        let mut arches = vec![self.arch()?];
        while self.take(",")? {
            arches.push(self.arch()?);
        }
        self.expect("]")?;
        Ok(arches)
    }

    fn arch(&mut self) -> Result<Text, Diagnostic> {
        let arch = self.word("an architecture")?;
        if crate::Arch::is_known(&arch.text) {
            return Ok(arch);
        }
        let message = format!("unknown architecture '{}'", arch.text);
        Err(Diagnostic::new(message)
            .at(&arch.at)
            .advice("expected x86_64, aarch64, arm or another that Linux has"))
    }

    fn filter(&mut self) -> Result<Filter, Diagnostic> {
        let at = self.at.clone();
        let mut alternatives = Vec::new();
        if self.argument().is_some() {
            alternatives.push(self.clause()?);
            while self.take("||")? {
                alternatives.push(self.clause()?);
            }
        }
        let action = match alternatives.is_empty() || self.take(";")? {
            true => self.action()?,
            false => ActionText {
                kind: ActionKind::Allow,
                at: at.clone(),
            },
        };
        Ok(Filter {
            alternatives,
            action,
            at,
        })
    }

    /// The argument's number if one is next.
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

    fn action(&mut self) -> Result<ActionText, Diagnostic> {
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
            // Its value follows.
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

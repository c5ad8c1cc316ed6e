//! Parses the tokens of a policy file to statements.

use std::sync::Arc;

use crate::ast::{CallName, Item, Statement, Text};
use crate::diagnostic::{Diagnostic, FileText, Location};
use crate::lexer::{Lexer, Token};
use crate::suggest::similar;

mod filter;
mod value;

const DIRECTIVES: [&str; 4] = ["include", "frequency", "default", "denylist"];

/// Parses a policy file.
///
/// # Errors
///
/// The first syntax error in the file.
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

struct Parser {
    lexer: Lexer,
    /// The next token, which the parser has not taken yet, and its location.
    token: Token,
    at: Location,
}

impl Parser {
    fn advance(&mut self) -> Result<(Token, Location), Diagnostic> {
        let (token, at) = self.lexer.next()?;
        let token = std::mem::replace(&mut self.token, token);
        Ok((token, std::mem::replace(&mut self.at, at)))
    }

    /// Takes `sign` if it is the next token.
    fn take(&mut self, sign: &'static str) -> Result<bool, Diagnostic> {
        let found = self.token == Token::Sign(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Diagnostic> {
        if self.take(sign)? {
            Ok(())
        } else {
            Err(self.expected(&format!("'{sign}'")))
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

    /// Takes the next token, which is a directive, and the path after it.
    fn path(&mut self) -> Result<Text, Diagnostic> {
        let (text, at) = self.lexer.path()?;
        let is_path = ["/", "./", "../"]
            .iter()
            .any(|start| text.starts_with(start));
        if !is_path {
            let message = format!("expected a path, found '{text}'");
            let advice = "write an absolute path, or ./NAME.policy for one in this file's folder";
            return Err(Diagnostic::new(message).at(&at).advice(advice));
        }
        self.advance()?;
        Ok(Text { text, at })
    }

    fn statement(&mut self) -> Result<Statement, Diagnostic> {
        let names = self.one_or_list(Self::call_name)?;
        self.expect(":")?;
        let filters = self.one_or_list(Self::filter)?;
        Ok(Statement { names, filters })
    }

    /// Takes one element without braces, or a list of elements in braces.
    fn one_or_list<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, Diagnostic>,
    ) -> Result<Vec<T>, Diagnostic> {
        if !self.take("{")? {
            return Ok(vec![element(self)?]);
        }
        let mut list = vec![element(self)?];
        while self.take(",")? {
            list.push(element(self)?);
        }
        if self.take("}")? {
            Ok(list)
        } else {
            Err(self.expected("',' or '}'"))
        }
    }

    fn call_name(&mut self) -> Result<CallName, Diagnostic> {
        let name = self.word("a system call, '{' or a directive")?;
        if matches!(self.token, Token::Directive(_)) {
            return Err(Diagnostic::new("named groups of calls are not supported")
                .at(&name.at)
                .advice("write {call, call}: filter"));
        }
        let arches = if self.take("[")? {
            Some(self.arches()?)
        } else {
            None
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
            .advice("expected x86_64, aarch64, arm or another architecture of Linux"))
    }
}

//! Parses values, which are numbers and constants joined by operators.

use super::Parser;
use crate::ast::{Text, Value};
use crate::diagnostic::Diagnostic;
use crate::lexer::Token;

/// The maximum nesting depth of parentheses and prefixes (`~`, `-`).
const MAX_DEPTH: usize = 32;

impl Parser {
    /// Takes one value, or several values joined by `|`.
    pub(super) fn value(&mut self) -> Result<Value, Diagnostic> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Result<Value, Diagnostic> {
        let mut parts = vec![self.part(depth)?];
        while self.take("|")? {
            parts.push(self.part(depth)?);
        }
        Ok(Value::Or(parts))
    }

    fn part(&mut self, depth: usize) -> Result<Value, Diagnostic> {
        if depth > MAX_DEPTH {
            return Err(Diagnostic::new("the value is nested too deeply").at(&self.at));
        }
        match &self.token {
            Token::Number(_) | Token::Word(_) => self.single(),
            Token::Sign("~") => {
                self.advance()?;
                Ok(Value::Not(Box::new(self.part(depth + 1)?)))
            }
            Token::Sign("-") => {
                let (_, at) = self.advance()?;
                Ok(Value::Negative(Box::new(self.part(depth + 1)?), at))
            }
            Token::Sign("(") => {
                self.advance()?;
                let value = self.value_at(depth + 1)?;
                self.expect(")")?;
                Ok(value)
            }
            _ => Err(self.expected("a number, a constant, '~' or '('")),
        }
    }

    fn single(&mut self) -> Result<Value, Diagnostic> {
        let (token, at) = self.advance()?;
        Ok(match token {
            Token::Number(number) => Value::Number(number, at),
            Token::Word(text) => Value::Name(Text { text, at }),
            _ => return Err(self.expected("a number or a constant")),
        })
    }
}

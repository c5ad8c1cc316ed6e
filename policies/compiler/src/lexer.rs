//! Splits the text of a policy into tokens.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, FileText, Location};

/// The maximum number of bytes in a line. A continuation line counts as a separate line. Lines of
/// real policies have a few hundred bytes.
const MAX_LINE: usize = 1 << 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A name or a keyword.
    Word(String),
    Number(u64),
    /// `@` and a word, such as `@include`.
    Directive(String),
    /// An operator or a punctuation mark: `==`, `{`, ...
    Sign(&'static str),
    NewLine,
    End,
}

impl Token {
    /// The token in words, for error messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Word(word) => format!("'{word}'"),
            Self::Number(number) => format!("the number {number}"),
            Self::Directive(word) => format!("'@{word}'"),
            Self::Sign(sign) => format!("'{sign}'"),
            Self::NewLine => "the end of the line".to_owned(),
            Self::End => "the end of the file".to_owned(),
        }
    }
}

/// All operators and punctuation marks. Longer signs come first, because the lexer takes the first
/// sign that matches.
const SIGNS: [&str; 22] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "&", "|", "~", "-", "(", ")", "{", "}", "[", "]",
    ",", ":", ";", "=",
];

pub(crate) struct Lexer {
    file: Arc<FileText>,
    at: usize,
}

impl Lexer {
    /// Makes a lexer for the text of a policy file.
    ///
    /// # Errors
    ///
    /// When a line is longer than [`MAX_LINE`].
    pub fn new(file: Arc<FileText>) -> Result<Self, Diagnostic> {
        let mut start = 0;
        for line in file.text.split_inclusive('\n') {
            if line.len() > MAX_LINE {
                let length = line.len();
                let message = format!("the line has {length} bytes, the limit is {MAX_LINE}");
                let at = Location::new(&file, start, start);
                return Err(Diagnostic::new(message).at(&at));
            }
            start += line.len();
        }
        Ok(Self { file, at: 0 })
    }

    /// Takes the next token, and returns it with its location.
    pub fn next(&mut self) -> Result<(Token, Location), Diagnostic> {
        self.skip_blank()?;
        let start = self.at;
        let token = self.token()?;
        Ok((token, self.since(start)))
    }

    /// Takes a path, which ends at white space, a comment or the end of the line.
    pub fn path(&mut self) -> Result<(String, Location), Diagnostic> {
        self.skip_blank()?;
        let start = self.at;
        let rest = self.rest();
        let length = rest
            .find([' ', '\t', '\r', '\n', '#'])
            .unwrap_or(rest.len());
        self.at += length;
        Ok((self.file.text[start..self.at].to_owned(), self.since(start)))
    }

    fn rest(&self) -> &str {
        &self.file.text[self.at..]
    }

    fn since(&self, start: usize) -> Location {
        Location::new(&self.file, start, self.at)
    }

    /// Skips white space and comments. A backslash before a line end is skipped with the line end.
    fn skip_blank(&mut self) -> Result<(), Diagnostic> {
        loop {
            let rest = self.rest();
            self.at += match rest.as_bytes() {
                [b' ' | b'\t', ..] | [b'\r', b'\n', ..] => 1,
                [b'\\', b'\n', ..] => 2,
                [b'\\', b'\r', b'\n', ..] => 3,
                [b'#', ..] => self.comment()?,
                _ => return Ok(()),
            };
        }
    }

    /// The length of the comment that starts at the current position, in bytes.
    fn comment(&self) -> Result<usize, Diagnostic> {
        let rest = self.rest();
        let length = rest.find('\n').unwrap_or(rest.len());
        if rest[..length].trim_end().ends_with('\\') {
            let end = Location::new(&self.file, self.at, self.at + length);
            return Err(Diagnostic::new("a comment ends in a backslash")
                .at(&end)
                .advice("remove it: not all parsers agree whether the comment continues"));
        }
        Ok(length)
    }

    fn token(&mut self) -> Result<Token, Diagnostic> {
        let Some(first) = self.rest().chars().next() else {
            return Ok(Token::End);
        };
        if first == '\n' {
            self.at += 1;
            return Ok(Token::NewLine);
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        if is_word(first) {
            return Ok(Token::Word(self.word()));
        }
        if first == '@' {
            self.at += 1;
            return Ok(Token::Directive(self.word()));
        }
        self.sign(first)
    }

    fn sign(&mut self, first: char) -> Result<Token, Diagnostic> {
        let mut signs = SIGNS.into_iter();
        if let Some(sign) = signs.find(|sign| self.rest().starts_with(sign)) {
            self.at += sign.len();
            return Ok(Token::Sign(sign));
        }
        let at = Location::new(&self.file, self.at, self.at + first.len_utf8());
        let message = format!("unexpected character {first:?}");
        let error = Diagnostic::new(message).at(&at);
        Err(match first {
            '\\' => error.advice("a backslash must be the last character of its line"),
            _ => error,
        })
    }

    /// Takes a word. A hyphen inside a word is a part of the word, as in `kill-process`.
    fn word(&mut self) -> String {
        let bytes = self.rest().as_bytes();
        let part = |at: usize| bytes.get(at).is_some_and(|byte| is_word_part(*byte));
        let hyphen = |at: usize| bytes.get(at) == Some(&b'-') && part(at + 1);
        let mut length = 0;
        while part(length) || (length > 0 && hyphen(length)) {
            length += 1;
        }
        let word = self.rest()[..length].to_owned();
        self.at += length;
        word
    }

    fn number(&mut self) -> Result<Token, Diagnostic> {
        let start = self.at;
        let length = self.rest().bytes().take_while(|byte| is_word_part(*byte));
        self.at += length.count();
        let text = &self.file.text[start..self.at];
        let wrong = |why: &str| {
            let error = Diagnostic::new(format!("'{text}' {why}")).at(&self.since(start));
            error.advice("expected decimal, 0x hexadecimal, 0 or 0o octal, or 0b binary digits")
        };
        let (digits, radix) = digits(text);
        if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
            return Err(wrong("is not a number"));
        }
        match u64::from_str_radix(digits, radix) {
            Ok(number) => Ok(Token::Number(number)),
            Err(_) => Err(wrong("does not fit into 64 bits")),
        }
    }
}

/// The digits of a number, without its prefix, and their base.
fn digits(text: &str) -> (&str, u32) {
    let prefixed = |prefix: &str, radix| Some((text.strip_prefix(prefix)?, radix));
    prefixed("0x", 16)
        .or_else(|| prefixed("0X", 16))
        .or_else(|| prefixed("0b", 2))
        .or_else(|| prefixed("0o", 8))
        .or_else(|| prefixed("0", 8).filter(|(digits, _)| !digits.is_empty()))
        .unwrap_or((text, 10))
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_'
}

fn is_word_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

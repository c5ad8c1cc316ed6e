//! Errors shown together with their causes.

use std::error::Error;
use std::fmt;

/// Shows an error and its sources, separated by colons. Leaves out a source whose text was already
/// shown, because the errors of some crates repeat the texts of their sources.
#[derive(Debug)]
pub struct WithCauses<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut next = self.0.source();
        while let Some(error) = next {
            let cause = error.to_string();
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
            next = error.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Cause {
        text: &'static str,
        source: Option<Box<Cause>>,
    }

    #[test]
    fn each_cause_is_shown_once() {
        let error = |text, source| Cause { text, source };
        let innermost = error("file is gone", None);
        let repeating = error("cannot read: file is gone", Some(innermost.into()));
        let outermost = error("no image", Some(repeating.into()));
        let shown = WithCauses(&outermost).to_string();
        assert_eq!(shown, "no image: cannot read: file is gone");
    }
}

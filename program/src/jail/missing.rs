//! The parts of a jail that the system does not allow.

use std::fmt;

use super::{JailError, Sandbox};
use crate::one_line;

/// A list of the parts of the jail that this system does not allow, and the reason for each part.
#[derive(Debug)]
pub struct Missing {
    sandbox: Sandbox,
    parts: Vec<(&'static str, JailError)>,
}

impl Missing {
    /// An empty list. With [`Sandbox::Auto`], the program also starts if parts of the jail are
    /// missing.
    pub fn new(sandbox: Sandbox) -> Self {
        let parts = Vec::new();
        Self { sandbox, parts }
    }

    /// Handles the result of a part of the jail. With [`Sandbox::Auto`], adds a part that failed to
    /// the list. With all other modes, returns the part's error.
    pub fn accept(
        &mut self,
        part: &'static str,
        result: Result<(), JailError>,
    ) -> Result<(), JailError> {
        match result {
            Err(why) if self.sandbox == Sandbox::Auto && why.is_optional() => {
                self.parts.push((part, why));
                Ok(())
            }
            result => result,
        }
    }

    /// Logs all missing parts in one line.
    pub fn log(&self) {
        if self.parts.is_empty() {
            return;
        }
        let advice = self.parts.iter().find_map(|(_, why)| why.advice());
        let advice = advice.map_or_else(String::new, |advice| format!("; {advice}"));
        tracing::warn!("the jail lacks {self}{advice}");
    }
}

/// Lists parts with the same reason together, for instance "a, b: one reason; c: another reason".
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons = Vec::<(String, Vec<&str>)>::new();
        for (part, why) in &self.parts {
            let why = one_line(why);
            match reasons.iter_mut().find(|(reason, _)| *reason == why) {
                Some((_, parts)) => parts.push(part),
                None => reasons.push((why, vec![part])),
            }
        }
        let reasons = reasons
            .iter()
            .map(|(why, parts)| format!("{}: {why}", parts.join(", ")));
        f.write_str(&reasons.collect::<Vec<_>>().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn refused() -> JailError {
        JailError::Namespaces(io::ErrorKind::PermissionDenied.into())
    }

    #[test]
    fn one_cause_is_named_once() {
        let mut missing = Missing::new(Sandbox::Auto);
        missing.accept("a", Err(refused())).unwrap();
        missing.accept("b", Ok(())).unwrap();
        missing.accept("c", Err(refused())).unwrap();
        missing.accept("d", Err(JailError::NoLandlock)).unwrap();
        let (first, second) = (one_line(&refused()), one_line(&JailError::NoLandlock));
        assert_eq!(missing.to_string(), format!("a, c: {first}; d: {second}"));
    }

    #[test]
    fn nothing_may_be_missing_from_a_full_jail() {
        for sandbox in [Sandbox::Full, Sandbox::Seccomp] {
            let mut missing = Missing::new(sandbox);
            assert!(missing.accept("a", Err(refused())).is_err());
            assert!(missing.accept("a", Ok(())).is_ok());
        }
    }
}

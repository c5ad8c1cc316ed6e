//! What a policy says about one call, without a program.

use crate::rule::Action;
use crate::{Chain, Location, Policy};

/// What happens to one call, and because of what.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// What happens.
    pub action: Action,
    /// The statement that says so; none: it is the default.
    pub because: Option<&'a Chain>,
}

impl Decision<'_> {
    /// Where that is said.
    pub fn location(&self) -> Option<&Location> {
        self.because.and_then(|chain| chain.from.first())
    }
}

/// What happens to the call `number` with these arguments.
pub fn decide<'a>(policy: &'a Policy, number: u32, args: &[u64; 6]) -> Decision<'a> {
    let args = args.map(|arg| policy.arch.register(arg));
    let chains = policy.calls.get(&number).map(|call| call.chains.as_slice());
    for chain in chains.unwrap_or_default() {
        let rule = chain.rules.iter().find(|rule| rule.clause.holds(&args));
        if let Some(rule) = rule {
            return Decision {
                action: rule.action,
                because: Some(chain),
            };
        }
    }
    Decision {
        action: policy.default,
        because: None,
    }
}

//! Evaluates a policy for one system call directly, without compiling the policy.

use crate::rule::Action;
use crate::{Location, Policy, RuleChain};

/// The action for one system call, and the rules that decide it.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// The action for the system call.
    pub action: Action,
    /// The rules that decide the action. `None` if the default action applies.
    pub because: Option<&'a RuleChain>,
}

impl Decision<'_> {
    /// The location of the first statement that the deciding rules come from.
    pub fn location(&self) -> Option<&Location> {
        self.because.and_then(|chain| chain.from.first())
    }
}

/// Finds the action for the system call with this number and these arguments.
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

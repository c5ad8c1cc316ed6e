//! Combines all statements of a policy into rules for each system call.

use std::collections::BTreeMap;
use std::fmt;

use crate::ast::{ActionText, Item, Statement};
use crate::diagnostic::{Diagnostic, Location};
use crate::overlap::may_overlap;
use crate::rule::{Action, Rule};
use crate::{Arch, Loaded, MAX_INSTRUCTIONS, lower, tables};

/// A merged policy for one architecture.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The architecture of the policy.
    pub arch: Arch,
    /// The rules for each system call that the policy names. The key is the number of the system
    /// call.
    pub calls: BTreeMap<u32, CallRules>,
    /// The action for a system call that no rule decides.
    pub default: Action,
    /// The statements that merging left out, because they add nothing to the policy.
    pub notes: Vec<Note>,
}

/// The rules for one system call.
#[derive(Clone, Debug)]
pub struct CallRules {
    /// The name of the system call.
    pub name: &'static str,
    /// The rule chains, in an order that depends only on their rules. Chains do not contradict each
    /// other.
    pub chains: Vec<RuleChain>,
}

/// An ordered list of rules. The first rule whose clause holds decides the action.
#[derive(Clone, Debug)]
pub struct RuleChain {
    /// The rules. A chain has several rules only if one statement has different actions.
    pub rules: Vec<Rule>,
    /// The locations of all statements that the chain comes from.
    pub from: Vec<Location>,
}

/// A statement that merging left out, because another statement covers it.
#[derive(Clone, Debug)]
pub struct Note {
    /// The location of the system call name in the statement that was left out.
    pub at: Location,
    /// The location of the system call name in the statement that covers the statement at `at`.
    pub covered_by: Location,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, by) = (self.at.text(), &self.covered_by);
        write!(f, "{}: '{name}' adds nothing to {by}", self.at)
    }
}

/// The distinct rule chains of one system call, and the locations of the statements that each chain
/// comes from.
type Stated = BTreeMap<Vec<Rule>, Vec<Location>>;

impl Policy {
    /// Combines the statements of a policy for one architecture, as the documentation of this crate
    /// describes.
    ///
    /// # Errors
    ///
    /// A [`Diagnostic`] when a name is unknown, when two statements contradict each other, or when
    /// the policy names no system call of this architecture.
    pub fn merge(loaded: &Loaded, arch: Arch) -> Result<Self, Diagnostic> {
        let mut stated = BTreeMap::<u32, Stated>::new();
        for item in &loaded.items {
            if let Item::Statement(statement) = item {
                collect(&mut stated, arch, statement)?;
            }
        }
        let default = default(loaded, arch)?;
        if stated.is_empty() {
            let path = loaded.path().display();
            let message = format!("{path}: the policy names no system call of {arch}");
            let advice = "expected at least one statement, such as 'read: 1'";
            return Err(Diagnostic::new(message).advice(advice));
        }
        let mut policy = Self::deny_all(arch);
        policy.default = default.unwrap_or(policy.default);
        for (number, chains) in stated {
            let chains = finish(chains, &mut policy.notes)?;
            let name = tables::call_name(arch, number).unwrap_or_default();
            policy.calls.insert(number, CallRules { name, chains });
        }
        // Each condition of a statement can have a note. If the notes are equal, only one is kept.
        policy
            .notes
            .dedup_by(|a, b| a.at == b.at && a.covered_by == b.covered_by);
        if loaded.options.denylist {
            policy.check_denylist(loaded)?;
        }
        Ok(policy)
    }

    /// A policy without rules, so every system call ends the process.
    pub fn deny_all(arch: Arch) -> Self {
        Self {
            arch,
            calls: BTreeMap::new(),
            default: Action::KillProcess,
            notes: Vec::new(),
        }
    }

    /// The rules for the system call with this name.
    pub fn call(&self, name: &str) -> Option<&CallRules> {
        self.calls.values().find(|call| call.name == name)
    }

    fn check_denylist(&mut self, loaded: &Loaded) -> Result<(), Diagnostic> {
        if !loaded
            .items
            .iter()
            .any(|item| matches!(item, Item::Denylist(_)))
        {
            return Ok(());
        }
        self.default = Action::Allow;
        let chains = self.calls.values().flat_map(|call| &call.chains);
        let mut permissive = chains.filter(|chain| chain.rules.iter().any(|r| r.action.permits()));
        match permissive.next() {
            Some(chain) => Err(Diagnostic::new("a denylist cannot allow calls")
                .at(&chain.from[0])
                .advice("expected 'return', 'kill' or 'trap'")),
            None => Ok(()),
        }
    }
}

fn collect(
    stated: &mut BTreeMap<u32, Stated>,
    arch: Arch,
    statement: &Statement,
) -> Result<(), Diagnostic> {
    let names = statement.names.iter();
    let names: Vec<_> = names.filter(|name| lower::applies(arch, name)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let chains = chains(lower::rules(arch, &statement.filters)?);
    for name in names {
        let stated = stated.entry(lower::call(arch, &name.name)?).or_default();
        for chain in &chains {
            let from = stated.entry(chain.clone()).or_default();
            if !from.contains(&name.name.at) {
                from.push(name.name.at.clone());
            }
        }
        if stated.len() > MAX_INSTRUCTIONS {
            return Err(lower::too_many_rules(&name.name.at));
        }
    }
    Ok(())
}

/// Splits the rules of a statement into chains. If all rules have the same action, their order does
/// not matter, so each rule becomes a chain.
fn chains(rules: Vec<Rule>) -> Vec<Vec<Rule>> {
    if rules.iter().all(|rule| rule.action == rules[0].action) {
        rules.into_iter().map(|rule| vec![rule]).collect()
    } else {
        vec![rules]
    }
}

fn finish(stated: Stated, notes: &mut Vec<Note>) -> Result<Vec<RuleChain>, Diagnostic> {
    let chains = stated.into_iter().map(|(rules, mut from)| {
        from.sort_by_key(Location::position);
        RuleChain { rules, from }
    });
    let chains: Vec<_> = chains.collect();
    for (i, chain) in chains.iter().enumerate() {
        for other in &chains[i + 1..] {
            check_agreement(chain, other)?;
        }
    }
    for chain in &chains {
        let repeated = chain.from.iter().skip(1);
        notes.extend(repeated.map(|at| Note {
            at: at.clone(),
            covered_by: chain.from[0].clone(),
        }));
    }
    Ok(absorb(chains, notes))
}

/// Removes each chain that a wider chain covers, and adds notes about the removed statements.
fn absorb(chains: Vec<RuleChain>, notes: &mut Vec<Note>) -> Vec<RuleChain> {
    let mut kept: Vec<RuleChain> = Vec::new();
    // Chains with fewer comparisons are wider, so they come first.
    let mut by_width = chains;
    by_width.sort_by_key(|chain| {
        chain
            .rules
            .iter()
            .map(|rule| rule.clause.atoms().len())
            .sum::<usize>()
    });
    for chain in by_width {
        match kept.iter().find(|wider| covers(wider, &chain)) {
            None => kept.push(chain),
            Some(wider) => notes.extend(chain.from.iter().map(|at| Note {
                at: at.clone(),
                covered_by: wider.from[0].clone(),
            })),
        }
    }
    kept.sort_by(|a, b| a.rules.cmp(&b.rules));
    kept
}

/// Whether `wider` decides every use that `chain` decides, with the same action.
fn covers(wider: &RuleChain, chain: &RuleChain) -> bool {
    let [only] = wider.rules.as_slice() else {
        return false;
    };
    let same = |rule: &Rule| rule.action == only.action && rule.clause.implies(&only.clause);
    chain.rules.iter().all(same)
}

/// Checks that two chains never decide the same use of a system call with different actions.
fn check_agreement(a: &RuleChain, b: &RuleChain) -> Result<(), Diagnostic> {
    let conflict = |left: &&Rule, right: &&Rule| {
        left.action != right.action && may_overlap(&left.clause, &right.clause)
    };
    let pairs = a
        .rules
        .iter()
        .flat_map(|left| b.rules.iter().map(move |right| (left, right)));
    let Some((left, right)) = pairs.into_iter().find(|(l, r)| conflict(l, r)) else {
        return Ok(());
    };
    let mut both = [(&a.from[0], left), (&b.from[0], right)];
    both.sort_by_key(|(at, _)| at.position());
    let [(first, left), (second, right)] = both;
    let name = first.text();
    Err(Diagnostic::new(format!(
        "conflicting rules for '{name}': '{left}' and '{right}'"
    ))
    .at(second)
    .and("the other rule:", first)
    .advice("to give them an order, write one statement: call: {filter, filter}"))
}

/// The action that all `@default` lines of the policy agree on.
fn default(loaded: &Loaded, arch: Arch) -> Result<Option<Action>, Diagnostic> {
    let mut found: Option<(Action, &ActionText)> = None;
    for item in &loaded.items {
        let Item::Default(text) = item else {
            continue;
        };
        let action = lower::action(arch, text)?;
        if action.permits() {
            return Err(Diagnostic::new("the default action must not permit calls")
                .at(&text.at)
                .advice("expected kill-process, kill-thread, trap, trace or return"));
        }
        match found {
            Some((other, at)) if other != action => {
                let message = format!("conflicting default actions: '{other}' and '{action}'");
                return Err(Diagnostic::new(message)
                    .at(&text.at)
                    .and("the other default action:", &at.at));
            }
            _ => found = Some((action, text)),
        }
    }
    Ok(found.map(|(action, _)| action))
}

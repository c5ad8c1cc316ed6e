//! What all statements of a policy say together.

use std::collections::BTreeMap;
use std::fmt;

use crate::ast::{ActionText, Item, Statement};
use crate::diagnostic::{Diagnostic, Location};
use crate::overlap::may_overlap;
use crate::rule::{Action, Rule};
use crate::{Arch, Loaded, MAX_INSTRUCTIONS, lower, tables};

/// What a policy says on one architecture.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The architecture.
    pub arch: Arch,
    /// By number.
    pub calls: BTreeMap<u32, Call>,
    /// What happens to whatever is not decided.
    pub default: Action,
    /// What merging left out, as it says nothing new.
    pub notes: Vec<Note>,
}

/// What is said about one call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// In an order that depends on nothing but what they say. They never contradict each other.
    pub chains: Vec<Chain>,
}

/// Rules of which the first whose clause holds counts.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The rules; only one, unless different actions follow from one statement.
    pub rules: Vec<Rule>,
    /// Every place that says so.
    pub from: Vec<Location>,
}

/// Something that merging left out.
#[derive(Clone, Debug)]
pub struct Note {
    /// The rule that is not needed.
    pub at: Location,
    /// The rule that says as much.
    pub covered_by: Location,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, by) = (self.at.text(), &self.covered_by);
        write!(f, "{}: '{name}' adds nothing to {by}", self.at)
    }
}

/// Distinct chains of one call and where they are.
type Said = BTreeMap<Vec<Rule>, Vec<Location>>;

impl Policy {
    /// Puts a policy's statements together for one architecture, by the rules in the documentation
    /// of this library.
    ///
    /// # Errors
    ///
    /// A [`Diagnostic`] when a name is unknown or two statements contradict each other, and when
    /// the policy says nothing at all.
    pub fn merge(loaded: &Loaded, arch: Arch) -> Result<Self, Diagnostic> {
        let mut said = BTreeMap::<u32, Said>::new();
        for item in &loaded.items {
            if let Item::Statement(statement) = item {
                collect(&mut said, arch, statement)?;
            }
        }
        let default = default(loaded, arch)?;
        if said.is_empty() {
            let message = format!("{}: names no system call", loaded.path().display());
            let advice = "expected at least one statement, such as 'read: 1'";
            return Err(Diagnostic::new(message).advice(advice));
        }
        let mut policy = Self::deny_all(arch);
        policy.default = default.unwrap_or(policy.default);
        for (number, chains) in said {
            let chains = finish(chains, &mut policy.notes)?;
            let name = tables::call_name(arch, number).unwrap_or_default();
            policy.calls.insert(number, Call { name, chains });
        }
        // A statement of several conditions may be covered in each of them.
        policy
            .notes
            .dedup_by(|a, b| a.at == b.at && a.covered_by == b.covered_by);
        if loaded.options.denylist {
            policy.check_denylist(loaded)?;
        }
        Ok(policy)
    }

    /// The policy that allows nothing and ends the process.
    pub fn deny_all(arch: Arch) -> Self {
        Self {
            arch,
            calls: BTreeMap::new(),
            default: Action::KillProcess,
            notes: Vec::new(),
        }
    }

    /// What is said about the call of this name.
    pub fn call(&self, name: &str) -> Option<&Call> {
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
            Some(chain) => Err(Diagnostic::new("a denylist can only deny")
                .at(&chain.from[0])
                .advice("expected 'return', 'kill' or 'trap'")),
            None => Ok(()),
        }
    }
}

fn collect(
    said: &mut BTreeMap<u32, Said>,
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
        let said = said.entry(lower::call(arch, &name.name)?).or_default();
        for chain in &chains {
            let from = said.entry(chain.clone()).or_default();
            if !from.contains(&name.name.at) {
                from.push(name.name.at.clone());
            }
        }
        if said.len() > MAX_INSTRUCTIONS {
            let message = format!("more rules than the {MAX_INSTRUCTIONS} that a filter can hold");
            return Err(Diagnostic::new(message).at(&name.name.at));
        }
    }
    Ok(())
}

/// Rules with one action need no order among them.
fn chains(rules: Vec<Rule>) -> Vec<Vec<Rule>> {
    match rules.iter().all(|rule| rule.action == rules[0].action) {
        true => rules.into_iter().map(|rule| vec![rule]).collect(),
        false => vec![rules],
    }
}

fn finish(said: Said, notes: &mut Vec<Note>) -> Result<Vec<Chain>, Diagnostic> {
    let chains = said.into_iter().map(|(rules, mut from)| {
        from.sort_by_key(Location::place);
        Chain { rules, from }
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

/// Leaves out what another chain decides in the same way.
fn absorb(chains: Vec<Chain>, notes: &mut Vec<Note>) -> Vec<Chain> {
    // Wider ones have fewer comparisons.
    let mut kept: Vec<Chain> = Vec::new();
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

fn covers(wider: &Chain, chain: &Chain) -> bool {
    let [only] = wider.rules.as_slice() else {
        return false;
    };
    let same = |rule: &Rule| rule.action == only.action && rule.clause.implies(&only.clause);
    chain.rules.iter().all(same)
}

/// Two statements must not decide one use of a call in two ways.
fn check_agreement(a: &Chain, b: &Chain) -> Result<(), Diagnostic> {
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
    both.sort_by_key(|(at, _)| at.place());
    let [(first, left), (second, right)] = both;
    let name = first.text();
    Err(Diagnostic::new(format!(
        "conflicting actions for '{name}': '{left}' and '{right}'"
    ))
    .at(second)
    .and("the other one", first)
    .advice("where order matters, write it into one statement: call: {filter, filter}"))
}

/// The action that all `@default` lines agree on.
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
                    .and("the other one", &at.at));
            }
            _ => found = Some((action, text)),
        }
    }
    Ok(found.map(|(action, _)| action))
}

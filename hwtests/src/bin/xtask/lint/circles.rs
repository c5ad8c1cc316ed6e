//! Finds modules that import each other in a circle.
//!
//! Sibling modules must not reach each other through imports in both directions, at any level of a
//! crate. If two modules have different parents, the check compares their ancestors at the first
//! level where the paths of the modules differ. A module and its descendants may name each other,
//! because in this repository a parent holds the types that its children share. Tests may name any
//! module.
//!
//! A name is followed through `use` to the module that defines the item. So an item that is
//! imported from `crate` but defined in another module counts as imported from that module.

mod modules;
mod references;
mod resolve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use cargo_metadata::{Metadata, Target};
use hwtests::{Context, Result};

use super::Findings;
use modules::{Crate, ModulePath};
use resolve::resolve;

/// The path of a module, and the path of another module that the first module names.
type Edge = (ModulePath, ModulePath);

/// The lines of code in which a module names another module (the sources of one edge), each as file
/// and line number.
type Sources = BTreeSet<(String, usize)>;

/// Finds the circles of modules in all libraries, programs and examples.
pub fn find(metadata: &Metadata) -> Result<Findings> {
    let mut findings = Findings::new();
    for package in metadata.workspace_packages() {
        for target in package.targets.iter().filter(|target| is_checked(target)) {
            let file = target.src_path.as_std_path();
            let tree = Crate::load(file).with_context(|| format!("cannot read {}", target.name))?;
            let root = metadata.workspace_root.as_std_path();
            findings.extend(
                circles(&tree)
                    .into_iter()
                    .map(|circle| circle.finding(target, root)),
            );
        }
    }
    Ok(findings)
}

fn is_checked(target: &Target) -> bool {
    target.is_lib() || target.is_bin() || target.is_example()
}

/// Sibling modules that name each other directly or through other siblings, and all edges (one
/// module names another) between them.
struct Circle {
    members: BTreeSet<ModulePath>,
    edges: BTreeMap<Edge, Sources>,
}

impl Circle {
    fn finding(&self, target: &Target, root: &Path) -> (String, String) {
        let members: Vec<_> = self
            .members
            .iter()
            .map(|member| member.join("::"))
            .collect();
        let name = format!("{}: {}", target.name, members.join(", "));
        let mut text = format!("{name}: import each other in a circle");
        for ((from, to), sources) in &self.edges {
            write!(text, "\n  {} names {}:", from.join("::"), to.join("::")).expect("a string");
            for (file, line) in sources {
                let file = Path::new(file);
                let file = file.strip_prefix(root).unwrap_or(file).display();
                write!(text, "\n    {file}:{line}").expect("a string");
            }
        }
        (name, text)
    }
}

/// Finds the groups of modules in which each module reaches each other module.
fn circles(tree: &Crate) -> Vec<Circle> {
    let edges = edges(tree);
    let mut groups = BTreeSet::new();
    for (start, _) in edges.keys() {
        let there = reachable(&edges, start);
        let both_ways = there
            .into_iter()
            .filter(|end| reachable(&edges, end).contains(start));
        groups.insert(both_ways.collect::<BTreeSet<_>>());
    }
    groups.retain(|group| !group.is_empty());
    let circle = |members: BTreeSet<ModulePath>| {
        let is_inside = |edge: &Edge| members.contains(&edge.0) && members.contains(&edge.1);
        let inside = edges.iter().filter(|(edge, _)| is_inside(edge));
        let edges = inside
            .map(|(edge, sources)| (edge.clone(), sources.clone()))
            .collect();
        Circle { members, edges }
    };
    groups.into_iter().map(circle).collect()
}

/// The pairs of sibling modules, at all levels, in which the first module names the second module.
fn edges(tree: &Crate) -> BTreeMap<Edge, Sources> {
    let mut edges = BTreeMap::<Edge, Sources>::new();
    for (from, module) in &tree.modules {
        for reference in &module.references {
            let to = resolve(tree, from, &reference.segments);
            if let Some(edge) = part(from, &to) {
                let source = (reference.file.display().to_string(), reference.line);
                edges.entry(edge).or_default().insert(source);
            }
        }
    }
    edges
}

/// The ancestors of two modules at the first level where the paths of the modules differ. The
/// result is `None` if one module contains the other module.
fn part(from: &ModulePath, to: &ModulePath) -> Option<Edge> {
    let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let is_nested = common == from.len() || common == to.len();
    (!is_nested).then(|| (from[..=common].to_vec(), to[..=common].to_vec()))
}

/// The modules that `start` names, directly or through other modules.
fn reachable(edges: &BTreeMap<Edge, Sources>, start: &ModulePath) -> BTreeSet<ModulePath> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(module) = open.pop() {
        for (_, to) in edges.keys().filter(|(from, _)| from == module) {
            if reached.insert(to.clone()) {
                open.push(to);
            }
        }
    }
    reached
}

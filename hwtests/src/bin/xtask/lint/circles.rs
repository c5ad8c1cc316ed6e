//! Finds modules that import each other in a circle.
//!
//! The rule: sibling modules must not reach each other in both directions, at any level of a crate.
//! If two modules have different parents, the check compares their ancestors at the level where the
//! two paths part. A module and its descendants may name each other, because in this tree a parent
//! holds the types that its children share. Tests may name any module.
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

/// The path of a module, and the path of a module that it names.
type Edge = (ModulePath, ModulePath);

/// The places in the code that cause an edge, as file and line.
type Sources = BTreeSet<(String, usize)>;

/// Finds the circles in all libraries, programs and examples.
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

/// Siblings that reach each other, and all edges between them.
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

/// Groups the modules that are in circles. Each group contains all modules that reach each other.
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

/// The pairs of siblings at all levels of which one names the other.
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

/// The siblings at the level where the paths of two modules part. It is `None` if one module
/// contains the other.
fn part(from: &ModulePath, to: &ModulePath) -> Option<Edge> {
    let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let is_nested = common == from.len() || common == to.len();
    (!is_nested).then(|| (from[..=common].to_vec(), to[..=common].to_vec()))
}

/// The modules that are reachable from `start` through any number of edges.
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

//! Finds the module that defines the item at the end of a path.

use super::modules::{Crate, ModulePath};

/// The maximum number of names that are looked up to resolve one path. The limit ends the search if
/// imports refer to each other in a circle.
const MOST_STEPS: usize = 32;

/// Finds the module that defines the item at the end of a path. The path is in the code of module
/// `from`.
///
/// For a path to an item of another crate, the result is the last module of this crate on the path.
pub fn resolve(tree: &Crate, from: &ModulePath, segments: &[String]) -> ModulePath {
    Resolver {
        tree,
        steps: MOST_STEPS,
    }
    .follow(from, segments)
}

struct Resolver<'a> {
    tree: &'a Crate,
    steps: usize,
}

impl Resolver<'_> {
    fn follow(&mut self, from: &ModulePath, segments: &[String]) -> ModulePath {
        let mut at = from.clone();
        for segment in segments {
            match segment.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => _ = at.pop(),
                name => match self.step(&at, name) {
                    Some(next) => at = next,
                    None => break,
                },
            }
        }
        at
    }

    /// The module to which `name` points in module `at`. It is `None` if the name does not point to
    /// a module, or if `at` itself defines an item with this name.
    fn step(&mut self, at: &ModulePath, name: &str) -> Option<ModulePath> {
        self.steps = self.steps.checked_sub(1)?;
        let child = [at.as_slice(), &[name.to_owned()]].concat();
        if self.tree.modules.contains_key(&child) {
            return Some(child);
        }
        let module = self.tree.modules.get(at)?;
        if module.items.contains(name) {
            return None;
        }
        if let Some(path) = module.bindings.get(name) {
            return self.leads_inside(at, path).then(|| self.follow(at, path));
        }
        let globs = module
            .globs
            .iter()
            .filter(|path| self.leads_inside(at, path));
        let globs: Vec<_> = globs.collect();
        globs
            .into_iter()
            .find_map(|path| self.through_glob(at, path, name))
    }

    fn through_glob(&mut self, at: &ModulePath, path: &[String], name: &str) -> Option<ModulePath> {
        let target = self.follow(at, path);
        if self.tree.modules.get(&target)?.items.contains(name) {
            return Some(target);
        }
        self.step(&target, name)
    }

    /// Whether the path of a `use` in module `at` begins in this crate.
    fn leads_inside(&self, at: &ModulePath, path: &[String]) -> bool {
        let Some(first) = path.first() else {
            return false;
        };
        let is_anchor = ["crate", "self", "super"].contains(&first.as_str());
        let child = [at.as_slice(), std::slice::from_ref(first)].concat();
        is_anchor || self.tree.modules.contains_key(&child)
    }
}

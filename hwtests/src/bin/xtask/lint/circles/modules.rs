//! Reads a crate as a tree of modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hwtests::{Context, Result, bail};
use syn::ext::IdentExt;
use syn::{Attribute, Expr, ExprLit, Ident, Item, ItemMod, Lit, Meta};

use super::references::{Reference, attributes, collect, is_for_tests, leaves};

/// The names from the crate's root to a module. The path of the root is empty.
pub type ModulePath = Vec<String>;

/// The modules of a crate, without the modules for tests.
#[derive(Default)]
pub struct Crate {
    pub modules: BTreeMap<ModulePath, Module>,
}

/// The names that a module defines, imports and uses.
#[derive(Default)]
pub struct Module {
    /// The names that the module imports with `use`, each with its path as written in the `use`.
    pub bindings: BTreeMap<String, Vec<String>>,
    /// The paths of glob imports, such as `path` in `use path::*`.
    pub globs: Vec<Vec<String>>,
    /// The names of items that the module defines.
    pub items: BTreeSet<String>,
    pub references: Vec<Reference>,
}

impl Crate {
    /// Reads the crate whose root is the file `root`.
    pub fn load(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let folder = root.parent().context("a file has a folder")?;
        tree.read(ModulePath::new(), root, folder)?;
        Ok(tree)
    }

    /// Adds the module `path`, whose code is in `file`. The files of its child modules are in
    /// `folder`.
    fn read(&mut self, path: ModulePath, file: &Path, folder: &Path) -> Result<()> {
        let name = || file.display().to_string();
        let text = fs::read_to_string(file).with_context(name)?;
        let syntax = syn::parse_file(&text).with_context(name)?;
        self.add(path, &syntax.items, file, folder)
    }

    fn add(&mut self, path: ModulePath, items: &[Item], file: &Path, folder: &Path) -> Result<()> {
        let mut module = Module::default();
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            if let Item::Mod(child) = item {
                self.add_child(&path, child, file, folder)?;
            } else {
                module.add(item, file);
            }
        }
        self.modules.insert(path, module);
        Ok(())
    }

    fn add_child(
        &mut self,
        parent: &[String],
        child: &ItemMod,
        file: &Path,
        folder: &Path,
    ) -> Result<()> {
        let name = child.ident.unraw().to_string();
        let below = folder.join(&name);
        let path = [parent, &[name]].concat();
        if let Some((_, items)) = &child.content {
            return self.add(path, items, file, &below);
        }
        let (file, folder) = find_file(child, file, &below)?;
        self.read(path, &file, &folder)
    }
}

impl Module {
    fn add(&mut self, item: &Item, file: &Path) {
        if let Item::Use(item) = item {
            for leaf in leaves(item) {
                match leaf.name {
                    Some(name) => _ = self.bindings.insert(name, leaf.segments),
                    None => self.globs.push(leaf.segments),
                }
            }
        }
        self.items
            .extend(name(item).map(|name| name.unraw().to_string()));
        self.references.extend(collect(item, file));
    }
}

/// The file of a module that is written as `mod name;`, and the folder of its child modules.
fn find_file(module: &ItemMod, parent: &Path, below: &Path) -> Result<(PathBuf, PathBuf)> {
    if let Some(path) = module.attrs.iter().find_map(path_attribute) {
        let folder = parent.parent().context("a file has a folder")?;
        let file = folder.join(path);
        let folder = file.parent().unwrap_or(folder).to_owned();
        return Ok((file, folder));
    }
    let candidates = [below.with_extension("rs"), below.join("mod.rs")];
    let Some(file) = candidates.into_iter().find(|file| file.exists()) else {
        bail!(
            "no file for module {} of {}",
            module.ident,
            parent.display()
        );
    };
    Ok((file, below.to_owned()))
}

/// The value of the attribute `#[path = "…"]`, or `None` if the attribute is another attribute.
fn path_attribute(attribute: &Attribute) -> Option<String> {
    match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

/// The name that an item defines, or `None` if the item defines no name.
fn name(item: &Item) -> Option<&Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Macro(item) => item.ident.as_ref(),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

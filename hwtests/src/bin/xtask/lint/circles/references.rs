//! Collects the paths that code names in imports, in types and expressions, and inside macros.

use std::path::{Path, PathBuf};

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemUse, Macro, Meta, Token, UseTree, Visibility};

/// A path in the code that may lead to a module. It is the path of an import, or it begins with
/// `crate`, `self` or `super`.
pub struct Reference {
    pub segments: Vec<String>,
    pub file: PathBuf,
    /// The number of the line in the file, counted from 1.
    pub line: usize,
}

/// One name that a `use` imports, or one `*`.
pub struct Leaf {
    pub segments: Vec<String>,
    /// The name under which the module imports the item, or `None` for `*`.
    pub name: Option<String>,
    line: usize,
}

/// The paths that an item names.
pub fn collect(item: &Item, file: &Path) -> Vec<Reference> {
    let mut collector = Collector {
        file,
        references: Vec::new(),
    };
    collector.visit_item(item);
    collector.references
}

struct Collector<'a> {
    file: &'a Path,
    references: Vec<Reference>,
}

impl Collector<'_> {
    fn add(&mut self, segments: Vec<String>, line: usize) {
        let file = self.file.to_owned();
        self.references.push(Reference {
            segments,
            file,
            line,
        });
    }

    /// Adds a path like [`Self::add`], but only if its first name is `crate`, `self` or `super`.
    fn add_anchored(&mut self, segments: Vec<&Ident>) {
        let Some(first) = segments.first().filter(|first| is_anchor(first)) else {
            return;
        };
        let line = first.span().start().line;
        self.add(
            segments
                .iter()
                .map(|segment| segment.unraw().to_string())
                .collect(),
            line,
        );
    }

    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        for (index, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.scan(group.stream()),
                TokenTree::Ident(first) if is_anchor(first) => {
                    self.add_anchored(path_in(&tokens[index..]));
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let is_for_tests = match item {
            ImplItem::Fn(item) => is_for_tests(&item.attrs),
            ImplItem::Const(item) => is_for_tests(&item.attrs),
            _ => false,
        };
        if !is_for_tests {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for leaf in leaves(item) {
            self.add(leaf.segments, leaf.line);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add_anchored(path.segments.iter().map(|segment| &segment.ident).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.scan(call.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    /// A visibility such as `pub(super)` imports nothing, so it is skipped.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

fn is_anchor(name: &Ident) -> bool {
    ["crate", "self", "super"]
        .iter()
        .any(|anchor| name == anchor)
}

/// The path at the beginning of these tokens.
fn path_in(tokens: &[TokenTree]) -> Vec<&Ident> {
    let mut path = Vec::new();
    let mut rest = tokens;
    while let [TokenTree::Ident(name), after @ ..] = rest {
        path.push(name);
        let [TokenTree::Punct(a), TokenTree::Punct(b), next @ ..] = after else {
            break;
        };
        if a.as_char() != ':' || b.as_char() != ':' {
            break;
        }
        rest = next;
    }
    path
}

/// All imports of a `use`. The result is empty if the path of the `use` begins with `::`, because
/// then the `use` imports from another crate.
pub fn leaves(item: &ItemUse) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    if item.leading_colon.is_none() {
        add_leaves(&item.tree, &mut Vec::new(), &mut leaves);
    }
    leaves
}

fn add_leaves(tree: &UseTree, path: &mut Vec<String>, leaves: &mut Vec<Leaf>) {
    match tree {
        UseTree::Path(tree) => {
            path.push(tree.ident.unraw().to_string());
            add_leaves(&tree.tree, path, leaves);
            path.pop();
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                add_leaves(tree, path, leaves);
            }
        }
        UseTree::Name(name) => leaves.push(leaf(path, &name.ident, &name.ident)),
        UseTree::Rename(name) => leaves.push(leaf(path, &name.ident, &name.rename)),
        UseTree::Glob(glob) => leaves.push(glob_leaf(path, &glob.star_token)),
    }
}

fn leaf(path: &[String], last: &Ident, name: &Ident) -> Leaf {
    let line = last.span().start().line;
    let (last, mut name) = (last.unraw().to_string(), name.unraw().to_string());
    let mut segments = path.to_vec();
    if last != "self" {
        segments.push(last);
    } else if name == "self" {
        name = segments.last().cloned().unwrap_or_default();
    }
    Leaf {
        segments,
        name: Some(name),
        line,
    }
}

fn glob_leaf(path: &[String], star: &Token![*]) -> Leaf {
    Leaf {
        segments: path.to_vec(),
        name: None,
        line: star.span.start().line,
    }
}

/// Whether one of these attributes limits code to test builds.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        is_cfg
            && attribute
                .parse_args::<Meta>()
                .is_ok_and(|condition| needs_test(&condition))
    })
}

fn needs_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else {
        return condition.path().is_ident("test");
    };
    let parser = syn::punctuated::Punctuated::<Meta, Token![,]>::parse_terminated;
    let Ok(parts) = list.parse_args_with(parser) else {
        return false;
    };
    if list.path.is_ident("all") {
        return parts.iter().any(needs_test);
    }
    list.path.is_ident("any") && parts.iter().all(needs_test)
}

/// The attributes of an item.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

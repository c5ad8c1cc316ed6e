//! Reports all missing policies in one error.

use std::fmt;
use std::path::{Path, PathBuf};

use policy_compiler::Arch;

/// The policy files that contexts need and that do not exist.
#[derive(Debug)]
pub struct Missing(Vec<PathBuf>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these policies are missing (policies/README.md says what goes into them):")?;
        for path in &self.0 {
            write!(f, "\n  {}", path.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for Missing {}

/// Checks that each name has a policy file in the folder of each architecture below `root`.
pub fn check<'a>(root: &Path, names: impl IntoIterator<Item = &'a String>) -> Result<(), Missing> {
    let names: Vec<_> = names.into_iter().collect();
    let paths = Arch::ALL.into_iter().flat_map(|arch| {
        let names = names.iter();
        names.map(move |name| Path::new(arch.name()).join(format!("{name}.policy")))
    });
    let missing: Vec<_> = paths.filter(|path| !root.join(path).is_file()).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Missing(missing)),
    }
}

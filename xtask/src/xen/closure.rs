//! The shared libraries that programs need, and those that these need.
//!
//! Source: System V ABI, chapter 5, "Dynamic Section" (`DT_NEEDED`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::elf;
use object::read::elf::{Dyn, ElfFile64};

/// The libraries below `root` that `programs` need, by the names by which they are asked for.
///
/// # Errors
/// Names a library that is not there.
pub fn libraries(root: &Path, programs: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>> {
    let mut present = BTreeMap::new();
    for directory in ["lib", "lib64", "usr/lib", "usr/lib64"] {
        collect(&root.join(directory), &mut present)?;
    }
    let mut found = BTreeMap::new();
    let mut open = programs.to_vec();
    while let Some(file) = open.pop() {
        for name in needed(&file)? {
            if let Entry::Vacant(place) = found.entry(name) {
                let path =
                    present.get(place.key()).with_context(|| format!("{} needs {}", file.display(), place.key()))?;
                open.push(path.clone());
                place.insert(path.clone());
            }
        }
    }
    Ok(found)
}

/// The libraries that a program or library names itself.
fn needed(file: &Path) -> Result<Vec<String>> {
    let say = || file.display().to_string();
    let bytes = fs::read(file).with_context(say)?;
    let parsed: ElfFile64<'_> = ElfFile64::parse(&*bytes).with_context(say)?;
    let sections = parsed.elf_section_table();
    let Some((entries, strings)) = sections.dynamic(parsed.endian(), parsed.data())? else { return Ok(Vec::new()) };
    let strings = sections.strings(parsed.endian(), parsed.data(), strings)?;
    let mut names = Vec::new();
    for entry in entries {
        if entry.d_tag(parsed.endian()) == elf::DT_NEEDED {
            let name = entry.string(parsed.endian(), strings).with_context(say)?;
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(names)
}

fn collect(directory: &Path, into: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let is_link = path.is_symlink();
        if path.is_dir() && !is_link {
            collect(&path, into)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && name.contains(".so")
            && path.exists()
        {
            into.entry(name.into()).or_insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_machine_needs_its_c_library() {
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let found = libraries(Path::new("/"), std::slice::from_ref(&shell)).unwrap();
        assert!(found.contains_key("libc.so.6"), "{found:?}");
        assert!(libraries(Path::new("/nowhere"), &[shell]).unwrap_err().to_string().contains("needs lib"));
    }
}

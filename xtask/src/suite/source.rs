//! The project's own Rust files, as tokens.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use proc_macro2::{TokenStream, TokenTree};

/// A file of a crate.
pub struct Source {
    /// Relative to the root of the workspace.
    pub path: PathBuf,
    pub lines: usize,
    /// Flat: groups are opened up, comments are gone.
    pub tokens: Vec<String>,
}

/// All Rust files below a folder of the workspace.
pub fn of(root: &Path, folder: &str) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    collect(&root.join(folder), &mut paths)?;
    paths.sort();
    paths.iter().map(|path| read(root, path)).collect()
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

fn read(root: &Path, path: &Path) -> Result<Source> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let tokens = tokens(&text).with_context(|| path.display().to_string())?;
    let path = path.strip_prefix(root).unwrap_or(path).to_owned();
    Ok(Source { path, lines: text.lines().count(), tokens })
}

/// The identifiers and punctuation of a piece of Rust, in order. Literals, doc comments among
/// them, are left out.
pub fn tokens(text: &str) -> Result<Vec<String>> {
    let stream: TokenStream = text.parse().map_err(|error| anyhow!("not Rust: {error}"))?;
    let mut flat = Vec::new();
    flatten(stream, &mut flat);
    Ok(flat)
}

fn flatten(stream: TokenStream, flat: &mut Vec<String>) {
    for tree in stream {
        match tree {
            TokenTree::Group(group) => flatten(group.stream(), flat),
            TokenTree::Ident(ident) => flat.push(ident.to_string()),
            TokenTree::Punct(punct) => flat.push(punct.as_char().to_string()),
            TokenTree::Literal(_) => {}
        }
    }
}

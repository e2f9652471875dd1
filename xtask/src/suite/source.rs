//! The project's own Rust files, as tokens.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

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
    paths(root, folder)?.iter().map(|path| read(root, &root.join(path))).collect()
}

/// Their paths, relative to the root.
pub fn paths(root: &Path, folder: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    collect(&root.join(folder), &mut paths)?;
    paths.sort();
    Ok(paths.into_iter().map(|path| path.strip_prefix(root).map(Path::to_owned).unwrap_or(path)).collect())
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

/// Whether a file is part of a program that drives a device: not of a test or a measurement.
pub fn is_linked(path: &Path) -> bool {
    let apart = ["tests", "benches", "platform_test"];
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    !path.components().any(|part| apart.iter().any(|name| part.as_os_str() == *name))
        && !["tests", "testing"].contains(&stem)
        && !stem.ends_with("_tests")
}

/// As [`tokens`], without what only tests have: items under a `cfg` that does not hold unless `test` does.
pub fn linked_tokens(text: &str) -> Result<Vec<String>> {
    let stream: TokenStream = text.parse().map_err(|error| anyhow!("not Rust: {error}"))?;
    let mut flat = Vec::new();
    flatten(linked(stream, &mut Vec::new()), &mut flat);
    Ok(flat)
}

/// The lines that only tests have, each as its first and last one, counted from 1.
pub fn test_lines(text: &str) -> Result<Vec<RangeInclusive<usize>>> {
    let stream: TokenStream = text.parse().map_err(|error| anyhow!("not Rust: {error}"))?;
    let mut left_out = Vec::new();
    linked(stream, &mut left_out);
    Ok(left_out)
}

/// What is left without what only tests have; where that was goes to `left_out`.
fn linked(stream: TokenStream, left_out: &mut Vec<RangeInclusive<usize>>) -> TokenStream {
    let (mut kept, mut skipping) = (Vec::new(), false);
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let is_hash = matches!(&tree, TokenTree::Punct(punct) if punct.as_char() == '#');
        if is_hash && let Some(TokenTree::Group(group)) = trees.peek() {
            let mut inner = group.stream().into_iter();
            let is_cfg = matches!(inner.next(), Some(TokenTree::Ident(name)) if name == "cfg");
            if let (true, Some(TokenTree::Group(predicate))) = (is_cfg, inner.next()) {
                skipping |= holds(predicate.stream()).into_iter().next() == Some(Some(false));
            }
        }
        // An item ends with its block or its semicolon.
        let ends = match &tree {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(punct) => punct.as_char() == ';',
            _ => false,
        };
        if skipping {
            let span = tree.span();
            left_out.push(span.start().line..=span.end().line);
        } else {
            kept.push(match tree {
                TokenTree::Group(group) => {
                    proc_macro2::Group::new(group.delimiter(), linked(group.stream(), left_out)).into()
                }
                tree => tree,
            });
        }
        skipping &= !ends;
    }
    kept.into_iter().collect()
}

/// Each predicate of a list, where `test` does not hold and of the others nothing is known.
fn holds(list: TokenStream) -> Vec<Option<bool>> {
    let mut all = Vec::new();
    let mut trees = list.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let TokenTree::Ident(name) = tree else { continue };
        let Some(TokenTree::Group(group)) = trees.peek() else {
            all.push(if name == "test" { Some(false) } else { None });
            continue;
        };
        let inner = holds(group.stream());
        trees.next();
        let decided = |by: bool| if inner.contains(&Some(by)) { Some(by) } else { None };
        all.push(match name.to_string().as_str() {
            "not" => inner.first().copied().flatten().map(|value| !value),
            "all" => decided(false).or_else(|| inner.iter().all(Option::is_some).then_some(true)),
            "any" => decided(true).or_else(|| inner.iter().all(Option::is_some).then_some(false)),
            _ => None,
        });
    }
    all
}

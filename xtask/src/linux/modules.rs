//! Linux's modules in an order in which they can be loaded, from what each says it depends on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::host::program;

/// A module, ready to be loaded.
pub struct Module {
    pub name: String,
    pub content: Vec<u8>,
}

/// The `wanted` modules below `directory`, in this order and each after those it depends on. One that is not there is taken to
/// be built in.
pub fn load_order(directory: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    collect(directory, &mut files)?;
    let mut order = Vec::new();
    for name in wanted {
        add(&plain(name), &files, &mut order)?;
    }
    Ok(order)
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, order: &mut Vec<Module>) -> Result<()> {
    // A module that is not there is built in.
    let Some(path) = files.get(name) else { return Ok(()) };
    if order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let content = read(path)?;
    for dependency in dependencies(&content) {
        add(&dependency, files, order)?;
    }
    order.push(Module { name: name.into(), content });
    Ok(())
}

fn collect(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, files)?;
        } else if let Some((name, _)) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once(".ko")) {
            files.insert(plain(name), path);
        }
    }
    Ok(())
}

/// Dashes and underscores are the same in the names of modules.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let unpacker = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| path.display().to_string()),
    };
    let output = Command::new(program::find(unpacker)?).arg("-dc").arg(path).output().context(unpacker)?;
    anyhow::ensure!(output.status.success(), "{unpacker} cannot unpack {}", path.display());
    Ok(output.stdout)
}

/// The value of `depends=` in the section `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_their_dependencies_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, depends: &str| {
            fs::write(directory.path().join(name), format!("x\0license=GPL\0depends={depends}\0y")).unwrap();
        };
        put("virtio.ko", "virtio-ring");
        put("virtio-ring.ko", "");
        put("virtio_pci.ko", "virtio,virtio_ring");
        put("virtio_blk.ko", "virtio");
        put("other.ko", "");
        let names: Vec<_> = load_order(directory.path(), &["virtio-pci", "virtio_blk", "absent"])
            .unwrap()
            .into_iter()
            .map(|m| m.name)
            .collect();
        assert_eq!(names, ["virtio_ring", "virtio", "virtio_pci", "virtio_blk"]);
    }
}

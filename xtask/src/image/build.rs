//! Building the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::strip::strip;
use crate::cli::BuildOptions;
use crate::host::{install, workspace};

/// The image in its two forms.
pub struct Image {
    /// With symbols and line tables.
    pub whole: PathBuf,
    /// As it boots.
    pub stripped: PathBuf,
    /// Size in bytes of the stripped form.
    pub bytes: u64,
}

/// `cargo xtask build`.
pub fn command(options: &BuildOptions) -> Result<bool> {
    let image = build(options.features.as_deref(), &workspace::target().join("undercroft"))?;
    println!("{} ({} bytes; with symbols: {})", image.stripped.display(), image.bytes, image.whole.display());
    Ok(true)
}

/// Builds the kernel with the profile `image` and puts it, stripped, into `directory`.
pub fn build(features: Option<&str>, directory: &Path) -> Result<Image> {
    install::rust_target()?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "undercroft-kernel", "--target", install::TARGET, "--profile", "image"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    if let Some(features) = features {
        cargo.args(["--features", features]);
    }
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the image does not build");
    }
    let whole = executable(&String::from_utf8_lossy(&output.stdout))
        .context("cargo built the kernel but named no executable")?;
    image(whole, directory)
}

/// Puts an ELF file, stripped, into `directory`.
pub fn image(whole: PathBuf, directory: &Path) -> Result<Image> {
    let stripped = directory.join("undercroft.elf");
    let elf = fs::read(&whole).with_context(|| format!("cannot read the image {}", whole.display()))?;
    let small = strip(&elf).with_context(|| format!("the image {}", whole.display()))?;
    write_whole(&stripped, &small)?;
    Ok(Image { whole, stripped, bytes: small.len() as u64 })
}

/// Replaces a file in one step: another run may be booting from it.
fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let say = || format!("cannot write {}", path.display());
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).with_context(say)?;
    let new = tempfile::NamedTempFile::new_in(directory).with_context(say)?;
    fs::write(new.path(), content).with_context(say)?;
    new.persist(path).with_context(say)?;
    Ok(())
}

/// The path of the kernel in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "undercroft")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"undercroft_hal"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"undercroft"},"executable":"/t/undercroft"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#
        );
        assert_eq!(executable(messages), Some("/t/undercroft".into()));
        assert_eq!(executable(""), None);
    }
}

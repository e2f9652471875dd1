//! stub
pub fn command(_: &crate::cli::LintOptions) -> anyhow::Result<bool> {
    anyhow::bail!("later")
}

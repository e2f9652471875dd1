//! stub
pub mod lint;
pub fn command(_: &crate::cli::TestOptions) -> anyhow::Result<bool> {
    anyhow::bail!("later")
}

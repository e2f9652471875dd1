//! stub
pub fn command(_: &crate::cli::BenchOptions) -> anyhow::Result<bool> {
    anyhow::bail!("later")
}

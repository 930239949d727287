//! `apply`: a customer's connectors and flows from a file.

use anyhow::Context;

use super::session::{As, customer, operator, with};
use crate::config::Config;
use crate::service::apply::{Rules, apply as apply_to};
use crate::store::StoreError;

/// Brings the customer to what the file says, or tells what would change.
pub(super) async fn apply(mut config: Config, args: &super::Apply) -> anyhow::Result<()> {
    super::places::allow(&mut config)?;
    let file = args.file.display().to_string();
    let bytes = std::fs::read(&args.file).map_err(|error| anyhow::anyhow!("cannot read {file}: {error}"))?;
    let files_roots: Vec<String> = config.engine.files_roots.keys().cloned().collect();
    let postgres_dsns: Vec<String> = config.engine.postgres_dsns.keys().cloned().collect();
    with(&config, As::Server, async |store| {
        let tenancy = customer(store, &args.customer).await?;
        let rules = Rules { files_roots: &files_roots, postgres_dsns: &postgres_dsns };
        let mut tx = store.begin(&tenancy).await.context("cannot begin")?;
        let report = apply_to(&mut tx, &file, &bytes, &rules, &operator()).await?;
        if !args.dry_run {
            tx.commit().await.map_err(|error| {
                let what = match error {
                    StoreError::Unknown(_) => "it is not known whether the file was applied: apply it again",
                    _ => "nothing was applied",
                };
                anyhow::Error::new(error).context(what)
            })?;
        }
        say!("{}", report.to_string().trim_end());
        match (report.is_unchanged(), args.dry_run) {
            (true, _) => say!("{} is as {file} says", args.customer),
            (false, true) => say!("this would change; nothing was written (--dry-run)"),
            (false, false) => say!("applied to {}", args.customer),
        }
        Ok(())
    })
    .await
}

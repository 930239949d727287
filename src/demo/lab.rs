//! Lab: a workspace whose flows are wholly real.

use std::io::Write;
use std::path::Path;

use chrono::TimeDelta;

use crate::domain::connector::ConnectorKind;
use crate::store::definitions::StoredFlow;
use crate::store::{StoreError, TenantTx};

/// What the operator's configuration calls Lab's directory, and Lab's database.
pub const NAME: &str = "lab";

/// The files that Lab reads.
const FILES: [(&str, &str); 3] = [
    ("customers.csv", include_str!("lab/customers.csv")),
    ("orders.jsonl", include_str!("lab/orders.jsonl")),
    ("products.json", include_str!("lab/products.json")),
];

/// Writes Lab's files into `directory`, which is made if it is missing. A file that is there already stays as
/// it is: people change them to see what happens.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_files(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for (name, text) in FILES {
        let path = directory.join(name);
        if !path.try_exists()? {
            // Under another name first: a file is whole or not there.
            let unfinished = directory.join(format!(".{name}.new"));
            let mut file = std::fs::File::create(&unfinished)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&unfinished, &path)?;
        }
    }
    Ok(())
}

/// Lets Lab's flows run soon after the first start: those that read files at once, those that read what these
/// write a minute later. Afterwards their schedules go on by themselves.
pub(super) async fn begin(tx: &mut TenantTx, flows: &[StoredFlow]) -> Result<(), StoreError> {
    let connectors = tx.definitions().await?.connectors;
    let reads_files = |flow: &StoredFlow| {
        let source = connectors.iter().find(|connector| connector.record.name == flow.record.source);
        source.is_some_and(|source| source.record.kind == ConnectorKind::Files)
    };
    for flow in flows {
        let wait = if reads_files(flow) { TimeDelta::zero() } else { TimeDelta::minutes(1) };
        let at = tx.now() + wait;
        tx.run_next_at(&flow.id, at).await?;
    }
    Ok(())
}

//! What the tests share.

pub mod app;
pub mod browser;
pub mod database;
pub mod log;
pub mod proxy;
mod tests;

use apixx_mcp::store::customers::NewCustomer;
use apixx_mcp::store::{Store, StoreError, Tenancy};

/// Makes a customer and its owner, and nothing with it.
pub async fn add_customer(store: &Store, new: &NewCustomer) -> Result<Tenancy, StoreError> {
    let tx = store.begin_customer(new).await?;
    let tenancy = tx.tenancy().clone();
    tx.commit().await?;
    Ok(tenancy)
}

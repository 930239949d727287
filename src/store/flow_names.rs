//! Flows, found by their names.

use std::collections::HashMap;

use sqlx::FromRow;

use super::{Reader, StoreError};
use crate::domain::ids::FlowId;
use crate::domain::names::Named;

statements! {
    FLOW_BY_NAME = tenant "
        select f.flow_id, f.name
          from (select coalesce($4, (select n.flow_id from flow_names n where n.customer_id = $1 and n.name_key = $5)) as id
                offset 0) wanted
          join flows f on f.customer_id = $1 and f.flow_id = wanted.id
         where caller.id = $1
         limit 1";
    FLOW_NAMES = tenant "
        select n.flow_id, n.label, n.kind
          from flow_names n
         where n.customer_id = $1 and caller.id = $1
           and n.flow_id not in (select f.flow_id from flows f where f.customer_id = $1 and f.rank = 7)
         limit 10000";
}

#[derive(FromRow)]
struct FoundRow {
    flow_id: String,
    name: String,
}

#[derive(FromRow)]
struct NameRow {
    flow_id: String,
    label: String,
    kind: String,
}

fn found(flow: &str) -> Result<FlowId, StoreError> {
    FlowId::parse(flow).map_err(|_| StoreError::inconsistent("flow_names", "flow_id"))
}

/// Names before aliases, each with the name of its flow, in the order of these.
fn named(rows: Vec<NameRow>) -> Result<Vec<Named<FlowId>>, StoreError> {
    let is_name = |row: &&NameRow| row.kind == "name";
    let names: HashMap<&str, &str> =
        rows.iter().filter(is_name).map(|row| (row.flow_id.as_str(), row.label.as_str())).collect();
    let mut all: Vec<(String, bool, Named<FlowId>)> = rows
        .iter()
        .map(|row| {
            let name = (*names.get(row.flow_id.as_str()).unwrap_or(&row.label.as_str())).to_owned();
            let named = Named { id: found(&row.flow_id)?, label: row.label.clone(), name };
            Ok((named.name.to_lowercase(), row.kind != "name", named))
        })
        .collect::<Result<_, StoreError>>()?;
    all.sort_by(|a, b| (&a.0, a.1, &a.2.label).cmp(&(&b.0, b.1, &b.2.label)));
    Ok(all.into_iter().map(|(.., named)| named).collect())
}
impl Reader<'_> {
    /// The flow with this id or, without one, with this exact key of a name or alias.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn flow_named(
        &self,
        id: Option<&FlowId>,
        name_key: &str,
    ) -> Result<Option<Named<FlowId>>, StoreError> {
        let row: Option<FoundRow> = self
            .query_as(FLOW_BY_NAME)
            .bind(id.map(|id| id.as_str().to_owned()))
            .bind(name_key.to_owned())
            .fetch_optional(self.store().reads())
            .await?;
        row.map(|row| Ok(Named { id: found(&row.flow_id)?, label: row.name.clone(), name: row.name }))
            .transpose()
    }

    /// Names and aliases of all flows that are not archived.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn flow_names(&self) -> Result<Vec<Named<FlowId>>, StoreError> {
        let rows: Vec<NameRow> = self.query_as(FLOW_NAMES).fetch_all(self.store().reads()).await?;
        named(rows)
    }
}

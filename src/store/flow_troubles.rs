//! Flows in trouble, told by their causes: how many there are, and the worst of those that no connector explains.

use serde::Deserialize;
use sqlx::FromRow;
use sqlx::types::Json;

use super::flows::{FlowCounts, RunBrief, brief_columns, flow_counts};
use super::{Reader, StoreError};
use crate::domain::flow::{FlowStatus, StatusReason};
use crate::domain::ids::ConnectorId;

statements! {
    // All flows are read once; only of those that are told a run is looked up.
    TROUBLES = tenant "
        with each_flow as materialized (
            select f.flow_id, f.name, f.sort_key, f.state, f.health, f.rank, f.next_run_at, f.last_run_id, t.own,
                   case when t.own then f.health_reasons end as reasons
              from flows f
             cross join lateral (
                   select f.state = 'active'
                      and case f.health
                          when 'failing' then not (f.source_connector_id = any ($4) or f.destination_connector_id = any ($4))
                          when 'degraded' then jsonb_path_exists(f.health_reasons, '$[*] ? (@.code != \"CONNECTOR_DEGRADED\")')
                          else false end as own) t
             where f.customer_id = $1 and caller.id = $1
             order by f.flow_id)
        select ", flow_counts!(), ",
               count(*) filter (where f.state = 'active' and f.health in ('failing', 'degraded')) as matching,
               count(*) filter (where f.own) as own,
               (select coalesce(jsonb_agg(jsonb_build_object('id', c.flow_id, 'name', c.name, 'status', c.health,
                           'reasons', c.reasons, 'last_run', to_jsonb(l)) order by c.rank, c.sort_key, c.flow_id), '[]')
                  from (select * from each_flow c
                         where c.own
                         order by c.rank, c.sort_key, c.flow_id
                         limit $5) c
                  left join lateral (
                       select ", brief_columns!("r"), "
                         from runs r where r.customer_id = $1 and r.run_id = c.last_run_id) l on true) as worst
          from each_flow f
        having caller.id = $1
        offset 0";
}

/// A flow that is failing or degraded for a reason of its own.
#[derive(Clone, Debug, Deserialize)]
pub struct TroubledFlow {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Failing or degraded.
    pub status: FlowStatus,
    /// Why.
    pub reasons: Vec<StatusReason>,
    /// Its last run that ended.
    pub last_run: Option<RunBrief>,
}

/// What is wrong with the flows of a workspace.
#[derive(Clone, Debug, FromRow)]
pub struct FlowTroubles {
    /// How many flows there are; those failing or degraded match.
    #[sqlx(flatten)]
    pub counts: FlowCounts,
    /// How many are in trouble for a reason of their own: they fail and none of their connectors is down, or they are
    /// degraded by more than a connector.
    pub own: i64,
    /// The first of these: failing ones, then degraded, by name.
    pub worst: Json<Vec<TroubledFlow>>,
}

impl Reader<'_> {
    /// What is wrong with the flows where the connectors `down` explain what fails of theirs, with at most `limit` flows.
    ///
    /// # Errors
    /// [`StoreError::NotLive`] when the token was revoked meanwhile; when the database fails.
    pub async fn flow_troubles(&self, down: &[&ConnectorId], limit: i64) -> Result<FlowTroubles, StoreError> {
        let down: Vec<String> = down.iter().map(|id| id.as_str().to_owned()).collect();
        Ok(self.query_as(TROUBLES).bind(down).bind(limit).fetch_one(self.store().reads()).await?)
    }
}

//! The MCP face: eleven tools, one file each.

mod arguments;
mod cx;
mod error;
mod find;
mod get_flow;
mod get_flow_error_summary;
mod get_flow_mappings;
mod get_run;
mod get_run_errors;
mod get_system_health;
mod health_causes;
mod list_connectors;
mod list_flow_runs;
mod list_flows;
mod list_runs;
mod schema;
mod server;
mod tool;
mod trigger_sync;
mod window;

pub use server::ToolServer;
pub use tool::{Catalog, Entry};

/// The eleven tools, in the order in which they are listed.
pub fn catalog() -> Catalog {
    Catalog::default()
        .with::<list_flows::ListFlows>()
        .with::<get_flow::GetFlow>()
        .with::<get_flow_mappings::GetFlowMappings>()
        .with::<list_flow_runs::ListFlowRuns>()
        .with::<get_flow_error_summary::GetFlowErrorSummary>()
        .with::<list_runs::ListRuns>()
        .with::<get_run::GetRun>()
        .with::<get_run_errors::GetRunErrors>()
        .with::<list_connectors::ListConnectors>()
        .with::<get_system_health::GetSystemHealth>()
        .with::<trigger_sync::TriggerSync>()
}

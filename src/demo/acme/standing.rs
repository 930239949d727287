//! How Acme stands now: its flows' versions and states, its connectors, and who did what.

use chrono::{DateTime, TimeDelta, Utc};

use super::{ANA, CONTACTS, HABITS, JONAS, LOYALTY, ORDERS, PRIYA, REVOKED, paused};
use crate::demo::past::{DAYS, checked, judge};
use crate::demo::times::Times;
use crate::domain::connector::AuthStatus;
use crate::domain::definition::{FlowDefinition, OnFail};
use crate::domain::flow::FlowState;
use crate::store::checks::QuotaSeen;
use crate::store::definitions::StoredFlow;
use crate::store::past::{PastCheck, PastDeed, PastFlow, PastVersion};

/// What became of a flow: its versions and its state.
pub(super) fn flow(
    times: &Times,
    stored: &StoredFlow,
    next_run_at: Option<DateTime<Utc>>,
) -> Option<PastFlow> {
    let before = times.at(DAYS + 11, [10, 20, 0]);
    let definition = stored.record.definition.clone();
    let habit = HABITS.iter().find(|habit| habit.flow == stored.id.as_str());
    let version = |number, at, by, summary, definition| PastVersion { number, at, by, summary, definition };
    let (mut state_since, mut state_by, mut state_reason) = (before, None, None);
    let mut versions =
        vec![version(habit.map_or(1, |habit| habit.version), before, JONAS, "created", definition.clone())];
    match stored.id.as_str() {
        ORDERS => {
            versions = vec![
                version(6, before, PRIYA, "shipdate: written only for fulfilled orders", definition.clone()),
                version(
                    7,
                    times.at(1, [14, 3, 0]),
                    JONAS,
                    "taxcode: mapped from tax_lines[0].title, default VAT-STD removed",
                    without_default(&definition),
                ),
                version(8, times.at(1, [15, 5, 0]), JONAS, "taxcode: default VAT-STD restored", definition),
            ];
            (state_since, state_by) = (times.at(1, [15, 6, 0]), Some(JONAS));
        }
        CONTACTS => versions[0].summary = "LastName: (unknown) where there is none",
        LOYALTY => {
            (state_since, state_by, state_reason) = (paused(times), Some(ANA), Some("loyalty migration"));
        }
        _ => {}
    }
    let state = if stored.id.as_str() == LOYALTY { FlowState::Paused } else { FlowState::Active };
    Some(PastFlow {
        flow: stored.id.clone(),
        versions,
        state,
        state_since,
        state_by,
        state_reason,
        next_run_at,
    })
}

/// The definition that caused the incident: the tax code as the shop calls it, and nothing where it is silent.
fn without_default(definition: &FlowDefinition) -> FlowDefinition {
    let mut changed = definition.clone();
    let mappings = changed.streams.iter_mut().flat_map(|stream| &mut stream.mappings);
    for mapping in mappings.filter(|mapping| mapping.destination_field == "taxcode") {
        mapping.transform = None;
        mapping.default = None;
        mapping.on_fail = OnFail::Reject;
        mapping.validate.clear();
    }
    changed
}

pub(super) fn deeds(times: &Times) -> Vec<PastDeed> {
    let orders = |time, action, message| PastDeed {
        at: times.at(1, time),
        by: Some(JONAS),
        action,
        target_kind: "flow",
        target: ORDERS,
        message: Some(message),
    };
    vec![
        PastDeed {
            at: paused(times),
            by: Some(ANA),
            action: "flow.paused",
            target_kind: "flow",
            target: LOYALTY,
            message: Some("loyalty migration"),
        },
        orders(
            [14, 3, 0],
            "flow.changed",
            "version 7: taxcode: mapped from tax_lines[0].title, default VAT-STD removed",
        ),
        orders([14, 24, 0], "flow.paused", "a quarter of the orders was rejected"),
        orders([15, 5, 0], "flow.changed", "version 8: taxcode: default VAT-STD restored"),
        orders([15, 6, 0], "flow.resumed", "version 8 tried on ten orders"),
        PastDeed {
            at: times.revoked(),
            by: None,
            action: "connector.auth_changed",
            target_kind: "connector",
            target: "con_hubspot",
            message: Some("authorization revoked (invalid_grant: refresh token is invalid or revoked)"),
        },
    ]
}

/// How the connectors were found within the last minutes.
pub(super) fn checks(times: &Times) -> Vec<PastCheck> {
    let quota = |name: &str, unit: &str, used, limit| QuotaSeen {
        name: name.to_owned(),
        unit: unit.to_owned(),
        used,
        limit,
        resets_at: None,
        throttled_1h: 0,
    };
    let daily = |used, limit| QuotaSeen {
        resets_at: Some(times.utc_midnight()),
        ..quota("daily_api_requests", "requests", used, limit)
    };
    let found = [
        ("con_salesforce", 150, 212, vec![daily(87_412, 100_000)]),
        ("con_snowflake", 35, 340, vec![]),
        ("con_hubspot", 120, 180, vec![daily(61_204, 500_000)]),
        (
            "con_shopify",
            95,
            260,
            vec![QuotaSeen { throttled_1h: 14, ..quota("graphql_cost", "points", 1_840, 2_000) }],
        ),
        ("con_netsuite", 70, 610, vec![quota("concurrency", "requests", 11, 15)]),
        ("con_ordersdb", 20, 9, vec![]),
        ("con_loyalty", 185, 31, vec![]),
        ("con_crm_mcp", 210, 145, vec![]),
    ];
    let check = |(connector, seconds_ago, took_ms, quotas)| {
        let mut check = checked(times, connector, seconds_ago, took_ms, quotas);
        match connector {
            "con_hubspot" => {
                check.auth_status = AuthStatus::Revoked;
                check.auth_error = Some(REVOKED);
                check.since = times.revoked();
            }
            "con_shopify" => check.since = times.now - TimeDelta::minutes(47),
            "con_netsuite" => check.auth_expires_at = Some(times.now + TimeDelta::days(6)),
            _ => {}
        }
        judge(&mut check);
        check
    };
    found.into_iter().map(check).collect()
}

//! The demo workspaces: what they show at any hour, checked with SQL against the seeded database.

use std::time::Duration;

use apixx_mcp::demo::{DemoToken, seed};
use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::store::Store;
use apixx_mcp::store::tokens::Presented;
use chrono::{DateTime, Utc};
use sqlx::{ConnectOptions, PgConnection};

use crate::support::database::TestDatabase;

/// The moment that the prompts of the demo are written for: a Saturday morning in Berlin.
const SATURDAY: &str = "2026-11-21T08:07:00Z";

struct Demo {
    _database: TestDatabase,
    owner: PgConnection,
    clock: Clock,
    store: Store,
    tokens: Vec<DemoToken>,
}

impl Demo {
    async fn at(now: &str) -> Self {
        let database = TestDatabase::create().await;
        let clock = Clock::fixed(now.parse().unwrap());
        let store = Store::connect(
            &database.server,
            2,
            Duration::from_secs(5),
            clock.clone(),
            IdSource::seeded(clock.clone(), 1),
        )
        .await
        .unwrap();
        let tokens = seed(&store, &[]).await.unwrap();
        let owner = database.owner.connect().await.unwrap();
        Self { _database: database, owner, clock, store, tokens }
    }

    /// Starts the demo again at another time.
    async fn again_at(&mut self, now: DateTime<Utc>) {
        // What a database does by itself between two starts.
        sqlx::raw_sql("vacuum").execute(&mut self.owner).await.unwrap();
        self.clock.set(now);
        self.tokens = seed(&self.store, &self.tokens).await.unwrap();
    }

    /// Lines of text that a query answers with.
    async fn lines(&mut self, query: &str) -> Vec<String> {
        let rows: Vec<(String,)> =
            sqlx::query_as(sqlx::AssertSqlSafe(query.to_owned())).fetch_all(&mut self.owner).await.unwrap();
        rows.into_iter().map(|(line,)| line).collect()
    }

    async fn line(&mut self, query: &str) -> String {
        let lines = self.lines(query).await;
        assert_eq!(lines.len(), 1, "{query}: {lines:?}");
        lines[0].clone()
    }
}

const STATUSES: [&str; 12] = [
    "degraded Shopify orders → NetSuite sales orders",
    "degraded Shopify → Snowflake customers",
    "failing HubSpot companies → NetSuite customers",
    "failing HubSpot → Salesforce contacts",
    "failing HubSpot → Snowflake deals",
    "healthy NetSuite → Postgres inventory",
    "healthy NetSuite → Snowflake invoices",
    "healthy Postgres → Snowflake order lines",
    "healthy Salesforce → Snowflake accounts",
    "healthy Snowflake → Salesforce lead scores",
    "paused MongoDB loyalty → Shopify customer tags",
    "pending Support ticket triage",
];

impl Demo {
    async fn statuses(&mut self) -> Vec<String> {
        self.lines(
            "select case when state = 'active' then health else state end || ' ' || name from flows
              where customer_id = 'cus_acme' order by 1",
        )
        .await
    }

    /// What must hold at any hour of any day.
    async fn holds(&mut self) {
        let now = self.clock.now();
        assert_eq!(self.statuses().await, STATUSES, "{now}");
        let connectors = "select name || ' ' || status from connectors where customer_id = 'cus_acme'
            and status <> 'healthy' order by 1";
        let unwell = ["HubSpot (Marketing) down", "Payment API disabled", "Shopify (EU Store) degraded"];
        assert_eq!(self.lines(connectors).await, unwell, "{now}");
        let globex = "select distinct health || ' ' || jsonb_array_length(health_reasons) from flows
            where customer_id = 'cus_globex'";
        assert_eq!(self.lines(globex).await, ["healthy 0"], "{now}");
        let failed = format!(
            "select string_agg(flow_id, ' ' order by flow_id) || ' ' || string_agg(distinct source_connector_id, ' ')
               || ' ' || string_agg(distinct reason_code, ' ') from runs
              where customer_id = 'cus_acme' and status = 'failed'
                and window_at >= '{now}'::timestamptz - interval '1 hour' and window_at < '{now}'"
        );
        assert_eq!(
            self.line(&failed).await,
            "flow_hubspot_companies flow_hubspot_contacts flow_hubspot_deals con_hubspot AUTH_EXPIRED",
            "{now}"
        );
        let day = format!(
            "(date_trunc('day', '{now}'::timestamptz at time zone 'Europe/Berlin') at time zone 'Europe/Berlin')"
        );
        let incident = format!(
            "select string_agg(run_id, ' ') from runs
              where customer_id = 'cus_acme' and status = 'failed' and source_connector_id = 'con_shopify'
                and window_at < {day} and window_at >= {day} - interval '23 hours'"
        );
        assert_eq!(self.line(&incident).await, "run_abc123", "{now}");
        let sums = "select records_read || ' ' || records_written || ' ' || records_failed || ' ' || records_skipped || ' '
               || (select sum(count) from run_error_counts c where c.customer_id = r.customer_id and c.run_id = r.run_id)
               || ' ' || error_groups || ' ' || top_error_class || ' '
               || to_char(finished_at at time zone 'Europe/Berlin', 'HH24:MI:SS')
            from runs r where run_id = 'run_abc123'";
        assert_eq!(self.line(sums).await, "4812 3561 1203 48 1203 5 REQUIRED_FIELD 14:22:47", "{now}");
        let summary = format!(
            "select g.error_class || ' ' || sum(c.count) from run_error_counts c
               join error_groups g using (customer_id, group_id)
               join runs r using (customer_id, run_id)
              where r.flow_id = 'flow_shopify_orders' and r.window_at >= '{now}'::timestamptz - interval '7 days'
              group by g.error_class order by sum(c.count) desc"
        );
        assert_eq!(
            self.lines(&summary).await,
            [
                "REQUIRED_FIELD 742",
                "REFERENCE 475",
                "RATE_LIMIT 154",
                "DUPLICATE 63",
                "VALIDATION 17",
                "TYPE 9"
            ],
            "{now}"
        );
        let last = "select r.status || ' ' || records_read || ' ' || records_written || ' ' || records_failed || ' ' || records_skipped
            from runs r join flows f using (customer_id, flow_id)
            where f.flow_id = 'flow_shopify_orders' and f.last_run_id = r.run_id";
        assert_eq!(self.line(last).await, "partial 1152 1117 23 12", "{now}");
        let open = format!(
            "select origin || ' ' || status || ' ' || flow_id || ' '
                 || case status when 'queued' then extract(epoch from '{now}'::timestamptz - available_at)::int
                    else round(100.0 * (records_written + records_failed + records_skipped) / records_estimated) end
               from runs where finished_at is null and customer_id = 'cus_acme' order by 1"
        );
        assert_eq!(
            self.lines(&open).await,
            [
                "ingested running flow_inventory 40",
                "native queued flow_lead_scores 7",
                "native queued flow_order_lines 18"
            ],
            "{now}"
        );
        self.adds_up().await;
    }

    /// Rows agree with each other.
    async fn adds_up(&mut self) {
        let now = self.clock.now();
        for (what, query) in [
            (
                "run_stats",
                "select (sum(runs), sum(partial), sum(failed), sum(cancelled), sum(skipped),
                         sum(records_read), sum(records_written), sum(records_failed), sum(records_skipped), sum(records_unchanged), sum(bytes_written))::text
                   from run_stats where status = '' group by grain, flow_id = ''
                 union
                 select (count(*), count(*) filter (where status = 'partial'), count(*) filter (where status = 'failed'),
                         count(*) filter (where status = 'cancelled'), count(*) filter (where status = 'skipped'), sum(records_read), sum(records_written), sum(records_failed), sum(records_skipped), sum(records_unchanged), sum(bytes_written))::text
                   from runs where finished_at is not null",
            ),
            (
                "run_stats by state",
                "with counted as (
                    select status, grain, count(*), sum(records_read) from runs, (values ('hour'), ('day')) g (grain)
                     where finished_at is not null and status <> 'succeeded' group by 1, 2),
                 kept as (
                    select status, grain, sum(runs)::bigint, sum(records_read) from run_stats
                     where status <> '' and flow_id = '' group by 1, 2)
                 select count(*)::text from ((table counted except table kept) union all (table kept except table counted)) d",
            ),
            (
                "error_stats",
                "select distinct sum(errors)::text from error_stats group by grain, level
                 union
                 select sum(count)::text from run_error_counts join runs using (customer_id, run_id) where finished_at is not null",
            ),
            (
                "runs",
                "select count(*)::text from runs where finished_at is not null and
                   (status in ('succeeded', 'partial') and records_read <> records_written + records_failed + records_skipped
                    or (status = 'partial') <> (records_failed > 0) and status in ('succeeded', 'partial')
                    or least(records_read, records_written, records_failed, records_skipped) < 0
                    or finished_at < started_at or started_at < queued_at)",
            ),
            (
                "records failed",
                "select count(*)::text from runs r where records_failed <> (
                    select coalesce(sum(count), 0) from run_error_counts c where c.customer_id = r.customer_id and c.run_id = r.run_id)
                    and reason_code is distinct from 'AUTH_EXPIRED'",
            ),
            (
                "run_error_counts",
                "select count(*)::text from run_error_counts c join runs r using (customer_id, run_id)
                  where (c.flow_id, c.window_at) <> (r.flow_id, r.window_at)",
            ),
            (
                "overlaps",
                "select count(*)::text from (select started_at < lag(finished_at) over (partition by customer_id, flow_id order by started_at) as overlap
                   from runs where started_at is not null) o where overlap",
            ),
        ] {
            let found = self.lines(query).await;
            let whole = if what.ends_with("stats") { found.len() == 1 } else { found == ["0"] };
            assert!(whole, "{what} at {now}: {found:?}");
        }
    }
}

#[tokio::test]
async fn the_story_holds_on_the_morning_it_is_told_for() {
    let mut demo = Demo::at(SATURDAY).await;
    demo.holds().await;
    let reasons = "select name || ': ' || string_agg(r ->> 'code' || coalesce(' since ' || to_char((r ->> 'since')::timestamptz
            at time zone 'Europe/Berlin', 'HH24:MI'), ''), ', ')
        from connectors, jsonb_array_elements(status_reasons) r where customer_id = 'cus_acme' group by name order by name";
    assert_eq!(
        demo.lines(reasons).await,
        [
            "HubSpot (Marketing): AUTH_REVOKED since 05:58",
            "Shopify (EU Store): QUOTA_HIGH since 08:20, THROTTLED since 08:20"
        ]
    );
    let quotas =
        "select connector_id || ' ' || name || ' ' || used || '/' || quota_limit || ' ' || throttled_1h
            || coalesce(' resets ' || (resets_at at time zone 'UTC')::text, '')
        from connector_quotas where customer_id = 'cus_acme' order by 1";
    assert_eq!(
        demo.lines(quotas).await,
        [
            "con_hubspot daily_api_requests 61204/500000 0 resets 2026-11-22 00:00:00",
            "con_netsuite concurrency 11/15 0",
            "con_salesforce daily_api_requests 87412/100000 0 resets 2026-11-22 00:00:00",
            "con_shopify graphql_cost 1840/2000 14"
        ]
    );
    // The last good run of the accounts, and last night's invoices.
    let run = |flow: &str| {
        format!(
            "select r.status || ' ' || to_char(r.scheduled_for at time zone 'Europe/Berlin', 'DD HH24:MI') || ' ' || r.records_read
                 || ' ' || extract(epoch from r.finished_at - r.started_at)::int
               from runs r join flows f using (customer_id, flow_id) where f.flow_id = '{flow}' and f.last_success_run_id = r.run_id"
        )
    };
    assert!(demo.line(&run("flow_salesforce_accounts")).await.starts_with("succeeded 21 08:00 "));
    assert_eq!(demo.line(&run("flow_netsuite_invoices")).await, "succeeded 21 02:00 8412 391");
    // The morning of HubSpot: failing since the first run after 05:58.
    let morning = "select status || ' ' || count(*) || ' ' || to_char(min(queued_at) at time zone 'Europe/Berlin', 'HH24:MI')
        from runs where flow_id = 'flow_hubspot_contacts' and queued_at >= '2026-11-21T04:00:00Z' group by status order by 1";
    assert_eq!(demo.lines(morning).await, ["failed 4 06:05", "succeeded 1 05:05"]);
    let errors = "select g.error_class || '/' || g.code || ' ' || g.stage || ' ' || c.count || ' ' || e.message
        from run_error_counts c join error_groups g using (customer_id, group_id) join run_errors e using (customer_id, group_id, run_id)
        join runs r using (customer_id, run_id) where r.flow_id = 'flow_hubspot_deals' order by r.window_at desc limit 1";
    assert_eq!(
        demo.line(errors).await,
        "AUTH/AUTH_EXPIRED extract 1 invalid_grant: refresh token is invalid or revoked"
    );
}

#[tokio::test]
async fn yesterdays_incident_is_there_whole() {
    let mut demo = Demo::at(SATURDAY).await;
    let day = "select to_char(queued_at at time zone 'Europe/Berlin', 'HH24:MI') || ' ' || status || ' v' || flow_version || ' ' || records_read
        from runs where flow_id = 'flow_shopify_orders' and queued_at >= '2026-11-20T13:00:00Z' and queued_at <= '2026-11-20T14:15:00Z'
        order by queued_at";
    assert_eq!(
        demo.lines(day).await,
        ["14:00 succeeded v6 431", "14:15 failed v7 4812", "15:15 succeeded v8 6911"]
    );
    let versions = "select version || ' ' || to_char(created_at at time zone 'Europe/Berlin', 'DD HH24:MI') || ' ' || created_by || ': ' || summary
        from flow_versions where flow_id = 'flow_shopify_orders' and version > 6 order by version";
    assert_eq!(
        demo.lines(versions).await,
        [
            "7 20 14:03 Jonas Weber: taxcode: mapped from tax_lines[0].title, default VAT-STD removed",
            "8 20 15:05 Jonas Weber: taxcode: default VAT-STD restored"
        ]
    );
    let taxcode = "select version || ' ' || coalesce(m ->> 'default', 'none') from flow_versions,
            jsonb_array_elements(definition -> 'streams' -> 0 -> 'mappings') m
        where flow_id = 'flow_shopify_orders' and m ->> 'destination_field' = 'taxcode' order by version";
    assert_eq!(demo.lines(taxcode).await, ["6 VAT-STD", "7 none", "8 VAT-STD"]);
    let deeds =
        "select to_char(at at time zone 'Europe/Berlin', 'HH24:MI') || ' ' || action || ' ' || actor_label
        from audit_log where target_id = 'flow_shopify_orders' and action <> 'flow.created' order by at";
    assert_eq!(
        demo.lines(deeds).await,
        [
            "14:03 flow.changed Jonas Weber",
            "14:24 flow.paused Jonas Weber",
            "15:05 flow.changed Jonas Weber",
            "15:06 flow.resumed Jonas Weber"
        ]
    );
    let groups = "select g.error_class || ' ' || g.code || ' ' || coalesce(g.field, '-') || ' ' || c.count || ' ' || s.message || ' ' || s.payload
        from run_error_counts c join error_groups g using (customer_id, group_id)
        join lateral (select e.message, e.payload from run_errors e where e.run_id = c.run_id and e.group_id = c.group_id
            order by e.occurred_at, e.error_id limit 1) s on true
        where c.run_id = 'run_abc123' order by c.count desc";
    assert_eq!(
        demo.lines(groups).await,
        [
            r##"REQUIRED_FIELD REQUIRED_FIELD_MISSING taxcode 742 Please enter value(s) for: Tax Code {"name": "#48211", "email": "l***@example.com", "currency": "EUR", "tax_lines": [], "total_price": "64.90"}"##,
            r##"REFERENCE INVALID_KEY_OR_REF item 311 Invalid item reference key SKU-8841-B for subsidiary 3 {"name": "#48377", "line_items": [{"sku": "SKU-8841-B", "quantity": 2}]}"##,
            r##"RATE_LIMIT SSS_REQUEST_LIMIT_EXCEEDED - 96 Concurrent request limit exceeded (15) {"name": "#49002"}"##,
            r##"DUPLICATE RCRD_DUP externalid 41 This record already exists: externalid 5512903377 {"id": 5512903377, "name": "#47990"}"##,
            r##"VALIDATION INVALID_CURRENCY currency 13 Currency CHF is not active for subsidiary 3 {"name": "#48650", "currency": "CHF", "total_price": "118.00"}"##,
        ]
    );
    let week = "select count(*) filter (where errors > 0) || ' of ' || count(*) from (
            select (select sum(count) from run_error_counts c where c.run_id = r.run_id and c.customer_id = r.customer_id) as errors
              from runs r where flow_id = 'flow_shopify_orders' and finished_at >= '2026-11-14T08:07:00Z') r";
    assert_eq!(demo.line(week).await, "97 of 669");
    let mishaps = "select status || ' ' || coalesce(reason_code, '') || ' ' || count(*) from runs
        where status in ('failed', 'cancelled', 'skipped') and customer_id = 'cus_acme' and reason_code <> 'AUTH_EXPIRED'
        group by status, reason_code order by 1";
    assert_eq!(
        demo.lines(mishaps).await,
        [
            "cancelled CANCELLED_BY_USER 2",
            "failed ERROR_THRESHOLD 1",
            "failed TIMEOUT 6",
            "skipped PREVIOUS_RUN_ACTIVE 3"
        ]
    );
}

#[tokio::test]
async fn globex_sees_none_of_it() {
    let mut demo = Demo::at(SATURDAY).await;
    let shared = "select count(*)::text from (select flow_id from flows group by flow_id having count(*) > 1
        union all select connector_id from connectors group by connector_id having count(*) > 1
        union all select run_id from runs group by run_id having count(*) > 1) ids";
    assert_eq!(demo.line(shared).await, "0");
    let names = "select string_agg(customer_id, ' ' order by customer_id) from flows where name = 'Salesforce → Snowflake accounts'";
    assert_eq!(demo.line(names).await, "cus_acme cus_globex");
    let run = "select customer_id || ' ' || status || ' ' || flow_id from runs where run_id = 'run_globex01'";
    assert_eq!(demo.line(run).await, "cus_globex succeeded flow_globex_accounts");
    assert_eq!(demo.line("select count(*)::text from runs where customer_id = 'cus_lab'").await, "0");
}

#[tokio::test]
async fn the_story_holds_at_any_hour() {
    let mut demo = Demo::at(SATURDAY).await;
    for now in [
        // just after midnight, and around the hour from which "this morning" is told
        "2026-11-20T23:00:03Z",
        "2026-11-21T06:09:59Z",
        // clocks are put forward in Berlin, and back
        "2026-03-29T01:00:05Z",
        "2026-10-25T01:12:00Z",
        "2028-02-29T09:14:58Z",
    ] {
        demo.again_at(now.parse().unwrap()).await;
        demo.holds().await;
    }
}

#[tokio::test]
async fn a_later_start_moves_the_past_and_keeps_what_really_happened() {
    let mut demo = Demo::at(SATURDAY).await;
    let tokens: Vec<String> = demo.tokens.iter().map(|kept| kept.token.reveal().to_owned()).collect();
    let native = "insert into runs (customer_id, run_id, flow_id, flow_version, source_connector_id, destination_connector_id,
            status, trigger, scheduled_for, queued_at, available_at, started_at, finished_at, window_at, attempt, worker_id)
        values ('cus_acme', 'run_real', 'flow_salesforce_accounts', 4, 'con_salesforce', 'con_snowflake', 'succeeded', 'mcp', null,
                '2026-11-21T08:08:00Z', '2026-11-21T08:08:00Z', '2026-11-21T08:08:01Z', '2026-11-21T08:08:09Z', '2026-11-21T08:08:09Z', 1, 'w1'),
               ('cus_acme', 'run_tick', 'flow_salesforce_accounts', 4, 'con_salesforce', 'con_snowflake', 'succeeded', 'schedule',
                '2026-11-21T09:00:00Z', '2026-11-21T09:00:00Z', '2026-11-21T09:00:00Z', '2026-11-21T09:00:01Z', '2026-11-21T09:00:09Z',
                '2026-11-21T09:00:09Z', 1, 'w1')";
    sqlx::query(native).execute(&mut demo.owner).await.unwrap();
    let lab = "select (select jsonb_agg(f order by f.flow_id) from flows f where f.customer_id = 'cus_lab')::text
        || (select jsonb_agg(c order by c.connector_id) from connectors c where c.customer_id = 'cus_lab')::text
        || (select jsonb_agg(t order by t.token_id) from tokens t)::text || (select count(*) from audit_log where action = 'token.created')";
    let before = demo.line(lab).await;
    // Ticks that both starts tell of had the same run.
    let same = "select string_agg(run_id || records_read, ' ' order by run_id) from runs
        where flow_id = 'flow_order_lines' and queued_at between '2026-11-01T00:00:00Z' and '2026-11-10T00:00:00Z'";
    let told = demo.line(same).await;

    demo.again_at("2026-11-21T11:31:00Z".parse().unwrap()).await;
    demo.holds().await;
    assert_eq!(demo.line(lab).await, before);
    assert_eq!(demo.line(same).await, told);
    let kept: Vec<String> = demo.tokens.iter().map(|kept| kept.token.reveal().to_owned()).collect();
    assert_eq!(kept, tokens);
    let real = "select string_agg(run_id || ' ' || coalesce(worker_id, ''), ', ' order by run_id) from runs
        where run_id = 'run_real' or scheduled_for = '2026-11-21T09:00:00Z' and flow_id = 'flow_salesforce_accounts'";
    assert_eq!(demo.line(real).await, "run_real w1, run_tick w1");
    // Nothing is told twice.
    let deeds = "select count(*) || ' ' || count(distinct (action, target_id, at)) from audit_log where actor_kind <> 'system' and customer_id = 'cus_acme'";
    let counts = demo.line(deeds).await;
    let (all, distinct) = counts.split_once(' ').unwrap();
    assert_eq!(all, distinct);

    // The next day, and without the token, which somebody revoked.
    sqlx::query("update tokens set revoked_at = '2026-11-21T12:00:00Z' where customer_id = 'cus_acme'")
        .execute(&mut demo.owner)
        .await
        .unwrap();
    demo.again_at("2026-11-22T07:45:00Z".parse().unwrap()).await;
    demo.holds().await;
    assert_ne!(demo.tokens[0].token.reveal(), tokens[0]);
    assert_eq!(demo.tokens[1].token.reveal(), tokens[1]);
    let Presented::Live(owner) = demo.store.token_owner(demo.tokens[0].token.digest()).await.unwrap() else {
        panic!("the new token is live")
    };
    assert_eq!((owner.workspace.slug.as_str(), owner.scopes.iter().count()), ("acme", 6));
}

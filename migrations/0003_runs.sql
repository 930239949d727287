-- Runs (which are the queue too), their attempts, events and errors, and what is rolled up from them.

create table runs (
    customer_id text not null references customers (customer_id),
    -- (checked at every update: a pattern that counts costs as much as all else that an update does)
    run_id      text not null check (run_id ~ '^run_[0-9a-zA-Z_-]+$' and length(run_id) between 7 and 64),
    flow_id     text not null,
    flow_version integer not null,
    source_connector_id      text not null,                  -- as of the run
    destination_connector_id text not null,
    origin      text not null default 'native' check (origin in ('native', 'ingested')),
    status      text not null check (status in
        ('queued', 'running', 'retrying', 'cancelling', 'succeeded', 'partial', 'failed', 'cancelled', 'skipped')),
    reason_code text,
    reason_message text,
    trigger     text not null check (trigger in ('schedule', 'manual', 'mcp', 'api', 'webhook', 'retry', 'backfill')),
    triggered_by text,                                       -- who, in words
    trigger_note text,
    retry_of    text,
    scheduled_for timestamptz,                               -- nominal time
    queued_at   timestamptz not null,
    available_at timestamptz not null,                       -- not before: back-off
    started_at  timestamptz,
    finished_at timestamptz,
    -- the one time that windows go by: finished_at, or the end of time while the run is open
    window_at   timestamptz not null default '9999-12-31T00:00:00Z',
    phase       text,
    attempt     integer not null default 0,                  -- counts from 1 once claimed; fences every write of a worker
    attempt_at  timestamptz,                                 -- when the attempt that is going began
    max_attempts integer not null default 3,
    priority    integer not null default 100,                -- lower first
    worker_id   text,
    lease_until timestamptz,
    cancel_requested_at timestamptz,
    cancel_requested_by text,
    records_read    bigint not null default 0 check (records_read >= 0),
    records_written bigint not null default 0 check (records_written >= 0),
    records_failed  bigint not null default 0 check (records_failed >= 0),
    records_skipped bigint not null default 0 check (records_skipped >= 0),
    -- of the skipped ones, those that the destination had already
    records_unchanged bigint not null default 0 check (records_unchanged between 0 and records_skipped),
    records_estimated bigint,
    bytes_read    bigint not null default 0,
    bytes_written bigint not null default 0,
    error_groups  integer not null default 0,
    top_error_class text,
    checkpoint  jsonb,                                       -- where the next attempt reads on from
    primary key (customer_id, run_id),
    foreign key (customer_id, flow_id) references flows (customer_id, flow_id),
    check ((status in ('succeeded', 'partial', 'failed', 'cancelled', 'skipped')) = (finished_at is not null)),
    check (window_at = coalesce(finished_at, '9999-12-31T00:00:00Z'))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

-- the two concurrency rules, for runs of our own
create unique index runs_one_active on runs (customer_id, flow_id)
    where origin = 'native' and status in ('running', 'retrying', 'cancelling');
create unique index runs_one_queued on runs (customer_id, flow_id)
    where origin = 'native' and status = 'queued';
-- each tick of a schedule once, however many schedulers run
create unique index runs_schedule_once on runs (customer_id, flow_id, scheduled_for)
    where origin = 'native' and trigger = 'schedule';
-- what workers walk; small, since runs leave it
create index runs_claimable on runs (customer_id, priority, available_at, run_id)
    where origin = 'native' and status in ('queued', 'retrying');
create index runs_leased on runs (lease_until)
    where origin = 'native' and status in ('running', 'cancelling');
create index runs_active on runs (customer_id, flow_id)
    where status in ('queued', 'running', 'retrying', 'cancelling');
-- what lists walk
-- (what the hour at the edge of a window comes to, and which runs a filter picks, is read from these two alone)
create index runs_window on runs (customer_id, window_at desc, run_id desc)
    include (flow_id, status, trigger, source_connector_id, destination_connector_id, records_read, records_written,
             records_failed, records_skipped, records_unchanged, bytes_written);
create index runs_status on runs (customer_id, status, window_at desc, run_id desc);
create index runs_flow on runs (customer_id, flow_id, window_at desc, run_id desc)
    include (status, trigger, source_connector_id, destination_connector_id, records_read, records_written,
             records_failed, records_skipped, records_unchanged, bytes_written);
-- (the state first: led by the flow, the planner would take this for runs of a flow in any state)
create index runs_flow_status on runs (customer_id, status, flow_id, window_at desc, run_id desc);
-- A flow's runs are its customer's: without knowing it the planner thinks a flow has next to no runs, and any index does.
create statistics runs_of_flow (dependencies) on customer_id, flow_id from runs;

-- Attempts that ended (of runs that another platform reports, also those that go); the one that is going is its run's.
create table run_attempts (
    customer_id text not null,
    run_id      text not null,
    attempt     integer not null,
    worker_id   text,
    status      text not null check (status in ('running', 'succeeded', 'partial', 'failed', 'cancelled', 'lost', 'released')),
    started_at  timestamptz not null,
    finished_at timestamptz,
    records_written bigint not null default 0,
    error_class text,
    message     text,
    primary key (customer_id, run_id, attempt),
    foreign key (customer_id, run_id) references runs (customer_id, run_id) on delete cascade
);

-- The timeline that a postmortem quotes.
create table run_events (
    customer_id text not null,
    run_id      text not null,
    seq         integer not null,
    at          timestamptz not null,
    kind        text not null,
    message     text not null,
    primary key (customer_id, run_id, seq),
    foreign key (customer_id, run_id) references runs (customer_id, run_id) on delete cascade
);

-- One per flow and fingerprint.
create table error_groups (
    customer_id text not null,
    group_id    text not null check (group_id ~ '^eg_[0-9a-zA-Z_-]+$'),
    flow_id     text not null,
    fingerprint bytea not null check (length(fingerprint) = 16),
    grouping_version smallint not null,
    error_class text not null,
    code        text not null,
    stage       text not null,
    origin      text not null,
    field       text,
    message     text not null,                               -- the template
    first_seen_at timestamptz not null,
    last_seen_at  timestamptz not null,
    last_seen_run_id text not null,
    primary key (customer_id, group_id),
    unique (customer_id, flow_id, fingerprint),
    foreign key (customer_id, flow_id) references flows (customer_id, flow_id) on delete cascade
);

-- Exact counts; samples are capped, counts are not.
create table run_error_counts (
    customer_id text not null,
    run_id      text not null,
    group_id    text not null,
    flow_id     text not null,                               -- the run's
    window_at   timestamptz not null default '9999-12-31T00:00:00Z', -- the run's
    count       bigint not null,
    first_at    timestamptz not null,
    last_at     timestamptz not null,
    primary key (customer_id, run_id, group_id),
    foreign key (customer_id, run_id) references runs (customer_id, run_id) on delete cascade,
    foreign key (customer_id, group_id) references error_groups (customer_id, group_id) on delete cascade
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
-- (the newest run of a group in a window)
create index run_error_counts_group on run_error_counts (customer_id, group_id, window_at, run_id);
-- (what a flow's hour at the edge of a window comes to is read from the index alone, not run by run)
create index run_error_counts_flow on run_error_counts (customer_id, flow_id, window_at)
    include (run_id, group_id, count);

-- Samples of rejected records, redacted before they came here.
create table run_errors (
    customer_id text not null,
    run_id      text not null,
    group_id    text not null,
    error_id    text not null check (error_id ~ '^err_[0-9a-zA-Z_-]+$'),
    occurred_at timestamptz not null,
    stream      text,
    attempt     integer not null,
    message     text not null,
    record_key  text,
    record_index bigint,
    payload     jsonb,
    payload_truncated boolean not null default false,
    primary key (customer_id, run_id, group_id, error_id),
    foreign key (customer_id, run_id) references runs (customer_id, run_id) on delete cascade,
    foreign key (customer_id, group_id) references error_groups (customer_id, group_id) on delete cascade
);
create index run_errors_age on run_errors (customer_id, occurred_at) where payload is not null;
create index run_errors_group on run_errors (customer_id, group_id);
-- A group is its customer's: without knowing it the planner thinks that a group has next to no errors, and reads them all
-- to find those of one run.
create statistics errors_of_group (dependencies) on customer_id, group_id from run_errors;

-- Runs that ended, by hour and by day (UTC) of their end, each of one flow, and all flows of the customer together
-- (no flow, no connectors), so that no window costs more than its hours and days. Runs in all states stand in one row,
-- which counts the states, so that more runs in an hour are hardly more rows; those that did not succeed, a few in a
-- hundred, stand in a row of their state besides. What succeeded is the difference. The sums stand in the indexes:
-- rows come in the order of time, those of one customer far apart.
create table run_stats (
    customer_id text not null references customers (customer_id),
    flow_id     text not null,                               -- '' for all flows
    grain       text not null check (grain in ('hour', 'day')),
    at          timestamptz not null,
    status      text not null check (status in ('', 'partial', 'failed', 'cancelled', 'skipped')), -- '' for all states
    trigger     text not null,
    source_connector_id      text not null,                  -- as of the runs; '' for all flows
    destination_connector_id text not null,
    runs        bigint not null,
    partial     integer not null,                            -- of these
    failed      integer not null,
    cancelled   integer not null,
    skipped     integer not null,
    records_read    bigint not null,
    records_written bigint not null,
    records_failed  bigint not null,
    records_skipped bigint not null,
    records_unchanged bigint not null,                       -- of these
    bytes_written   bigint not null,
    primary key (customer_id, flow_id, grain, status, at, trigger, source_connector_id, destination_connector_id)
        include (runs, partial, failed, cancelled, skipped, records_read, records_written, records_failed,
                 records_skipped, records_unchanged, bytes_written)
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
create index run_stats_each on run_stats (customer_id, grain, status, at)
    include (flow_id, trigger, source_connector_id, destination_connector_id, runs, partial, failed, cancelled, skipped,
             records_read, records_written, records_failed, records_skipped, records_unchanged, bytes_written)
    where flow_id <> '';
create index run_stats_age on run_stats (at);

-- Errors of runs that ended, by hour and by day (UTC) of their end, at each level they are asked for:
-- a run counts once per key and level, so that runs add up.
create table error_stats (
    customer_id text not null,
    flow_id     text not null,
    grain       text not null check (grain in ('hour', 'day')),
    level       text not null check (level in ('all', 'class', 'code', 'field', 'group')),
    at          timestamptz not null,
    key         text not null,
    errors      bigint not null,
    runs        bigint not null,
    primary key (customer_id, flow_id, level, grain, at, key) include (errors, runs),
    foreign key (customer_id, flow_id) references flows (customer_id, flow_id) on delete cascade
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
create index error_groups_age on error_groups (last_seen_at);
create index error_stats_age on error_stats (at);

create table idempotency_keys (
    customer_id  text not null references customers (customer_id),
    key          text not null check (length(key) between 1 and 128),
    request_hash bytea not null,
    run_id       text not null,
    expires_at   timestamptz not null,
    primary key (customer_id, key)
);
create index idempotency_age on idempotency_keys (expires_at);

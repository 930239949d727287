-- Connectors and flows.

create table connectors (
    customer_id  text not null references customers (customer_id),
    connector_id text not null check (connector_id ~ '^con_[0-9a-zA-Z_-]+$'),
    name         text not null check (length(btrim(name)) between 1 and 200),
    name_key     text not null,
    type         text not null check (type in ('REST', 'SQL_DB', 'NOSQL_DB', 'MCP', 'FILE', 'CUSTOM')),
    service      text not null,
    kind         text not null check (kind in ('files', 'postgres', 'sim')),
    description  text,
    config       jsonb not null default '{}',                -- never a secret
    auth_type    text not null default 'NO_AUTH'
        check (auth_type in ('NO_AUTH', 'SERVICE_ACCOUNT', 'OAUTH2', 'API_KEY', 'BASIC', 'BEARER')),
    auth_status  text not null default 'unknown' check (auth_status in
        ('valid', 'expiring_soon', 'expired', 'revoked', 'invalid', 'missing', 'not_required', 'unknown')),
    auth_expires_at timestamptz,
    auth_checked_at timestamptz,
    auth_error   text,
    enabled      boolean not null default true,
    status       text not null default 'unknown' check (status in ('healthy', 'degraded', 'down', 'unknown', 'disabled')),
    status_reasons jsonb not null default '[]',              -- [{code, message, since}]
    status_since timestamptz not null,
    check_interval_s integer not null default 300 check (check_interval_s between 5 and 86400),
    next_check_at timestamptz not null,
    check_lease_until timestamptz,
    last_check_at timestamptz,
    last_check_ok boolean,
    last_check_ms integer,
    last_check_error text,
    consecutive_failures integer not null default 0,
    last_activity_at timestamptz,                            -- last use by a run
    created_at   timestamptz not null,
    primary key (customer_id, connector_id),
    unique (customer_id, name_key)
);
create index connectors_due on connectors (next_check_at) where enabled;

create table connector_quotas (
    customer_id  text not null,
    connector_id text not null,
    name         text not null,
    unit         text not null default 'requests',
    used         bigint not null,
    quota_limit  bigint not null check (quota_limit > 0),
    resets_at    timestamptz,
    throttled_1h integer not null default 0,
    observed_at  timestamptz not null,
    primary key (customer_id, connector_id, name),
    foreign key (customer_id, connector_id) references connectors (customer_id, connector_id) on delete cascade
);

create table flows (
    customer_id text not null references customers (customer_id),
    flow_id     text not null check (flow_id ~ '^flow_[0-9a-zA-Z_-]+$'),
    name        text not null check (length(btrim(name)) between 1 and 200),
    sort_key    text not null,                               -- lower-cased name, for lists
    description text,
    state       text not null default 'active' check (state in ('draft', 'active', 'paused', 'archived')),
    state_reason text,
    state_by    text,
    state_changed_at timestamptz not null,
    owner_user_id text,
    tags        text[] not null default '{}',
    source_connector_id      text not null,
    destination_connector_id text not null,
    source_objects      text[] not null,                     -- of the current version, in the order of its streams
    destination_objects text[] not null,
    object_keys_read    text[] not null,                     -- lower-cased, whole and from each last segment on, for look-ups
    object_keys_written text[] not null,
    schedule_kind text not null default 'manual' check (schedule_kind in ('manual', 'cron', 'interval')),
    schedule_cron text,
    schedule_interval_s integer,
    schedule_timezone text not null default 'UTC',
    schedule_changed_at timestamptz,                         -- from when on this one holds; null: ever since
    next_run_at   timestamptz,
    current_version integer not null default 1,
    max_attempts  integer not null default 3 check (max_attempts between 1 and 10),
    timeout_s     integer not null default 21600 check (timeout_s between 1 and 604800),
    max_error_rate double precision not null default 0.1 check (max_error_rate between 0 and 1),
    degraded_error_rate double precision not null default 0.01 check (degraded_error_rate between 0 and 1),
    -- computed: written with every run that ends, every connector that changes, and by the lateness tick
    health        text not null default 'pending' check (health in ('healthy', 'degraded', 'failing', 'pending')),
    health_reasons jsonb not null default '[]',
    health_since  timestamptz not null,
    health_checked_at timestamptz not null,
    last_decided_at timestamptz,                             -- end of the last run that succeeded or failed, kept or not
    last_run_id   text,
    last_success_run_id text,
    created_at    timestamptz not null,
    -- the place in lists: failing first, then degraded, pending, healthy, paused, draft, archived
    rank          integer not null generated always as (
        case when state = 'active' then array_position(array['failing', 'degraded', 'pending', 'healthy'], health)
             else 4 + array_position(array['paused', 'draft', 'archived'], state) end) stored,
    primary key (customer_id, flow_id),
    foreign key (customer_id, source_connector_id) references connectors (customer_id, connector_id),
    foreign key (customer_id, destination_connector_id) references connectors (customer_id, connector_id),
    foreign key (customer_id, owner_user_id) references users (customer_id, user_id),
    check (schedule_kind <> 'cron' or schedule_cron is not null),
    check (schedule_kind <> 'interval' or schedule_interval_s is not null)
);
create index flows_list on flows (customer_id, rank, sort_key, flow_id);
create index flows_due on flows (next_run_at) where state = 'active' and next_run_at is not null;
create index flows_unwatched on flows (health_checked_at) where state = 'active';
-- (the connector first: led by the customer, the planner would take these for reading all flows of one)
create index flows_source on flows (source_connector_id, customer_id);
create index flows_destination on flows (destination_connector_id, customer_id);

-- Names and aliases share one key, so that a look-up is unambiguous by construction.
create table flow_names (
    customer_id text not null,
    name_key    text not null,
    flow_id     text not null,
    label       text not null,                               -- as written
    kind        text not null check (kind in ('name', 'alias')),
    primary key (customer_id, name_key),
    foreign key (customer_id, flow_id) references flows (customer_id, flow_id) on delete cascade
);
create index flow_names_flow on flow_names (customer_id, flow_id);

-- What a flow does, version by version; a run executes the version it was queued with.
create table flow_versions (
    customer_id text not null,
    flow_id     text not null,
    version     integer not null,
    definition  jsonb not null,                              -- streams with their mappings
    summary     text,
    created_by  text,
    created_at  timestamptz not null,
    primary key (customer_id, flow_id, version),
    foreign key (customer_id, flow_id) references flows (customer_id, flow_id) on delete cascade
);

-- Where an incremental stream reads on from.
create table flow_cursors (
    customer_id text not null,
    flow_id     text not null,
    stream      text not null,                               -- which one, from where to where and by which field
    cursor      jsonb not null,
    run_id      text not null,
    updated_at  timestamptz not null,
    primary key (customer_id, flow_id, stream),
    foreign key (customer_id, flow_id) references flows (customer_id, flow_id) on delete cascade
);

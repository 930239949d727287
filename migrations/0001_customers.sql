-- Customers, their people and their tokens.
--
-- Every table of a customer leads its keys with customer_id, and foreign keys carry it, so that no row can
-- point at another customer's row. Closed vocabularies are text with a check: equality on text is leakproof,
-- so that indexes work under row-level security.

create table plans (
    plan_code           text primary key,
    requests_per_minute integer not null check (requests_per_minute > 0),
    burst               integer not null check (burst > 0),
    daily_requests      bigint,                              -- null: unlimited
    triggers_per_minute integer not null,
    daily_runs          integer,                             -- null: unlimited
    max_concurrent_runs integer not null,
    max_queued_runs     integer not null,
    run_retention_days  integer not null,
    payload_retention_days integer not null
);

insert into plans values
    ('free',     120,  60,    20000, 10,   500,  2,  20, 30, 7),
    ('team',     600, 300,   200000, 30,  5000,  5, 100, 90, 30),
    ('business', 6000, 3000,    null, 120,  null, 20, 1000, 90, 30);

create table customers (
    customer_id text primary key check (customer_id ~ '^cus_[0-9a-zA-Z_-]+$'),
    slug        text not null unique check (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    name        text not null check (length(btrim(name)) between 1 and 200),
    timezone    text not null,                               -- IANA; checked by the program
    plan_code   text not null references plans (plan_code),
    status      text not null default 'active' check (status in ('active', 'suspended')),
    created_at  timestamptz not null,
    runs_kept_since timestamptz                              -- before it a plan kept runs for a shorter time
);

create table users (
    customer_id text not null references customers (customer_id),
    user_id     text not null check (user_id ~ '^usr_[0-9a-zA-Z_-]+$'),
    email       text not null check (email = lower(email)),
    name        text not null,
    role        text not null check (role in ('owner', 'admin', 'operator', 'viewer')),
    created_at  timestamptz not null,
    ended_at    timestamptz,                                 -- belongs no more; kept for what they did
    primary key (customer_id, user_id),
    unique (customer_id, email)
);

create table tokens (
    customer_id      text not null,
    token_id         text not null check (token_id ~ '^mtk_[0-9a-zA-Z_-]+$'),
    user_id          text not null,
    name             text not null check (length(btrim(name)) between 1 and 200),
    digest           bytea not null unique check (length(digest) = 32),  -- SHA-256 of the secret
    last_four        text not null,
    scopes           text[] not null,
    created_at       timestamptz not null,
    expires_at       timestamptz,
    revoked_at       timestamptz,
    ends_at          timestamptz not null generated always as (coalesce(least(revoked_at, expires_at), 'infinity')) stored,
    last_used_at     timestamptz,
    last_used_client text,
    last_used_ip     text,
    primary key (customer_id, token_id),
    foreign key (customer_id, user_id) references users (customer_id, user_id)
);
create index tokens_end on tokens (customer_id, ends_at);

-- What one token did with one tool in one hour.
create table usage_hourly (
    customer_id text not null references customers (customer_id),
    token_id    text not null,
    tool        text not null,
    hour        timestamptz not null,
    calls       bigint not null,
    errors      bigint not null,
    duration_ms bigint not null,
    primary key (customer_id, hour, token_id, tool),
    foreign key (customer_id, token_id) references tokens (customer_id, token_id)
);
create index usage_age on usage_hourly (hour);

-- The request allowance of a customer, which every process draws on in chunks.
create table allowances (
    customer_id text primary key references customers (customer_id),
    permits     double precision not null,                   -- left in the bucket
    filled_at   timestamptz not null,                        -- when it was last refilled
    day         date not null,                               -- UTC
    requests    bigint not null,                             -- leased on that day
    held        jsonb not null                               -- process -> [permits leased, until (epoch seconds)]
);

create table audit_log (
    customer_id text not null references customers (customer_id),
    audit_id    text not null,
    at          timestamptz not null,
    actor_kind  text not null check (actor_kind in ('user', 'token', 'operator', 'system')),
    actor_id    text,
    actor_label text,
    action      text not null,                               -- e.g. flow.paused, run.triggered
    target_kind text not null,
    target_id   text not null,
    message     text,
    primary key (customer_id, audit_id)
);
create index audit_target on audit_log (customer_id, target_id, at desc);
create index audit_recent on audit_log (customer_id, at);
create index audit_age on audit_log (at);

-- One row per worker process, for health and `doctor`. Nobody's data.
create table workers (
    worker_id  text primary key,
    started_at timestamptz not null,
    seen_at    timestamptz not null,
    running    integer not null
);

-- What all processes of this installation share.
create table installation (
    only_row   boolean primary key default true check (only_row),
    cursor_key bytea not null check (length(cursor_key) = 32)
);

-- The second lock: row-level security on every table that has a customer, and the few narrow doors across
-- customers. Enabled, not forced: the doors belong to the owner of the tables and must see through it; the
-- server logs in as a role that owns nothing and cannot bypass it.

do $$
declare t text;
begin
    for t in
        select c.relname
          from pg_class c
          join pg_attribute a on a.attrelid = c.oid and a.attname = 'customer_id' and not a.attisdropped
         where c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace
    loop
        execute format('alter table %I enable row level security', t);
        execute format($p$create policy own_rows on %I
            using (customer_id = current_setting('app.customer_id', true))
            with check (customer_id = current_setting('app.customer_id', true))$p$, t);
    end loop;
end $$;

-- Whose rows a statement may touch (`caller!` in src/store/statements.rs): the customer of the live token that it
-- presents in `app.token`, whose digest in hexadecimal is all that opens this door. A view, because it is planned with the
-- statement; a function would be a sixth of all that `get_run` asks of the database.
create view live_token with (security_barrier) as
    select t.customer_id, t.expires_at
      from tokens t
      join customers c on c.customer_id = t.customer_id
     where t.digest = decode(current_setting('app.token', true), 'hex')
       and t.revoked_at is null
       and c.status = 'active';

-- The same where it presents no live token: the customer named, where a session is given whose person belongs there; or,
-- for work that nobody asked for (a worker's, an operator's), the customer named. Fails when what is given is live as
-- neither, so that no statement can take that for an empty answer.
create function live_session(customer text, session bytea, at timestamptz) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare owner text;
begin
    if session is null then
        return customer;
    end if;
    select u.customer_id into owner
      from public.sessions s
      join public.users u on u.email = s.email and u.customer_id = customer and u.ended_at is null
      join public.customers c on c.customer_id = u.customer_id
     where s.digest = session and s.idle_until > at and s.ends_at > at and c.status = 'active';
    if owner is null then
        raise exception using errcode = 'NL001', message = 'the token is not live';
    end if;
    return owner;
end $$;

-- Who holds a token, before the customer is known; whether it is live, or why it is not.
create function token_owner(token bytea, at timestamptz)
returns table (standing text, customer_id text, token_id text, token_name text, scopes text[], expires_at timestamptz,
    customer_name text, slug text, timezone text, plan_code text, requests_per_minute integer, burst integer,
    daily_requests bigint, triggers_per_minute integer, daily_runs integer, max_concurrent_runs integer,
    max_queued_runs integer, run_retention_days integer, runs_kept_since timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select case when t.revoked_at is not null then 'revoked_token'
                when t.expires_at <= at then 'expired_token'
                when c.status <> 'active' then 'suspended_customer'
                else 'live' end,
           t.customer_id, t.token_id, t.name, t.scopes, t.expires_at,
           c.name, c.slug, c.timezone, p.plan_code, p.requests_per_minute, p.burst,
           p.daily_requests, p.triggers_per_minute, p.daily_runs, p.max_concurrent_runs,
           p.max_queued_runs, p.run_retention_days, c.runs_kept_since
      from public.tokens t
      join public.customers c on c.customer_id = t.customer_id
      join public.plans p on p.plan_code = c.plan_code
     where t.digest = token
$$;

-- The customer that an operator names on the command line.
create function customer_by_slug(wanted text) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select customer_id from public.customers where slug = wanted
$$;

-- Takes up to `wanted` permits from a customer's bucket for a process, once it has given back those of its last
-- lease that it did not use. The bucket is refilled at the plan's rate up to its burst less what other processes
-- hold, so that bucket and leases together never exceed the burst; what a process holds that went silent counts
-- until its lease ran out. Clocks may differ: the bucket's time never goes back. Returns how many were granted, how
-- many are left and, when none was granted, the seconds until one is. Nobody waits for its commit to reach the disk:
-- a crash of PostgreSQL itself may forget what was granted in the last moment before it (three times
-- wal_writer_delay at most), and nothing else.
create function lease_permits(customer text, process text, wanted integer, returned integer, at timestamptz,
    until timestamptz)
returns table (granted integer, retry_after_s double precision, left_over double precision)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    plan public.plans;
    bucket public.allowances;
    rate double precision;
    today date := (at at time zone 'UTC')::date;
    behind double precision;
    others jsonb;
    elsewhere bigint;
    available double precision;
    take integer;
begin
    perform set_config('synchronous_commit', 'off', true);
    select p.* into plan
      from public.customers c join public.plans p on p.plan_code = c.plan_code
     where c.customer_id = customer;
    if not found then
        return;
    end if;
    rate := plan.requests_per_minute / 60.0;
    insert into public.allowances values (customer, plan.burst, at, today, 0, '{}') on conflict do nothing;
    select * into bucket from public.allowances a where a.customer_id = customer for update;
    if bucket.day < today then
        bucket.day := today;
        bucket.requests := 0;
    end if;
    -- (what was leased yesterday was charged to yesterday)
    if bucket.held -> process -> 2 = to_jsonb(bucket.day) then
        bucket.requests := greatest(0, bucket.requests - returned);
    end if;
    select coalesce(jsonb_object_agg(h.key, h.value), '{}'), coalesce(sum((h.value ->> 0)::integer), 0)
      into others, elsewhere
      from jsonb_each(bucket.held) h
     where h.key <> process and (h.value ->> 1)::double precision > extract(epoch from at);
    behind := greatest(0, extract(epoch from bucket.filled_at - at));
    available := greatest(0, least(plan.burst - elsewhere,
        bucket.permits + returned + greatest(0, extract(epoch from at - bucket.filled_at)) * rate));
    take := least(wanted, floor(available)::integer);
    if plan.daily_requests is not null then
        take := least(take, greatest(0, plan.daily_requests - bucket.requests))::integer;
    end if;
    if take > 0 then
        others := jsonb_set(others, array[process], jsonb_build_array(take, extract(epoch from until), bucket.day));
    end if;
    update public.allowances a
       set permits = available - take, filled_at = greatest(at, bucket.filled_at), day = bucket.day,
           requests = bucket.requests + take, held = others
     where a.customer_id = customer;
    granted := take;
    left_over := available - take;
    retry_after_s := case
        when take > 0 then 0
        when plan.daily_requests is not null and bucket.requests >= plan.daily_requests
            then extract(epoch from (bucket.day + 1)::timestamp at time zone 'UTC' - at)
        else behind + (1 - available) / rate end;
    return next;
end $$;

-- Gives back what a process leased for several customers and does not use. Customers in order: two processes must
-- not wait for each other.
create function return_permits(customers text[], returned integer[], process text, at timestamptz) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare unused record;
begin
    for unused in
        select * from unnest(customers, returned) as u (customer, permits) order by customer
    loop
        perform from public.lease_permits(unused.customer, process, 0, unused.permits, at, at);
    end loop;
end $$;

-- Adds what a process counted since its last flush: one element per token and tool.
create function flush_usage(customers text[], token_ids text[], tools text[], calls bigint[], errors bigint[],
    durations bigint[], last_used timestamptz[], clients text[], ips text[]) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    with counted as (
        select * from unnest(customers, token_ids, tools, calls, errors, durations, last_used, clients, ips)
            as u (customer_id, token_id, tool, calls, errors, duration_ms, last_used_at, client, ip)),
    live as (
        select u.* from counted u
          join public.tokens t on t.customer_id = u.customer_id and t.token_id = u.token_id),
    used as (
        update public.tokens t
           set last_used_at = greatest(coalesce(t.last_used_at, l.last_used_at), l.last_used_at),
               last_used_client = coalesce(l.client, t.last_used_client),
               last_used_ip = coalesce(l.ip, t.last_used_ip)
          from (select customer_id, token_id, max(last_used_at) as last_used_at,
                       (array_agg(client order by last_used_at desc) filter (where client is not null))[1] as client,
                       (array_agg(ip order by last_used_at desc) filter (where ip is not null))[1] as ip
                  from live group by customer_id, token_id) l
         where t.customer_id = l.customer_id and t.token_id = l.token_id)
    insert into public.usage_hourly as h (customer_id, token_id, tool, hour, calls, errors, duration_ms)
    select customer_id, token_id, tool, date_trunc('hour', last_used_at, 'UTC'), sum(calls), sum(errors), sum(duration_ms)
      from live
     group by 1, 2, 3, 4
        on conflict (customer_id, hour, token_id, tool) do update
       set calls = h.calls + excluded.calls, errors = h.errors + excluded.errors,
           duration_ms = h.duration_ms + excluded.duration_ms
$$;

-- Claims runs for a worker: oldest of the highest priority first within a customer, no customer above its plan's limit.
-- Customers take turns, beginning after `after`: of the next few, those with few running runs come first, so that where
-- few wait nobody gets a second run before another has the first, and where many wait nobody is looked at twice before
-- all were. A customer's claims are made one at a time, which makes its limit hard, and customers that another claim
-- deals with are passed over. Those are waited for only when nothing else was found, and only by whoever holds none that
-- come after: waits go upwards, never in a circle.
create function claim_runs(worker text, at timestamptz, until timestamptz, most integer, after text)
returns table (customer_id text, run_id text, flow_id text, attempt integer, max_attempts integer)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    place text := after;
    candidate text;
    wrapped boolean := false;
    over boolean := most < 1;
    held text[];
    highest text := '';
    passed_over text;
    missing integer := most;
    found integer;
begin
    while not over loop
        held := '{}';
        while not over and cardinality(held) <= missing loop
            -- (only who has a run that may start now: however many wait for later, none of them is locked)
            -- (`offset 0`: each is looked up; the planner would gather everybody's active runs first, for each claim anew)
            select r.customer_id into candidate from public.runs r
             where r.origin = 'native' and r.status in ('queued', 'retrying') and r.customer_id > place
               and r.available_at <= at
               and (r.status = 'retrying' or not exists (
                    select 1 from public.runs a
                     where a.customer_id = r.customer_id and a.flow_id = r.flow_id and a.origin = 'native'
                       and a.status in ('running', 'retrying', 'cancelling')
                    offset 0))
             order by r.customer_id
             limit 1;
            if candidate is null and not wrapped then
                wrapped := true;
                place := '';
            elsif candidate is null or (wrapped and candidate > after) then
                over := true;
            else
                place := candidate;
                if pg_try_advisory_xact_lock(hashtextextended(candidate, 2)) then
                    held := held || candidate;
                    highest := greatest(highest, candidate);
                else
                    passed_over := greatest(passed_over, candidate);
                end if;
            end if;
        end loop;
        if over and held = '{}' and missing = most and passed_over > highest then
            perform pg_advisory_xact_lock(hashtextextended(passed_over, 2));
            held := array[passed_over];
        end if;
        -- A statement of its own, which sees what those committed who held these customers before.
        return query
        with room as (
            select h.customer_id, b.busy, p.max_concurrent_runs - b.busy as free
              from unnest(held) h (customer_id)
              join public.customers c on c.customer_id = h.customer_id and c.status = 'active'
              join public.plans p on p.plan_code = c.plan_code
             cross join lateral (
                select count(*)::integer as busy from (
                    select 1 from public.runs r
                     where r.customer_id = h.customer_id and r.origin = 'native' and r.status in ('running', 'cancelling')
                     limit p.max_concurrent_runs) g) b),
        ready as (
            select room.customer_id, r.run_id, r.priority, r.available_at,
                   room.busy + row_number() over (partition by room.customer_id order by r.priority, r.available_at, r.run_id) as load
              from room
             cross join lateral (
                select q.run_id, q.priority, q.available_at from public.runs q
                 where q.customer_id = room.customer_id and q.origin = 'native' and q.status in ('queued', 'retrying')
                   and q.available_at <= at
                   and (q.status = 'retrying' or not exists (
                        select 1 from public.runs a
                         where a.customer_id = q.customer_id and a.flow_id = q.flow_id and a.origin = 'native'
                           and a.status in ('running', 'retrying', 'cancelling')
                        offset 0))
                 order by q.priority, q.available_at, q.run_id
                 limit greatest(0, least(missing, room.free))
                   for update skip locked) r),
        picked as (select * from ready order by load, priority, available_at limit missing)
        update public.runs r
           set status = 'running', attempt = r.attempt + 1, attempt_at = at, worker_id = worker, lease_until = until,
               started_at = coalesce(r.started_at, at), phase = 'extract'
          from picked
         where r.customer_id = picked.customer_id and r.run_id = picked.run_id
        returning r.customer_id, r.run_id, r.flow_id, r.attempt, r.max_attempts;
        get diagnostics found = row_count;
        missing := missing - found;
        over := over or missing = 0;
    end loop;
end $$;

-- Runs whose worker has gone silent.
create function expired_runs(at timestamptz, most integer)
returns table (customer_id text, run_id text, attempt integer)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select r.customer_id, r.run_id, r.attempt from public.runs r
     where r.origin = 'native' and r.status in ('running', 'cancelling') and r.lease_until <= at
     order by r.lease_until limit most
$$;

-- Flows whose schedule has fallen due.
create function due_flows(at timestamptz, most integer)
returns table (customer_id text, flow_id text, next_run_at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select f.customer_id, f.flow_id, f.next_run_at
      from public.flows f
      join public.customers c on c.customer_id = f.customer_id and c.status = 'active'
     where f.state = 'active' and f.next_run_at <= at
     order by f.next_run_at limit most
$$;

-- Flows whose health was not looked at since `before` (a run that does not come tells nobody); they are
-- marked as looked at.
create function claim_unwatched_flows(at timestamptz, before timestamptz, most integer)
returns table (customer_id text, flow_id text)
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    update public.flows f set health_checked_at = at
      from (select g.customer_id, g.flow_id from public.flows g
             where g.state = 'active' and g.health_checked_at < before
             order by g.health_checked_at limit most for update skip locked) due
     where f.customer_id = due.customer_id and f.flow_id = due.flow_id
    returning f.customer_id, f.flow_id
$$;

-- Connectors due for a check, leased so that one process checks each. Their next check is put off until the lease ends: one
-- that is asked for meanwhile stands out.
create function claim_checks(at timestamptz, until timestamptz, most integer)
returns table (customer_id text, connector_id text)
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    update public.connectors c set check_lease_until = until, next_check_at = until
      from (select d.customer_id, d.connector_id from public.connectors d
             where d.enabled and d.next_check_at <= at and (d.check_lease_until is null or d.check_lease_until <= at)
             order by d.next_check_at limit most for update skip locked) due
     where c.customer_id = due.customer_id and c.connector_id = due.connector_id
    returning c.customer_id, c.connector_id
$$;

-- How many runs are open, of `most` at most, and for how long the oldest has been ready to start: those that `claim_runs`
-- would take, which leaves a flow's next run alone while another of it goes, and all runs of customers that are not active.
create function queue_depth(at timestamptz, most integer)
returns table (queued bigint, running bigint, oldest_s double precision)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select count(*) filter (where r.ready), count(*) filter (where r.status in ('running', 'cancelling')),
           extract(epoch from at - min(r.available_at) filter (where r.ready))
      from (select o.status, o.available_at,
                   c.status = 'active' and o.origin = 'native' and o.available_at <= at
                   and (o.status = 'retrying'
                        or o.status = 'queued'
                           and not bool_or(o.origin = 'native' and o.status <> 'queued')
                                   over (partition by o.customer_id, o.flow_id)) as ready
              from (select customer_id, flow_id, origin, status, available_at from public.runs
                     where status in ('queued', 'running', 'retrying', 'cancelling')
                     limit most) o
              join public.customers c on c.customer_id = o.customer_id) r
$$;

-- Deletes up to `most` rows of each kind that have outlived their time. Customer by customer, because each plan has
-- times of its own: where nothing is old, that is one look at an index for each. Samples go before their run, which
-- takes only its attempts, events and counts along; roll-ups, by which runs are counted, stay as long as any plan keeps runs.
-- Returns how many went; a full batch means that there may be more.
create function purge(at timestamptz, most integer, audit_days integer, usage_days integer, stats_days integer)
returns table (kind text, gone bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    customers text[];
    runs text[];
begin
    -- (and a day longer: lists ask the hour that their window cuts whether any run of it matches)
    stats_days := greatest(stats_days, (select max(run_retention_days) + 1 from public.plans));
    select coalesce(array_agg(old.customer_id), '{}'), coalesce(array_agg(old.run_id), '{}') into customers, runs
      from (select c.customer_id, r.run_id
              from public.customers c
              join public.plans p on p.plan_code = c.plan_code
             cross join lateral (
                   select q.run_id from public.runs q
                    where q.customer_id = c.customer_id
                      and q.window_at < at - p.run_retention_days * interval '1 day'
                    order by q.window_at, q.run_id
                    limit most) r
             limit most) old;
    kind := 'samples';
    delete from public.run_errors where ctid = any (array(
        select e.ctid from unnest(customers, runs) old (customer_id, run_id)
          join public.run_errors e on e.customer_id = old.customer_id and e.run_id = old.run_id
         limit most));
    get diagnostics gone = row_count;
    return next;
    if gone < most then
        kind := 'runs';
        delete from public.runs r using unnest(customers, runs) old (customer_id, run_id)
         where r.customer_id = old.customer_id and r.run_id = old.run_id;
        get diagnostics gone = row_count;
        return next;
    end if;
    kind := 'payloads';
    update public.run_errors e set payload = null, payload_truncated = true
      from (select c.customer_id, old.run_id, old.group_id, old.error_id
              from public.customers c
              join public.plans p on p.plan_code = c.plan_code
             cross join lateral (
                   select q.run_id, q.group_id, q.error_id from public.run_errors q
                    where q.customer_id = c.customer_id and q.payload is not null
                      and q.occurred_at < at - p.payload_retention_days * interval '1 day'
                    limit most) old
             limit most) old
     where e.customer_id = old.customer_id and e.run_id = old.run_id and e.group_id = old.group_id
       and e.error_id = old.error_id;
    get diagnostics gone = row_count;
    return next;
    -- what was rolled up by a group needs its name as long
    kind := 'error_groups';
    delete from public.error_groups where ctid = any (array(
        select g.ctid from public.error_groups g
         where g.last_seen_at < purge.at - stats_days * interval '1 day'
           and not exists (select 1 from public.run_error_counts c
                            where c.customer_id = g.customer_id and c.group_id = g.group_id)
         limit most))
       and last_seen_at < purge.at - stats_days * interval '1 day'; -- (one that was seen again meanwhile stays)
    get diagnostics gone = row_count;
    return next;
    kind := 'audit';
    delete from public.audit_log where ctid = any (array(
        select ctid from public.audit_log a where a.at < purge.at - audit_days * interval '1 day' limit most));
    get diagnostics gone = row_count;
    return next;
    kind := 'usage';
    delete from public.usage_hourly where ctid = any (array(
        select ctid from public.usage_hourly where hour < at - usage_days * interval '1 day' limit most));
    get diagnostics gone = row_count;
    return next;
    kind := 'run_stats';
    delete from public.run_stats where ctid = any (array(
        select ctid from public.run_stats s where s.at < purge.at - stats_days * interval '1 day' limit most));
    get diagnostics gone = row_count;
    return next;
    kind := 'error_stats';
    delete from public.error_stats where ctid = any (array(
        select ctid from public.error_stats s where s.at < purge.at - stats_days * interval '1 day' limit most));
    get diagnostics gone = row_count;
    return next;
    kind := 'idempotency_keys';
    delete from public.idempotency_keys where ctid = any (array(
        select ctid from public.idempotency_keys where expires_at < at limit most))
       and expires_at < at; -- (one that was used again meanwhile stays)
    get diagnostics gone = row_count;
    return next;
    kind := 'workers';
    delete from public.workers where seen_at < at - interval '1 day';
    get diagnostics gone = row_count;
    return next;
end $$;

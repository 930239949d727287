-- People: who may sign in to the pages. A person is an e-mail address, in however many workspaces; `users` says in
-- which, and as what. These tables belong to no customer: the server's role may not touch them and walks through the
-- doors below.

create table people (
    email      text primary key check (email = lower(email)),
    password   text,                                         -- argon2id in PHC form; null until one is chosen
    created_at timestamptz not null
);
alter table users add foreign key (email) references people (email);
create index users_email on users (email);

-- Links that work once: to choose a password (an invitation, a reset), or to come in.
create table links (
    digest     bytea primary key check (length(digest) = 32),
    email      text not null references people (email),
    purpose    text not null check (purpose in ('password', 'sign_in')),
    expires_at timestamptz not null
);
create index links_age on links (expires_at);

-- Who is signed in.
create table sessions (
    digest     bytea primary key check (length(digest) = 32), -- SHA-256 of the cookie
    email      text not null references people (email),
    opened_at  timestamptz not null,
    idle_until timestamptz not null,                         -- moves on while it is used
    ends_at    timestamptz not null                          -- does not
);
create index sessions_email on sessions (email);
create index sessions_age on sessions (idle_until);

-- A row of `users` brings its person along, in whatever way it is made.
create function person_of_user() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into public.people (email, created_at) values (new.email, new.created_at) on conflict do nothing;
    return new;
end $$;
create trigger person_of_user before insert on users for each row execute function person_of_user();

-- What to compare a password with; null when there is no such person, or none with a password.
create function password_of(who text) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select p.password from public.people p where p.email = who
$$;

-- Keeps a link; false when there is no such person. Old links of the same purpose end with it.
create function add_link(link bytea, who text, what text, until timestamptz) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from public.links l where l.email = who and l.purpose = what;
    insert into public.links (digest, email, purpose, expires_at)
    select link, p.email, what, until from public.people p where p.email = who;
    return found;
end $$;

-- Keeps a link to choose a password, until when nobody has the account: password, sessions and links of before end; false
-- when there is no such person. A link that is being used is waited for, whose session ends then.
create function reset_person(link bytea, who text, until timestamptz) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from public.links where email = who;
    update public.people set password = null where email = who;
    delete from public.sessions where email = who;
    insert into public.links (digest, email, purpose, expires_at)
    select link, p.email, 'password', until from public.people p where p.email = who;
    return found;
end $$;

-- Whose a link is, while it can be used.
create function link_person(link bytea, what text, at timestamptz) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select l.email from public.links l where l.digest = link and l.purpose = what and l.expires_at > at
$$;

create function open_session(session bytea, who text, at timestamptz, idle timestamptz, until timestamptz) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    delete from public.sessions s where s.email = who and (s.idle_until <= at or s.ends_at <= at);
    insert into public.sessions (digest, email, opened_at, idle_until, ends_at) values (session, who, at, idle, until);
$$;

-- Opens a session for who holds a link to come in, once; false when it is none. Link and session are one step, here and
-- below, so that a reset meets one or the other.
create function take_link(link bytea, session bytea, at timestamptz, idle timestamptz, until timestamptz) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare who text;
begin
    delete from public.links l where l.digest = link and l.purpose = 'sign_in' and l.expires_at > at
    returning l.email into who;
    if found then
        perform public.open_session(session, who, at, idle, until);
    end if;
    return who is not null;
end $$;

-- Another password, for who holds a link to choose one; it ends every session and link of before and opens a session.
create function choose_password(link bytea, hash text, session bytea, at timestamptz, idle timestamptz,
    until timestamptz) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare who text;
begin
    delete from public.links l where l.digest = link and l.purpose = 'password' and l.expires_at > at
    returning l.email into who;
    if found then
        update public.people set password = hash where email = who;
        delete from public.sessions where email = who;
        delete from public.links where email = who;
        perform public.open_session(session, who, at, idle, until);
    end if;
    return who;
end $$;

create function end_session(session bytea) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    delete from public.sessions where digest = session
$$;

-- Ends all sessions of whoever is signed in with this one.
create function end_sessions(session bytea) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    delete from public.sessions s using public.sessions own where own.digest = session and s.email = own.email
$$;

-- Who is signed in, and where they belong: a row for each workspace, one without where there is none. The session lives
-- on until `idle`; it is written down once a minute at most.
create function session_person(session bytea, at timestamptz, idle timestamptz)
returns table (email text, slug text, customer_name text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    update public.sessions s set idle_until = idle
     where s.digest = session and s.idle_until > at and s.ends_at > at and s.idle_until < idle - interval '1 minute';
    return query
    select s.email, c.slug, c.name
      from public.sessions s
      left join (public.users u
                 join public.customers c on c.customer_id = u.customer_id and c.status = 'active')
        on u.email = s.email and u.ended_at is null
     where s.digest = session and s.idle_until > at and s.ends_at > at
     order by c.name, c.slug;
end $$;

-- As whom they stand in one of them; no row when it is none of theirs.
create function session_member(session bytea, workspace text, at timestamptz)
returns table (customer_id text, user_id text, email text, user_name text, role text, customer_name text, slug text,
    timezone text, plan_code text, requests_per_minute integer, burst integer, daily_requests bigint,
    triggers_per_minute integer, daily_runs integer, max_concurrent_runs integer, max_queued_runs integer,
    run_retention_days integer, runs_kept_since timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select u.customer_id, u.user_id, u.email, u.name, u.role, c.name, c.slug, c.timezone, p.plan_code,
           p.requests_per_minute, p.burst, p.daily_requests, p.triggers_per_minute, p.daily_runs,
           p.max_concurrent_runs, p.max_queued_runs, p.run_retention_days, c.runs_kept_since
      from public.sessions s
      join public.users u on u.email = s.email and u.ended_at is null
      join public.customers c on c.customer_id = u.customer_id and c.status = 'active'
      join public.plans p on p.plan_code = c.plan_code
     where s.digest = session and s.idle_until > at and s.ends_at > at and c.slug = workspace
$$;

-- Where a person belongs, for what an operator does to them.
create function customers_of(who text) returns setof text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select u.customer_id from public.users u where u.email = who and u.ended_at is null order by 1
$$;

-- Sessions and links that ended; how many went.
create function purge_people(at timestamptz, most integer) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare gone bigint; more bigint;
begin
    delete from public.sessions where ctid = any (array(
        select s.ctid from public.sessions s where s.idle_until < at or s.ends_at < at limit most));
    get diagnostics gone = row_count;
    delete from public.links where ctid = any (array(
        select l.ctid from public.links l where l.expires_at < at limit most));
    get diagnostics more = row_count;
    return greatest(gone, more);
end $$;

-- Nobody but those named by the program may walk through a door.
do $$
declare
    door regprocedure;
begin
    -- (an extension's are not ours to close)
    for door in
        select p.oid
          from pg_proc p
         where p.pronamespace = 'public'::regnamespace and p.proowner = current_user::regrole
           and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    loop
        execute format('revoke all on function %s from public', door);
    end loop;
end $$;

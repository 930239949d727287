//! How statements are written down: as constants with static text, all of which one test prepares.

/// Declares the statements of a file and lists them in its `ALL`.
///
/// `plain` is the text as it stands. `tenant` is the one-statement form of a read on a customer's tables:
/// its head is [`caller`]; the text's own parameters begin at `$4`. The text must say
/// `where … customer_id = $1 and caller.id = $1`: the second half is what makes PostgreSQL run the head
/// first. It ends in `offset 0` or a `limit`, so that the planner cannot pull it apart.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $kind:ident $($text:expr),+;)+) => {
        $($(#[$doc])* const $name: &str = statement_text!($kind $($text),+);)+
        /// Every statement of this file.
        pub(super) const ALL: &[&str] = &[$($name),+];
    };
}

macro_rules! statement_text {
    (plain $($text:expr),+) => { concat!($($text),+) };
    (tenant $($text:expr),+) => {
        concat!(
            "with ", caller!(), " select q.* from caller cross join lateral (",
            $($text),+,
            ") q"
        )
    };
}

/// Sets the customer whose rows the statement may touch, and fails when the token is not live. Takes the parameters `$1`
/// (customer), `$2` (digest of a token or session, or null) and `$3` (the time). The view is asked for what `p` presents,
/// so that this is set before.
macro_rules! caller {
    () => {
        "caller as materialized (
            select set_config('app.customer_id', coalesce(
                       (select t.customer_id from live_token t
                         where p.token <> '' and (t.expires_at is null or t.expires_at > $3)),
                       live_session($1, $2, $3)), true) as id
              from (select set_config('app.token', encode($2, 'hex'), true) as token offset 0) p)"
    };
}

/// Whether what a check found of a connector is too old at `$3` to go by. One that is down stays so until a check finds
/// otherwise.
macro_rules! stale {
    ($connector:literal) => {
        concat!(
            "(",
            $connector,
            ".status in ('healthy', 'degraded') and ",
            $connector,
            ".last_check_at + make_interval(secs => 60 + 3 * ",
            $connector,
            ".check_interval_s) < $3) is true"
        )
    };
}

/// The status of a connector at `$3`.
macro_rules! status_now {
    ($connector:literal) => {
        concat!("case when ", stale!($connector), " then 'unknown' else ", $connector, ".status end")
    };
}

/// Every statement of this floor, for the test that prepares each of them as the server's role.
pub fn all_statements() -> Vec<&'static str> {
    let fixed = [
        super::ALL,
        super::checks::ALL,
        super::connectors::ALL,
        super::customers::ALL,
        super::definitions::ALL,
        super::error_lists::ALL,
        super::flow_detail::ALL,
        super::flow_health::ALL,
        super::flow_names::ALL,
        super::flow_state::ALL,
        super::flow_troubles::ALL,
        super::flows::ALL,
        super::history::ALL,
        super::operator::ALL,
        super::past_errors::ALL,
        super::people::ALL,
        super::platform::ALL,
        super::lease_writes::ALL,
        super::leases::ALL,
        super::put_definitions::ALL,
        super::queue::ALL,
        super::queue_view::ALL,
        super::retention::ALL,
        super::run_detail::ALL,
        super::run_end::ALL,
        super::run_errors::ALL,
        super::runs::ALL,
        super::scheduling::ALL,
        super::tenancy::ALL,
        super::tokens::ALL,
        super::triggers::ALL,
        super::usage::ALL,
        super::wake::ALL,
    ];
    [fixed.concat(), super::run_shapes::all()].concat()
}

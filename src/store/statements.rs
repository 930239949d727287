//! How statements are written down: as constants with static text, all of which one test prepares.

/// Declares the statements of a file and lists them in its `ALL`.
///
/// `plain` is the text as it stands. `tenant` is the one-statement form of a read on a customer's tables:
/// its head sets the customer and fails when the token is not live, and takes the parameters `$1` (customer), `$2` (token
/// digest or null) and `$3` (the time); the text's own parameters begin at `$4`. The text must say
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
            "with caller as materialized (
                select set_config('app.customer_id', live_caller($1, $2, $3), true) as id)
            select q.* from caller cross join lateral (",
            $($text),+,
            ") q"
        )
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

//! A scripted system: it answers checks, gives records and takes them as its configuration says, without a
//! network. The demo workspaces run on it, and tests script their faults with it.
//!
//! The configuration of a connector of kind `sim` is `{"sim": {…}}`, every key optional:
//!
//! ```json
//! {"sim": {
//!   "auth_status": "valid",            // or expired, revoked, invalid, expiring_soon …: what a check reports;
//!                                      // a broken one fails every run before it reads (AUTH_EXPIRED)
//!   "auth_error": "invalid_grant: refresh token is invalid or revoked",
//!   "auth_expires_in_s": 518400,
//!   "down": "connection refused",      // checks and runs fail with this sentence (CONNECTIVITY)
//!   "quotas": [{"name": "daily_api_requests", "unit": "requests", "used": 87412, "limit": 100000,
//!               "resets_in_s": 54000, "throttled_1h": 0}],
//!
//!   // as a source
//!   "records": 8412,                   // how many a full run gives (default 100)
//!   "spread": 0.05,                    // +/- share of that, chosen per run
//!   "seconds": 16,                     // how long reading takes, evenly paced (default 0: at once)
//!   "template": {"id": "{n}", "name": "#{n}", "status": {"$pick": ["paid", "refunded"]}},
//!                                      // a record: "{n}" alone is its number (from 1), inside a text it is
//!                                      // spelt out, {"$pick": […]} takes one value per record
//!   "objects": {"invoice": {"records": 8412, "seconds": 16, "template": {…}}},
//!                                      // the same four keys for one object, before the general ones
//!   "fail_read": {"after": 500, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "…"},
//!                                      // the run fails so after that many records, in its first attempts
//!
//!   // as a destination
//!   "errors": [{"rate": 0.012, "class": "REFERENCE", "code": "INVALID_KEY_OR_REF", "field": "item",
//!               "message": "Invalid item reference key SKU-{n} for subsidiary 3"}],
//!                                      // each rejects that share of the records
//!   "unchanged": 0.25,                 // share of records that it has already
//!   "fail_write": {"after": 500, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "…"}
//! }}
//! ```
//!
//! What happens to record `n` of a run depends on the run's id and `n` alone, so a resumed run goes on as the
//! interrupted one would have.

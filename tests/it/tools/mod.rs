//! What the tools answer, over HTTP, to the seeded demo workspaces under a clock that stands still.

mod action;
mod counts;
mod daily;
mod debugging;
mod grouped;
mod health;
mod paging;
mod reporting;
mod understanding;

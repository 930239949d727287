//! Answers "what goes wrong most in this flow?". Needs the scope `runs:read`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cx::ToolCx;
use super::error::ToolError;
use super::find;
use super::tool::{Answer, Tool};
use super::window::{self, WindowArgs};
use crate::domain::error_class::ErrorGrouping;
use crate::domain::scope::Scope;
use crate::view::error::{ErrorGroupView, Seen};
use crate::view::run::TotalsView;
use crate::view::text::{self, Page};
use crate::view::window::{WindowView, before_in_words, in_words};

pub(super) struct GetFlowErrorSummary;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Input {
    /// Flow name or id, e.g. "HubSpot → Salesforce contacts" or "flow_01jd…". Case-insensitive; '→', '->' and 'to' are the same; aliases work.
    #[schemars(length(min = 1, max = 200))]
    flow: String,
    /// A duration back from now (30m, 24h, 7d, 2w) or today, this_morning, yesterday, this_week, last_week, this_month, last_month. Runs that FINISHED in it, plus active ones.
    #[serde(default = "week")]
    #[schemars(length(max = 40))]
    window: String,
    #[serde(flatten)]
    times: WindowArgs,
    /// class = coarse type (VALIDATION, REFERENCE, AUTH…); group = same message pattern; code = system's error code.
    #[serde(default = "class")]
    group_by: ErrorGrouping,
    /// Rows per page (max 50).
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 50))]
    limit: u16,
}

fn week() -> String {
    "7d".to_owned()
}

fn class() -> ErrorGrouping {
    ErrorGrouping::Class
}

fn five() -> u16 {
    5
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    summary: String,
    flow_id: String,
    flow: String,
    window: WindowView,
    group_by: String,
    totals: TotalsView,
    runs_with_errors: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_error_rate: Option<f64>,
    groups: Vec<ErrorGroupView>,
    total_errors: i64,
    total_groups: i64,
}

impl Tool for GetFlowErrorSummary {
    const NAME: &'static str = "get_flow_error_summary";
    const TITLE: &'static str = "Top errors of a flow";
    const DESCRIPTION: &'static str = "Top error classes of one flow over a window, largest first: count, share, runs affected, \
        field, whether it is new and whether a retry can help, newest run and one sample. For the individual records of one run use \
        get_run_errors.";
    const SCOPE: Scope = Scope::RunsRead;
    type Input = Input;
    type Output = Output;

    async fn call(cx: &ToolCx<'_>, input: Input) -> Result<Answer<Output>, ToolError> {
        let asked = window::kept(cx, Some(&input.window), &input.times)?;
        let found = find::flow(cx, &input.flow).await?;
        let totals = cx.totals(Some(&found.id), &asked.window, asked.zone).await?;
        let before = asked.window.before(asked.zone);
        let earlier = cx.totals(Some(&found.id), &before, asked.zone).await?;
        let errors =
            cx.read().flow_errors(&found.id, &asked.window, input.group_by, i64::from(input.limit)).await?;

        let payloads = cx.principal.may(Scope::PayloadsRead);
        let seen = if payloads { Seen::Payloads } else { Seen::Nothing };
        let groups: Vec<ErrorGroupView> = errors
            .groups
            .iter()
            .map(|group| ErrorGroupView::new(group, errors.total, Some(asked.window.since), seen))
            .collect();
        let totals = TotalsView::from(&totals);
        let (rate, previous_rate) = (totals.record_error_rate, earlier.records().error_rate());
        let name = text::named(&found.name);
        let span = in_words(&asked.window, asked.zone);
        // Of all runs that the totals count: those still open may have errors already.
        let runs = totals.runs;
        let summary = if errors.total == 0 {
            format!("{name}, {span}: no errors in {}.", text::counted(runs, "run", "runs"))
        } else {
            let open = match totals.active {
                0 => String::new(),
                open => format!(", {} still open", text::count(open)),
            };
            format!(
                "{name}, {span}: {} in {} of {} ({} failed{open}).",
                text::counted(errors.total, "error", "errors"),
                text::count(errors.runs),
                text::counted(runs, "run", "runs"),
                text::count(totals.failed)
            )
        };
        let mut page = Page::new(&summary);
        if let Some(rate) = rate {
            let before = previous_rate.map_or_else(
                || format!("nothing attempted in the {}", before_in_words(&asked.window)),
                |before| format!("{} {}", before_in_words(&asked.window), text::percent(before)),
            );
            page.line(format!(
                "Record error rate {} ({} failed of {} attempted; {before})",
                text::percent(rate),
                text::count(totals.records.failed),
                text::count(totals.records.attempted())
            ));
        }
        let mut shown = Vec::new();
        for group in groups {
            if !page.row(&group.lines(shown.len() + 1), shown.len()) {
                break;
            }
            shown.push(group);
        }
        let mut notices = found.notices();
        notices.extend(asked.notices);
        if errors.total > 0 && errors.total != totals.records.failed {
            notices.push(
                "warnings and failures of whole runs are errors too, so their number is not that of failed records."
                    .to_owned(),
            );
        }
        let rest = errors.keys - shown.len() as i64;
        if rest > 0 {
            let counted: i64 = shown.iter().map(|group| group.count).sum();
            let (one, many) = match input.group_by {
                ErrorGrouping::Class => ("more class", "more classes"),
                ErrorGrouping::Group => ("more group", "more groups"),
                ErrorGrouping::Code => ("more code", "more codes"),
                ErrorGrouping::Field => ("more field", "more fields"),
            };
            notices.push(format!(
                "{} ({}).",
                text::counted(rest, one, many),
                text::counted(errors.total - counted, "error", "errors")
            ));
        }
        if !payloads {
            notices
                .push("payload excerpts are hidden from this caller (needs scope payloads:read).".to_owned());
        }
        let next = shown.first().map(|group| format!("get_run_errors run_id={}", group.last_run_id));
        let next = next.into_iter().collect();
        let output = Output {
            summary,
            flow_id: found.id.to_string(),
            flow: name,
            window: WindowView::new(&asked.window, asked.zone),
            group_by: input.group_by.to_string(),
            totals,
            runs_with_errors: errors.runs,
            error_rate: rate,
            previous_error_rate: previous_rate,
            groups: shown,
            total_errors: errors.total,
            total_groups: errors.keys,
        };
        Ok(Answer { page, output, notices, next })
    }
}

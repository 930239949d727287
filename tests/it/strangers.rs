//! Two customers whose things have the same names and the same ids, as far as both have them. Whatever becomes of the
//! one's things, that they are there, change or never were, no byte of what the other is answered differs, and no
//! statement that is run for it.

mod questions;
mod twins;

use std::collections::BTreeSet;

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::tools::catalog;
use chrono::TimeDelta;
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::support::app::demo_now;
use questions::questions;
use twins::{Answer, Question, Twins, chosen};

/// Histories that are tried, unless `TENANCY_HISTORIES` says otherwise.
const HISTORIES: u64 = 2;

/// What nobody has, until Acme makes it.
const NOBODYS_FLOW: &str = "flow_nothing_there";
const NOBODYS_NAME: &str = "Nothing of the kind";
const NOBODYS_CONNECTOR: &str = "con_nothing";

/// An idempotency key that Acme used.
const USED_KEY: &str = "used by both";

/// Arguments that name no thing: times, and words of the caller's own.
const NAMES_NOTHING: &[&str] = &["window", "since", "until", "timezone", "reason"];

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// To Acme, where there is one.
    Triggers,
    Changes,
    Forgets,
    Applies,
    RemovesAConnector,
    LosesAToken,
    IsWiped,
    /// To all.
    Work,
    Time,
    TwinForgets,
    TwinLosesAToken,
}

const STEPS: [Step; 11] = [
    Step::Triggers,
    Step::Changes,
    Step::Forgets,
    Step::Applies,
    Step::RemovesAConnector,
    Step::LosesAToken,
    Step::IsWiped,
    Step::Work,
    Step::Time,
    Step::TwinForgets,
    Step::TwinLosesAToken,
];

impl Step {
    async fn happens(self, twins: &Twins, has_acme: bool, later: TimeDelta) {
        match self {
            Self::Triggers if has_acme => twins.acme_triggers().await,
            Self::Changes if has_acme => twins.acme_changes().await,
            Self::Forgets if has_acme => twins.acme_forgets().await,
            Self::Applies if has_acme => twins.acme_applies().await,
            Self::RemovesAConnector if has_acme => twins.acme_removes_a_connector().await,
            Self::LosesAToken if has_acme => twins.a_token_of_acme_ends().await,
            Self::IsWiped if has_acme => twins.wipe().await,
            Self::Work => twins.app.work_until_idle().await,
            Self::Time => twins.app.clock.advance(later),
            Self::TwinForgets => twins.twin_forgets().await,
            Self::TwinLosesAToken => twins.a_token_of_the_twin_ends().await,
            _ => {}
        }
    }
}

/// A random history, twice: with Acme, and in a world where Acme never was. The twin hears the same in both.
async fn play(seed: u64) {
    let dice = IdSource::seeded(Clock::fixed(demo_now()), seed ^ 0xD1CE);
    let (with, without) = (Twins::new(seed).await, Twins::new(seed).await);
    let questions = questions(&with).await;
    let used = json!({ "flow": "flow_netsuite_invoices", "idempotency_key": USED_KEY });
    with.app.acme().text("trigger_sync", used).await;
    without.wipe().await;
    let mut told = format!("history {seed}");
    let compare = async |told: &str, token: usize, questions: &[Question]| {
        let (here, there) = tokio::join!(with.answers(token, questions), without.answers(token, questions));
        same(told, questions, &there, &here);
        here
    };
    // Once for what is prepared and remembered.
    for world in [&with, &without] {
        world.answers(0, &questions).await;
    }
    let first = compare(&told, 0, &questions).await;
    assert!(first.iter().filter(|(_, statements)| !statements.is_empty()).count() * 10 > questions.len() * 8);
    for _ in 0..5 + chosen(&dice, 4) {
        let step = STEPS[chosen(&dice, STEPS.len())];
        let later = [TimeDelta::seconds(1), TimeDelta::minutes(20), TimeDelta::hours(7), TimeDelta::days(2)]
            [chosen(&dice, 4)];
        told += &format!(", {step:?}");
        step.happens(&with, true, later).await;
        step.happens(&without, false, later).await;
        // Of its tokens the twin holds some that have ended.
        for token in 0..with.tokens.len() {
            let share = if token == 0 { 0.25 } else { 0.02 };
            let mut some = questions.clone();
            some.retain(|_| dice.fraction() < share);
            some.extend(newest(&with).await);
            compare(&told, token, &some).await;
        }
    }
    compare(&told, 0, &questions).await;
    assert!(with.started(USED_KEY).await, "{told}: the twin is given no run");
}

/// The newest run of Acme: in the other world its id is nobody's, or the twin's in both.
async fn newest(twins: &Twins) -> Option<Question> {
    let run = twins.of("cus_acme", "run_id", "runs").await.pop()?;
    Some(("get_run", json!({ "run_id": run })))
}

#[tokio::test]
async fn nothing_of_another_customer_shows_in_any_answer() {
    #[expect(clippy::disallowed_methods, reason = "how much to try is the tester's to say")]
    let histories = std::env::var("TENANCY_HISTORIES").map_or(HISTORIES, |text| text.parse().unwrap());
    for seed in 1..=histories {
        play(seed).await;
    }
}

/// No argument in which a thing can be named goes without a question.
#[tokio::test]
async fn every_argument_that_names_a_thing_is_asked() {
    let asked: BTreeSet<(&str, String)> = questions(&Twins::new(1).await)
        .await
        .iter()
        .flat_map(|(tool, arguments)| {
            arguments.as_object().unwrap().keys().map(|argument| (*tool, argument.clone()))
        })
        .collect();
    for entry in catalog().entries() {
        for (argument, schema) in entry.definition().input_schema["properties"].as_object().unwrap() {
            let text = if schema["type"] == "array" { &schema["items"] } else { schema };
            let is_free = text["type"] == "string" && text.get("enum").is_none();
            let may_name = is_free && !NAMES_NOTHING.contains(&argument.as_str());
            assert!(
                !may_name || asked.contains(&(entry.name, argument.clone())),
                "no question names a stranger's thing in `{argument}` of {}: ask one, or say that it names nothing",
                entry.name
            );
        }
    }
}

/// A token that has ended is told the same of what is there and of what is not.
#[tokio::test]
async fn an_ended_token_learns_nothing_either() {
    for ended in ["revoked_at", "expires_at"] {
        let twins = Twins::new(9).await;
        let mut questions = questions(&twins).await;
        questions.retain(|(_, arguments)| arguments.get("wait_seconds").is_none());
        twins.answers(0, &questions[..1]).await;
        let sql = format!("update tokens set {ended} = $1 where customer_id = 'cus_twin'");
        sqlx::query(AssertSqlSafe(sql))
            .bind(twins.app.clock.now())
            .execute(&mut twins.app.owner().await)
            .await
            .unwrap();
        let remembered = twins.answers(0, &questions).await;
        twins.wipe().await;
        same(ended, &questions, &remembered, &twins.answers(0, &questions).await);
        for (question, (answer, statements)) in questions.iter().zip(&remembered) {
            // Acme's cursors are refused by their seal, before anything is looked up.
            let told = if statements.is_empty() { "INVALID_ARGUMENTS" } else { "TOKEN_REVOKED" };
            assert!(answer.contains(told), "{ended}: {question:?}: {answer}");
            assert!(!answer.contains("structuredContent"), "{ended}: {question:?}: {answer}");
        }
        twins.app.clock.advance(TimeDelta::seconds(2));
        let forgotten = twins.answers(0, &questions[..3]).await;
        assert!(forgotten.iter().all(|(answer, _)| answer.starts_with("401 ")), "{forgotten:?}");
    }
}

fn same(told: &str, questions: &[Question], before: &[Answer], after: &[Answer]) {
    for (question, (before, after)) in questions.iter().zip(before.iter().zip(after)) {
        assert_eq!(before.0, after.0, "{told}: {question:?} is answered otherwise");
        assert_eq!(before.1, after.1, "{told}: {question:?} is looked up otherwise");
    }
}

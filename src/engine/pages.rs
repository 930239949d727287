//! What becomes of a page before it is written: its records mapped, and those of one key told apart.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::connectors::{Fields, Item, Page};
use super::mapping::{Mapped, Plan};
use crate::domain::definition::{Stream, SyncMode, WriteMode};
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;

/// Keys of one stream that are remembered, to find those that come twice.
const MAX_REMEMBERED: usize = 1_000_000;

/// A page after its mapping.
pub(super) struct MappedPage {
    pub(super) page: Page,
    /// The records to write, with their place in the page.
    pub(super) wanted: Vec<(usize, Fields)>,
    pub(super) skipped: i64,
    /// What was rejected, by place in the page.
    pub(super) rejected: Vec<(usize, Failure)>,
    /// What was counted without rejecting its record.
    pub(super) warnings: Vec<(usize, Failure)>,
}

/// Maps a page away from the threads that wait, since an expression may take its time. Once nobody waits for it any
/// more it is `over`.
pub(super) async fn map_aside(
    plan: Arc<Plan>,
    page: Page,
    over: CancellationToken,
) -> Result<MappedPage, JoinError> {
    let _waits = over.clone().drop_guard();
    tokio::task::spawn_blocking(move || map_page(&plan, page, &over)).await
}

/// Maps every record of a page, as long as it is not over.
fn map_page(plan: &Plan, mut page: Page, over: &CancellationToken) -> MappedPage {
    let mut mapped = MappedPage {
        wanted: Vec::new(),
        skipped: 0,
        rejected: Vec::new(),
        warnings: Vec::new(),
        page: Page::default(),
    };
    for (place, item) in page.items.iter_mut().enumerate() {
        if over.is_cancelled() {
            break;
        }
        let record = match item {
            Item::Record(record) => record,
            Item::Bad(failure, _) => {
                mapped.rejected.push((place, failure.clone()));
                continue;
            }
        };
        match plan.map_while(record, || !over.is_cancelled()) {
            Mapped::Skipped => mapped.skipped += 1,
            Mapped::Rejected(failure) => mapped.rejected.push((place, failure)),
            Mapped::Record(fields, warnings) => {
                mapped.warnings.extend(warnings.into_iter().map(|warning| (place, warning)));
                mapped.wanted.push((place, fields));
            }
        }
    }
    mapped.page = page;
    mapped
}

/// Records of one stream that have the same key. In a whole table the first is kept and a different one after
/// it rejected, so that the outcome does not depend on where pages end and a second run changes nothing; in a
/// feed of changes the last one counts. An attempt that goes on from a checkpoint does not know the keys before it: one
/// that comes again behind it is written, until the next whole run keeps the first again.
pub(super) enum Repeats {
    /// Nothing identifies a record.
    Any,
    /// Keys with their content, hashed.
    First(HashMap<u64, u64>),
    /// Changes by time.
    Last,
}

impl Repeats {
    pub(super) fn of(stream: &Stream) -> Self {
        match (stream.write_mode, stream.sync_mode) {
            (WriteMode::Append, _) => Self::Any,
            (WriteMode::Upsert, SyncMode::Incremental) => Self::Last,
            (WriteMode::Upsert, SyncMode::FullRefresh) => Self::First(HashMap::new()),
        }
    }

    /// Leaves at most one record per key in a page, and none without one.
    pub(super) fn sort_out(&mut self, mapped: &mut MappedPage, key: &[String]) {
        if key.is_empty() || matches!(self, Self::Any) {
            return;
        }
        let missing = |fields: &Fields| key.iter().find(|key| fields.get(*key).is_none_or(Value::is_null));
        let lasts: HashMap<u64, usize> =
            mapped.wanted.iter().map(|(place, fields)| (hash(fields, Some(key)), *place)).collect();
        for (place, fields) in std::mem::take(&mut mapped.wanted) {
            if let Some(lost) = missing(&fields) {
                let message = format!("a value for {lost} is required: it identifies the record");
                let failure = Failure::new(
                    ErrorClass::RequiredField,
                    "REQUIRED_FIELD_MISSING",
                    Stage::Validate,
                    &message,
                );
                mapped.rejected.push((place, failure.at_field(lost)));
                continue;
            }
            let named = hash(&fields, Some(key));
            match self {
                Self::First(seen) => {
                    let content = hash(&fields, None);
                    match seen.get(&named) {
                        None if seen.len() < MAX_REMEMBERED => {
                            seen.insert(named, content);
                            mapped.wanted.push((place, fields));
                        }
                        // More are not remembered; still no page holds one key twice.
                        None if lasts.get(&named) == Some(&place) => mapped.wanted.push((place, fields)),
                        None => mapped.skipped += 1,
                        Some(same) if *same == content => mapped.skipped += 1,
                        Some(_) => {
                            let message = "a record with this key came before, with other values; the first one is kept";
                            let failure = Failure::new(
                                ErrorClass::Duplicate,
                                "DUPLICATE_KEY",
                                Stage::Validate,
                                message,
                            );
                            mapped.rejected.push((place, failure.at_field(&key.join(", "))));
                        }
                    }
                }
                _ if lasts.get(&named) == Some(&place) => mapped.wanted.push((place, fields)),
                _ => mapped.skipped += 1,
            }
        }
    }
}

/// A hash of some fields, or of all.
fn hash(fields: &Fields, only: Option<&[String]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match only {
        Some(names) => names
            .iter()
            .for_each(|name| fields.get(name).unwrap_or(&Value::Null).to_string().hash(&mut hasher)),
        None => {
            let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            sorted.iter().for_each(|(name, value)| (name, value.to_string()).hash(&mut hasher));
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use serde_json::json;

    fn page(records: &[Value]) -> MappedPage {
        let fields = |record: &Value| record.as_object().cloned().unwrap_or_default();
        MappedPage {
            wanted: records.iter().enumerate().map(|(place, record)| (place, fields(record))).collect(),
            skipped: 0,
            rejected: Vec::new(),
            warnings: Vec::new(),
            page: Page::default(),
        }
    }

    /// Of each page: what is written, how many are skipped, what is rejected with which code.
    type SortedOut = (Vec<usize>, i64, Vec<(usize, String)>);

    fn sorted_out(mut repeats: Repeats, pages: &[&[Value]]) -> Vec<SortedOut> {
        let sort = |records: &&[Value]| {
            let mut page = page(records);
            repeats.sort_out(&mut page, &["id".to_owned()]);
            let rejected = page.rejected.iter().map(|(place, why)| (*place, why.code.to_string())).collect();
            (page.wanted.iter().map(|(place, _)| *place).collect(), page.skipped, rejected)
        };
        pages.iter().map(sort).collect()
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_mapped() {
        let whole = json!({
            "source_object": "a", "destination_object": "b", "sync_mode": "full_refresh", "write_mode": "append"
        });
        let stream: Stream = serde_json::from_value(whole).unwrap();
        let plan = Arc::new(Plan::compile(&stream).unwrap());
        let items =
            || (0..3).map(|n| Item::Record(json!({ "n": n }).as_object().cloned().unwrap())).collect();
        let page = || Page { items: items(), ..Page::default() };
        let over = CancellationToken::new();
        assert_eq!(map_page(&plan, page(), &over).wanted.len(), 3);
        let _ = map_aside(Arc::clone(&plan), page(), over.clone()).now_or_never();
        assert!(over.is_cancelled(), "who waited for it went");
        assert_eq!(map_page(&plan, page(), &over).wanted.len(), 0);
    }

    #[test]
    fn of_a_whole_table_the_first_record_of_a_key_is_kept() {
        let pages: &[&[Value]] = &[
            &[
                json!({"id": 1, "v": 1}),
                json!({"v": 1, "id": 1}),
                json!({"id": 2, "v": 1}),
                json!({"id": null}),
            ],
            &[json!({"id": 2, "v": 2}), json!({"v": 3})],
        ];
        assert_eq!(
            sorted_out(Repeats::First(HashMap::new()), pages),
            [
                (vec![0, 2], 1, vec![(3, "REQUIRED_FIELD_MISSING".to_owned())]),
                (vec![], 0, vec![(0, "DUPLICATE_KEY".to_owned()), (1, "REQUIRED_FIELD_MISSING".to_owned())]),
            ]
        );
    }

    #[test]
    fn of_a_feed_of_changes_the_last_record_of_a_key_counts() {
        let pages: &[&[Value]] = &[
            &[json!({"id": 1, "v": 1}), json!({"id": 2}), json!({"id": 1, "v": 2})],
            &[json!({"id": 1, "v": 3})],
        ];
        assert_eq!(sorted_out(Repeats::Last, pages), [(vec![1, 2], 1, vec![]), (vec![0], 0, vec![])]);
    }
}

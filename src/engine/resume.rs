//! Where an attempt goes on.

use crate::domain::definition::WriteMode;
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::store::leases::{Checkpoint, ClaimedRun};

/// Where an attempt goes on.
pub(super) struct Resumed {
    pub(super) checkpoint: Checkpoint,
    /// What the run's timeline should tell of that.
    pub(super) note: Option<String>,
}

/// Goes on at the checkpoint of the attempt before. Once a connector leads elsewhere the run begins anew: what lies before
/// the checkpoint was never copied from there, or to there.
pub(super) fn resume(run: &ClaimedRun) -> Result<Resumed, Failure> {
    let (saved, places) = (run.checkpoint.clone(), run.places());
    let Some(before) = saved.places.as_ref().filter(|before| **before != places) else {
        return Ok(Resumed { checkpoint: Checkpoint { places: Some(places), ..saved }, note: None });
    };
    let begun = saved.stream + usize::from(saved.position.is_some());
    let mut begun = run.definition.streams.iter().take(begun);
    let appended = begun.any(|stream| stream.write_mode == WriteMode::Append);
    if appended && before[1] == places[1] {
        return Err(Failure::new(
            // (nothing that passes: it is no other source at the next attempt)
            ErrorClass::Validation,
            "SOURCE_REPLACED",
            Stage::Extract,
            "the source is no longer the one that was begun: a new run appends all of this one",
        ));
    }
    Ok(Resumed {
        checkpoint: Checkpoint { batch: saved.batch, places: Some(places), ..Checkpoint::default() },
        note: Some("a connector leads elsewhere than when the run began: all is read".to_owned()),
    })
}

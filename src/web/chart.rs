//! Small charts, drawn on the server; each stands beside the table that says the same.

/// The height of a chart, and what a bar takes of its width.
pub(super) const HEIGHT: i64 = 60;
const STEP: i64 = 10;

/// Runs of an hour or day.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) label: String,
    pub(super) succeeded: i64,
    pub(super) partial: i64,
    pub(super) failed: i64,
}

impl Slot {
    /// One run, by how it ended.
    pub(super) fn of_one(status: &str) -> Self {
        let is = |one: &str| i64::from(status == one);
        Self {
            label: String::new(),
            succeeded: is("succeeded"),
            partial: is("partial"),
            failed: is("failed"),
        }
    }

    fn all(&self) -> i64 {
        self.succeeded + self.partial + self.failed
    }
}

/// A rectangle of a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) class: &'static str,
    pub(super) x: i64,
    pub(super) y: i64,
    pub(super) height: i64,
}

/// Runs (or calls) by hour or day, oldest first.
#[derive(Clone)]
pub(super) struct Chart {
    pub(super) slots: Vec<Slot>,
    pub(super) rects: Vec<Rect>,
    pub(super) width: i64,
}

impl Chart {
    pub(super) fn new(slots: Vec<Slot>) -> Self {
        let most = slots.iter().map(Slot::all).max().unwrap_or(0).max(1);
        let mut rects = Vec::new();
        for (x, slot) in (0..).step_by(STEP as usize).zip(&slots) {
            let mut y = HEIGHT;
            for (class, count) in
                [("succeeded", slot.succeeded), ("partial", slot.partial), ("failed", slot.failed)]
            {
                // What was, is seen.
                let height = if count > 0 { (count * HEIGHT / most).max(2) } else { 0 };
                y -= height;
                if height > 0 {
                    rects.push(Rect { class, x, y: y.max(0), height });
                }
            }
        }
        Self { width: slots.len() as i64 * STEP, slots, rects }
    }

    /// The sums, for who cannot see it.
    pub(super) fn in_words(&self) -> String {
        let sum = |of: fn(&Slot) -> i64| self.slots.iter().map(of).sum::<i64>();
        let (succeeded, partial, failed) = (sum(|s| s.succeeded), sum(|s| s.partial), sum(|s| s.failed));
        format!("{succeeded} succeeded, {partial} partial, {failed} failed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_hour_is_as_high_as_the_chart() {
        let slot = |succeeded, failed| Slot { label: String::new(), succeeded, partial: 0, failed };
        let chart = Chart::new(vec![slot(10, 0), slot(0, 0), slot(2, 3)]);
        let rect = |class, x, y, height| Rect { class, x, y, height };
        assert_eq!(
            chart.rects,
            [rect("succeeded", 0, 0, 60), rect("succeeded", 20, 48, 12), rect("failed", 20, 30, 18)]
        );
        assert_eq!((chart.width, Chart::new(vec![]).rects.len()), (30, 0));
    }
}

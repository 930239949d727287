//! What one evaluation of an expression may take.

use std::cell::Cell;
use std::time::{Duration, Instant};

use cel::common::types::{CelBytes, CelList, CelMap, CelMapKey, CelString};
use cel::common::value::{CowVal, Val};
use cel::{ExecutionError, Value as Cel};

/// Turns that all comprehensions of one evaluation take together, at most.
const MAX_TURNS: u32 = 10_000;
/// Time that one evaluation may take; looked at every turn of a comprehension.
const MAX_TIME: Duration = Duration::from_secs(1);
/// Bytes that comprehensions, lists, maps and sums of one evaluation may pile up.
const MAX_PILED: usize = 4 << 20;
/// Bytes of the result, and of the arguments of a function: more than those of any part of a record.
pub(super) const MAX_COPIED: usize = 16 << 20;
/// What a value takes besides its text, in bytes.
const VALUE: usize = 48;

thread_local! {
    static BUDGET: Cell<Budget> = const { Cell::new(Budget { turns: 0, piled: 0, until: None }) };
}

#[derive(Clone, Copy)]
struct Budget {
    turns: u32,
    piled: usize,
    until: Option<Instant>,
}

/// Begins an evaluation on this thread.
pub(super) fn begin() {
    let until = Instant::now().checked_add(MAX_TIME);
    BUDGET.set(Budget { turns: MAX_TURNS, piled: MAX_PILED, until });
}

/// What is left of `room` bytes beside a value.
pub(super) fn left<'v>(value: &(dyn Val + 'v), room: usize) -> Option<usize> {
    let room = room.checked_sub(VALUE)?;
    if let Some(text) = value.downcast_ref::<CelString>() {
        room.checked_sub(text.inner().len())
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        room.checked_sub(bytes.inner().len())
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        list.inner().iter().try_fold(room, |room, item| left(item.as_ref(), room))
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        map.inner().iter().try_fold(room, |room, (key, value)| match key {
            CelMapKey::String(name) => left(value.as_ref(), room.checked_sub(name.inner().len())?),
            _ => left(value.as_ref(), room),
        })
    } else {
        Some(room)
    }
}

/// Draws a value on the budget.
fn pile<'v>(value: &(dyn Val + 'v)) -> Result<(), ExecutionError> {
    let mut budget = BUDGET.get();
    let left = left(value, budget.piled);
    budget.piled = left.unwrap_or(0);
    BUDGET.set(budget);
    left.map(drop).ok_or_else(|| ExecutionError::function_error("expression", "a value becomes too large"))
}

/// A turn of a comprehension, whose value is its argument.
pub(super) fn turn<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut budget = BUDGET.get();
    budget.turns = budget.turns.saturating_sub(1);
    BUDGET.set(budget);
    let late = budget.until.is_some_and(|until| Instant::now() > until);
    match args.pop() {
        Some(arg) if budget.turns > 0 && !late => pile(&*arg).map(|()| arg),
        _ => Err(ExecutionError::function_error("comprehension", "it takes too long")),
    }
}

/// A part of a list or map, whose value is its argument.
pub(super) fn part<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let arg = args.pop().ok_or_else(|| ExecutionError::function_error("expression", "a part is missing"))?;
    pile(&*arg).map(|()| arg)
}

/// `+`, whose operands are drawn on the budget before they are put together.
pub(super) fn add<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    args.iter().try_for_each(|arg| pile(&**arg))?;
    let unsupported = || ExecutionError::UnsupportedBinaryOperator("add", Cel::Null, Cel::Null);
    let [one, other] = args.as_slice() else { return Err(unsupported()) };
    let sum = one.as_adder().ok_or_else(unsupported)?.add(other.as_ref())?;
    Ok(CowVal::Owned(sum.into_owned()))
}

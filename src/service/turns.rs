//! Whose call is worked on next: customers take turns, so that a thousand calls of one do not stand before the first of
//! another.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a call may wait for a place among those that run at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many calls at once, dealt out to customers in turn. Cheap to clone; clones deal together.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Mutex<Table>>);

/// Nobody waits while there is a free place.
#[derive(Debug)]
struct Table {
    free: usize,
    /// The calls that wait, by customer.
    waiting: HashMap<String, VecDeque<oneshot::Sender<Turn>>>,
    /// The customers who wait, the next one first.
    order: VecDeque<String>,
}

/// The right to be worked on, until it is dropped.
#[derive(Debug)]
pub struct Turn(Option<Turns>);

/// The turn of one call, which gives it to others while it waits for something else.
#[derive(Debug)]
pub struct Held<'a> {
    turns: &'a Turns,
    customer: &'a str,
    turn: Mutex<Option<Turn>>,
}

/// No place came free in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place came free in time")]
pub struct Busy;

impl<'a> Held<'a> {
    /// The customer's next turn.
    ///
    /// # Errors
    /// When patience ends before.
    pub async fn take(turns: &'a Turns, customer: &'a str) -> Result<Self, Busy> {
        let held = Self { turns, customer, turn: Mutex::new(None) };
        held.take_again().await?;
        Ok(held)
    }

    /// Gives the turn to others, before a wait.
    pub fn give_back(&self) {
        self.turn().take();
    }

    /// Takes a turn after a wait.
    ///
    /// # Errors
    /// When patience ends before.
    pub async fn take_again(&self) -> Result<(), Busy> {
        let turn = timeout(PATIENCE, self.turns.take(self.customer)).await.map_err(|_| Busy)?;
        *self.turn() = Some(turn);
        Ok(())
    }

    fn turn(&self) -> MutexGuard<'_, Option<Turn>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    /// `places` calls at once.
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(Table { free: places, waiting: HashMap::new(), order: VecDeque::new() })))
    }

    /// The customer's next turn.
    pub async fn take(&self, customer: &str) -> Turn {
        let turn = {
            let mut table = self.table();
            if table.free > 0 {
                table.free -= 1;
                return Turn(Some(self.clone()));
            }
            let (call, turn) = oneshot::channel();
            match table.waiting.get_mut(customer) {
                Some(calls) => calls.push_back(call),
                None => {
                    table.waiting.insert(customer.to_owned(), VecDeque::from([call]));
                    table.order.push_back(customer.to_owned());
                }
            }
            turn
        };
        // The table keeps a call until its turn comes.
        turn.await.unwrap_or(Turn(None))
    }

    /// Hands a place on.
    fn pass(&self) {
        let mut table = self.table();
        while let Some((customer, call)) = table.next() {
            match call.send(Turn(Some(self.clone()))) {
                Ok(()) => {
                    if table.waiting.contains_key(&customer) {
                        table.order.push_back(customer);
                    }
                    return;
                }
                // It gave up, and has no turn to end. Its customer keeps its own.
                Err(mut turn) => {
                    turn.0 = None;
                    if table.waiting.contains_key(&customer) {
                        table.order.push_front(customer);
                    }
                }
            }
        }
        table.free += 1;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The next call, taken out, and its customer, taken out of the order.
    fn next(&mut self) -> Option<(String, oneshot::Sender<Turn>)> {
        let customer = self.order.pop_front()?;
        let calls = self.waiting.get_mut(&customer)?;
        let call = calls.pop_front()?;
        if calls.is_empty() {
            self.waiting.remove(&customer);
        }
        Some((customer, call))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn customers_take_turns_however_many_calls_they_have() {
        let turns = Turns::new(1);
        let first = turns.take("a").await;
        let mut flood: Vec<_> = (0..3).map(|_| Box::pin(turns.take("a"))).collect();
        for call in &mut flood {
            assert!(call.now_or_never().is_none());
        }
        let mut other = pin!(turns.take("b"));
        assert!(other.as_mut().now_or_never().is_none());
        drop(first);
        let mut flood = flood.into_iter();
        let first_of_flood = flood.next().unwrap().now_or_never().expect("it waited longest");
        assert!(other.as_mut().now_or_never().is_none());
        drop(first_of_flood);
        let others = other.now_or_never().expect("then the other customer, before the rest of the flood");
        // Who gave up is passed over.
        drop(flood.next());
        drop(others);
        let last = flood.next().unwrap().now_or_never().expect("a turn");
        drop(last);
        assert!(turns.take("c").now_or_never().is_some());
        assert_eq!(turns.table().free, 1);
        assert!(turns.table().order.is_empty() && turns.table().waiting.is_empty());
    }

    #[tokio::test]
    async fn a_turn_that_nobody_takes_up_is_passed_on() {
        let turns = Turns::new(1);
        let first = turns.take("a").await;
        let mut gone = Box::pin(turns.take("b"));
        assert!((&mut gone).now_or_never().is_none());
        drop(first);
        drop(gone);
        assert!(turns.take("c").now_or_never().is_some());
    }
}

//! The connections of a process, and how one is parted with that leads nowhere.
//!
//! A pool that asks each connection that comes back whether it is well costs a round trip for every statement; one that
//! waits for the answer without an end loses a place to each connection that the network forgot. Here a connection whose
//! statement ended well goes back as it is. One whose statement failed, or whose caller went away, is asked aside, with
//! an end.

use std::io;
use std::time::{Duration, Instant};

use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts,
};
use deadpool::{Runtime, Status};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use sqlx::postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{ConnectOptions, Connection, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A statement that has not answered by then does not: the longest takes a tenth of it.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// A statement of a transaction may also wait for others, each of which comes to its end by then.
const ANSWER_IN_TURN: Duration = Duration::from_secs(30);

/// A connection that was quiet for so long may have been cut by something on the way: it is asked.
const QUIET: Duration = Duration::from_secs(10);

/// A connection whose caller went away has so long to come to the end of its statement.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// What a connection remembers grows; none lives longer.
const OLD: Duration = Duration::from_secs(30 * 60);

/// Connections, each used for one statement or one transaction at a time. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pool: Pool<Connector>,
    acquire: Duration,
    /// Those in use.
    used: TaskTracker,
}

#[derive(Debug)]
struct Connector(PgConnectOptions);

impl Manager for Connector {
    type Type = PgConnection;
    type Error = Error;

    async fn create(&self) -> Result<PgConnection, Error> {
        self.0.connect().await
    }

    async fn recycle(&self, connection: &mut PgConnection, metrics: &Metrics) -> RecycleResult<Error> {
        let now = Instant::now();
        if now - metrics.created > OLD {
            return Err(RecycleError::message("it is old"));
        }
        if now - metrics.recycled.unwrap_or(metrics.created) > QUIET {
            connection.ping().await?;
        }
        Ok(())
    }
}

impl Connections {
    /// At most `size` connections, made when they are needed; a caller waits for one no longer than `acquire`.
    pub(super) fn new(options: PgConnectOptions, size: u32, acquire: Duration) -> Result<Self, Error> {
        // Of several that lead nowhere a caller meets more than one.
        let timeouts = Timeouts { wait: Some(acquire), create: Some(acquire), recycle: Some(acquire / 4) };
        let pool = Pool::builder(Connector(options))
            .max_size(usize::try_from(size).unwrap_or(usize::MAX))
            .timeouts(timeouts)
            // The one used last has what it needs at hand.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Configuration(error.into()))?;
        Ok(Self { pool, acquire, used: TaskTracker::new() })
    }

    /// The connections that are idle, and those in use.
    pub(super) fn counted(&self) -> (u32, u32) {
        let Status { size, available, .. } = self.pool.status();
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        (count(available), count(size.saturating_sub(available)))
    }

    /// Lends no more connections, and waits for those in use.
    pub(super) async fn close(&self) {
        self.pool.close();
        self.used.close();
        self.used.wait().await;
    }

    /// A connection, for as long as it is held.
    ///
    /// # Errors
    /// When none comes free in time, or none can be made.
    pub(super) async fn lend(&self) -> Result<Lent, Error> {
        let lent = timeout(self.acquire, self.pool.get()).await.map_err(|_| Error::PoolTimedOut)?;
        let connection = lent.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => Error::PoolClosed,
            _ => Error::PoolTimedOut,
        })?;
        Ok(Lent { connection: Some(connection), in_transaction: false, used: self.used.token() })
    }

    /// A connection that has just said that it is well: what it is used for will reach the database, or fail before it is
    /// sent.
    ///
    /// # Errors
    /// As [`Connections::lend`].
    pub(super) async fn lend_well(&self) -> Result<Lent, Error> {
        let mut lent = self.lend().await?;
        timeout(self.acquire, lent.connection().ping()).await.map_err(|_| Error::PoolTimedOut)??;
        Ok(lent)
    }

    /// A transaction on a connection of its own.
    ///
    /// # Errors
    /// As [`Connections::lend`].
    pub(super) async fn begin(&self) -> Result<Open, Error> {
        let mut lent = self.lend().await?;
        lent.in_transaction = true;
        answered(ANSWER, sqlx::raw_sql("begin").execute(lent.connection())).await?;
        Ok(Open(lent))
    }
}

/// A connection in use. Unless it is given back, what it was used for did not end well: it failed, or its caller went
/// away.
#[derive(Debug)]
pub(super) struct Lent {
    connection: Option<Object<Connector>>,
    in_transaction: bool,
    used: TaskTrackerToken,
}

impl Lent {
    #[expect(clippy::expect_used, reason = "it is taken out where it is given back or dropped, which end it")]
    fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_deref_mut().expect("it is lent")
    }

    /// What it was used for ended well.
    pub(super) fn give_back(mut self) {
        // (one large answer would keep its memory for as long as the connection lives)
        self.connection().shrink_buffers();
        drop(self.connection.take());
    }

    /// One statement, which has to answer within `patience`.
    pub(super) async fn within<T>(
        mut self,
        patience: Duration,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let answer = answered(patience, statement(self.connection())).await?;
        self.give_back();
        Ok(answer)
    }
}

impl Drop for Lent {
    /// Asks the connection whether it is well once its statement has ended, or takes its transaction back, and parts with
    /// it if it is not, or does not say: one that leads nowhere must not keep its place.
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let (in_transaction, used) = (self.in_transaction, self.used.clone());
        let Ok(runtime) = Handle::try_current() else { return drop(Object::take(connection)) };
        runtime.spawn(async move {
            let well = async {
                match in_transaction {
                    true => connection.execute("rollback").await.map(drop),
                    false => connection.ping().await,
                }
            };
            if !matches!(timeout(LEFT_ALONE, well).await, Ok(Ok(()))) {
                drop(Object::take(connection));
            }
            drop(used);
        });
    }
}

/// A transaction under way. Dropped without [`Open::commit`], nothing happened.
#[derive(Debug)]
pub(super) struct Open(Lent);

impl Open {
    /// Makes it so.
    ///
    /// # Errors
    /// When the database fails or does not answer.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        answered(ANSWER, sqlx::raw_sql("commit").execute(self.0.connection())).await?;
        self.0.give_back();
        Ok(())
    }
}

/// What a statement gives, if it comes within `patience`.
pub(super) async fn answered<T>(
    patience: Duration,
    statement: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(patience, statement)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

impl<'p> Executor<'p> for &'_ Connections {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connections = self.clone();
        let all = async move {
            let mut lent = connections.lend().await?;
            let rows: Vec<_> = answered(ANSWER, lent.connection().fetch_many(query).try_collect()).await?;
            lent.give_back();
            Ok::<_, Error>(stream::iter(rows).map(Ok))
        };
        stream::once(all).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connections = self.clone();
        async move {
            let mut lent = connections.lend().await?;
            let row = answered(ANSWER, lent.connection().fetch_optional(query)).await?;
            lent.give_back();
            Ok(row)
        }
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        let connections = self.clone();
        async move {
            let mut lent = connections.lend().await?;
            let statement = answered(ANSWER, lent.connection().prepare_with(sql, parameters)).await?;
            lent.give_back();
            Ok(statement)
        }
        .boxed()
    }
}

impl<'c> Executor<'c> for &'c mut Open {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let all = async move {
            let rows: Vec<_> =
                answered(ANSWER_IN_TURN, self.0.connection().fetch_many(query).try_collect()).await?;
            Ok::<_, Error>(stream::iter(rows).map(Ok))
        };
        stream::once(all).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        answered(ANSWER_IN_TURN, self.0.connection().fetch_optional(query)).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        answered(ANSWER_IN_TURN, self.0.connection().prepare_with(sql, parameters)).boxed()
    }
}

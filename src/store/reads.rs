//! The connections that single statements are read on.
//!
//! A pool that does not know what was done with a connection asks it, when it comes back, whether it is well: a round
//! trip for each statement, in which nobody else can use it. Here one statement is read and nothing else, so that a
//! connection whose statement ended well goes back as it is.

use std::io;
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, Timeouts};
use deadpool::{Runtime, Status};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use sqlx::postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{ConnectOptions, Connection, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::ANSWER;

/// A connection that was quiet for so long may have been cut by something on the way: it is asked.
const QUIET: Duration = Duration::from_secs(10);

/// A connection whose reader went away has so long to come to the end of its statement.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// What a connection remembers grows; none lives longer.
const OLD: Duration = Duration::from_secs(30 * 60);

/// Connections for reads, each of one statement.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    pool: Pool<Connector>,
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

impl Reads {
    /// At most `size` connections, made when they are needed; a caller waits for one no longer than `acquire`.
    pub(super) fn new(options: PgConnectOptions, size: u32, acquire: Duration) -> Result<Self, Error> {
        let timeouts = Timeouts { wait: Some(acquire), create: Some(acquire), recycle: Some(acquire) };
        let pool = Pool::builder(Connector(options))
            .max_size(usize::try_from(size).unwrap_or(usize::MAX))
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Configuration(error.into()))?;
        Ok(Self { pool })
    }

    /// The connections that are idle, and those in use.
    pub(super) fn connections(&self) -> (u32, u32) {
        let Status { size, available, .. } = self.pool.status();
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        (count(available), count(size.saturating_sub(available)))
    }

    /// Nothing is read any more.
    pub(super) fn close(&self) {
        self.pool.close();
    }

    async fn lend(&self) -> Result<Lent, Error> {
        let connection = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => Error::PoolClosed,
            _ => Error::PoolTimedOut,
        })?;
        Ok(Lent(Some(connection)))
    }
}

/// A connection in use. Unless it is given back, its statement did not end well: it failed, or its reader went away.
struct Lent(Option<Object<Connector>>);

impl Lent {
    fn connection(&mut self) -> Result<&mut PgConnection, Error> {
        self.0.as_deref_mut().ok_or(Error::WorkerCrashed)
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    /// Asks the connection whether it is well once the rest of its statement has been read, and parts with it if it is
    /// not, or does not say: one that leads nowhere must not keep its place.
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else { return };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                if !matches!(timeout(LEFT_ALONE, connection.ping()).await, Ok(Ok(()))) {
                    drop(Object::take(connection));
                }
            })),
            Err(_) => drop(Object::take(connection)),
        }
    }
}

async fn answered<T>(statement: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(ANSWER, statement).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

impl<'p> Executor<'p> for &'_ Reads {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let reads = self.clone();
        let all = async move {
            let mut lent = reads.lend().await?;
            let rows: Vec<_> = answered(lent.connection()?.fetch_many(query).try_collect()).await?;
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
        let reads = self.clone();
        async move {
            let mut lent = reads.lend().await?;
            let row = answered(lent.connection()?.fetch_optional(query)).await?;
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
        let reads = self.clone();
        async move {
            let mut lent = reads.lend().await?;
            let statement = answered(lent.connection()?.prepare_with(sql, parameters)).await?;
            lent.give_back();
            Ok(statement)
        }
        .boxed()
    }
}

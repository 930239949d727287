//! What processes leave behind: connections, and what they said.

use std::path::Path;

use sqlx::PgConnection;
use tokio::time::{Duration, Instant, sleep};

use crate::lane::OURS;

/// Connections of others than us that are still there once all processes of the program have ended.
pub async fn nobody_connected(control: &mut PgConnection, database: &str) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left: Vec<String> = sqlx::query_scalar(
            "select format('%s %s: %s %s', usename, application_name, state, left(query, 60)) from pg_stat_activity
              where datname in ($1, 'f' || substr($1, 2)) and backend_type = 'client backend' and application_name <> $2",
        )
        .bind(database)
        .bind(OURS)
        .fetch_all(&mut *control)
        .await?;
        if left.is_empty() {
            return Ok(Vec::new());
        }
        if Instant::now() >= deadline {
            return Ok(left.into_iter().map(|one| format!("still connected: {one}")).collect());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// What processes said before they broke.
pub fn panics(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    each_log(dir, |name, text| {
        let fault = |line: &&str| line.contains("panicked") || line.contains("a fault of this program");
        found.extend(text.lines().find(fault).map(|line| format!("{name}: {line}")));
    })?;
    Ok(found)
}

/// How often workers said that a run is no longer theirs.
pub fn stale(dir: &Path) -> anyhow::Result<u64> {
    let mut count = 0;
    each_log(dir, |_, text| count += text.matches("the run is no longer this worker's").count() as u64)?;
    Ok(count)
}

fn each_log(dir: &Path, mut look: impl FnMut(&str, &str)) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            look(&path.display().to_string(), &std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

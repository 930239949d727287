//! Every statement of the store is one that PostgreSQL understands, as the role that the server logs in as.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqlSafeStr};

use crate::support::database::TestDatabase;

#[tokio::test]
async fn every_statement_can_be_prepared_by_the_servers_role() {
    let database = TestDatabase::create().await;
    let mut server = PgConnection::connect_with(&database.server).await.unwrap();
    let statements = apixx_mcp::store::all_statements();
    assert!(statements.len() > 100, "only {} statements", statements.len());
    for text in statements {
        let prepared = server.prepare(AssertSqlSafe(text).into_sql_str()).await;
        assert!(prepared.is_ok(), "{}\n{text}", prepared.err().unwrap());
    }
}

/// A statement that nobody listed would not be prepared above.
#[test]
fn every_file_that_declares_statements_lists_them() {
    let floor = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let list = std::fs::read_to_string(floor.join("statements.rs")).unwrap();
    for entry in std::fs::read_dir(floor).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if text.contains("\nstatements! {") && name != "mod" {
            assert!(list.contains(&format!("super::{name}::ALL")), "{name} is not in statements.rs");
        }
    }
}

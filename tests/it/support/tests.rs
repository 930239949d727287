//! The test database itself.

use sqlx::ConnectOptions;

use super::database::TestDatabase;

#[tokio::test]
async fn every_test_has_a_migrated_database_of_its_own() {
    let one = TestDatabase::create().await;
    let other = TestDatabase::create().await;
    let mut owner = one.owner.connect().await.unwrap();
    sqlx::query("create table only_here (n int)").execute(&mut owner).await.unwrap();
    let mut stranger = other.owner.connect().await.unwrap();
    let tables = "select to_regclass('only_here') is not null, to_regclass('runs') is not null";
    let here: (bool, bool) = sqlx::query_as(tables).fetch_one(&mut owner).await.unwrap();
    let there: (bool, bool) = sqlx::query_as(tables).fetch_one(&mut stranger).await.unwrap();
    assert_eq!((here, there), ((true, true), (false, true)));
}

#[tokio::test]
async fn a_test_can_speak_as_the_role_that_serves() {
    let database = TestDatabase::create().await;
    let mut server = database.server.connect().await.unwrap();
    let (user, name): (String, String) =
        sqlx::query_as("select current_user::text, current_database()::text")
            .fetch_one(&mut server)
            .await
            .unwrap();
    assert_eq!((user.as_str(), name.as_str()), ("apixx_server", database.name.as_str()));
}

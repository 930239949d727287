//! The ceiling: axum and sqlx, the same statements, and nothing else. No token, no limit, no protocol; the rows as
//! JSON, once.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use tokio::net::TcpListener;

use super::queries::{Asked, Detail, Queries, Run};

pub async fn serve(listener: TcpListener, database: &str, listing: Vec<u8>) {
    let listing: Arc<[u8]> = listing.into();
    let same_bytes = move || {
        let listing = listing.clone();
        async move { ([(CONTENT_TYPE, "application/json")], listing.to_vec()) }
    };
    let router = Router::new()
        .route("/static", post(same_bytes))
        .route("/get_run", post(get_run))
        .route("/list_runs", post(list_runs))
        .with_state(Queries::connect(database).await);
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router).await.expect("it serves");
}

async fn get_run(State(queries): State<Queries>, Json(asked): Json<Asked>) -> Json<Option<Detail>> {
    Json(queries.run(&asked).await)
}

async fn list_runs(State(queries): State<Queries>, Json(asked): Json<Asked>) -> Json<Vec<Run>> {
    Json(queries.runs(&asked).await)
}

//! A browser, as far as a server sees one: it keeps cookies, follows where it is sent, and says where it comes from.

use std::cell::RefCell;
use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::app::TestApp;

/// A browser of one person.
pub struct Browser<'a> {
    app: &'a TestApp,
    /// `name=value`.
    pub cookie: RefCell<Option<String>>,
}

/// A page, or what was answered instead.
#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Page {
    /// Where it sends the browser.
    pub fn to(&self) -> &str {
        self.headers.get(LOCATION).map_or("", |to| to.to_str().unwrap())
    }

    /// What stands between `begin` and the next `end`.
    pub fn between(&self, begin: &str, end: &str) -> &str {
        let (_, rest) = self.text.split_once(begin).unwrap_or_else(|| panic!("no {begin} in {}", self.text));
        rest.split(end).next().unwrap()
    }
}

impl<'a> Browser<'a> {
    /// Nobody is signed in.
    pub fn new(app: &'a TestApp) -> Self {
        Self { app, cookie: RefCell::default() }
    }

    /// Signed in by a link for `email`.
    pub async fn of(app: &'a TestApp, email: &str) -> Self {
        let browser = Self::new(app);
        let entered = browser.post(&sign_in_link(app, email).await, &[]).await;
        assert_eq!((entered.status.as_u16(), entered.to()), (303, "/"), "{}", entered.text);
        browser
    }

    pub async fn get(&self, path: &str) -> Page {
        self.send(Request::get(path), Body::empty()).await
    }

    /// A form of a page of ours.
    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Page {
        self.post_from(path, form, "same-origin").await
    }

    /// A form of a page at another `site`, as the browser says.
    pub async fn post_from(&self, path: &str, form: &[(&str, &str)], site: &str) -> Page {
        let encode = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let body: Vec<String> =
            form.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
        let request = Request::post(path)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-site", site);
        self.send(request, Body::from(body.join("&"))).await
    }

    /// The answer to a `GET`, its body left to come.
    pub async fn open(&self, path: &str) -> Response {
        self.answer(Request::get(path), Body::empty()).await
    }

    async fn answer(&self, request: http::request::Builder, body: Body) -> Response {
        let mut request = request.header("host", "localhost");
        if let Some(cookie) = &*self.cookie.borrow() {
            request = request.header(COOKIE, cookie);
        }
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 40_000))));
        self.app.router.clone().oneshot(request).await.unwrap()
    }

    async fn send(&self, request: http::request::Builder, body: Body) -> Page {
        let response = self.answer(request, body).await;
        let (status, headers) = (response.status(), response.headers().clone());
        if let Some(set) = headers.get(SET_COOKIE) {
            let pair = set.to_str().unwrap().split(';').next().unwrap().to_owned();
            *self.cookie.borrow_mut() = Some(pair).filter(|pair| !pair.ends_with('='));
        }
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Page { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }
}

/// The path of a link to come in with.
pub async fn sign_in_link(app: &TestApp, email: &str) -> String {
    link(app, email, apixx_mcp::store::people::Purpose::SignIn, "enter").await
}

/// The path of a link to choose a password.
pub async fn password_link(app: &TestApp, email: &str) -> String {
    link(app, email, apixx_mcp::store::people::Purpose::Password, "password").await
}

async fn link(app: &TestApp, email: &str, purpose: apixx_mcp::store::people::Purpose, path: &str) -> String {
    let link = apixx_mcp::domain::token::Secret::new(app.store.ids());
    let email = apixx_mcp::domain::person::Email::parse(email).unwrap();
    let until = app.clock.now() + chrono::TimeDelta::days(1);
    assert!(app.store.add_link(&link, &email, purpose, until).await.unwrap(), "{email}");
    format!("/{path}/{}", link.reveal())
}

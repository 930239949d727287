//! What an operator does for people who sign in: links that work once, and who belongs where.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use clap::Args;

use super::session::{As, customer, operator, told, with};
use super::table::{MINUTE, print_table};
use crate::config::{Config, ServerConfig};
use crate::domain::person::{Email, Role};
use crate::domain::token::Secret;
use crate::domain::untrusted::line;
use crate::service::people::LINK_LIVES;
use crate::store::customers::Target;
use crate::store::people::Purpose;

#[derive(Debug, Args)]
pub(super) struct InviteArgs {
    /// The customer's short name
    #[arg(long, value_name = "SLUG")]
    customer: String,
    /// By which the person signs in
    #[arg(long, value_name = "ADDRESS", value_parser = email)]
    email: Email,
    /// What others read [default: what it was, or what stands before the @]
    #[arg(long)]
    name: Option<String>,
    /// owner, admin, operator or viewer
    #[arg(long, default_value = "viewer", value_parser = role)]
    role: Role,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The customer's short name
    #[arg(long, value_name = "SLUG")]
    customer: String,
    /// By which the person signs in
    #[arg(long, value_name = "ADDRESS", value_parser = email)]
    email: Email,
}

#[derive(Debug, Args)]
pub(super) struct ResetArgs {
    /// By which the person signs in
    #[arg(long, value_name = "ADDRESS", value_parser = email)]
    email: Email,
}

pub(super) fn email(text: &str) -> Result<Email, &'static str> {
    Email::parse(text).ok_or("write it as ana@example.com")
}

fn role(text: &str) -> Result<Role, &'static str> {
    Role::parse(text).ok_or("the roles are owner, admin, operator and viewer")
}

pub(super) async fn invite(config: Config, args: InviteArgs) -> anyhow::Result<()> {
    let base = base_url(&config.server, config.server.listen);
    with(&config, As::Server, async |store| {
        let mut tx = store.begin(&customer(store, &args.customer).await?).await.map_err(told)?;
        tx.lock_customer().await.map_err(told)?;
        let name = args.name.as_deref();
        let user = tx.put_user(args.email.as_str(), name, args.role).await.map_err(told)?;
        tx.owner()
            .await
            .map_err(|_| anyhow!("{} would have no owner: name another one first", args.customer))?;
        let message = format!("{} as {}", args.email, args.role);
        tx.audit(&operator(), "user.invited", Target::User(&user), Some(&message)).await.map_err(told)?;
        tx.commit().await.map_err(told)?;
        let known = store.password_of(&args.email).await.map_err(told)?.is_some();
        if known {
            say!(
                "{} belongs to {} as {}, and signs in with the password of before at {base}/sign-in",
                args.email,
                args.customer,
                args.role
            );
            return Ok(());
        }
        let (link, until) = (Secret::new(store.ids()), store.now() + LINK_LIVES);
        if !store.add_link(&link, &args.email, Purpose::Password, until).await.map_err(told)? {
            return Err(unknown(&args.email));
        }
        say_link(&base, &link, &args.email, until);
        Ok(())
    })
    .await
}

pub(super) async fn reset(config: Config, args: ResetArgs) -> anyhow::Result<()> {
    let base = base_url(&config.server, config.server.listen);
    with(&config, As::Server, async |store| {
        // Written down before the link is made: who holds that has the account.
        for tenancy in store.customers_of(&args.email).await.map_err(told)? {
            let mut tx = store.begin(&tenancy).await.map_err(told)?;
            if let Some(user) = tx.user(&args.email).await.map_err(told)? {
                tx.audit(&operator(), "user.reset", Target::User(&user), None).await.map_err(told)?;
                tx.commit().await.map_err(told)?;
            }
        }
        let (link, until) = (Secret::new(store.ids()), store.now() + LINK_LIVES);
        if !store.reset_person(&link, &args.email, until).await.map_err(told)? {
            return Err(unknown(&args.email));
        }
        say_link(&base, &link, &args.email, until);
        say!(
            "Nobody signs in as {} before that: the password and the sessions of before have ended.",
            args.email
        );
        say!("Tokens made as {} go on: `apixx-mcp token list` shows whose each is", args.email);
        Ok(())
    })
    .await
}

pub(super) async fn remove(config: Config, args: RemoveArgs) -> anyhow::Result<()> {
    with(&config, As::Server, async |store| {
        let (slug, email) = (&args.customer, &args.email);
        let mut tx = store.begin(&customer(store, slug).await?).await.map_err(told)?;
        let user = tx.remove_user(email).await.map_err(told)?;
        let unknown =
            || anyhow!("{slug} has no {email}, or nobody else owns it: `apixx-mcp user list` shows all");
        let user = user.ok_or_else(unknown)?;
        tx.audit(&operator(), "user.removed", Target::User(&user), Some(email.as_str()))
            .await
            .map_err(told)?;
        tx.commit().await.map_err(told)?;
        say!(
            "{email} belongs to {slug} no more, from now on. Tokens they made go on: `apixx-mcp token list`"
        );
        Ok(())
    })
    .await
}

fn unknown(email: &Email) -> anyhow::Error {
    anyhow!("nobody is known as {email}: `apixx-mcp user invite` makes somebody known")
}

fn say_link(base: &str, link: &Secret, email: &Email, until: DateTime<Utc>) {
    say!("{base}/password/{}", link.reveal());
    say!(
        "{email} chooses a password there, once, until {}. Send it over a way that you trust.",
        until.format(MINUTE)
    );
}

pub(super) async fn list(config: Config, slug: String) -> anyhow::Result<()> {
    with(&config, As::Server, async |store| {
        let tenancy = customer(store, &slug).await?;
        let users = store.read(&tenancy).users().await.map_err(told)?;
        let rows = users.into_iter().map(|user| {
            [
                user.email,
                user.role,
                user.created_at.format(MINUTE).to_string(),
                user.user_id,
                line(&user.name),
            ]
        });
        print_table(["E-MAIL", "ROLE", "SINCE", "ID", "NAME"], rows.collect());
        Ok(())
    })
    .await
}

/// Where browsers and clients find the server: where the operator says, or on this machine at `listening`.
pub(super) fn base_url(config: &ServerConfig, listening: SocketAddr) -> String {
    if let Some(base) = config.public_base() {
        return base;
    }
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listening.port()))
}

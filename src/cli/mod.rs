//! The command line.

/// Prints a line. That nobody reads it (`… | head`) is no failure.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::cli::print(&format!("{}\n", format_args!($($words)*)))
    };
}

mod apply;
mod demo;
mod doctor;
mod operate;
mod people;
mod places;
mod serve;
mod session;
mod table;
mod tokens;

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand};

use crate::app::process::Operator;
use crate::app::{database, listen};
use crate::config::{Config, OperatorConfig, Sources};
use crate::observe;

/// How long what works aside may take once everything else has ended.
const LAST_WORK: Duration = Duration::from_millis(500);

/// A multi-tenant MCP server for integration workspaces: flows, runs, errors, connectors.
#[derive(Debug, Parser)]
#[command(name = "apixx-mcp", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    everywhere: Everywhere,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
struct Everywhere {
    /// Settings file (all keys: config/default.toml); the environment (APIXX_SECTION__KEY) and flags win over it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the private PostgreSQL keeps everything, when no database is configured
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Tell causes of errors too, and log what commands do
    #[arg(long, short, global = true)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: three workspaces, server and worker in one process, nothing to set up
    Demo(Demo),
    /// Serve MCP over HTTP
    Serve(Serve),
    /// Execute runs, schedules and connector checks
    Worker,
    /// Bring the database to this program's schema and make the server's role
    Migrate,
    /// Bring a customer's connectors and flows to what a file says
    Apply(Apply),
    /// Make and list customers
    #[command(subcommand)]
    Customer(CustomerCommand),
    /// Make, list and revoke MCP tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Let people sign in to the pages
    #[command(subcommand)]
    User(UserCommand),
    /// Pause and resume flows
    #[command(subcommand)]
    Flow(FlowCommand),
    /// Cancel runs
    #[command(subcommand)]
    Run(RunCommand),
    /// Look for what is wrong with an installation, and say what to do
    Doctor,
}

#[derive(Debug, Args)]
struct Demo {
    /// Address and port to listen on; port 0 takes any
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// The time at which the demo's clock starts [default: now]
    #[arg(long, value_name = "RFC3339")]
    now: Option<DateTime<Utc>>,
    /// Print one line of JSON when it is ready, instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Serve {
    /// Address and port to listen on; port 0 takes any
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Also execute runs: everything in one process
    #[arg(long)]
    with_worker: bool,
}

#[derive(Debug, Args)]
struct Apply {
    /// The customer's short name
    #[arg(long, value_name = "SLUG")]
    customer: String,
    /// Connectors and flows, as TOML
    file: PathBuf,
    /// Only tell what would change
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum CustomerCommand {
    /// Make a customer and its first user, who owns it
    Create(operate::NewCustomerArgs),
    /// Give a customer another plan, suspend it or let it in again
    Set(operate::SetCustomerArgs),
    /// List all customers
    List,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; its secret is shown this once
    Create(tokens::NewTokenArgs),
    /// List tokens, of one customer or of all: the live ones and, of each, the 50 that ended last
    List {
        /// The customer's short name
        #[arg(long, value_name = "SLUG")]
        customer: Option<String>,
    },
    /// End a token now
    Revoke {
        /// The token's id, such as mtk_01…
        id: String,
    },
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make somebody known at a customer, or change their role; prints a link to choose a password to who has none
    Invite(people::InviteArgs),
    /// Take somebody out of a customer's workspace, at once
    Remove(people::RemoveArgs),
    /// End somebody's password and sessions, and print a link to choose another password
    Reset(people::ResetArgs),
    /// List who belongs to a customer
    List {
        /// The customer's short name
        #[arg(long, value_name = "SLUG")]
        customer: String,
    },
}

#[derive(Debug, Subcommand)]
enum FlowCommand {
    /// Stop a flow from starting, by its schedule or a trigger, and cancel its runs that wait
    Pause(operate::FlowArgs),
    /// Let a paused flow run again
    Resume(operate::FlowArgs),
}

#[derive(Debug, Subcommand)]
enum RunCommand {
    /// Ask a run to stop
    Cancel {
        /// The customer's short name
        #[arg(long, value_name = "SLUG")]
        customer: String,
        /// The run's id, such as run_01…
        run: String,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let verbose = cli.everywhere.verbose;
    match start(cli) {
        Ok(code) => code,
        Err(error) if verbose => {
            eprintln!("apixx-mcp: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("apixx-mcp: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let mut config = configuration(&cli)?;
    // What runs for long is watched by its log; a command is done when it says so.
    let stays = matches!(cli.command, Command::Demo(_) | Command::Serve(_) | Command::Worker);
    if !stays && !cli.everywhere.verbose {
        config.log.filter = "off".to_owned();
    }
    observe::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let code = runtime.block_on(run(cli.command, config));
    // Nobody hears signals any more: what still reads a file or looks up a name is not waited for without end.
    runtime.shutdown_timeout(LAST_WORK);
    code
}

async fn run(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => done(demo::demo(config, &args)).await,
        Command::Serve(args) => done(serve::serve(config, args.with_worker)).await,
        Command::Worker => done(serve::worker(config)).await,
        Command::Migrate => {
            database::bring_up(&config.database).await?;
            say!("the database has this program's schema");
            Ok(ExitCode::SUCCESS)
        }
        Command::Apply(args) => done(apply::apply(config, &args)).await,
        Command::Customer(CustomerCommand::Create(args)) => {
            done(operate::create_customer(config, args)).await
        }
        Command::Customer(CustomerCommand::Set(args)) => done(operate::set_customer(config, args)).await,
        Command::Customer(CustomerCommand::List) => done(operate::list_customers(config)).await,
        Command::Token(TokenCommand::Create(args)) => done(tokens::create_token(config, args)).await,
        Command::Token(TokenCommand::List { customer }) => done(tokens::list_tokens(config, customer)).await,
        Command::Token(TokenCommand::Revoke { id }) => done(tokens::revoke_token(config, id)).await,
        Command::User(UserCommand::Invite(args)) => done(people::invite(config, args)).await,
        Command::User(UserCommand::Remove(args)) => done(people::remove(config, args)).await,
        Command::User(UserCommand::Reset(args)) => done(people::reset(config, args)).await,
        Command::User(UserCommand::List { customer }) => done(people::list(config, customer)).await,
        Command::Flow(FlowCommand::Pause(args)) => done(operate::pause_flow(config, args)).await,
        Command::Flow(FlowCommand::Resume(args)) => done(operate::resume_flow(config, args)).await,
        Command::Run(RunCommand::Cancel { customer, run }) => {
            done(operate::cancel_run(config, customer, run)).await
        }
        Command::Doctor => doctor::doctor(&config).await,
    }
}

/// Takes the operator's address, if there is one, and begins to measure.
async fn operator(config: &OperatorConfig) -> anyhow::Result<Option<Operator>> {
    let Some(address) = config.listen else { return Ok(None) };
    let listener = listen::bind_operator(address).await?;
    let measures = observe::metrics::init().context("cannot measure")?;
    tracing::info!("health and measures at http://{}", listener.local_addr()?);
    Ok(Some(Operator { listener, measures }))
}

/// Prints; that nobody reads it is no failure.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _nobody_reads = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

async fn done(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    command.await.map(|()| ExitCode::SUCCESS)
}

/// The configuration, with what the flags say.
fn configuration(cli: &Cli) -> anyhow::Result<Config> {
    let listen = match &cli.command {
        Command::Demo(Demo { listen, .. }) | Command::Serve(Serve { listen, .. }) => listen.clone(),
        _ => None,
    };
    let flags = [("server.listen", listen), ("database.data_dir", cli.everywhere.data_dir.clone())];
    let flags = flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    Ok(Config::load(&Sources::of_this_process(cli.everywhere.config.clone(), flags))?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }
}

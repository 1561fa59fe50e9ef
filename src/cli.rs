//! The command line: one file per subcommand.

mod check;
mod connection;
mod demo;
mod explain;
mod keys;
mod migrate;
mod run;
mod schema;
mod simulate;
mod table;
mod token;

use crate::config::{self, Environment, Loaded, Problem};
use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where the configuration is looked for when `-c` is absent.
const DEFAULT_FILES: [&str; 2] = ["conf/tidegate.yaml", "/etc/tidegate/tidegate.yaml"];

/// An edge proxy and API gateway that knows who is calling and what they may use
#[derive(Parser)]
#[command(name = "tidegate", version, about, disable_help_subcommand = true)]
struct Arguments {
    /// The configuration [default: conf/tidegate.yaml, then /etc/tidegate/tidegate.yaml]
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve
    Run,
    /// Validate the configuration: every error at once, with line, column and a hint
    Check,
    /// Sample upstreams and a gateway in one process, nothing else needed
    Demo(demo::Options),
    /// Decide a timeline without traffic: one JSON line in, one JSON line out
    Simulate(simulate::Options),
    /// Bring the database to the current schema
    Migrate,
    /// API keys: make, list, revoke
    #[command(subcommand)]
    Keys(keys::Command),
    /// What would happen to a request and why; the running gateway is asked
    Explain(explain::Options),
    /// Sign a token for development, from the configured key
    Token(token::Options),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let file = arguments.config;
    let done = match arguments.command {
        Command::Run => run::run(file),
        Command::Check => check::check(file),
        Command::Demo(options) => demo::demo(options),
        Command::Simulate(options) => simulate::simulate(file, options),
        Command::Migrate => migrate::migrate(file),
        Command::Keys(command) => keys::keys(file, command),
        Command::Explain(options) => explain::explain(file, options),
        Command::Token(options) => token::token(file, options),
        Command::Schema => schema::schema(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // nobody to tell if even this fails
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Why a command did not do what it was asked for, in words for whoever typed it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", listed(.0))]
    Configuration(Vec<Problem>),
    #[error("tidegate: {0}")]
    Other(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Other(error.to_string())
    }
}

fn listed(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The file named on the command line, or the first default that exists.
fn configuration_file(file: Option<PathBuf>) -> PathBuf {
    let defaults = DEFAULT_FILES.map(PathBuf::from);
    let [first, ..] = defaults.clone();
    file.or_else(|| defaults.into_iter().find(|path| path.exists()))
        .unwrap_or(first)
}

/// Reads and validates, in the environment of this process.
fn load(file: Option<PathBuf>) -> Result<Loaded, Failure> {
    let directory = std::env::current_dir()?;
    config::load(
        &configuration_file(file),
        &Environment::from_process(&directory),
    )
    .map_err(Failure::Configuration)
}

/// Prints warnings to standard error.
fn warn(loaded: &Loaded) {
    for warning in &loaded.warnings {
        let _ = writeln!(std::io::stderr(), "{warning}");
    }
}

//! The command line: one file a verb.

mod check;
mod close;
mod dead_letters;
mod demo;
mod diff;
mod difference;
mod explain;
mod gateway;
mod load;
mod maintain;
mod output;
mod record;
mod replay;
mod run;
mod score;
mod sql;
mod status;
mod table;
mod test;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

use crate::error::{Error, Result};

/// SQL pipelines from Kafka protobuf to a correct Delta table.
#[derive(Debug, Parser)]
#[command(name = "flumen", version, about, long_about = None, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed while running (broker, store): running it again is safe; \
2 the arguments or the file are wrong, nothing was started; 3 the data is not what was promised; \
4 fenced: another instance of this pipeline has moved on.";

/// What every verb understands.
#[derive(Debug, Clone, Args)]
struct Globals {
    /// Relative paths in arguments and in pipeline files are relative to this directory
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// What stdout carries: text for people, or one JSON object a line
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Log more (twice: everything); the variable FLUMEN_LOG sets it by module
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a pipeline file needs from the command line.
#[derive(Debug, Clone, Default, Args)]
struct Inputs {
    /// Fills $name in the file
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    params: Vec<(String, String)>,
    /// Sets a session setting, as SET in the file does
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as name=value".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The whole architecture on one machine with nothing installed
    Demo(demo::Demo),
    /// Parse, resolve, type-check and compare with contracts, without any network
    Check(check::Check),
    /// What is read, the plan, and what is written
    Explain(explain::Explain),
    /// Run a pipeline until SIGTERM or Ctrl-C, or with --available-now to the end of its topics
    Run(run::Run),
    /// Committed offsets, ends, lag, table versions
    Status(status::Status),
    /// An ad-hoc query over what a file declares
    Sql(sql::Sql),
    /// A slice of a topic into a recording, which is read without a broker
    Record(Box<record::Record>),
    /// A pipeline over recordings, without a broker, into tables of their own
    Replay(replay::ReplayVerb),
    /// The cases of pipelines (*.test.yaml): records in, rows out, without a broker
    Test(test::Test),
    /// A business day of a topic, sealed once: what landed, checked and accounted for, in the final tables
    Close(close::CloseVerb),
    /// Two tables, compared: columns, rows, how far each column is the same
    Diff(diff::Diff),
    /// A model over the rows of a file, compared with what its training library predicts
    Score(score::Score),
    /// gRPC in and out: messages validated, stamped and published to Kafka, rows of tables streamed back
    Gateway(Box<gateway::GatewayVerb>),
    /// Look at records that could not be decoded, and decode them again
    DeadLetters(dead_letters::DeadLetters),
    /// Compact small files, write checkpoints, clean logs up, vacuum
    Maintain(maintain::Maintain),
}

/// SQL nests as deep as people write it, and planning it goes as deep. Only the pages that are used are real.
const STACK: usize = 256 << 20;

/// Reads the arguments and does what they say, on a thread with a large stack.
///
/// # Errors
/// What the verb returns; its kind is the exit code.
pub fn main() -> Result<()> {
    let unstarted = |e: std::io::Error| Error::unavailable(format!("no thread to run on: {e}"));
    let thread = std::thread::Builder::new().name("flumen".into()).stack_size(STACK).spawn(run).map_err(unstarted)?;
    thread.join().map_err(|_| Error::unavailable("the process failed; report what it said above"))?
}

fn run() -> Result<()> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    start_logging(cli.globals.verbose, matches!(cli.verb, Verb::Test(_)));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::unavailable(format!("the runtime does not start: {e}")))?;
    let result = runtime.block_on(async {
        match cli.verb {
            Verb::Demo(verb) => verb.run(&cli.globals).await,
            Verb::Check(verb) => verb.run(&cli.globals).await,
            Verb::Explain(verb) => verb.run(&cli.globals).await,
            Verb::Run(verb) => verb.run(&cli.globals).await,
            Verb::Status(verb) => verb.run(&cli.globals).await,
            Verb::Sql(verb) => verb.run(&cli.globals).await,
            Verb::Record(verb) => verb.run(&cli.globals).await,
            Verb::Replay(verb) => verb.run(&cli.globals).await,
            Verb::Test(verb) => verb.run(&cli.globals),
            Verb::Close(verb) => verb.run(&cli.globals).await,
            Verb::Diff(verb) => verb.run(&cli.globals).await,
            Verb::Score(verb) => verb.run(&cli.globals).await,
            Verb::Gateway(verb) => verb.run(&cli.globals).await,
            Verb::DeadLetters(verb) => verb.run(&cli.globals).await,
            Verb::Maintain(verb) => verb.run(&cli.globals).await,
        }
    });
    // Abandoned work (a read that waits for a broker, an upload) must not hold up the exit.
    runtime.shutdown_background();
    result
}

/// `--help` and `--version` are no errors; the rest is, with clap's text.
fn usage(error: &clap::Error) -> Result<()> {
    if error.use_stderr() {
        let text = error.to_string();
        return Err(Error::invalid(text.trim_start_matches("error: ").trim_end().to_owned()));
    }
    output::unless_gone(error.print()).map_err(|e| Error::unavailable(e.to_string()))
}

/// `quiet`: what goes wrong is wanted, and told otherwise.
fn start_logging(verbose: u8, quiet: bool) {
    let level = match verbose {
        0 if quiet => "off",
        // What the libraries below call an error is told by our own errors, with a remedy.
        0 => "flumen=warn,off",
        1 => "flumen=info,warn",
        2 => "flumen=debug,info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("FLUMEN_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        // It would tell them to stderr, and end the process where nobody reads that any more.
        .log_internal_errors(false);
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    // A second start in one process (tests) keeps the first.
    drop(tracing::subscriber::set_global_default(subscriber));
}

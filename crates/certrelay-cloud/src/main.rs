//! The Lambda program: one binary for every function, `CERTRELAY_FUNCTION` says which it is.
//!
//! Reads the clock and the environment, hands each message of an event to its function, and returns
//! those that failed to their queue. Logs one JSON line a message: what came of it, by codes; never a
//! payload, nor a device's words. `certrelay-cloud run <function>` does the same to one message from
//! the standard input, for trying things out.

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "the program has the clock and the environment")]

use std::{
    io::Read,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use aws_lambda_events::{
    sns::SnsEvent,
    sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent},
};
use certrelay::schedule::Timestamp;
use certrelay_cloud::{
    aws::{Aws, Config},
    functions::{Done, Fault, audit, complete, due, issue, report, request, sweep},
    settings::Settings,
};
use clap::{Parser, ValueEnum};
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use tracing::{error, info, warn};

/// An audit hands the rest to its queue when this is left of its time.
const HANDOVER: Duration = Duration::from_secs(60);

/// A message that is not begun when this is left of an invocation's time goes back to its queue.
const ROOM: Duration = Duration::from_secs(20);

/// The cloud side of certrelay. Without a command: a Lambda function.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Hands one message, from the standard input, to a function.
    Run {
        /// Which.
        function: Function,
    },
}

/// The functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Function {
    /// Takes up an audit's notification, or goes on with one.
    Audit,
    /// Begins a rotation.
    Request,
    /// Answers a CSR.
    Issue,
    /// Answers an ack.
    Complete,
    /// Answers an error.
    Report,
    /// Queues what is due.
    Sweep,
    /// Moves a record on.
    Due,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().json().with_current_span(false).with_target(false).init();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            error!("{why:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let config = Config::read(|name| std::env::var(name).ok())?;
    let function = match &cli.command {
        Some(Command::Run { function }) => *function,
        None => named()?,
    };
    runtime.block_on(async {
        let program =
            Program { settings: config.settings.clone(), aws: Aws::new(config).await, function };
        match cli.command {
            Some(_) => program.once().await,
            None => program.serve().await,
        }
    })
}

fn named() -> anyhow::Result<Function> {
    const NAME: &str = "CERTRELAY_FUNCTION";
    let value =
        std::env::var(NAME).with_context(|| format!("{NAME} is not set; the template sets it"))?;
    Function::from_str(&value, false)
        .map_err(|_| anyhow::anyhow!("{NAME} is {value:?}, which is none of the functions"))
}

struct Program {
    aws: Aws,
    settings: Settings,
    function: Function,
}

impl Program {
    /// As Lambda: event after event.
    async fn serve(&self) -> anyhow::Result<()> {
        let handler = service_fn(|event: LambdaEvent<Value>| self.event(event));
        lambda_runtime::run(handler).await.map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// One message from the standard input.
    async fn once(&self) -> anyhow::Result<()> {
        let mut message = Vec::new();
        std::io::stdin().read_to_end(&mut message).context("the standard input can't be read")?;
        match self.message(&message, now() + 15 * HANDOVER).await {
            Ok(done) => println!("{done:?}"),
            Err(fault) => return Err(fault.into()),
        }
        Ok(())
    }

    async fn event(
        &self,
        event: LambdaEvent<Value>,
    ) -> Result<SqsBatchResponse, lambda_runtime::Error> {
        let deadline = Timestamp(event.context.deadline);
        let mut response = SqsBatchResponse::default();
        if self.function == Function::Sweep {
            self.sweep(deadline).await?;
        } else if event.payload["Records"][0]["Sns"].is_object() {
            for record in serde_json::from_value::<SnsEvent>(event.payload)?.records {
                audit::begin(&self.aws, record.sns.message.as_bytes()).await?;
            }
        } else {
            for record in serde_json::from_value::<SqsEvent>(event.payload)?.records {
                let body = record.body.unwrap_or_default();
                if is_late(deadline, ROOM) || self.message(body.as_bytes(), deadline).await.is_err()
                {
                    let mut failure = BatchItemFailure::default();
                    failure.item_identifier = record.message_id.unwrap_or_default();
                    response.batch_item_failures.push(failure);
                }
            }
        }
        Ok(response)
    }

    /// Hands a message to the function, and logs what came of it.
    async fn message(&self, message: &[u8], deadline: Timestamp) -> Result<Done, Fault> {
        let end = self.done(message, deadline).await;
        let (function, thing) = (self.function, thing(message));
        match &end {
            Ok(Done::Did(what)) => info!(?function, thing, what, "done"),
            Ok(Done::Refused(code)) => warn!(?function, thing, code = code.as_str(), "refused"),
            Ok(Done::PutOff(code)) => info!(?function, thing, code = code.as_str(), "put off"),
            Ok(Done::Nothing) => info!(?function, thing, "nothing to do"),
            Err(Fault::Busy | Fault::Raced) => info!(?function, thing, "busy: it comes again"),
            Err(fault) => error!(?function, thing, %fault, "failed: it comes again"),
        }
        end
    }

    async fn done(&self, message: &[u8], deadline: Timestamp) -> Result<Done, Fault> {
        let (aws, settings) = (&self.aws, &self.settings);
        match self.function {
            Function::Audit if is_job(message) => {
                let is_late = || is_late(deadline, HANDOVER);
                audit::go_on(aws, settings, message, is_late, now()).await
            }
            Function::Audit => audit::begin(aws, message).await,
            Function::Request => request::request(aws, settings, message, fresh()?, now()).await,
            Function::Issue => issue::issue(aws, settings, message, now()).await,
            Function::Complete => complete::complete(aws, settings, message, now()).await,
            Function::Report => report::report(aws, settings, message, now()).await,
            Function::Due => due::due(aws, settings, message, now()).await,
            Function::Sweep => self.sweep(deadline).await.map(|()| Done::Did("swept")),
        }
    }

    async fn sweep(&self, deadline: Timestamp) -> Result<(), Fault> {
        let is_late = || is_late(deadline, HANDOVER);
        let swept = sweep::sweep(&self.aws, is_late, now()).await?;
        info!(due = swept.due, notes = swept.notes, "swept");
        Ok(())
    }
}

/// Whether a message is an audit's own, not a notification.
fn is_job(message: &[u8]) -> bool {
    serde_json::from_slice::<Value>(message).is_ok_and(|message| message["checks"].is_array())
}

/// The thing that a message is about, for the log: a valid name or nothing.
fn thing(message: &[u8]) -> Option<String> {
    let message: Value = serde_json::from_slice(message).ok()?;
    let name: certrelay::wire::ThingName = message["thing"].as_str()?.parse().ok()?;
    Some(name.as_str().to_owned())
}

/// Whether no more than this is left until a deadline.
fn is_late(deadline: Timestamp, left: Duration) -> bool {
    deadline - now() < left
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Random bits, which nobody can guess.
fn fresh() -> Result<[u8; 16], Fault> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|error| Fault::Unreadable(error.to_string()))?;
    Ok(bits)
}

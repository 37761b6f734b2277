//! A nucleus to be used by hand, or by a program in another language.
//!
//! Prints the environment of its component, an empty line, and then one line for each command that
//! it reads. Ends with its input.

#![forbid(unsafe_code)]

use std::{
    fs,
    io::{self, BufRead, Write},
    process::ExitCode,
    time::Duration,
};

use fake_nucleus::{FakeNucleus, Hub, Mode, Settings, Token, Upstream};
use serde_json::{Value, json};

const USAGE: &str = "\
usage: fake-nucleus java|lite [option ...]
  --thing-name NAME      the core (default: core)
  --component NAME       the component (default: com.example.Component)
  --configuration FILE   its configuration, JSON
  --allow FILTER         what it may publish and subscribe to, instead of everything
  --mqtt HOST:PORT       a broker that stands for IoT Core, instead of a cloud in this process
  --offline              no link to the cloud at the start
commands, one a line:
  online  offline  freeze  thaw  restart  restart-with-new-token  restart-iotcored  lose-spool
  publish TOPIC TEXT     from the cloud (not with --mqtt)
  local TOPIC TEXT       from another component
  deploy JSON            another configuration
  update ID              announce the update of a deployment
  flood COUNT SIZE       events on every subscription to IoT Core
  report                 what was seen, as JSON";

/// How long an answer of the component may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let (settings, hub) = match settings(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("fake-nucleus: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(FakeNucleus::start(settings), &hub) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("fake-nucleus: {why}");
            ExitCode::FAILURE
        }
    }
}

fn settings(mut arguments: impl Iterator<Item = String>) -> Result<(Settings, Hub), String> {
    let hub = Hub::new();
    let mode = match arguments.next().as_deref() {
        Some("java") => Mode::Java,
        Some("lite") => Mode::Lite,
        _ => return Err("which nucleus?".to_owned()),
    };
    let mut settings = Settings { upstream: Upstream::Hub(hub.clone()), ..Settings::new(mode) };
    let mut allowed = Vec::new();
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{option} lacks its value"));
        match &*option {
            "--thing-name" => settings.thing_name = value()?,
            "--component" => settings.component = value()?,
            "--configuration" => settings.configuration = read(&value()?)?,
            "--allow" => allowed.push(value()?),
            "--mqtt" => settings.upstream = broker(&value()?)?,
            "--offline" => settings.online = false,
            _ => return Err(format!("{option}: no such option")),
        }
    }
    if let Upstream::Mqtt { client_id, .. } = &mut settings.upstream {
        client_id.clone_from(&settings.thing_name);
    }
    if !allowed.is_empty() {
        settings.policy.mqtt_proxy = allowed;
    }
    Ok((settings, hub))
}

fn read(path: &str) -> Result<Value, String> {
    let text = fs::read_to_string(path).map_err(|why| format!("{path}: {why}"))?;
    serde_json::from_str(&text).map_err(|why| format!("{path}: {why}"))
}

fn broker(address: &str) -> Result<Upstream, String> {
    let (host, port) = address.rsplit_once(':').ok_or("--mqtt takes HOST:PORT")?;
    let port = port.parse().map_err(|_| "--mqtt takes HOST:PORT")?;
    Ok(Upstream::Mqtt { host: host.to_owned(), port, client_id: String::new(), tls: None })
}

fn run(mut nucleus: FakeNucleus, hub: &Hub) -> io::Result<()> {
    print_environment(&nucleus)?;
    for line in io::stdin().lock().lines() {
        let answer = obey(&mut nucleus, hub, &line?);
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn print_environment(nucleus: &FakeNucleus) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, value) in nucleus.environment() {
        writeln!(out, "{name}={value}")?;
    }
    writeln!(out)?;
    out.flush()
}

fn obey(nucleus: &mut FakeNucleus, hub: &Hub, line: &str) -> String {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    match command {
        "online" => nucleus.set_online(true),
        "offline" => nucleus.set_online(false),
        "freeze" => nucleus.freeze_link(true),
        "thaw" => nucleus.freeze_link(false),
        "restart" => nucleus.restart(Token::Same),
        "restart-with-new-token" => {
            nucleus.restart(Token::New);
            let environment = nucleus.environment().into_iter();
            let token = environment.filter(|(name, _)| name == "SVCUID").map(|(_, token)| token);
            return token.collect();
        }
        "restart-iotcored" => nucleus.restart_iotcored(),
        "lose-spool" => nucleus.lose_spool(),
        "publish" => hub.publish(first, second),
        "local" => nucleus.pubsub_publish(first, second.as_bytes()),
        "deploy" => match serde_json::from_str(rest) {
            Ok(configuration) => {
                return format!("{:?}", nucleus.deploy(configuration).wait(PATIENCE));
            }
            Err(why) => return format!("not understood: {why}"),
        },
        "update" => {
            return format!("{:?}", nucleus.announce_update(first, false).wait(PATIENCE));
        }
        "flood" => match (first.parse(), second.parse()) {
            (Ok(count), Ok(size)) => {
                return format!("{:?}", nucleus.flood(count, size).wait(PATIENCE));
            }
            _ => return "not understood".to_owned(),
        },
        "report" => return report(nucleus, hub).to_string(),
        _ => return "not understood".to_owned(),
    }
    "ok".to_owned()
}

fn report(nucleus: &FakeNucleus, hub: &Hub) -> Value {
    json!({
        "calls": nucleus.calls(),
        "states": nucleus.states(),
        "violations": nucleus.violations(),
        "spooled": nucleus.spooled(),
        "published": hub.count(),
    })
}

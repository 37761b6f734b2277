//! What the nucleus asks of a component while it runs.
//!
//! Says that the component runs, on each connection, whether the cloud can be reached or not.
//! Answers every announcement of an update at once, with "go ahead" but for the moment in which the
//! nucleus is about to be restarted with a new certificate. Judges configurations before a
//! deployment commits them, and fetches them after that.

use std::time::Duration;

use aws_greengrass_ipc::{
    CallError, Client, ComponentState, ComponentUpdate, ConfigurationUpdate,
    ConfigurationValidityReport, DeferComponentUpdate, Nucleus, State, Subscription, Update,
    ValidateConfiguration, Validity,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{News, configuration, rejected};
use crate::{
    config::{Config, ThisHost},
    wire::escape,
};

/// News that may wait for the runtime.
const NEWS: usize = 4;

/// A deployment changes several values one after the other; they are fetched when it has been still
/// for so long.
const SETTLES: Duration = Duration::from_millis(300);

/// An update that comes at a bad time is asked about again after so long.
const DEFERRED: Duration = Duration::from_secs(30);

/// What could not be fetched is asked for again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The longest message that is sent with a refusal, in characters: people read it in a console.
const LONGEST_MESSAGE: usize = 2000;

/// Starts to live with the nucleus, on the tokio runtime that this is called on, until the receiver
/// is dropped. `follow_settings`: they come from the nucleus.
///
/// `critical`: an update would come at a bad time, since the nucleus is about to be restarted.
pub fn live(
    client: Client,
    follow_settings: bool,
    critical: watch::Receiver<bool>,
) -> mpsc::Receiver<News> {
    let (sender, news) = mpsc::channel(NEWS);
    tokio::spawn(async move {
        let rejected = rejected(client.state());
        let life = Life::new(client, follow_settings, critical, sender.clone());
        tokio::select! {
            () = life.run() => {}
            _ = rejected => drop(sender.send(News::Rejected).await),
            () = sender.closed() => {}
        }
    });
    news
}

struct Life {
    client: Client,
    state: watch::Receiver<State>,
    news: mpsc::Sender<News>,
    follow_settings: bool,
    critical: watch::Receiver<bool>,
    /// The connection that the nucleus was last told on that we run.
    told: Option<u64>,
    changes: Option<Subscription<ConfigurationUpdate>>,
    /// Lite has neither of these.
    validations: Option<Subscription<ValidateConfiguration>>,
    updates: Option<Subscription<ComponentUpdate>>,
    /// When the settings are to be fetched.
    fetch: Option<Instant>,
}

enum Happened {
    State,
    Changed(Update<ConfigurationUpdate>),
    Validate(Update<ValidateConfiguration>),
    Update(Update<ComponentUpdate>),
    TimeToFetch,
}

impl Life {
    fn new(
        client: Client,
        follow_settings: bool,
        critical: watch::Receiver<bool>,
        news: mpsc::Sender<News>,
    ) -> Self {
        let mut state = client.state();
        state.mark_changed();
        let changes = follow_settings.then(|| client.subscribe_to_configuration_update(None, &[]));
        Self {
            client,
            state,
            news,
            follow_settings,
            critical,
            told: None,
            changes,
            validations: None,
            updates: None,
            fetch: None,
        }
    }

    async fn run(mut self) {
        loop {
            match self.next().await {
                Happened::State => self.on_state().await,
                // Once granted, too: it may have changed since it was last fetched.
                Happened::Changed(Update::Active { .. } | Update::Event(_)) => {
                    self.fetch = Some(Instant::now() + SETTLES);
                }
                Happened::Validate(Update::Event(asked)) => self.judge(asked).await,
                Happened::Update(Update::Event(announced)) => self.go_ahead(announced).await,
                Happened::TimeToFetch => self.fetch_settings().await,
                Happened::Changed(Update::Inactive(_))
                | Happened::Validate(Update::Active { .. } | Update::Inactive(_))
                | Happened::Update(Update::Active { .. } | Update::Inactive(_)) => {}
            }
        }
    }

    async fn next(&mut self) -> Happened {
        let fetch = self.fetch;
        tokio::select! {
            // The client ends with us; an error can't be.
            _ = self.state.changed() => Happened::State,
            update = said(&mut self.updates) => Happened::Update(update),
            update = said(&mut self.validations) => Happened::Validate(update),
            update = said(&mut self.changes) => Happened::Changed(update),
            () = sleep_until(fetch.unwrap_or_else(Instant::now)), if fetch.is_some() => {
                Happened::TimeToFetch
            }
        }
    }

    async fn on_state(&mut self) {
        let state = self.state.borrow_and_update().clone();
        let State::Connected { generation, nucleus } = state else { return };
        if self.told.replace(generation) == Some(generation) {
            return;
        }
        self.tell(News::Nucleus(nucleus)).await;
        if let Err(error) = self.client.update_state(ComponentState::Running).await {
            complain("does not take our state", &error);
        }
        if nucleus == Nucleus::Classic {
            let client = &self.client;
            self.updates.get_or_insert_with(|| client.subscribe_to_component_updates());
            if self.follow_settings {
                self.validations
                    .get_or_insert_with(|| client.subscribe_to_validate_configuration_updates());
            }
        }
    }

    /// A deployment wants to change the settings to these.
    async fn judge(&self, asked: ValidateConfiguration) {
        let validity = match Config::from_greengrass(asked.configuration, &ThisHost) {
            Ok(_) => Validity::Accepted,
            Err(error) => {
                let message = error.to_string().chars().take(LONGEST_MESSAGE).collect();
                tracing::warn!(deployment = escape(&asked.deployment_id), %error, "refused");
                Validity::Rejected { message }
            }
        };
        let deployment_id = asked.deployment_id;
        let report = ConfigurationValidityReport { deployment_id, validity };
        if let Err(error) = self.client.send_configuration_validity_report(report).await {
            complain("does not take our judgement of its settings", &error);
        }
    }

    /// A deployment wants to update components, or has. All that was acknowledged is durable, so it
    /// may go ahead at any time but between the switch of the core's certificate and the restart
    /// that follows.
    async fn go_ahead(&self, announced: ComponentUpdate) {
        let ComponentUpdate::Pre { deployment_id, .. } = announced else {
            return self.tell(News::Deployment { is_under_way: false }).await;
        };
        let is_critical = *self.critical.borrow();
        let recheck_after = if is_critical { DEFERRED } else { Duration::ZERO };
        let deployment = escape(&deployment_id);
        if is_critical {
            tracing::info!(deployment, "an update waits for the nucleus' restart");
        } else {
            tracing::info!(deployment, "an update may go ahead");
            self.tell(News::Deployment { is_under_way: true }).await;
        }
        let answer = DeferComponentUpdate { deployment_id, message: None, recheck_after };
        if let Err(error) = self.client.defer_component_update(answer).await {
            complain("does not take our answer to its update", &error);
        }
    }

    async fn fetch_settings(&mut self) {
        self.fetch = None;
        match configuration(&self.client).await {
            Ok(tree) => {
                let news = match Config::from_greengrass(tree, &ThisHost) {
                    Ok(config) => News::Settings(Box::new(config)),
                    Err(error) => News::Refused(error),
                };
                self.tell(news).await;
            }
            Err(error) => {
                complain("does not give the settings", &error);
                self.fetch = Some(Instant::now() + ASK_AGAIN);
            }
        }
    }

    async fn tell(&self, news: News) {
        // Who does not listen any more has ended.
        let _ = self.news.send(news).await;
    }
}

/// What a subscription says next; nothing, where there is none.
async fn said<E>(subscription: &mut Option<Subscription<E>>) -> Update<E> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}

fn complain(what: &str, error: &CallError) {
    tracing::warn!(error = escape(&error.to_string()), "the nucleus {what}");
}

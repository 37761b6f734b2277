//! What happens in the demo, in order, and what is measured at its end.
//!
//! Each step waits for a condition, never for a time alone, and all of it has one deadline.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, bail};
use certrelay::{
    status::{self, LinkState, Nucleus, RowState, StatusSnapshot},
    wire::{CertificateId, ThingName},
};
use fake_nucleus::Mode;
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};

use crate::{
    application::Application,
    cloud::{self, Message, Shared},
    plant::{self, Plant},
    process::Process,
    report::{self, Report, Seen},
    screen::{Scene, Screen},
    support::supervisor::Supervisor,
};

/// The demo is to be over by then.
const DEADLINE: Duration = Duration::from_secs(55);

/// How often it is looked whether a step is done.
const POLL: Duration = Duration::from_millis(5);

/// How long the supervisor waits before it starts the gateway again.
const RESTART: Duration = Duration::from_millis(500);

/// How many devices are off when the cloud asks.
const LATE: usize = 2;

/// The link is cut when the cloud has issued so many certificates.
const ISSUED_BEFORE_CUT: usize = 6;

/// The operation of the nucleus by which it is seen that the gateway has subscribed.
const SUBSCRIBES: &str = "SubscribeToIoTCore";

/// Everything that runs.
struct Story<'a> {
    plant: &'a Plant,
    screen: Screen,
    cloud: Shared,
    to_cloud: mpsc::Sender<Message>,
    cloud_task: JoinHandle<anyhow::Result<()>>,
    mode: Mode,
    /// It runs the nucleus and the gateway.
    supervisor: Arc<Supervisor>,
    agents: Vec<(ThingName, Process)>,
    application: JoinHandle<()>,
    link_is_cut: bool,
}

/// Plays it all. What runs has ended when this returns, or is dropped.
pub async fn play(plant: &Plant, cloud: cloud::Cloud, mode: Mode) -> anyhow::Result<Report> {
    let mut story = Story::begin(plant, cloud, mode).await?;
    let outcome = story.run().await;
    Ok(story.end(outcome).await)
}

impl<'a> Story<'a> {
    async fn begin(plant: &'a Plant, cloud: cloud::Cloud, mode: Mode) -> anyhow::Result<Self> {
        let cloud = Arc::new(Mutex::new(cloud));
        let (to_cloud, outgoing) = mpsc::channel(100);
        let peer = plant.cloud_login().connect().await.map_err(anyhow::Error::msg)?;
        let supervisor = Arc::new(plant.supervisor(mode));
        let nucleus = Arc::downgrade(&supervisor);
        let principal =
            move || nucleus.upgrade()?.nucleus().upstream_certificate().map(CertificateId);
        let cloud_task = cloud::serve(peer, Arc::clone(&cloud), outgoing, principal);
        let cloud_task = tokio::spawn(cloud_task);
        let agents = plant::agents().into_iter();
        let agents = agents.map(|name| (name.clone(), plant.agent(&name))).collect();
        let application = application(plant)?;
        Ok(Self {
            plant,
            screen: Screen::new(),
            cloud,
            to_cloud,
            cloud_task,
            mode,
            supervisor,
            agents,
            application: tokio::spawn(application.run()),
            link_is_cut: false,
        })
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        self.start_the_first().await?;
        self.ask().await?;
        self.cut_the_link().await?;
        self.kill_the_gateway().await?;
        if self.mode == Mode::Java {
            self.restart_the_nucleus();
        }
        self.start_the_gateway_again().await?;
        self.restore_the_link().await?;
        match self.mode {
            Mode::Java => self.start_the_late()?,
            Mode::Lite => self.strike_the_nucleus_deaf().await?,
        }
        self.ask_the_core().await?;
        self.wait_for_the_end().await
    }

    async fn start_the_first(&mut self) -> anyhow::Result<()> {
        self.until("the nucleus is connected", |story| story.plant.nucleus_was_connected()).await?;
        self.supervisor.start();
        let on = self.agents.len() - LATE;
        for (_, agent) in &mut self.agents[..on] {
            agent.start()?;
        }
        let nucleus = nucleus_name(self.mode);
        self.tell(&format!("the gateway is a component of {nucleus}"));
        self.tell(&format!(
            "the gateway, {on} agents and 1 application start; {LATE} devices are off"
        ));
        self.until("every device is connected, the gateway on both sides", |story| {
            let is_connected =
                |(_, agent): &(ThingName, Process)| agent.has_said("connected with gen-1");
            story.links_are_up() && story.agents[..on].iter().all(is_connected)
        })
        .await
    }

    async fn ask(&mut self) -> anyhow::Result<()> {
        let requests = cloud::lock(&self.cloud).audit();
        self.tell(&format!("the audit finds {} certificates that expire soon", requests.len()));
        for request in requests {
            self.to_cloud.send(request).await.context("the cloud has ended")?;
        }
        Ok(())
    }

    /// Its nucleus, and the gateway with it, is restarted in the middle of what goes on.
    async fn ask_the_core(&mut self) -> anyhow::Result<()> {
        let requests = cloud::lock(&self.cloud).audit_core();
        self.tell("the audit finds that the core's own certificate expires soon");
        for request in requests {
            self.to_cloud.send(request).await.context("the cloud has ended")?;
        }
        let starts = self.supervisor.starts();
        self.until("the gateway has the nucleus restarted", |story| {
            story.supervisor.starts() > starts
        })
        .await?;
        self.tell(
            "the core's new pair is installed; the nucleus restarts, and the gateway with it",
        );
        self.until(
            "the core's ack comes over its new certificate, its old key is wiped",
            |story| {
                let is_over = cloud::lock(&story.cloud)
                    .core()
                    .is_some_and(|(_, core)| core.outcome.is_some());
                is_over && story.plant.core_key_is_wiped()
            },
        )
        .await?;
        self.tell("the core has said so over its new certificate; its old key is wiped");
        Ok(())
    }

    async fn cut_the_link(&mut self) -> anyhow::Result<()> {
        self.until("the first certificates are issued", |story| {
            cloud::lock(&story.cloud).count().issued >= ISSUED_BEFORE_CUT
        })
        .await?;
        self.plant.uplink.cut();
        self.link_is_cut = true;
        let under_way = cloud::lock(&self.cloud).count();
        let issued = under_way.issued;
        self.tell(&format!("the link to the cloud is cut: {issued} certificates are issued"));
        Ok(())
    }

    /// When every device that is on has answered the request that it got, and the cloud has not
    /// got all of that. A request that the cut has lost is made again later.
    async fn kill_the_gateway(&mut self) -> anyhow::Result<()> {
        self.until("the gateway holds the CSRs of the devices that are on", |story| {
            let late = &story.agents[story.agents.len() - LATE..];
            let is_late = |child: &ThingName| late.iter().any(|(name, _)| name == child);
            story.snapshot().is_some_and(|s| {
                let mut waiting = s.children.iter().filter(|row| row.state == RowState::AwaitCsr);
                waiting.all(|row| is_late(&row.child))
                    && s.children.iter().any(|row| row.state == RowState::AwaitCert)
            })
        })
        .await?;
        let held = self.number(RowState::AwaitCert);
        self.supervisor.kill();
        self.tell(&format!("the gateway is killed (SIGKILL): {held} CSRs wait for certificates"));
        Ok(())
    }

    /// As a core that goes down would, a moment after the gateway. It gives out new tokens then.
    fn restart_the_nucleus(&mut self) {
        let lost = self.supervisor.nucleus().spooled();
        self.supervisor.restart();
        self.tell(&format!("the nucleus restarts: {lost} messages in its spool are lost"));
    }

    async fn start_the_gateway_again(&mut self) -> anyhow::Result<()> {
        let done = self.screen.elapsed() + RESTART;
        self.until("the supervisor's pause", |story| story.screen.elapsed() >= done).await?;
        self.supervisor.start();
        let id = self.supervisor.pid();
        self.until("the gateway is back on the floor", |story| {
            story.snapshot().is_some_and(|s| {
                Some(s.summary.pid) == id && s.summary.links.local.state == LinkState::Up
            })
        })
        .await?;
        self.tell("the gateway is back, with all that it had acknowledged");
        Ok(())
    }

    async fn restore_the_link(&mut self) -> anyhow::Result<()> {
        self.plant.uplink.restore();
        self.link_is_cut = false;
        self.tell("the link to the cloud is back");
        let on = self.agents.len() + 1 - LATE;
        self.until("every device that is on has rotated", |story| {
            let count = cloud::lock(&story.cloud).count();
            count.rotated + count.refused >= on && story.settled() >= on
        })
        .await
    }

    /// The gateway can still send, and what it is answered never comes.
    async fn strike_the_nucleus_deaf(&mut self) -> anyhow::Result<()> {
        let (struck, before) = (self.screen.elapsed(), self.subscribed());
        self.supervisor.nucleus().restart_iotcored();
        self.tell("the nucleus' MQTT daemon restarts: all its subscriptions die silently");
        self.start_the_late()?;
        self.until("the gateway finds its subscriptions dead", |story| {
            story.subscribed() > before && story.links_are_up()
        })
        .await?;
        let found = (self.screen.elapsed() - struck).as_secs_f32();
        self.tell(&format!("found by a probe: subscribed anew {found:.1} s later"));
        // A nucleus that is restarted forgets the answers that are on their way, and the gateway
        // asks for those a day later.
        let all = self.agents.len() + 1;
        self.until("every device has rotated", |story| story.settled() >= all).await
    }

    /// How often the gateway has asked the nucleus for a subscription.
    fn subscribed(&self) -> u64 {
        self.supervisor.nucleus().calls().get(SUBSCRIBES).copied().unwrap_or_default()
    }

    fn start_the_late(&mut self) -> anyhow::Result<()> {
        let first = self.agents.len() - LATE;
        for (_, agent) in &mut self.agents[first..] {
            agent.start()?;
        }
        self.tell(&format!("the {LATE} devices that were off are switched on"));
        Ok(())
    }

    /// Every rotation has an end at the cloud, and the gateway has nothing left to say.
    async fn wait_for_the_end(&mut self) -> anyhow::Result<()> {
        self.until("every rotation has ended, and the cloud knows of it", |story| {
            let count = cloud::lock(&story.cloud).count();
            let is_over = count.rotated + count.refused == story.agents.len() + 1;
            let devices = story.agents.len() + 1;
            is_over
                && story.snapshot().is_some_and(|snapshot| {
                    snapshot.children.len() == devices && report::is_settled(&snapshot)
                })
        })
        .await?;
        let days = cloud::lock(&self.cloud).let_weeks_pass();
        self.tell(&format!("in the cloud {days} days pass: the old certificates are retired"));
        Ok(())
    }

    /// Stops the devices, so that their client ids are free, and measures.
    async fn end(mut self, outcome: anyhow::Result<()>) -> Report {
        let time = self.screen.elapsed();
        let status = self.plant.status();
        self.application.abort();
        for (_, agent) in &mut self.agents {
            agent.kill();
        }
        let nucleus = self.supervisor.nucleus().upstream_certificate().map(CertificateId);
        let seen = Seen { mode: self.mode, status, time, nucleus };
        let mut report = report::measure(self.plant, &self.cloud, seen).await;
        for torn in self.supervisor.nucleus().pair_faults() {
            report.complain(format!("the nucleus found a pair that is none: {torn}"));
        }
        for broken in self.supervisor.nucleus().violations() {
            report.complain(format!("the nucleus: {broken}"));
        }
        if let Err(why) = outcome {
            report.complain(format!("{why:#}"));
        }
        report
    }

    /// Waits for a condition; meanwhile everything is watched and shown.
    async fn until(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&mut Self) -> bool,
    ) -> anyhow::Result<()> {
        while !condition(self) {
            if self.screen.elapsed() > DEADLINE {
                bail!("not within {} s: {what}", DEADLINE.as_secs());
            }
            self.watch()?;
            sleep(POLL).await;
        }
        Ok(())
    }

    /// What runs, runs; and the watcher sees how things stand.
    fn watch(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.supervisor.exits().first() {
            bail!("the gateway ended by itself: {status}");
        }
        for (name, agent) in &mut self.agents {
            if let Some(status) = agent.ended() {
                bail!("the agent of {name} ended: {status}");
            }
        }
        if self.cloud_task.is_finished() {
            bail!("the cloud has ended");
        }
        if self.application.is_finished() {
            bail!("the application has ended");
        }
        self.screen.show(self.scene());
        Ok(())
    }

    fn scene(&self) -> Scene {
        let on = self.agents.iter().filter(|(_, agent)| agent.id().is_some()).count();
        Scene {
            devices: self.agents.len() + 1,
            on: on + 1,
            link_is_cut: self.link_is_cut,
            gateway_runs: self.supervisor.pid().is_some(),
            gateway_starts: self.supervisor.starts(),
            cloud: cloud::lock(&self.cloud).count(),
            gateway: self.snapshot().map_or_else(|| "-".to_owned(), |s| totals(&s)),
        }
    }

    fn tell(&mut self, event: &str) {
        self.screen.show(self.scene());
        self.screen.tell(event);
    }

    /// What the gateway says of itself.
    fn snapshot(&self) -> Option<StatusSnapshot> {
        status::read(&self.plant.work_dir()).ok()
    }

    /// How many devices the gateway says to be in a state.
    fn number(&self, state: RowState) -> usize {
        let rows = self.snapshot().map(|snapshot| snapshot.children).unwrap_or_default();
        rows.iter().filter(|row| row.state == state).count()
    }

    /// How many devices are done, and the gateway knows that the cloud has heard it.
    fn settled(&self) -> usize {
        let rows = self.snapshot().map(|snapshot| snapshot.children).unwrap_or_default();
        rows.iter().filter(|row| row.state == RowState::Done && row.notices == 0).count()
    }

    fn links_are_up(&self) -> bool {
        self.snapshot().is_some_and(|snapshot| {
            let links = snapshot.summary.links;
            [links.local, links.cloud].iter().all(|link| link.state == LinkState::Up)
        })
    }
}

impl Drop for Story<'_> {
    fn drop(&mut self) {
        self.application.abort();
        self.cloud_task.abort();
    }
}

fn application(plant: &Plant) -> anyhow::Result<Application> {
    let device = plant::application();
    let (way, name) = (plant.way_to_the_floor(), device.clone());
    let connect = move |certificate: &Path, key: &Path| way.login(&name, certificate, key);
    Application::new(device.clone(), &plant.device_dir(&device), Box::new(connect))
}

/// The nucleus, for people.
pub fn nucleus_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Java => "the classic nucleus",
        Mode::Lite => "nucleus lite",
    }
}

fn totals(snapshot: &StatusSnapshot) -> String {
    let each = RowState::ALL.iter().map(|state| {
        let number = snapshot.summary.totals.get(state).unwrap_or(&0);
        format!("{} {number}", state.as_str())
    });
    let nucleus = match snapshot.summary.nucleus {
        Some(Nucleus::Classic) => "classic",
        Some(Nucleus::Lite) => "lite",
        None => "none yet",
    };
    format!("{}; nucleus {nucleus}", each.collect::<Vec<_>>().join(", "))
}

//! What the watcher sees: on a terminal one block that updates itself, elsewhere plain lines.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    time::{Duration, Instant},
};

use crate::cloud::Count;

/// A line may be so long, so that no usual terminal wraps it.
const WIDTH: usize = 78;

/// How many of the last events the block shows.
const EVENTS: usize = 5;

/// A block in which only the time has changed is drawn again after this.
const FRAME: Duration = Duration::from_millis(100);

/// Without a terminal there is at most one line of figures in this time.
const APART: Duration = Duration::from_secs(1);

/// How things stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scene {
    /// How many devices there are.
    pub devices: usize,
    /// How many of them are switched on.
    pub on: usize,
    pub link_is_cut: bool,
    pub gateway_runs: bool,
    pub gateway_starts: u32,
    /// What the cloud knows.
    pub cloud: Count,
    /// What the gateway says.
    pub gateway: String,
}

/// The terminal, or what stands for it.
pub struct Screen {
    started: Instant,
    is_terminal: bool,
    scene: Scene,
    events: VecDeque<String>,
    /// Lines of the block that stand on the terminal.
    drawn: usize,
    drawn_at: Option<Instant>,
    /// The last line of figures, and when it was printed.
    printed: Option<(String, Instant)>,
}

impl Screen {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            is_terminal: io::stdout().is_terminal(),
            scene: Scene::default(),
            events: VecDeque::new(),
            drawn: 0,
            drawn_at: None,
            printed: None,
        }
    }

    /// Since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows how things stand now.
    pub fn show(&mut self, scene: Scene) {
        let is_due = self.drawn_at.is_none_or(|at| at.elapsed() >= FRAME) || self.scene != scene;
        self.scene = scene;
        if self.is_terminal {
            if is_due {
                self.draw();
            }
            return;
        }
        let line = self.figures();
        let is_news =
            self.printed.as_ref().is_none_or(|(last, at)| *last != line && at.elapsed() >= APART);
        if is_news {
            self.print(&line);
            self.printed = Some((line, Instant::now()));
        }
    }

    /// Shows that something has happened.
    pub fn tell(&mut self, event: &str) {
        if !self.is_terminal {
            return self.print(&format!("* {event}"));
        }
        self.events.push_back(format!("{:5.1} s  {event}", self.elapsed().as_secs_f32()));
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
        self.draw();
    }

    fn print(&self, line: &str) {
        write_out(&format!("{:5.1} s  {line}\n", self.elapsed().as_secs_f32()));
    }

    /// One line with everything.
    fn figures(&self) -> String {
        let Scene { cloud, gateway, .. } = &self.scene;
        format!(
            "asked {}, CSRs {}, issued {}, rotated {}, refused {} | {} | gateway: {gateway}",
            cloud.asked,
            cloud.csrs,
            cloud.issued,
            cloud.rotated,
            cloud.refused,
            self.link(),
        )
    }

    fn link(&self) -> &'static str {
        if self.scene.link_is_cut { "link CUT" } else { "link up" }
    }

    /// Replaces the block: 11 lines at most.
    fn draw(&mut self) {
        let mut lines = vec![self.headline()];
        let Count { asked, csrs, issued, rotated, .. } = self.scene.cloud;
        for (what, number) in
            [("asked", asked), ("CSR", csrs), ("issued", issued), ("rotated", rotated)]
        {
            lines.push(bar(what, number, self.scene.devices));
        }
        lines.push(format!("gateway   {}", self.scene.gateway));
        lines.extend(self.events.iter().cloned());
        let mut out = String::new();
        if self.drawn > 0 {
            write!(out, "\x1b[{}A", self.drawn).expect("a string takes everything");
        }
        for line in &lines {
            let line: String = line.chars().take(WIDTH).collect();
            writeln!(out, "\x1b[2K{line}").expect("a string takes everything");
        }
        (self.drawn, self.drawn_at) = (lines.len(), Some(Instant::now()));
        write_out(&out);
    }

    fn headline(&self) -> String {
        let Scene { devices, on, gateway_runs, gateway_starts, .. } = self.scene;
        let gateway = match (gateway_runs, gateway_starts) {
            (true, 1) => "gateway runs".to_owned(),
            (true, starts) => format!("gateway runs (start {starts})"),
            (false, _) => "gateway KILLED".to_owned(),
        };
        let seconds = self.elapsed().as_secs_f32();
        let link = self.link();
        format!("factory   {seconds:.1} s   {on} of {devices} devices on   {link}   {gateway}")
    }
}

fn bar(what: &str, number: usize, of: usize) -> String {
    let (full, rest) = ("#".repeat(number), ".".repeat(of.saturating_sub(number)));
    format!("{what:<8}  {full}{rest}  {number}")
}

/// A reader that has gone is no reason to stop.
fn write_out(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

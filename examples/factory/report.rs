//! What became of every device: measured at the devices, at the cloud and at the gateway.

use std::{fmt::Write as _, time::Duration};

use anyhow::bail;
use certrelay::{
    install::Credentials,
    status::{Nucleus, RowState, StatusSnapshot},
    wire::{CertificateId, ThingName},
};
use fake_nucleus::Mode;

use crate::{
    cloud::{self, Cloud, Device, Outcome, Shared},
    plant::Plant,
    story::nucleus_name,
};

/// The end of the demo.
pub struct Report {
    mode: Mode,
    rows: Vec<Row>,
    core: End,
    time: Duration,
    /// What else is not as it should be.
    complaints: Vec<String>,
}

/// One device.
struct Row {
    name: ThingName,
    first_serial: u64,
    certificate: Option<CertificateId>,
    end: End,
    /// How the ack was known to be about this certificate.
    acknowledged: String,
    /// CSRs and acks that the cloud got more than once.
    repeats: u32,
}

/// Every device has one of these.
enum End {
    /// It connects to its broker with the certificate that the cloud knows to be in use, and the
    /// one before is retired.
    Rotated,
    /// The cloud was told, or has said, that it can't be: the code.
    Refused(String),
    /// Neither: it was asked and nothing came of it, for this reason.
    Lost(String),
}

impl End {
    fn word(&self) -> &'static str {
        match self {
            Self::Rotated => "rotated",
            Self::Refused(_) => "REFUSED",
            Self::Lost(_) => "LOST",
        }
    }
}

/// Whether the gateway has nothing more to do or to say, and has met its nucleus.
pub fn is_settled(status: &StatusSnapshot) -> bool {
    let is_done = status.children.iter().all(|row| row.state == RowState::Done && row.notices == 0);
    is_done && status.summary.nucleus.is_some()
}

/// What was seen while everything ran.
pub struct Seen {
    pub mode: Mode,
    /// What `certrelay status --json` printed.
    pub status: anyhow::Result<Vec<u8>>,
    pub time: Duration,
    /// The certificate that the nucleus is connected with.
    pub nucleus: Option<CertificateId>,
}

/// Looks at every device.
pub async fn measure(plant: &Plant, cloud: &Shared, seen: Seen) -> Report {
    let Seen { mode, status, time, nucleus } = seen;
    let names: Vec<_> = cloud::lock(cloud).children().map(|(name, _)| name.clone()).collect();
    let core = core(plant, cloud, nucleus).await;
    let mut report = Report { mode, rows: Vec::new(), core, time, complaints: Vec::new() };
    for name in names {
        let connected = connect(plant, &name).await;
        let cloud = cloud::lock(cloud);
        let device = cloud.children().find(|(other, _)| **other == name);
        report.rows.extend(device.map(|(_, device)| row(&cloud, &name, device, connected)));
    }
    if let Err(why) = check_status(status, mode, report.rows.len()) {
        report.complain(format!("certrelay status: {why:#}"));
    }
    report
}

fn check_status(
    printed: anyhow::Result<Vec<u8>>,
    mode: Mode,
    devices: usize,
) -> anyhow::Result<()> {
    let status: StatusSnapshot = serde_json::from_slice(&printed?)?;
    let nucleus = match mode {
        Mode::Java => Nucleus::Classic,
        Mode::Lite => Nucleus::Lite,
    };
    if status.summary.nucleus != Some(nucleus) {
        bail!("it says that the nucleus is {:?}", status.summary.nucleus);
    }
    let (listed, notices) = (
        status.children.len(),
        status.children.iter().map(|row| u32::from(row.notices)).sum::<u32>(),
    );
    if listed != devices || !is_settled(&status) {
        let done = status.children.iter().filter(|row| row.state == RowState::Done).count();
        bail!(
            "{done} of {listed} devices are done, and the cloud has yet to hear {notices} notices"
        );
    }
    Ok(())
}

impl Report {
    /// Something is not as it should be.
    pub fn complain(&mut self, why: String) {
        self.complaints.push(why);
    }

    /// Whether every device has rotated, and nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.number(|end| matches!(end, End::Rotated)) == self.rows.len()
            && !self.rows.is_empty()
            && matches!(self.core, End::Rotated)
            && self.complaints.is_empty()
    }

    /// A row a device, and the line that says it all.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("a string takes everything");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\ndevice    serial -> certificate   state    acknowledged  repeats")?;
        for row in &self.rows {
            let id = row.certificate.map_or("-".to_owned(), |id| format!("{id:?}"));
            let state = row.end.word();
            let Row { name, first_serial, acknowledged, repeats, .. } = row;
            let name = name.as_str();
            writeln!(
                out,
                "{name:<9} {first_serial:6x} -> {id:<11}   {state:<7}  {acknowledged:<12}  {repeats}"
            )?;
        }
        writeln!(out)?;
        for row in &self.rows {
            if let End::Refused(why) | End::Lost(why) = &row.end {
                writeln!(out, "{}: {why}", row.name)?;
            }
        }
        if let End::Refused(why) | End::Lost(why) = &self.core {
            writeln!(out, "core: {why}")?;
        }
        for complaint in &self.complaints {
            writeln!(out, "{complaint}")?;
        }
        writeln!(
            out,
            "factory: {} of {} rotated, core {}, {} lost, {} refused, {:.1} s, under {}",
            self.number(|end| matches!(end, End::Rotated)),
            self.rows.len(),
            self.core.word(),
            self.number(|end| matches!(end, End::Lost(_))),
            self.number(|end| matches!(end, End::Refused(_))),
            self.time.as_secs_f32(),
            nucleus_name(self.mode),
        )
    }

    fn number(&self, is: fn(&End) -> bool) -> usize {
        self.rows.iter().filter(|row| is(&row.end)).count()
    }
}

fn row(
    cloud: &Cloud,
    name: &ThingName,
    device: &Device,
    connected: Result<CertificateId, String>,
) -> Row {
    let acknowledged = match &device.outcome {
        Some(Outcome::Rotated(how)) => how.clone(),
        _ => "-".to_owned(),
    };
    Row {
        name: name.clone(),
        first_serial: device.first_serial,
        certificate: connected.as_ref().ok().copied(),
        end: end(cloud, name, device, connected),
        acknowledged,
        repeats: device.csrs.saturating_sub(1) + device.acks.saturating_sub(1),
    }
}

fn end(
    cloud: &Cloud,
    name: &ThingName,
    device: &Device,
    connected: Result<CertificateId, String>,
) -> End {
    if let Some(Outcome::Refused(code)) = &device.outcome {
        return End::Refused(code.clone());
    }
    let certificate = match connected {
        Ok(certificate) => certificate,
        Err(why) => return End::Lost(format!("it can't connect to its broker: {why}")),
    };
    let fault = if device.outcome.is_none() {
        "the cloud never got its ack"
    } else if cloud.in_use(name) != Some(certificate) || certificate == device.first {
        "it uses another certificate than the cloud knows of"
    } else if cloud.has_retired(certificate) {
        "its certificate is retired"
    } else if !cloud.has_retired(device.first) {
        "its old certificate is not retired"
    } else {
        return End::Rotated;
    };
    End::Lost(fault.to_owned())
}

/// Looks at the core: what its nucleus uses, and what it would use after a restart.
async fn core(plant: &Plant, cloud: &Shared, nucleus: Option<CertificateId>) -> End {
    let configured = connect_core(plant).await;
    let cloud = cloud::lock(cloud);
    let Some((name, core)) = cloud.core() else {
        return End::Lost("the cloud does not know it".into());
    };
    if configured.is_ok() && nucleus != configured.as_ref().ok().copied() {
        return End::Lost("its nucleus uses another certificate than it is to".to_owned());
    }
    if !plant.core_key_is_wiped() {
        return End::Lost("its old key is not wiped".to_owned());
    }
    end(&cloud, name, core, configured)
}

/// Connects to the cloud's broker with the pair that the nucleus is configured to use.
async fn connect_core(plant: &Plant) -> Result<CertificateId, String> {
    let (login, certificate) = plant.core_login().map_err(|why| why.to_string())?;
    login.connect().await?.disconnect().await;
    Ok(certificate)
}

/// Connects to the floor's broker with the pair that the device has in use, and talks to it.
async fn connect(plant: &Plant, name: &ThingName) -> Result<CertificateId, String> {
    let credentials = Credentials::look(&plant.device_dir(name));
    let generation = credentials.current().ok_or("it has no pair in use")?;
    let facts = credentials.facts(generation).map_err(|why| why.to_string())?;
    let files = credentials.files(generation);
    let peer =
        plant.way_to_the_floor().login(name, &files.certificate, &files.key).connect().await?;
    peer.publish(&format!("telemetry/{name}"), "0").await?;
    peer.disconnect().await;
    Ok(facts.id)
}

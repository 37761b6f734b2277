//! What `certrelay core show` says of the core's own certificate, as text for a terminal.
//!
//! Reads the certificate and nothing else; all else is handed in. Paths and subjects are escaped, so
//! that none can move a cursor.

#![expect(clippy::disallowed_methods, reason = "the certificate is read to be shown")]

use std::{
    fmt::{self, Write},
    path::Path,
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
};

use super::locate::Place;
use crate::{
    identity::{Failure, Found, Kept, Saved},
    install::{Generation, PairFiles},
    reason::Reason,
    schedule::Timestamp,
    wire::escape,
    x509::{self, CertificateFacts},
};

/// What is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Where the credential is.
    pub place: Result<Place, Failure>,
    /// What is there.
    pub credential: Result<Credential, Failure>,
    /// What was saved of a rotation.
    pub saved: Option<Saved>,
    /// Whether a rotation could be done now, or why not.
    pub preflight: Result<(), Failure>,
    /// The command that would restart the nucleus, or why none can.
    pub restart: Result<Vec<String>, Failure>,
    /// When the nucleus may be restarted, as the settings spell it; `None`: at any time.
    pub window: Option<String>,
}

/// The pair in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose it is: the certificate's subject.
    pub subject: String,
    /// Its facts.
    pub facts: CertificateFacts,
    /// The kind of its key, such as `RSA 2048`.
    pub key: String,
    /// Which generation the configured paths lead to; `None`: they are plain files.
    pub current: Option<Generation>,
    /// Every generation, oldest first.
    pub generations: Vec<Generation>,
}

/// What the files under the configured paths are; reads them.
pub fn credential(files: &PairFiles, found: Option<&Found>) -> Result<Credential, Failure> {
    let unusable = |why: String| Failure {
        reason: Reason::CredentialUnusable,
        detail: escape(&format!("{}: {why}", files.certificate.display())),
    };
    let pem = std::fs::read(&files.certificate).map_err(|why| unusable(why.to_string()))?;
    let none = || unusable("there is no readable CERTIFICATE in it".to_owned());
    let leaf = CertificateDer::from_pem_slice(&pem).map_err(|_| none())?;
    let facts = x509::read_certificate(&leaf).map_err(|_| none())?;
    let (_, certificate) = X509Certificate::from_der(&leaf).map_err(|_| none())?;
    let key = match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(key)) => format!("EC P-{}", key.key_size()),
        _ => "unknown".to_owned(),
    };
    let current = found.and_then(|found| found.current);
    let generations = found.map_or_else(Vec::new, |found| found.generations.clone());
    let subject = certificate.subject().to_string();
    Ok(Credential { subject, facts, key, current, generations })
}

/// Writes it. `now`: the wall clock, while it is trusted.
pub fn render(out: &mut impl Write, shown: &Shown, now: Option<Timestamp>) -> fmt::Result {
    match &shown.place {
        Ok(place) => files(out, place)?,
        Err(why) => line(out, "certificate", &format!("not known: {why}"))?,
    }
    match &shown.credential {
        Ok(credential) => pair(out, credential, now)?,
        // One complaint is enough.
        Err(_) if shown.place.is_err() => {}
        Err(why) => line(out, "pair", &format!("can't be used: {why}"))?,
    }
    if let Ok(place) = &shown.place {
        line(out, "broker", &broker(place))?;
    }
    rotation(out, shown)
}

fn files(out: &mut impl Write, place: &Place) -> fmt::Result {
    line(out, "certificate", &path(&place.files.certificate))?;
    line(out, "key", &path(&place.files.key))?;
    line(out, "by", &escape(&place.source.to_string()))
}

fn pair(out: &mut impl Write, credential: &Credential, now: Option<Timestamp>) -> fmt::Result {
    let Credential { subject, facts, key, .. } = credential;
    line(out, "subject", &escape(subject))?;
    line(out, "id", &facts.id.to_string())?;
    line(out, "valid", &validity(facts, now))?;
    line(out, "kind", &escape(key))?;
    line(out, "files", &kind_of_files(credential))
}

fn validity(facts: &CertificateFacts, now: Option<Timestamp>) -> String {
    let (from, until) = (facts.not_before, facts.not_after);
    let state = match now {
        None => "the clock is not trusted".to_owned(),
        Some(now) if now > until => format!("EXPIRED {} days ago", days(now, until)),
        Some(now) if now < from => "NOT YET VALID".to_owned(),
        Some(now) => format!("{} days left", days(until, now)),
    };
    format!("{from} to {until} ({state})")
}

fn days(later: Timestamp, earlier: Timestamp) -> u64 {
    (later - earlier).as_secs() / 86_400
}

fn kind_of_files(credential: &Credential) -> String {
    let all: Vec<String> = credential.generations.iter().map(ToString::to_string).collect();
    let kind = match credential.current {
        None => "plain files".to_owned(),
        Some(current) => format!("links to {current}"),
    };
    if all.is_empty() { kind } else { format!("{kind}; kept: {}", all.join(", ")) }
}

fn broker(place: &Place) -> String {
    match place.target() {
        Ok(target) => {
            escape(&format!("{}:{}, CA {}", target.host, target.port, target.ca.display()))
        }
        Err(why) => why.to_string(),
    }
}

fn rotation(out: &mut impl Write, shown: &Shown) -> fmt::Result {
    line(out, "rotation", &stage(shown.saved.as_ref()))?;
    if let Some(saved) = &shown.saved {
        history(out, saved)?;
    }
    match &shown.preflight {
        Ok(()) => line(out, "next", "can be done: new key, probe, switch of links, restart")?,
        Err(why) => line(out, "next", &format!("can't be done: {why}"))?,
    }
    match &shown.restart {
        Ok(command) => line(out, "restart", &escape(&command.join(" ")))?,
        Err(why) => line(out, "restart", &format!("can't be done: {why}"))?,
    }
    line(out, "window", shown.window.as_deref().unwrap_or("at any time"))
}

fn stage(saved: Option<&Saved>) -> String {
    let Some(saved) = saved else { return "none so far".to_owned() };
    let mut text = saved.stage.name().to_owned();
    if let Some(generation) = saved.stage.generation() {
        text += &format!(", {generation}");
    }
    if let Some(candidate) = saved.stage.candidate() {
        text += &format!(", certificate {} until {}", candidate.certificate, candidate.not_after);
    }
    text
}

fn history(out: &mut impl Write, saved: &Saved) -> fmt::Result {
    if let Some(ended) = &saved.ended {
        let how = ended.failed.as_ref().map_or_else(
            || "done".to_owned(),
            |why| format!("failed: {}: {}", why.code, escape(&why.error)),
        );
        let when = ended.at.map_or_else(String::new, |at| format!("{at} "));
        line(out, "last", &format!("{when}{how}"))?;
    }
    let Some(Kept { generation, until_settled, .. }) = &saved.kept else { return Ok(()) };
    line(out, "kept", &format!("{generation}, until the cloud has settled {until_settled}"))
}

fn line(out: &mut impl Write, name: &str, text: &str) -> fmt::Result {
    writeln!(out, "{name:<12}{text}")
}

fn path(path: &Path) -> String {
    escape(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core_device::locate::Source,
        identity::{AwaitCertificate, Complaint, Ended, Stage},
        install::PairFiles,
        reason::Reason,
        wire::{CertificateId, KeyDigest},
    };

    const DAY: u64 = 86_400_000;

    fn shown() -> Shown {
        let files = PairFiles { certificate: "/g/thing.crt".into(), key: "/g/priv.key".into() };
        let facts = CertificateFacts {
            id: CertificateId([0xab; 32]),
            key: KeyDigest([1; 32]),
            not_before: Timestamp(0),
            not_after: Timestamp(100 * DAY),
        };
        let source = Source::ConfigTlog("/g/config/config.tlog".into());
        let endpoint = Some(("host".to_owned(), 8883));
        Shown {
            place: Ok(Place { files, ca: Some("/g/ca.pem".into()), endpoint, source }),
            credential: Ok(Credential {
                subject: "CN=core".to_owned(),
                facts,
                key: "RSA 2048".to_owned(),
                current: Some(Generation(1)),
                generations: vec![Generation(1), Generation(2)],
            }),
            saved: Some(Saved {
                stage: Stage::AwaitCertificate(AwaitCertificate {
                    generation: Generation(2),
                    key: KeyDigest([2; 32]),
                    made: None,
                    rotation: None,
                }),
                ended: Some(Ended {
                    certificate: None,
                    rotation: None,
                    failed: Some(Complaint {
                        code: Reason::ProbeRefused,
                        error: "it refuses the certificate".to_owned(),
                    }),
                    told: true,
                    at: Some(Timestamp(DAY)),
                }),
                ..Saved::default()
            }),
            preflight: Ok(()),
            restart: Ok(["systemctl", "restart", "x"].map(str::to_owned).to_vec()),
            window: Some("Sun 02:00-04:00".to_owned()),
        }
    }

    fn text(shown: &Shown, now: Option<Timestamp>) -> String {
        let mut text = String::new();
        render(&mut text, shown, now).expect("a String takes all");
        text
    }

    #[test]
    fn all_that_is_known_is_shown() {
        let id = "ab".repeat(32);
        let want = format!(
            "\
certificate /g/thing.crt
key         /g/priv.key
by          /g/config/config.tlog
subject     CN=core
id          {id}
valid       1970-01-01T00:00:00Z to 1970-04-11T00:00:00Z (40 days left)
kind        RSA 2048
files       links to gen-1; kept: gen-1, gen-2
broker      host:8883, CA /g/ca.pem
rotation    await-certificate, gen-2
last        1970-01-02T00:00:00Z failed: probe-refused: it refuses the certificate
next        can be done: new key, probe, switch of links, restart
restart     systemctl restart x
window      Sun 02:00-04:00
"
        );
        assert_eq!(text(&shown(), Some(Timestamp(60 * DAY))), want);
    }

    #[test]
    fn what_is_wrong_is_said_once_each_with_its_reason() {
        let failure = |reason, detail: &str| Failure { reason, detail: detail.to_owned() };
        let shown = Shown {
            place: Err(failure(Reason::CredentialUnknown, "set core.certificateFile")),
            credential: Err(failure(Reason::CredentialUnknown, "as before")),
            saved: None,
            preflight: Err(failure(Reason::ReadOnly, "/g is read-only")),
            restart: Err(failure(Reason::CannotRestart, "no systemctl")),
            window: None,
        };
        let want = "\
certificate not known: credential-unknown: set core.certificateFile
rotation    none so far
next        can't be done: read-only: /g is read-only
restart     can't be done: cannot-restart: no systemctl
window      at any time
";
        assert_eq!(text(&shown, None), want);
    }

    #[test]
    fn an_expiry_is_judged_by_a_trusted_clock_alone() {
        assert!(text(&shown(), None).contains("(the clock is not trusted)"));
        assert!(text(&shown(), Some(Timestamp(103 * DAY))).contains("(EXPIRED 3 days ago)"));
    }

    #[test]
    fn nothing_that_is_shown_moves_a_cursor() {
        let mut shown = shown();
        if let Ok(credential) = &mut shown.credential {
            credential.subject = "CN=\u{1b}[2J".to_owned();
        }
        assert!(!text(&shown, None).contains('\u{1b}'));
    }
}

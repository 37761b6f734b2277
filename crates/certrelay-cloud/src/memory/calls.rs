//! The ports, over what the world holds. Errors are AWS's (see the fake's cross-check with boto3).

use std::collections::VecDeque;

use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, ThingName},
};

use super::{
    Memory, World,
    world::{Certificate, certificate_id},
};
use crate::{
    decide::report::Note,
    ports::{
        Attachment, Audits, Call, CallError, Created, Failure, Finding, Outbox, Page, PutError,
        Queue, Records, Registered, Registry, Status,
    },
    record::{Key, Record},
};

/// Findings on a page, as AWS's largest has them.
const FINDINGS: usize = 250;

/// Records on a page.
const RECORDS: usize = 100;

/// The most policies of a certificate.
const POLICIES: usize = 10;

impl World {
    fn get(&self, id: CertificateId) -> Result<&Certificate, Failure> {
        self.certificates.get(&id).ok_or(Failure::NotFound)
    }

    fn get_mut(&mut self, id: CertificateId) -> Result<&mut Certificate, Failure> {
        self.certificates.get_mut(&id).ok_or(Failure::NotFound)
    }

    fn create(&mut self, csr: &str, token: &str) -> Result<Created, Failure> {
        if let Some(id) = self.by_token.as_ref().and_then(|made| made.get(token).copied())
            && let Some(certificate) = self.certificates.get(&id)
        {
            return Ok(Created { id, pem: certificate.pem.clone() });
        }
        let (wall, validity) = (self.wall.unwrap_or(self.now), self.validity);
        let pem = self.authority.sign(csr, wall, validity);
        let pem = pem.map_err(Failure::Invalid)?;
        let id = certificate_id(&pem);
        let certificate = Certificate {
            pem: pem.clone(),
            status: Status::Inactive,
            policies: Default::default(),
            things: Vec::new(),
            detaching: Vec::new(),
        };
        self.certificates.insert(id, certificate);
        if let Some(made) = &mut self.by_token {
            made.insert(token.to_owned(), id);
        }
        Ok(Created { id, pem })
    }

    fn attach(&mut self, id: CertificateId, to: &Attachment) -> Result<(), Failure> {
        if self.deleted.contains(&to.thing) {
            return Err(Failure::NotFound);
        }
        let certificate = self.get_mut(id)?;
        certificate.detaching.retain(|(thing, _)| *thing != to.thing);
        let others = certificate.things.iter().filter(|other| other.thing != to.thing);
        let is_taken = |other: &Attachment| other.is_exclusive || to.is_exclusive;
        if others.clone().any(is_taken) {
            return Err(Failure::Conflict);
        }
        if certificate.things.iter().all(|other| other.thing != to.thing) {
            certificate.things.push(to.clone());
        }
        Ok(())
    }

    fn detach(&mut self, id: CertificateId, thing: &ThingName) -> Result<(), Failure> {
        let at = self.detached_at();
        let certificate = self.get_mut(id)?;
        if certificate.things.iter().all(|attachment| attachment.thing != *thing) {
            return Err(Failure::NotFound);
        }
        certificate.detaching.push((thing.clone(), at));
        Ok(())
    }

    fn delete(&mut self, id: CertificateId) -> Result<(), Failure> {
        let certificate = self.get(id)?;
        let is_free = certificate.things.is_empty() && certificate.policies.is_empty();
        if certificate.status == Status::Active || !is_free {
            return Err(Failure::Conflict);
        }
        self.certificates.remove(&id);
        Ok(())
    }

    fn put(&mut self, record: &Record) -> Result<(), PutError> {
        let mut certificates = record.certificates();
        certificates.sort_unstable();
        certificates.dedup();
        if certificates.len() != record.certificates().len() {
            // DynamoDB takes no set that names one twice.
            let why = Failure::Invalid("a certificate is named twice".to_owned());
            return Err(CallError { call: Call::PutItem, why }.into());
        }
        let stands = self.records.get(&record.key).map_or(0, |record| record.version);
        if stands + 1 != record.version {
            return Err(PutError::Raced);
        }
        self.records.insert(record.key.clone(), record.clone());
        Ok(())
    }
}

impl Registry for Memory {
    async fn certificate(&self, id: CertificateId) -> Result<Registered, CallError> {
        self.call(Call::DescribeCertificate, |world| {
            let certificate = world.get(id)?;
            Ok(Registered { pem: certificate.pem.clone(), status: certificate.status })
        })
        .await
    }

    async fn things_of(&self, id: CertificateId) -> Result<Vec<Attachment>, CallError> {
        self.call(Call::ListPrincipalThings, |world| {
            world.settle();
            world.get(id).map(|certificate| certificate.things.clone())
        })
        .await
    }

    async fn speaks_for(&self, id: CertificateId, thing: &ThingName) -> Result<bool, CallError> {
        self.call(Call::ListPrincipalThings, |world| {
            world.settle();
            let certificate = world.certificates.get(&id);
            let mut things = certificate.into_iter().flat_map(|certificate| &certificate.things);
            Ok(things.any(|attachment| attachment.thing == *thing))
        })
        .await
    }

    async fn is_associated(&self, core: &ThingName, device: &ThingName) -> Result<bool, CallError> {
        self.call(Call::ListClientDevices, |world| {
            Ok(world.associations.contains(&(core.clone(), device.clone())))
        })
        .await
    }

    async fn core_of(&self, device: &ThingName) -> Result<Option<ThingName>, CallError> {
        self.call(Call::DescribeThing, |world| {
            let known = world.associations.iter().find(|(_, other)| other == device);
            Ok(known.map(|(core, _)| core.clone()))
        })
        .await
    }

    async fn create(&self, csr: &str, token: &str) -> Result<Created, CallError> {
        self.call(Call::CreateCertificateFromCsr, |world| world.create(csr, token)).await
    }

    async fn policies_of(&self, id: CertificateId) -> Result<Vec<String>, CallError> {
        self.call(Call::ListAttachedPolicies, |world| {
            world.get(id).map(|certificate| certificate.policies.iter().cloned().collect())
        })
        .await
    }

    async fn attach_policy(&self, id: CertificateId, policy: &str) -> Result<(), CallError> {
        self.call(Call::AttachPolicy, |world| {
            let certificate = world.get_mut(id)?;
            certificate.policies.insert(policy.to_owned());
            match certificate.policies.len() {
                0..=POLICIES => Ok(()),
                _ => {
                    certificate.policies.remove(policy);
                    Err(Failure::Invalid("more than 10 policies".to_owned()))
                }
            }
        })
        .await
    }

    async fn detach_policy(&self, id: CertificateId, policy: &str) -> Result<(), CallError> {
        self.call(Call::DetachPolicy, |world| {
            let removed = world.get_mut(id)?.policies.remove(policy);
            removed.then_some(()).ok_or(Failure::NotFound)
        })
        .await
    }

    async fn attach_thing(&self, id: CertificateId, to: &Attachment) -> Result<(), CallError> {
        self.call(Call::AttachThingPrincipal, |world| {
            world.settle();
            world.attach(id, to)
        })
        .await
    }

    async fn detach_thing(&self, id: CertificateId, thing: &ThingName) -> Result<(), CallError> {
        self.call(Call::DetachThingPrincipal, |world| {
            world.settle();
            world.detach(id, thing)
        })
        .await
    }

    async fn set_active(&self, id: CertificateId, active: bool) -> Result<(), CallError> {
        self.call(Call::UpdateCertificate, |world| {
            world.get_mut(id)?.status = if active { Status::Active } else { Status::Inactive };
            Ok(())
        })
        .await
    }

    async fn delete(&self, id: CertificateId) -> Result<(), CallError> {
        self.call(Call::DeleteCertificate, |world| {
            world.settle();
            world.delete(id)
        })
        .await
    }
}

impl Audits for Memory {
    async fn findings(
        &self,
        task: &str,
        check: &str,
        token: Option<&str>,
    ) -> Result<Page<Finding>, CallError> {
        self.call(Call::ListAuditFindings, |world| {
            let found = world.findings.get(&(task.to_owned(), check.to_owned()));
            page(found.map_or(&[][..], Vec::as_slice), token, FINDINGS)
        })
        .await
    }
}

impl Records for Memory {
    async fn latest(&self, thing: &ThingName) -> Result<Option<Record>, CallError> {
        self.call(Call::Query, |world| Ok(world.latest(thing).cloned())).await
    }

    async fn put(&self, record: &Record) -> Result<(), PutError> {
        self.call(Call::PutItem, |world| Ok(world.put(record))).await?
    }

    async fn due(&self, now: Timestamp, token: Option<&str>) -> Result<Page<Key>, CallError> {
        self.call(Call::Query, |world| {
            let due = |record: &Record| record.state.due().filter(|due| *due <= now);
            let mut keys: Vec<_> =
                world.records.values().filter_map(|r| Some((due(r)?, r.key.clone()))).collect();
            keys.sort();
            let keys: Vec<_> = keys.into_iter().map(|(_, key)| key).collect();
            page(&keys, token, RECORDS)
        })
        .await
    }

    async fn under_way(&self, token: Option<&str>) -> Result<Page<CertificateId>, CallError> {
        self.call(Call::Query, |world| {
            let open = world.records.values().filter(|record| !record.is_over());
            page(&open.flat_map(Record::certificates).collect::<Vec<_>>(), token, RECORDS)
        })
        .await
    }

    async fn draw(&self, day: u64, wanted: u32, budget: u32) -> Result<u32, CallError> {
        self.call(Call::UpdateItem, |world| {
            let taken = world.budgets.entry(day).or_default();
            let granted = wanted.min(budget.saturating_sub(*taken));
            *taken += granted;
            Ok(granted)
        })
        .await
    }

    async fn keep(&self, note: &Note) -> Result<(), CallError> {
        self.call(Call::PutItem, |world| {
            world.notes.retain(|other| (&other.key, &other.code) != (&note.key, &note.code));
            world.notes.insert(note.clone());
            Ok(())
        })
        .await
    }

    async fn notes(&self, token: Option<&str>) -> Result<Page<Note>, CallError> {
        self.call(Call::Query, |world| {
            page(&world.notes.iter().cloned().collect::<Vec<_>>(), token, RECORDS)
        })
        .await
    }

    async fn forget(&self, note: &Note) -> Result<(), CallError> {
        self.call(Call::DeleteItem, |world| {
            world.notes.remove(note);
            Ok(())
        })
        .await
    }
}

impl Outbox for Memory {
    async fn publish(&self, topic: &str, payload: &[u8]) -> Result<(), CallError> {
        self.call(Call::Publish, |world| {
            match world.lose.checked_sub(1) {
                Some(left) => world.lose = left,
                None => world.published.push_back((topic.to_owned(), payload.to_vec())),
            }
            Ok(())
        })
        .await
    }

    async fn enqueue(&self, queue: Queue, messages: &[String]) -> Result<(), CallError> {
        for batch in messages.chunks(10) {
            self.call(Call::SendMessage, |world| {
                let queue: &mut VecDeque<_> = world.queues.entry(queue).or_default();
                queue.extend(batch.iter().cloned());
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn notify(&self, subject: &str, text: &str) -> Result<(), CallError> {
        self.call(Call::Notify, |world| {
            world.mails.push((subject.to_owned(), text.to_owned()));
            Ok(())
        })
        .await
    }
}

/// A page of a list; the token is where it begins.
fn page<T: Clone>(list: &[T], token: Option<&str>, most: usize) -> Result<Page<T>, Failure> {
    let bad = || Failure::Invalid("the token is none of ours".to_owned());
    let from = token.map_or(Ok(0), |token| token.parse().map_err(|_| bad()))?;
    let rest: &[T] = list.get(from..).unwrap_or_default();
    let items: Vec<T> = rest.iter().take(most).cloned().collect();
    let next = (rest.len() > most).then(|| (from + most).to_string());
    Ok(Page { items, next })
}

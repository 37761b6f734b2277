//! AWS IoT's control plane, and what says which devices a core has.

use std::time::Instant;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_iot::types::{CertificateStatus, ThingPrincipalType};
use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, ThingName},
};

use super::{Associations, Aws, errors};
use crate::ports::{
    Attachment, Audits, Call, CallError, Created, Failure, Finding, Page, Registered, Registry,
    Status,
};

/// The largest page of findings.
const FINDINGS: i32 = 250;

impl Aws {
    async fn devices_of(&self, core: &ThingName) -> Result<Vec<ThingName>, CallError> {
        let call = Call::ListClientDevices;
        self.pace.turn(call).await;
        let pages = self
            .greengrass
            .list_client_devices_associated_with_core_device()
            .core_device_thing_name(core.as_str())
            .max_results(100)
            .into_paginator()
            .items()
            .send();
        let devices: Vec<_> = pages.try_collect().await.map_err(errors::of(call))?;
        // A name that is none of AWS IoT's can't be that of a device which speaks here.
        Ok(devices.iter().filter_map(|device| device.thing_name()?.parse().ok()).collect())
    }

    async fn attribute(
        &self,
        device: &ThingName,
        name: &str,
    ) -> Result<Option<ThingName>, CallError> {
        let call = Call::DescribeThing;
        self.pace.turn(call).await;
        let thing = self.iot.describe_thing().thing_name(device.as_str()).send().await;
        match thing.map_err(errors::of(call)) {
            Err(CallError { why: Failure::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(thing) => Ok(thing.attributes().and_then(|all| all.get(name)?.parse().ok())),
        }
    }

    async fn listed(
        &self,
        device: &ThingName,
        table: &str,
    ) -> Result<Option<ThingName>, CallError> {
        let key = AttributeValue::S(device.as_str().to_owned());
        let item = self.dynamo.get_item().table_name(table).key("device", key).send().await;
        let item = item.map_err(errors::of(Call::GetItem))?.item;
        Ok(item.and_then(|item| item.get("core")?.as_s().ok()?.parse().ok()))
    }

    async fn list_things(&self, id: CertificateId) -> Result<Vec<Attachment>, CallError> {
        let call = Call::ListPrincipalThings;
        self.pace.turn(call).await;
        let pages = self
            .iot
            .list_principal_things_v2()
            .principal(self.arn(id))
            .into_paginator()
            .items()
            .send();
        let things: Vec<_> = pages.try_collect().await.map_err(errors::of(call))?;
        let attachment = |thing: &aws_sdk_iot::types::PrincipalThingObject| {
            let kind = thing.thing_principal_type();
            let is_exclusive = kind == Some(&ThingPrincipalType::ExclusiveThing);
            Some(Attachment { thing: thing.thing_name().parse().ok()?, is_exclusive })
        };
        things.iter().map(attachment).collect::<Option<_>>().ok_or_else(|| unreadable(call))
    }
}

impl Registry for Aws {
    async fn certificate(&self, id: CertificateId) -> Result<Registered, CallError> {
        let call = Call::DescribeCertificate;
        self.pace.turn(call).await;
        let answer = self.iot.describe_certificate().certificate_id(id.to_string()).send().await;
        let answer = answer.map_err(errors::of(call))?;
        let description = answer.certificate_description().ok_or_else(|| unreadable(call))?;
        let status = match description.status() {
            Some(CertificateStatus::Active) => Status::Active,
            Some(CertificateStatus::Inactive) => Status::Inactive,
            _ => Status::Other,
        };
        let pem = description.certificate_pem().ok_or_else(|| unreadable(call))?.to_owned();
        Ok(Registered { pem, status })
    }

    async fn things_of(&self, id: CertificateId) -> Result<Vec<Attachment>, CallError> {
        self.list_things(id).await
    }

    async fn speaks_for(&self, id: CertificateId, thing: &ThingName) -> Result<bool, CallError> {
        let known = lock(&self.things).holds(&id, thing, Instant::now());
        if let Some(known) = known {
            return Ok(known);
        }
        let things = match self.list_things(id).await {
            Err(CallError { why: Failure::NotFound, .. }) => Vec::new(),
            things => things?,
        };
        let things: Vec<_> = things.into_iter().map(|attachment| attachment.thing).collect();
        let holds = things.contains(thing);
        lock(&self.things).keep(id, things, Instant::now());
        Ok(holds)
    }

    async fn is_associated(&self, core: &ThingName, device: &ThingName) -> Result<bool, CallError> {
        match &self.config.associations {
            Associations::Attribute(name) => {
                Ok(self.attribute(device, name).await?.as_ref() == Some(core))
            }
            Associations::Table(table) => {
                Ok(self.listed(device, table).await?.as_ref() == Some(core))
            }
            Associations::Greengrass => {
                let known = lock(&self.devices).holds(core, device, Instant::now());
                if let Some(known) = known {
                    return Ok(known);
                }
                let devices = match self.devices_of(core).await {
                    Err(CallError { why: Failure::NotFound, .. }) => Vec::new(),
                    devices => devices?,
                };
                let holds = devices.contains(device);
                lock(&self.devices).keep(core.clone(), devices, Instant::now());
                Ok(holds)
            }
        }
    }

    async fn core_of(&self, device: &ThingName) -> Result<Option<ThingName>, CallError> {
        match &self.config.associations {
            Associations::Greengrass => Ok(None),
            Associations::Attribute(name) => self.attribute(device, name).await,
            Associations::Table(table) => self.listed(device, table).await,
        }
    }

    async fn create(&self, csr: &str, token: &str) -> Result<Created, CallError> {
        self.issue(csr, token).await
    }

    async fn policies_of(&self, id: CertificateId) -> Result<Vec<String>, CallError> {
        let call = Call::ListAttachedPolicies;
        self.pace.turn(call).await;
        let pages =
            self.iot.list_attached_policies().target(self.arn(id)).into_paginator().items().send();
        let policies: Vec<_> = pages.try_collect().await.map_err(errors::of(call))?;
        Ok(policies.into_iter().filter_map(|policy| policy.policy_name).collect())
    }

    async fn attach_policy(&self, id: CertificateId, policy: &str) -> Result<(), CallError> {
        let call = Call::AttachPolicy;
        self.pace.turn(call).await;
        let done = self.iot.attach_policy().policy_name(policy).target(self.arn(id)).send().await;
        done.map(drop).map_err(errors::of(call))
    }

    async fn detach_policy(&self, id: CertificateId, policy: &str) -> Result<(), CallError> {
        let call = Call::DetachPolicy;
        self.pace.turn(call).await;
        let done = self.iot.detach_policy().policy_name(policy).target(self.arn(id)).send().await;
        done.map(drop).map_err(errors::of(call))
    }

    async fn attach_thing(&self, id: CertificateId, to: &Attachment) -> Result<(), CallError> {
        let call = Call::AttachThingPrincipal;
        self.pace.turn(call).await;
        let kind = match to.is_exclusive {
            true => ThingPrincipalType::ExclusiveThing,
            false => ThingPrincipalType::NonExclusiveThing,
        };
        let request = self.iot.attach_thing_principal().thing_name(to.thing.as_str());
        let done = request.principal(self.arn(id)).thing_principal_type(kind).send().await;
        done.map(drop).map_err(errors::of(call))
    }

    async fn detach_thing(&self, id: CertificateId, thing: &ThingName) -> Result<(), CallError> {
        let call = Call::DetachThingPrincipal;
        self.pace.turn(call).await;
        let request = self.iot.detach_thing_principal().thing_name(thing.as_str());
        let done = request.principal(self.arn(id)).send().await;
        done.map(drop).map_err(errors::of(call))
    }

    async fn set_active(&self, id: CertificateId, active: bool) -> Result<(), CallError> {
        let call = Call::UpdateCertificate;
        self.pace.turn(call).await;
        let status = match active {
            true => CertificateStatus::Active,
            false => CertificateStatus::Inactive,
        };
        let request = self.iot.update_certificate().certificate_id(id.to_string());
        request.new_status(status).send().await.map(drop).map_err(errors::of(call))
    }

    async fn delete(&self, id: CertificateId) -> Result<(), CallError> {
        let call = Call::DeleteCertificate;
        self.pace.turn(call).await;
        let done = self.iot.delete_certificate().certificate_id(id.to_string()).send().await;
        done.map(drop).map_err(errors::of(call))
    }
}

impl Audits for Aws {
    async fn findings(
        &self,
        task: &str,
        check: &str,
        token: Option<&str>,
    ) -> Result<Page<Finding>, CallError> {
        let call = Call::ListAuditFindings;
        self.pace.turn(call).await;
        let request = self.iot.list_audit_findings().task_id(task).check_name(check);
        let request = request.max_results(FINDINGS).set_next_token(token.map(str::to_owned));
        let page = request.send().await.map_err(errors::of(call))?;
        let items = page.findings().iter().filter_map(finding).collect();
        Ok(Page { items, next: page.next_token })
    }
}

/// A finding about a certificate; one that someone has suppressed is none.
fn finding(finding: &aws_sdk_iot::types::AuditFinding) -> Option<Finding> {
    if finding.is_suppressed() == Some(true) {
        return None;
    }
    let resource = finding.non_compliant_resource()?;
    let id = resource.resource_identifier()?.device_certificate_id()?;
    let expires = resource.additional_info().and_then(|info| info.get("EXPIRATION_TIME"));
    Some(Finding {
        certificate: id.strip_prefix("0x").unwrap_or(id).parse().ok()?,
        expires: expires.and_then(|ms| ms.parse().ok()).map(Timestamp),
    })
}

pub(super) fn unreadable(call: Call) -> CallError {
    CallError { call, why: Failure::Unavailable("the answer lacks what it must hold".to_owned()) }
}

pub(super) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

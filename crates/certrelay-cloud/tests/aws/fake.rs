//! An HTTP face of the cloud in memory: AWS IoT, its data plane and Greengrass' associations, as AWS's
//! clients speak to them. Where moto is wrong or has nothing, the adapter and boto3 meet this.

use std::{convert::Infallible, net::SocketAddr, rc::Rc, time::Duration};

use certrelay::wire::CertificateId;
use certrelay_cloud::{
    memory::{Memory, Plan},
    ports::{Attachment, Audits, CallError, Failure, Outbox, Registry, Status},
};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::LocalSet};

/// An answer: the body, or AWS's name for the error.
type Answer = Result<Value, &'static str>;

/// Serves the memory on a port of its own, until the process ends.
pub fn serve(memory: Memory) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("it can be");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        LocalSet::new().block_on(&runtime, async move {
            let listener = TcpListener::from_std(listener).expect("it is one");
            let memory = Rc::new(memory);
            while let Ok((stream, _)) = listener.accept().await {
                let memory = Rc::clone(&memory);
                tokio::task::spawn_local(async move {
                    let service = service_fn(|request| answer(&memory, request));
                    let _ =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    address
}

async fn answer(
    memory: &Memory,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let call = Call {
        path: head.uri.path().split('/').skip(1).map(decoded).collect(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        principal: head.headers.get("x-amzn-principal").and_then(|arn| id_of(arn.to_str().ok()?)),
        json: serde_json::from_slice(&body).unwrap_or_default(),
        body,
        method: head.method,
    };
    let response = match call.answer(memory).await {
        Ok(body) => Response::builder().body(body.to_string().into()),
        Err(error) => Response::builder()
            .status(status_of(error))
            .header("x-amzn-errortype", error)
            .body(json!({ "message": error }).to_string().into()),
    };
    Ok(response.expect("it is whole"))
}

struct Call {
    method: Method,
    path: Vec<String>,
    query: String,
    principal: Option<CertificateId>,
    json: Value,
    body: Bytes,
}

impl Call {
    async fn answer(&self, memory: &Memory) -> Answer {
        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
        match (self.method.as_str(), path.as_slice()) {
            ("GET", ["certificates", id]) => {
                let registered = memory.certificate(id_of(id).ok_or(INVALID)?).await;
                let registered = registered.map_err(error)?;
                let status = match registered.status {
                    Status::Active => "ACTIVE",
                    _ => "INACTIVE",
                };
                let description = json!({
                    "certificateId": id, "status": status, "certificatePem": registered.pem
                });
                Ok(json!({ "certificateDescription": description }))
            }
            ("POST", ["certificates"]) => {
                let csr = self.json["certificateSigningRequest"].as_str().ok_or(INVALID)?;
                let made = memory.create(csr, "").await.map_err(error)?;
                let is_active = self.asks("setAsActive") == Some("true");
                memory.set_active(made.id, is_active).await.map_err(error)?;
                Ok(json!({
                    "certificateId": made.id, "certificateArn": arn(made.id),
                    "certificatePem": made.pem
                }))
            }
            ("POST", ["certificate", "register-no-ca"]) => self.register(memory),
            ("PUT", ["certificates", id]) => {
                let is_active = self.asks("newStatus") == Some("ACTIVE");
                done(memory.set_active(id_of(id).ok_or(INVALID)?, is_active).await)
            }
            ("DELETE", ["certificates", id]) => {
                let id = id_of(id).ok_or(INVALID)?;
                let is_active = is_active(memory, id);
                match memory.delete(id).await {
                    Err(CallError { why: Failure::Conflict, .. }) if is_active => {
                        Err("CertificateStateException")
                    }
                    Err(CallError { why: Failure::Conflict, .. }) => Err("DeleteConflictException"),
                    result => done(result),
                }
            }
            ("PUT", ["target-policies", policy]) => {
                done(memory.attach_policy(self.target()?, policy).await)
            }
            ("POST", ["target-policies", policy]) => {
                done(memory.detach_policy(self.target()?, policy).await)
            }
            ("POST", ["attached-policies", target]) => {
                let policies = memory.policies_of(id_of(target).ok_or(INVALID)?).await;
                let policy = |name: String| json!({ "policyName": name });
                let policies: Vec<_> = policies.map_err(error)?.into_iter().map(policy).collect();
                Ok(json!({ "policies": policies }))
            }
            ("PUT", ["things", thing, "principals"]) => {
                let is_exclusive = self.asks("thingPrincipalType") == Some("EXCLUSIVE_THING");
                let to = Attachment { thing: thing.parse().map_err(|_| INVALID)?, is_exclusive };
                match memory.attach_thing(self.principal.ok_or(INVALID)?, &to).await {
                    Err(CallError { why: Failure::Conflict, .. }) => Err(INVALID),
                    result => done(result),
                }
            }
            ("DELETE", ["things", thing, "principals"]) => {
                let thing = thing.parse().map_err(|_| INVALID)?;
                done(memory.detach_thing(self.principal.ok_or(INVALID)?, &thing).await)
            }
            ("GET", ["principals", "things-v2"]) => {
                let things = memory.things_of(self.principal.ok_or(INVALID)?).await;
                let things = things.map_err(error)?.into_iter().map(|attachment| {
                    let kind = if attachment.is_exclusive {
                        "EXCLUSIVE_THING"
                    } else {
                        "NON_EXCLUSIVE_THING"
                    };
                    json!({ "thingName": attachment.thing, "thingPrincipalType": kind })
                });
                Ok(json!({ "principalThingObjects": things.collect::<Vec<_>>() }))
            }
            ("POST", ["audit", "findings"]) => self.findings(memory).await,
            ("GET", ["greengrass", "v2", "coreDevices", core, "associatedClientDevices"]) => {
                self.devices(memory, core)
            }
            ("POST", ["topics", topic]) => done(memory.publish(topic, &self.body).await),
            // What a test asks of the fake itself.
            ("POST", ["-", "pass"]) => {
                let mut world = memory.world();
                world.now = world.now + Duration::from_secs(10);
                Ok(json!({}))
            }
            ("POST", ["-", "throttle"]) => {
                memory.world().begin(Some(Plan::Throttle(0)));
                Ok(json!({}))
            }
            other => panic!("the fake knows no {other:?}"),
        }
    }

    fn register(&self, memory: &Memory) -> Answer {
        let pem = self.json["certificatePem"].as_str().ok_or(INVALID)?;
        let der = pem::parse(pem).map_err(|_| INVALID)?;
        let id = certrelay::x509::certificate_id(der.contents());
        let mut world = memory.world();
        if world.certificates.contains_key(&id) {
            return Err("ResourceAlreadyExistsException");
        }
        let thing = "nobody".parse().map_err(|_| INVALID)?;
        world.enrol(pem, &thing, false, &[]);
        let certificate = world.certificates.get_mut(&id).ok_or(INVALID)?;
        certificate.things.clear();
        if self.json["status"] != "ACTIVE" {
            certificate.status = Status::Inactive;
        }
        Ok(json!({ "certificateId": id, "certificateArn": arn(id) }))
    }

    async fn findings(&self, memory: &Memory) -> Answer {
        let text = |name: &str| self.json[name].as_str();
        let (task, check) = (text("taskId").ok_or(INVALID)?, text("checkName").ok_or(INVALID)?);
        let page = memory.findings(task, check, text("nextToken")).await.map_err(error)?;
        let finding = |finding: certrelay_cloud::ports::Finding| {
            let info = finding.expires.map(|at| json!({ "EXPIRATION_TIME": at.0.to_string() }));
            json!({
                "findingId": "f", "taskId": task, "checkName": check, "isSuppressed": false,
                "taskStartTime": 1_596_168_096.157, "findingTime": 1_596_168_096.651,
                "nonCompliantResource": {
                    "resourceType": "DEVICE_CERTIFICATE",
                    "resourceIdentifier": { "deviceCertificateId": finding.certificate },
                    "additionalInfo": info.unwrap_or_else(|| json!({})),
                },
            })
        };
        let findings: Vec<_> = page.items.into_iter().map(finding).collect();
        Ok(json!({ "findings": findings, "nextToken": page.next }))
    }

    /// Two devices a page, so that every list has pages.
    fn devices(&self, memory: &Memory, core: &str) -> Answer {
        let world = memory.world();
        let all = world.associations.iter().filter(|(other, _)| other.as_str() == core);
        let from = self.asks("nextToken").and_then(|token| token.parse().ok()).unwrap_or(0);
        let devices: Vec<_> = all.skip(from).take(3).map(|(_, device)| device).collect();
        let next = (devices.len() == 3).then(|| (from + 2).to_string());
        let devices = devices.into_iter().take(2).map(|device| json!({ "thingName": device }));
        let devices: Vec<_> = devices.collect();
        Ok(json!({ "associatedClientDevices": devices, "nextToken": next }))
    }

    fn target(&self) -> Result<CertificateId, &'static str> {
        self.json["target"].as_str().and_then(id_of).ok_or(INVALID)
    }

    fn asks(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

fn is_active(memory: &Memory, id: CertificateId) -> bool {
    memory.world().certificates.get(&id).is_some_and(|c| c.status == Status::Active)
}

const INVALID: &str = "InvalidRequestException";

fn done(result: Result<(), CallError>) -> Answer {
    result.map(|()| json!({})).map_err(error)
}

fn error(error: CallError) -> &'static str {
    match error.why {
        Failure::Throttled => "ThrottlingException",
        Failure::NotFound => "ResourceNotFoundException",
        Failure::Conflict => "ConflictException",
        Failure::Invalid(_) => INVALID,
        Failure::Denied(_) => "UnauthorizedException",
        Failure::Unavailable(_) => "InternalFailureException",
    }
}

fn status_of(error: &str) -> u16 {
    match error {
        "ResourceNotFoundException" => 404,
        "CertificateStateException" => 406,
        "DeleteConflictException" | "ResourceAlreadyExistsException" | "ConflictException" => 409,
        "ThrottlingException" => 429,
        "InternalFailureException" => 500,
        _ => 400,
    }
}

fn arn(id: CertificateId) -> String {
    format!("arn:aws:iot:eu-west-1:123456789012:cert/{id}")
}

fn id_of(text: &str) -> Option<CertificateId> {
    text.rsplit('/').next()?.parse().ok()
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

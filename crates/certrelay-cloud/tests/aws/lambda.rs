//! The Lambda service, as far as the program sees it: its Runtime API
//! (docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html), which hands out events one by one and takes
//! what came of them.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::moto::Moto;

/// How long an answer may take: the program starts in that time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A function that waits for events.
pub struct Function {
    program: Child,
    events: Sender<Event>,
    answers: Receiver<Answer>,
}

/// An event, and the time that the function has for it.
struct Event {
    payload: String,
    time: Duration,
}

/// What came of an event: the last segment of the path, and what was posted to it.
type Answer = (String, Value);

impl Function {
    /// Starts the program as the function of this name.
    pub fn start(moto: &Moto, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (events, to_program) = channel();
        let (from_program, answers) = channel();
        let to_program = Arc::new(Mutex::new(to_program));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (to_program, from_program) = (Arc::clone(&to_program), from_program.clone());
                std::thread::spawn(move || while serve(&stream, &to_program, &from_program) {});
            }
        });
        let program = Command::new(env!("CARGO_BIN_EXE_certrelay-cloud"))
            .envs(moto.environment())
            .env("CERTRELAY_FUNCTION", name)
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .stdout(Stdio::null())
            .spawn()
            .expect("the program");
        Self { program, events, answers }
    }

    /// Hands it an event; what it answers.
    pub fn invoke(&self, event: &Value, time: Duration) -> Value {
        self.events.send(Event { payload: event.to_string(), time }).expect("it runs");
        let (kind, answer) = self.answers.recv_timeout(PATIENCE).expect("an answer");
        assert_eq!(kind, "response", "{answer}");
        answer
    }

    /// Hands it messages of a queue; the ids of those that go back to it.
    pub fn receive(&self, messages: &[(&str, &str)], time: Duration) -> Vec<String> {
        let records = messages.iter().map(|(id, body)| {
            json!({
                "messageId": id, "receiptHandle": "handle", "body": body,
                "attributes": { "ApproximateReceiveCount": "1" }, "messageAttributes": {},
                "md5OfBody": "", "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:queue", "awsRegion": "eu-west-1"
            })
        });
        let answer = self.invoke(&json!({ "Records": records.collect::<Vec<_>>() }), time);
        let failures = answer["batchItemFailures"].as_array().expect("a list").iter();
        let ids = failures.map(|failure| failure["itemIdentifier"].as_str().expect("an id"));
        ids.map(str::to_owned).collect()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Answers one request; whether there may be another on the connection.
fn serve(stream: &TcpStream, events: &Mutex<Receiver<Event>>, answers: &Sender<Answer>) -> bool {
    let Some((path, body)) = request(stream) else { return false };
    let kind = path.rsplit('/').next().unwrap_or_default().to_owned();
    if kind != "next" {
        let body = serde_json::from_slice(&body).unwrap_or_default();
        return answers.send((kind, body)).is_ok() && respond(stream, "202 Accepted", "", "{}");
    }
    // The program asks for one at a time, so nobody waits for the lock.
    let Ok(event) = events.lock().expect("whole").recv() else { return false };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let deadline = (now + event.time).as_millis();
    let headers = format!(
        "Lambda-Runtime-Aws-Request-Id: one\r\nLambda-Runtime-Deadline-Ms: {deadline}\r\n\
         Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:eu-west-1:123456789012:function:f\r\n"
    );
    respond(stream, "200 OK", &headers, &event.payload)
}

fn request(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let path = lines.first()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<_, _> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |n| n.parse().expect("a length"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

fn respond(mut stream: &TcpStream, status: &str, headers: &str, body: &str) -> bool {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all((head + body).as_bytes()).is_ok()
}

//! What clients ask: the bytes of whole requests, made before the clock runs where that is possible.

use std::borrow::Cow;
use std::io;

use clap::ValueEnum;

use super::drive::{Drive, answer};
use super::wire::{Stream, Wire};

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// About jobs that were submitted before the clock runs.
    Polls,
    /// The same 64 submissions again and again.
    Hits,
    /// Submissions of 600 bytes, each of them new.
    New,
    /// Submissions of 4 MB with an image inside, each of them new.
    Big,
    /// One poll on each connection, and then nothing.
    Idle,
}

/// The requests of one run.
pub struct Requests {
    /// Made before.
    ready: Vec<Vec<u8>>,
    /// For submissions that are all new: the first one's bytes, and where its number stands.
    template: Option<(Vec<u8>, usize)>,
    seed: u64,
    /// How many clients take turns.
    pub connections: u64,
}

impl Requests {
    /// Makes them, submitting the jobs that will be polled.
    pub fn prepare(drive: &Drive, wire: &mut Wire<impl Stream>) -> io::Result<Self> {
        let connections = drive.connections as u64;
        let mut these = Self { ready: Vec::new(), template: None, seed: drive.seed, connections };
        let header = format!("Host: localhost\r\nAuthorization: Bearer {}\r\nAccept: application/json\r\n", drive.key);
        match drive.kind {
            Kind::New => these.template = Some(template(&header, "")),
            Kind::Big => these.template = Some(template(&header, &image())),
            Kind::Hits => {
                let count = drive.users.max(VARIETY);
                these.ready =
                    (0..count).map(|number| submission(&header, number % VARIETY, number % drive.users)).collect();
            }
            Kind::Polls | Kind::Idle => {
                for number in 0..VARIETY {
                    let body = answer(wire, &submission(&header, number, number % drive.users))?;
                    let body: serde_json::Value = serde_json::from_slice(&body)?;
                    let id = body["request_id"].as_str().ok_or_else(|| io::Error::other("no request_id"))?;
                    these.ready.push(format!("GET /grok/v1/videos/{id} HTTP/1.1\r\n{header}\r\n").into_bytes());
                }
            }
        }
        Ok(these)
    }

    /// The bytes of a request, by its number.
    pub fn get(&self, number: u64) -> Cow<'_, [u8]> {
        if let Some((template, at)) = &self.template {
            let mut request = template.clone();
            request[*at..*at + DIGITS].copy_from_slice(format!("{:020}", self.seed + number).as_bytes());
            return Cow::Owned(request);
        }
        let index = number % self.ready.len() as u64;
        Cow::Borrowed(&self.ready[index as usize])
    }
}

/// A submission that is the same for the same number.
fn submission(header: &str, number: u64, user: u64) -> Vec<u8> {
    post(header, &body(&format!("{number:020}"), "", &format!("user-{user}")))
}

fn template(header: &str, image: &str) -> (Vec<u8>, usize) {
    let number = "0".repeat(DIGITS);
    let request = post(header, &body(&number, image, "user-1"));
    let at = memchr::memmem::find(&request, number.as_bytes()).unwrap();
    (request, at)
}

/// A body of about 600 bytes, with what clients really send.
fn body(number: &str, image: &str, user: &str) -> String {
    format!(
        r#"{{"prompt":"{number} {FILLER}","model":"grok-imagine-video","duration":5,"aspect_ratio":"16:9","resolution":"720p",{image}"user":"{user}"}}"#
    )
}

/// An image of nearly four million bytes as a `data:` URL.
fn image() -> String {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    format!(r#""image":{{"url":"data:image/png;base64,{}"}},"#, alphabet.repeat(62_480))
}

fn post(header: &str, body: &str) -> Vec<u8> {
    let line = "POST /grok/v1/videos/generations HTTP/1.1\r\n";
    let rest = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    [line, header, &rest].concat().into_bytes()
}

/// Different submissions that are hits, and different jobs that are polled.
const VARIETY: u64 = 64;
/// Digits of a submission's number.
const DIGITS: usize = 20;
/// What a prompt is about.
const FILLER: &str = "A lighthouse keeper climbs the spiral stairs at dusk while the storm gathers over the bay; the \
    camera follows from behind, close to the wall, past small windows through which the sea can be seen, and comes out \
    on the gallery as the lamp is lit. Warm light inside, cold blue outside, slow and steady movement, grain like old \
    film, no text, no people but the keeper, waves on the rocks below, gulls against the wind, 24 frames.";

//! What clients ask: the bytes of whole requests, made before the clock runs where that is possible.

use std::borrow::Cow;
use std::io;

use clap::ValueEnum;
use rustls::ClientConnection;

use super::drive::{Drive, answer};
use super::wire::Wire;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// About jobs that were submitted before the clock runs.
    Polls,
    /// The same 64 submissions again and again.
    Hits,
    /// The same 64 submissions, each time in another text and by another user, so that all of it has to be understood.
    Varied,
    /// Submissions of 600 bytes, each of them new.
    New,
    /// Submissions of 4 MB with an image inside, each of them new.
    Big,
    /// One poll on each connection, and then nothing.
    Idle,
}

/// A submission's bytes, and where what differs stands in them.
struct Template {
    bytes: Vec<u8>,
    number: usize,
    user: usize,
    /// White space, which means nothing.
    space: usize,
    is_new: bool,
}

/// The requests of one run.
pub struct Requests {
    /// Made before.
    ready: Vec<Vec<u8>>,
    /// For submissions whose bytes are all different.
    template: Option<Template>,
    users: u64,
    seed: u64,
}

impl Requests {
    /// Makes them, submitting the jobs that will be polled.
    pub fn prepare(drive: &Drive, wire: &mut Wire<ClientConnection>) -> io::Result<Self> {
        let mut these = Self { ready: Vec::new(), template: None, users: drive.users, seed: drive.seed };
        let header = format!("Host: localhost\r\nAuthorization: Bearer {}\r\nAccept: application/json\r\n", drive.key);
        match drive.kind {
            Kind::New => these.template = Some(Template::new(&header, "", true)),
            Kind::Varied => these.template = Some(Template::new(&header, "", false)),
            Kind::Big => these.template = Some(Template::new(&header, &image(), true)),
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
        if let Some(template) = &self.template {
            return Cow::Owned(template.get(self.seed, number, number % self.users));
        }
        let index = number % self.ready.len() as u64;
        Cow::Borrowed(&self.ready[index as usize])
    }
}

/// A submission that is the same for the same number.
fn submission(header: &str, number: u64, user: u64) -> Vec<u8> {
    post(header, &body(&format!("{number:020}"), "", &format!("user-{user}")))
}

impl Template {
    fn new(header: &str, image: &str, is_new: bool) -> Self {
        let (number, user, space) = ("8".repeat(DIGITS), "9".repeat(USER_DIGITS), " ".repeat(SPACES));
        let body = body(&number, image, &format!("user-{user}"));
        let bytes = post(header, &body.replacen(r#","model""#, &format!(r#",{space}"model""#), 1));
        let at = |text: &str| memchr::memmem::find(&bytes, text.as_bytes()).unwrap();
        let (number, user, space) = (at(&number), at(&user), at(&space));
        Self { number, user, space, is_new, bytes }
    }

    fn get(&self, seed: u64, number: u64, user: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let mut put = |at: usize, text: &str| bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(self.user, &format!("{user:0USER_DIGITS$}"));
        if self.is_new {
            put(self.number, &format!("{:0DIGITS$}", seed + number));
        } else {
            put(self.number, &format!("{:0DIGITS$}", number % VARIETY));
            let bit = |bit: usize| if (seed + number) >> bit & 1 == 0 { ' ' } else { '\t' };
            put(self.space, &(0..SPACES).map(bit).collect::<String>());
        }
        bytes
    }
}

/// A body of about 600 bytes, with what clients really send.
pub fn body(number: &str, image: &str, user: &str) -> String {
    format!(
        r#"{{"prompt":"{number} {FILLER}","model":"grok-imagine-video","duration":5,"aspect_ratio":"16:9","resolution":"720p",{image}"user":"{user}"}}"#
    )
}

/// An image of nearly four million bytes as a `data:` URL.
pub fn image() -> String {
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
/// Digits of a user's.
const USER_DIGITS: usize = 8;
/// Characters of white space, each of them one of two.
const SPACES: usize = 26;
/// What a prompt is about.
const FILLER: &str = "A lighthouse keeper climbs the spiral stairs at dusk while the storm gathers over the bay; the \
    camera follows from behind, close to the wall, past small windows through which the sea can be seen, and comes out \
    on the gallery as the lamp is lit. Warm light inside, cold blue outside, slow and steady movement, grain like old \
    film, no text, no people but the keeper, waves on the rocks below, gulls against the wind, 24 frames.";

//! What is to be done with one request: a [`Fault`], taken apart into what is answered and how it is delivered.

use std::time::Duration;

use super::fault::{CutAt, Fault, Form, How, Malformed, Odd};
use super::job::{End, Pending};

/// What is to be done with one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// How long the answer waits.
    pub delay: Duration,
    /// What is answered.
    pub content: Content,
    /// Statuses of interim answers before it.
    pub interim: Vec<u16>,
    /// How long the body is at least.
    pub padded: usize,
    /// Whether the body is gzip.
    pub encoded: bool,
    /// How the body's end is marked.
    pub framing: Framing,
    /// Bytes a step, and the time between two steps.
    pub trickle: Option<(usize, Duration)>,
    /// Where the connection ends.
    pub cut: Option<(CutAt, How)>,
    /// Whether a job is made; `None`: if the answer says so.
    pub accepted: Option<bool>,
    /// More header fields.
    pub headers: Vec<(String, String)>,
    /// How the job ends.
    pub end: Option<End>,
    /// How the unfinished job shows.
    pub pending: Option<Pending>,
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(super) enum Content {
    /// What a healthy upstream would say.
    #[default]
    Usual,
    /// A complete answer with a status.
    Status {
        /// The status code.
        status: u16,
        /// The form of the body.
        form: Form,
        /// More header fields.
        headers: Vec<(String, String)>,
    },
    /// Bytes, verbatim.
    Raw(Vec<u8>),
    /// The usual answer in broken HTTP.
    Malformed(Malformed),
    /// A 2xx with an odd body.
    Odd(Odd),
    /// The key of the request, with this status.
    KeyEcho(u16),
}

/// How the end of a body is marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Framing {
    /// Content-Length.
    #[default]
    Length,
    /// Chunks of so many bytes.
    Chunked(usize),
    /// The end of the connection.
    UntilClose,
}

impl Plan {
    /// The plan that carries out `faults`, the later ones over the earlier ones.
    pub(super) fn of<'a>(faults: impl IntoIterator<Item = &'a Fault>) -> Plan {
        let mut plan = Plan::default();
        for fault in faults {
            plan.add(fault);
        }
        plan
    }

    /// Whether a submission with this plan makes a job.
    pub(super) fn makes_job(&self) -> bool {
        let answered = match &self.content {
            Content::Usual | Content::Malformed(_) => true,
            Content::Odd(odd) => matches!(odd, Odd::Wrapped | Odd::Accepted | Odd::ErrorWithId | Odd::Marked),
            Content::Status { .. } | Content::Raw(_) | Content::KeyEcho(_) => false,
        };
        self.accepted.unwrap_or(answered)
    }

    /// Adds what `fault` says, over what was said before.
    pub(super) fn add(&mut self, fault: &Fault) {
        match fault {
            Fault::All(faults) => faults.iter().for_each(|fault| self.add(fault)),
            Fault::Delay(delay) => self.delay = *delay,
            Fault::Status { status, form, headers } => {
                self.status(*status, form.clone(), headers.clone());
            }
            Fault::RateLimited { retry_after } => {
                let headers = retry_after.map(|seconds| ("retry-after".to_owned(), seconds.to_string()));
                self.status(429, Form::comet("rate_limit_exceeded"), headers.into_iter().collect());
            }
            Fault::Redirect { status, location } => {
                self.status(*status, Form::Html, vec![("location".to_owned(), location.clone())]);
            }
            Fault::Cut { at, how, accepted } => self.cut_at(*at, *how, *accepted),
            Fault::Stall => self.cut_at(CutAt::BeforeAnswer, How::Stall, false),
            Fault::StallAfterHeader => self.cut_at(CutAt::AfterHeader, How::Stall, false),
            Fault::Trickle { bytes, every } => self.trickle = Some((*bytes, *every)),
            Fault::Chunked { bytes } => self.framing = Framing::Chunked(*bytes),
            Fault::UntilClose => self.framing = Framing::UntilClose,
            Fault::Garbage(bytes) => self.content = Content::Raw(bytes.clone()),
            Fault::Malformed(malformed) => self.content = Content::Malformed(*malformed),
            Fault::Interim(statuses) => self.interim.clone_from(statuses),
            Fault::Padded(bytes) => self.padded = *bytes,
            Fault::Encoded => self.encoded = true,
            Fault::Odd(odd) => self.content = Content::Odd(odd.clone()),
            Fault::KeyEcho { status } => self.content = Content::KeyEcho(*status),
            Fault::Headers(headers) => self.headers.extend(headers.iter().cloned()),
            Fault::End(end) => self.end = Some(end.clone()),
            Fault::Pending(pending) => self.pending = Some(*pending),
            Fault::Accepted => self.accepted = Some(true),
        }
    }

    fn status(&mut self, status: u16, form: Form, headers: Vec<(String, String)>) {
        self.content = Content::Status { status, form, headers };
    }

    fn cut_at(&mut self, at: CutAt, how: How, accepted: bool) {
        self.cut = Some((at, how));
        // Where the answer still leaves whole, the job it speaks of exists.
        if at != CutAt::AfterAnswer || accepted {
            self.accepted = Some(accepted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_made_where_the_answer_or_the_fault_says_so() {
        let lost = Fault::Cut { at: CutAt::BeforeAnswer, how: How::Fin, accepted: true };
        for (fault, makes_job) in [
            (Fault::Delay(Duration::ZERO), true),
            (Fault::Odd(Odd::Wrapped), true),
            (Fault::Odd(Odd::Object), false),
            (Fault::status(524, Form::Html), false),
            (Fault::status(524, Form::Html).and_accepted(), true),
            (lost, true),
            (Fault::cut(CutAt::BeforeAnswer, How::Reset), false),
            (Fault::cut(CutAt::AfterAnswer, How::Fin), true),
            (Fault::Stall, false),
            (Fault::Stall.and_accepted(), true),
            (Fault::Garbage(Vec::new()), false),
        ] {
            assert_eq!(Plan::of([&fault]).makes_job(), makes_job, "{fault:?}");
        }
    }

    #[test]
    fn faults_add_up() {
        let both = Fault::All(vec![Fault::Interim(vec![103]), Fault::status(500, Form::Empty)]);
        let plan = Plan::of([&Fault::Encoded, &both]);
        assert!(plan.encoded);
        assert_eq!(plan.interim, [103]);
        assert!(matches!(plan.content, Content::Status { status: 500, .. }));
    }
}

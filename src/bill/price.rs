//! The price of a submission: from the table of `[prices]`, by what its body asks for (`MONEY.md` M29,
//! `UPSTREAM.md` §6.1).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use super::money::{Amount, TICKS_A_DOLLAR};
use super::settings::{self, Row};
use crate::request::route::Operation;
use crate::request::spelling::{others, text};

/// What a job will cost, as far as its body tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Of each second of video.
    pub second: Amount,
    /// Of the input images, together.
    pub images: Amount,
    /// The length it is priced by, in milliseconds.
    pub millis: u64,
}

impl Price {
    /// The whole price; no job costs more than a million dollars, so that sums of many stay numbers.
    pub fn amount(self) -> Amount {
        self.second.for_millis(self.millis).plus(self.images).min(MOST)
    }

    /// The same job, as long as its video has become.
    pub fn of_length(self, length: Duration) -> Self {
        Self { millis: u64::try_from(length.as_millis()).unwrap_or(u64::MAX), ..self }
    }
}

/// The table, ready for use.
#[derive(Debug)]
pub struct Prices {
    table: settings::Prices,
    /// Models that are not in the table and were told of once.
    unknown: Mutex<HashSet<String>>,
}

impl Prices {
    /// The prices of a configuration.
    pub fn new(table: &settings::Prices) -> Self {
        Self { table: table.clone(), unknown: Mutex::default() }
    }

    /// What a body will cost. What it does not say is priced as the upstream's defaults, what the table does not know
    /// as the dearest that it does: a budget must not be passed by what nobody has priced. Where a field stands under
    /// several spellings, the dearest reading counts.
    pub fn of(&self, operation: Operation, body: &Value) -> Price {
        // What is said, but not as one text, is no more known than an unknown name.
        let model = text(body, "model", DEFAULT_MODEL).unwrap_or_default();
        // A row that prices no second says no more than none.
        let row = self.table.rows.get(model).filter(|row| !row.second.is_empty());
        if row.is_none() {
            self.tell_of(model);
        }
        let single = ["image", "last_frame"].into_iter().flat_map(|name| spelt(body, name)).count();
        let lists = ["images", "reference_images", "keyframes"].into_iter().flat_map(|name| spelt(body, name));
        let images = lists.filter_map(Value::as_array).map(Vec::len).fold(single, usize::saturating_add);
        let rows: Vec<&Row> = row.map_or_else(|| self.table.rows.values().collect(), |row| vec![row]);
        let resolution = match operation {
            Operation::Generations => text(body, "resolution", DEFAULT_RESOLUTION).unwrap_or_default(),
            // Whatever it says of one.
            Operation::Edits => EDIT_RESOLUTION,
        };
        // Of a known model an unknown resolution is its dearest; of an unknown model even a known one is the dearest.
        let exact = row.and_then(|row| row.second.get(resolution)).copied();
        let dearest = || rows.iter().flat_map(|row| row.second.values()).max().copied().unwrap_or_default();
        let image = rows.iter().map(|row| row.image).max().unwrap_or_default();
        let images = Amount::from_ticks(image.ticks().saturating_mul(images as u64));
        Price { second: exact.unwrap_or_else(dearest), images, millis: millis(operation, body) }
    }

    /// The price to settle by, if the upstream told its own cost and `prices.ticks_factor` says what that means here.
    pub fn of_ticks(&self, ticks: u64) -> Option<Amount> {
        let factor = self.table.ticks_factor?;
        let product = u128::from(ticks) * u128::from(factor.ticks()) / u128::from(TICKS_A_DOLLAR);
        Some(Amount::from_ticks(u64::try_from(product).unwrap_or(u64::MAX)))
    }

    fn tell_of(&self, model: &str) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        // It comes from a client: only what looks like a model's name is shown.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:".contains(&byte);
        let shown = if model.len() <= LONGEST_SHOWN && model.bytes().all(is_name) { model } else { "(no name)" };
        if unknown.len() < MOST_UNKNOWN && unknown.insert(shown.to_owned()) {
            warn!(model = shown, "a model without a row in [prices]: it is priced as the dearest");
        }
    }
}

/// All that a body says under a name, in whatever spelling.
fn spelt<'a>(body: &'a Value, name: &'static str) -> impl Iterator<Item = &'a Value> {
    body.get(name).into_iter().chain(others(body, name).map(|(_, value)| value))
}

/// The length that is paid for: `seconds` is another name of `duration`. Where validation lets it pass, one that the
/// upstream cannot mean is priced as if it were not said, and of two the longer counts.
fn millis(operation: Operation, body: &Value) -> u64 {
    if operation == Operation::Edits {
        return EDIT_MILLIS;
    }
    let millis = |seconds: &Value| length(seconds).unwrap_or(DEFAULT_MILLIS);
    let said = NAMES_OF_LENGTH.into_iter().filter_map(|name| body.get(name)).map(millis).max();
    let others = NAMES_OF_LENGTH.into_iter().flat_map(|name| others(body, name)).map(|(_, other)| millis(other));
    others.fold(said.unwrap_or(DEFAULT_MILLIS), u64::max)
}

/// A length of at least a second, in milliseconds; of what no video can be, the longest that one is believed to be.
fn length(seconds: &Value) -> Option<u64> {
    let number: Option<f64> = match seconds {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    let seconds = number.filter(|seconds| *seconds >= 1.0)?.min(LONGEST_BELIEVED.as_secs_f64());
    u64::try_from(Duration::try_from_secs_f64(seconds).ok()?.as_millis()).ok()
}

/// No video is believed to be longer: the bill is settled by its length.
pub const LONGEST_BELIEVED: Duration = Duration::from_secs(3600);
/// What says a job's length.
const NAMES_OF_LENGTH: [&str; 2] = ["duration", "seconds"];
/// What the upstream makes of a body that names none.
const DEFAULT_MODEL: &str = "grok-imagine-video";
/// The same.
const DEFAULT_RESOLUTION: &str = "480p";
/// An edit has none of its own: it is that of the video it is given, up to this (`UPSTREAM.md` §2.2).
const EDIT_RESOLUTION: &str = "720p";
/// A job whose length is not said, in milliseconds (M29).
const DEFAULT_MILLIS: u64 = 8_000;
/// An edit: as long as the video it is given may be (M29).
const EDIT_MILLIS: u64 = 9_000;
/// What a job costs at most.
const MOST: Amount = Amount::from_ticks(1_000_000 * TICKS_A_DOLLAR);
/// How many unknown models are told of: their names come from clients.
const MOST_UNKNOWN: usize = 100;
/// How much of a name is shown.
const LONGEST_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn price(operation: Operation, body: &Value) -> String {
        Prices::new(&settings::Prices::default()).of(operation, body).amount().to_string()
    }

    #[test]
    fn m29_a_body_is_priced_by_model_resolution_length_and_images() {
        for (body, wanted) in [
            (json!({"prompt": "p"}), "0.40"),
            (json!({"prompt": "p", "duration": 15, "resolution": "720p"}), "1.05"),
            (json!({"prompt": "p", "seconds": 1}), "0.05"),
            (json!({"duration": "15"}), "0.75"),
            // Only where validation is off: what the upstream cannot mean, and two that it may choose from.
            (json!({"duration": 1, "model": ["grok-imagine-video"]}), "0.25"),
            (json!({"duration": 1, "resolution": 1080}), "0.07"),
            (json!({"duration": "5e-4"}), "0.40"),
            (json!({"duration": -3}), "0.40"),
            (json!({"duration": null, "seconds": 15}), "0.75"),
            (json!({"duration": 1, "seconds": 15}), "0.75"),
            (json!({"prompt": "p", "duration": 1, "image": {"url": "https://a"}}), "0.052"),
            (json!({"model": "grok-imagine-video-1.5", "duration": 15, "resolution": "1080p"}), "3.75"),
            (json!({"duration": 1, "reference_images": [{}, {}, {}]}), "0.056"),
            // Nobody has priced these: they cost as the dearest.
            (json!({"duration": 1, "resolution": "1080p"}), "0.07"),
            (json!({"duration": 1, "model": "grok-imagine-video-9"}), "0.25"),
            // Nobody knows which of two spellings the upstream reads: the dearest counts.
            (json!({"duration": 1, "Model": "grok-imagine-video-1.5"}), "0.25"),
            (json!({"duration": 1, "model": "grok-imagine-video", "MODEL": "grok-imagine-video-1.5"}), "0.25"),
            (json!({"duration": 1, "re\u{17f}olution": "720p"}), "0.07"),
            (json!({"Duration": 15}), "0.75"),
            (json!({"Duration": 1}), "0.40"),
            (json!({"duration": 1, "SECONDS": 15}), "0.75"),
            (json!({"duration": 1, "Image": {}, "Reference_Images": [{}, {}]}), "0.056"),
            (json!({"duration": 1, "last_frame": {}, "keyframes": [{}, {}]}), "0.056"),
            // No video is longer than an hour.
            (json!({"duration": 1e15}), "180.00"),
            (json!({"seconds": "inf"}), "180.00"),
        ] {
            assert_eq!(price(Operation::Generations, &body), wanted, "{body}");
        }
        for body in
            [json!({"prompt": "p", "video": {"url": "https://a"}}), json!({"prompt": "p", "resolution": "480p"})]
        {
            assert_eq!(price(Operation::Edits, &body), "0.63");
        }
    }

    #[test]
    fn m29_what_a_row_does_not_price_costs_as_the_dearest() {
        let mut table = settings::Prices::default();
        table.rows.insert("new".to_owned(), Row { image: Amount::from_ticks(200_000_000), ..Row::default() });
        let price = |body| Prices::new(&table).of(Operation::Generations, &body).amount().to_string();
        assert_eq!(price(json!({"model": "new", "duration": 2})), price(json!({"model": "newer", "duration": 2})));
        assert_eq!(price(json!({"model": "new", "duration": 1, "image": {}})), "0.27");
    }

    #[test]
    fn t78_no_price_is_too_large_to_be_summed() {
        let price =
            Price { second: Amount::from_ticks(u64::MAX), images: Amount::from_ticks(u64::MAX), millis: u64::MAX };
        assert_eq!(price.amount(), MOST);
    }

    #[test]
    fn m29_a_bill_is_settled_by_the_length_the_video_has() {
        let prices = Prices::new(&settings::Prices::default());
        let price = prices.of(Operation::Generations, &json!({"duration": 10, "image": {}}));
        assert_eq!(price.of_length(Duration::from_millis(6_500)).amount().to_string(), "0.327");
        assert_eq!(prices.of_ticks(500_000_000), None);
        let table = settings::Prices { ticks_factor: Amount::parse("0.8"), ..settings::Prices::default() };
        assert_eq!(Prices::new(&table).of_ticks(500_000_000).unwrap().to_string(), "0.04");
    }
}

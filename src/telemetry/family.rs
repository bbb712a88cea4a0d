//! Metrics whose series are all made at the start and then found by the place of their label in its closed list:
//! telling one costs an index and an atomic addition, and a dashboard sees zeros instead of gaps.

use std::marker::PhantomData;
use std::sync::OnceLock;
use std::time::Duration;

use hyper::StatusCode;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::labels::RouteLabel;

/// What names one series of a metric: one label, or several.
pub trait Series: Copy + 'static {
    /// How many there are.
    const COUNT: usize;

    /// All of them, in the order of [`Series::index`].
    fn all() -> Vec<Self>;

    /// The place among all of them, below [`Series::COUNT`].
    fn index(self) -> usize;

    /// The keys of the labels.
    fn keys() -> Vec<&'static str>;

    /// The values of the labels, in the order of the keys.
    fn values(self) -> Vec<&'static str>;
}

impl<A: Series, B: Series> Series for (A, B) {
    const COUNT: usize = A::COUNT * B::COUNT;

    fn all() -> Vec<Self> {
        A::all().into_iter().flat_map(|first| B::all().into_iter().map(move |second| (first, second))).collect()
    }

    fn index(self) -> usize {
        self.0.index() * B::COUNT + self.1.index()
    }

    fn keys() -> Vec<&'static str> {
        [A::keys(), B::keys()].concat()
    }

    fn values(self) -> Vec<&'static str> {
        [self.0.values(), self.1.values()].concat()
    }
}

/// A counter for each series.
pub struct Counters<S> {
    handles: Vec<IntCounter>,
    series: PhantomData<fn(S)>,
}

impl<S: Series> Counters<S> {
    /// Counts one.
    pub fn inc(&self, series: S) {
        self.add(series, 1);
    }

    /// Counts several.
    pub fn add(&self, series: S, count: u64) {
        if let Some(counter) = self.handles.get(series.index()) {
            counter.inc_by(count);
        }
    }

    /// Brings the count up to a total that is kept elsewhere. Only for [`on_scrape`], where one does it at a time.
    ///
    /// [`on_scrape`]: super::metrics::Metrics::on_scrape
    pub fn raise_to(&self, series: S, total: u64) {
        self.add(series, total.saturating_sub(self.value(series)));
    }

    /// The count so far.
    pub fn value(&self, series: S) -> u64 {
        self.handles.get(series.index()).map_or(0, IntCounter::get)
    }
}

/// A gauge for each series.
pub struct Gauges<S> {
    handles: Vec<IntGauge>,
    series: PhantomData<fn(S)>,
}

impl<S: Series> Gauges<S> {
    /// Sets one.
    pub fn set(&self, series: S, value: i64) {
        if let Some(gauge) = self.handles.get(series.index()) {
            gauge.set(value);
        }
    }

    /// What one was last set to.
    pub fn value(&self, series: S) -> i64 {
        self.handles.get(series.index()).map_or(0, IntGauge::get)
    }
}

/// A histogram of durations for each series.
pub struct Durations<S> {
    handles: Vec<Histogram>,
    series: PhantomData<fn(S)>,
}

impl<S: Series> Durations<S> {
    /// Notes one duration.
    pub fn observe(&self, series: S, duration: Duration) {
        if let Some(histogram) = self.handles.get(series.index()) {
            histogram.observe(duration.as_secs_f64());
        }
    }

    /// How many were noted.
    pub fn count(&self, series: S) -> u64 {
        self.handles.get(series.index()).map_or(0, Histogram::get_sample_count)
    }
}

/// Requests by route and status. A status has its series once it was seen; 200 has it from the start.
pub struct Requests {
    vector: IntCounterVec,
    slots: Vec<OnceLock<IntCounter>>,
}

impl Requests {
    /// Counts one answer.
    pub fn inc(&self, route: RouteLabel, status: StatusCode) {
        let slot = self.slots.get(route.index() * STATUSES + usize::from(status.as_u16().saturating_sub(100)));
        if let Some(slot) = slot {
            slot.get_or_init(|| self.vector.with_label_values(&[route.name(), status.as_str()])).inc();
        }
    }

    /// How many answers of this status the route has given.
    pub fn value(&self, route: RouteLabel, status: StatusCode) -> u64 {
        let slot = self.slots.get(route.index() * STATUSES + usize::from(status.as_u16().saturating_sub(100)));
        slot.and_then(OnceLock::get).map_or(0, IntCounter::get)
    }
}

/// Makes metrics and registers them, all under the same prefix.
pub(super) struct Builder<'registry>(pub(super) &'registry Registry);

impl Builder<'_> {
    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        let counter = IntCounter::with_opts(options(name, help))?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        let gauge = IntGauge::with_opts(options(name, help))?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    /// A gauge that is always 1 and says what it says by its label.
    pub(super) fn info(&self, name: &str, help: &str, label: &str, value: &str) -> prometheus::Result<()> {
        let gauge = Gauge::with_opts(options(name, help).const_label(label, value))?;
        gauge.set(1.0);
        self.0.register(Box::new(gauge))
    }

    pub(super) fn counters<S: Series>(&self, name: &str, help: &str) -> prometheus::Result<Counters<S>> {
        let vector = self.counter_vector(name, help, &S::keys())?;
        let handles = S::all().into_iter().map(|series| vector.get_metric_with_label_values(&series.values()));
        Ok(Counters { handles: handles.collect::<Result<_, _>>()?, series: PhantomData })
    }

    pub(super) fn gauges<S: Series>(&self, name: &str, help: &str) -> prometheus::Result<Gauges<S>> {
        let vector = self.gauge_vector(name, help, &S::keys())?;
        let handles = S::all().into_iter().map(|series| vector.get_metric_with_label_values(&series.values()));
        Ok(Gauges { handles: handles.collect::<Result<_, _>>()?, series: PhantomData })
    }

    pub(super) fn durations<S: Series>(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> prometheus::Result<Durations<S>> {
        let options = HistogramOpts::from(options(name, help)).buckets(buckets.to_vec());
        let vector = HistogramVec::new(options, &S::keys())?;
        self.0.register(Box::new(vector.clone()))?;
        let handles = S::all().into_iter().map(|series| vector.get_metric_with_label_values(&series.values()));
        Ok(Durations { handles: handles.collect::<Result<_, _>>()?, series: PhantomData })
    }

    pub(super) fn requests(&self, name: &str, help: &str) -> prometheus::Result<Requests> {
        let vector = self.counter_vector(name, help, &["route", "status"])?;
        let slots = (0..RouteLabel::COUNT * STATUSES).map(|_| OnceLock::new()).collect();
        for route in RouteLabel::ALL {
            vector.get_metric_with_label_values(&[route.name(), "200"])?;
        }
        Ok(Requests { vector, slots })
    }

    pub(super) fn counter_vector(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        let vector = IntCounterVec::new(options(name, help), labels)?;
        self.0.register(Box::new(vector.clone()))?;
        Ok(vector)
    }

    /// Counters of dollars.
    pub(super) fn amounts(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CounterVec> {
        let vector = CounterVec::new(options(name, help), labels)?;
        self.0.register(Box::new(vector.clone()))?;
        Ok(vector)
    }

    /// Gauges of dollars.
    pub(super) fn amounts_now(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        let vector = GaugeVec::new(options(name, help), labels)?;
        self.0.register(Box::new(vector.clone()))?;
        Ok(vector)
    }

    pub(super) fn gauge_vector(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let vector = IntGaugeVec::new(options(name, help), labels)?;
        self.0.register(Box::new(vector.clone()))?;
        Ok(vector)
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("reelgate")
}

/// How many statuses a `StatusCode` can be: 100 to 999.
const STATUSES: usize = 900;

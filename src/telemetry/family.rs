//! Metrics whose series are all made at the start and then found by the place of their label in its closed list:
//! telling one costs an index and an atomic addition, and a dashboard sees zeros instead of gaps.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::StatusCode;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{CounterVec, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::gather::{Counted, Family, Timed, places};
use super::labels::RouteLabel;
use super::stripes::Stripes;

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
    counts: Arc<Stripes>,
    series: PhantomData<fn(S)>,
}

impl<S: Series> Counters<S> {
    /// Counts one.
    pub fn inc(&self, series: S) {
        self.add(series, 1);
    }

    /// Counts several.
    pub fn add(&self, series: S, count: u64) {
        self.counts.add(series.index(), count);
    }

    /// Brings the count up to a total that is kept elsewhere. Only for [`on_scrape`], where one does it at a time.
    ///
    /// [`on_scrape`]: super::metrics::Metrics::on_scrape
    pub fn raise_to(&self, series: S, total: u64) {
        self.add(series, total.saturating_sub(self.value(series)));
    }

    /// The count so far.
    pub fn value(&self, series: S) -> u64 {
        self.counts.sum(series.index())
    }
}

/// How much of something there is now.
pub struct Level(Arc<Stripes>);

impl Level {
    /// One more.
    pub fn inc(&self) {
        self.0.add(0, 1);
    }

    /// One less.
    pub fn dec(&self) {
        self.0.add(0, u64::MAX);
    }

    /// How much there is. While others count, it may be off by as many as they are.
    pub fn get(&self) -> i64 {
        self.0.sum(0).cast_signed()
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
    counts: Arc<Stripes>,
    bounds: Arc<[f64]>,
    series: PhantomData<fn(S)>,
}

impl<S: Series> Durations<S> {
    /// Notes one duration.
    pub fn observe(&self, series: S, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let start = series.index() * places(&self.bounds);
        self.counts.add(start + self.bounds.partition_point(|bound| *bound < seconds), 1);
        self.counts.add(start + places(&self.bounds) - 1, u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many were noted.
    pub fn count(&self, series: S) -> u64 {
        let start = series.index() * places(&self.bounds);
        (start..=start + self.bounds.len()).map(|place| self.counts.sum(place)).sum()
    }
}

/// Requests by route and status. A status has its series once it was seen; 200 has it from the start.
pub struct Requests(Arc<Statuses>);

struct Statuses {
    family: Family,
    slots: Vec<OnceLock<Stripes>>,
}

impl Requests {
    /// Counts one answer.
    pub fn inc(&self, route: RouteLabel, status: StatusCode) {
        if let Some(slot) = self.slot(route, status) {
            slot.get_or_init(|| Stripes::new(1)).add(0, 1);
        }
    }

    /// How many answers of this status the route has given.
    pub fn value(&self, route: RouteLabel, status: StatusCode) -> u64 {
        self.slot(route, status).and_then(OnceLock::get).map_or(0, |count| count.sum(0))
    }

    fn slot(&self, route: RouteLabel, status: StatusCode) -> Option<&OnceLock<Stripes>> {
        self.0.slots.get(route.index() * STATUSES + usize::from(status.as_u16().saturating_sub(100)))
    }
}

/// All series of [`Requests`] that there are.
struct Answered(Arc<Statuses>);

impl Collector for Answered {
    fn desc(&self) -> Vec<&Desc> {
        self.0.family.described()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Statuses { family, slots } = &*self.0;
        let seen = slots.iter().enumerate().filter_map(|(place, slot)| {
            let route = RouteLabel::ALL.get(place / STATUSES)?;
            let status = (place % STATUSES + 100).to_string();
            Some(family.count(family.labels(&[route.name(), &status]), slot.get()?.sum(0)))
        });
        family.of(seen.collect())
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
        let family = Family::new(options(name, help), MetricType::COUNTER, &S::keys())?;
        let counts = Arc::new(Stripes::new(S::COUNT));
        let labels = S::all().into_iter().map(|series| family.labels(&series.values())).collect();
        self.0.register(Box::new(Counted { family, labels, counts: counts.clone() }))?;
        Ok(Counters { counts, series: PhantomData })
    }

    /// A gauge that goes up and down with a thing.
    pub(super) fn level(&self, name: &str, help: &str) -> prometheus::Result<Level> {
        let family = Family::new(options(name, help), MetricType::GAUGE, &[])?;
        let counts = Arc::new(Stripes::new(1));
        self.0.register(Box::new(Counted { family, labels: vec![Vec::new()], counts: counts.clone() }))?;
        Ok(Level(counts))
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
        let family = Family::new(options(name, help), MetricType::HISTOGRAM, &S::keys())?;
        let counts = Arc::new(Stripes::new(S::COUNT * places(buckets)));
        let bounds: Arc<[f64]> = buckets.into();
        let labels = S::all().into_iter().map(|series| family.labels(&series.values())).collect();
        self.0.register(Box::new(Timed { family, labels, counts: counts.clone(), bounds: bounds.clone() }))?;
        Ok(Durations { counts, bounds, series: PhantomData })
    }

    pub(super) fn requests(&self, name: &str, help: &str) -> prometheus::Result<Requests> {
        let family = Family::new(options(name, help), MetricType::COUNTER, &["route", "status"])?;
        let slots = (0..RouteLabel::COUNT * STATUSES).map(|_| OnceLock::new()).collect();
        let requests = Requests(Arc::new(Statuses { family, slots }));
        for slot in RouteLabel::ALL.iter().filter_map(|route| requests.slot(*route, StatusCode::OK)) {
            slot.get_or_init(|| Stripes::new(1));
        }
        self.0.register(Box::new(Answered(requests.0.clone())))?;
        Ok(requests)
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

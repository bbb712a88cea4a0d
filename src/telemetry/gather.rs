//! How a registry gathers what is kept in [`Stripes`]: sums and labels, as prometheus writes them.

use std::sync::Arc;

use prometheus::Opts;
use prometheus::core::{Collector, Desc, Describer as _};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::stripes::Stripes;

/// What all series of a metric have in common.
pub(super) struct Family {
    desc: Desc,
    kind: MetricType,
}

impl Family {
    pub(super) fn new(options: Opts, kind: MetricType, keys: &[&str]) -> prometheus::Result<Self> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Ok(Self { desc: options.variable_labels(keys).describe()?, kind })
    }

    /// The labels of a series, sorted by their keys; `values` stand in the order of the family's keys.
    pub(super) fn labels(&self, values: &[&str]) -> Vec<LabelPair> {
        let pair = |(key, value): (&String, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name(key.clone());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut labels: Vec<_> = self.desc.variable_labels.iter().zip(values).map(pair).collect();
        labels.sort();
        labels
    }

    /// A counter's or a gauge's series.
    #[expect(clippy::cast_precision_loss, reason = "the format's numbers are doubles; 53 bits hold any count of ours")]
    pub(super) fn count(&self, labels: Vec<LabelPair>, sum: u64) -> Metric {
        let mut metric = Metric::from_label(labels);
        if self.kind == MetricType::GAUGE {
            let mut gauge = Gauge::default();
            gauge.set_value(sum.cast_signed() as f64);
            metric.set_gauge(gauge);
        } else {
            let mut counter = Counter::default();
            counter.set_value(sum as f64);
            metric.set_counter(counter);
        }
        metric
    }

    pub(super) fn of(&self, metrics: Vec<Metric>) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.kind);
        family.set_metric(metrics);
        vec![family]
    }

    pub(super) fn described(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }
}

/// A number for each series.
pub(super) struct Counted {
    pub(super) family: Family,
    pub(super) labels: Vec<Vec<LabelPair>>,
    pub(super) counts: Arc<Stripes>,
}

impl Collector for Counted {
    fn desc(&self) -> Vec<&Desc> {
        self.family.described()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let series = self.labels.iter().enumerate();
        self.family
            .of(series.map(|(place, labels)| self.family.count(labels.clone(), self.counts.sum(place))).collect())
    }
}

/// What one histogram takes: a count for each bound, one for what is beyond the last, and the sum in nanoseconds.
pub(super) const fn places(bounds: &[f64]) -> usize {
    bounds.len() + 2
}

/// A histogram for each series, [`places`] each.
pub(super) struct Timed {
    pub(super) family: Family,
    pub(super) labels: Vec<Vec<LabelPair>>,
    pub(super) counts: Arc<Stripes>,
    pub(super) bounds: Arc<[f64]>,
}

impl Timed {
    #[expect(
        clippy::cast_precision_loss,
        reason = "the format's numbers are doubles; a sum of months is exact to a second"
    )]
    fn series(&self, start: usize, labels: &[LabelPair]) -> Metric {
        let mut histogram = Histogram::default();
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (place, bound) in self.bounds.iter().enumerate() {
            count += self.counts.sum(start + place);
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(count);
            bucket.set_upper_bound(*bound);
            buckets.push(bucket);
        }
        let beyond = start + self.bounds.len();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count + self.counts.sum(beyond));
        histogram.set_sample_sum(self.counts.sum(beyond + 1) as f64 / 1e9);
        let mut metric = Metric::from_label(labels.to_vec());
        metric.set_histogram(histogram);
        metric
    }
}

impl Collector for Timed {
    fn desc(&self) -> Vec<&Desc> {
        self.family.described()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let starts = (0..).step_by(places(&self.bounds));
        self.family.of(starts.zip(&self.labels).map(|(start, labels)| self.series(start, labels)).collect())
    }
}

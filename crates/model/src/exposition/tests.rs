//! Tests of the whole way from text to points.

use proptest::prelude::*;

use super::*;
use crate::batch::Records;
use crate::metrics::{Data, Metrics, NO_RECORDED_VALUE, Number, PointRef, Temporality};

const NOW: u64 = 1_700_000_000_000_000_000;

fn builder() -> MetricsBuilder {
    let mut out = MetricsBuilder::new("test", Vec::new());
    out.begin(NOW, 5);
    out
}

fn read_as(format: Format, text: &str) -> Result<(Parsed, Metrics), ParseError> {
    let mut out = builder();
    let parsed = parse(text.as_bytes(), format, &Options::default(), &mut out)?;
    Ok((parsed, out.finish()))
}

fn read(text: &str) -> (Parsed, Metrics) {
    read_as(Format::Text, text).unwrap()
}

fn fails(format: Format, text: &str) -> String {
    read_as(format, text).expect_err(text).to_string()
}

/// Every number point as `name{label="value"} value`.
fn lines(metrics: &Metrics) -> Vec<String> {
    let table = &metrics.table;
    let line = |series: u32, value: &dyn std::fmt::Display| {
        let labels: Vec<String> = table
            .common
            .list(table.series[series as usize].attributes)
            .iter()
            .map(|a| format!("{}={:?}", table.common.text(a.key), table.common.value_text(a.value)))
            .collect();
        let name = table.common.text(table.metric_of(series).unwrap().name);
        format!("{name}{{{}}} {value}", labels.join(","))
    };
    metrics.numbers.iter().map(|p| line(p.series, &p.value.as_f64().map_or("-".into(), |v| v.to_string()))).collect()
}

fn data(metrics: &Metrics) -> Vec<Data> {
    metrics.table.metrics.iter().map(|metric| metric.data).collect()
}

/// How many samples of a Prometheus exposition the points stand for.
fn samples_of(metrics: &Metrics) -> usize {
    let histograms: usize = metrics.histograms.iter().map(|h| h.bucket_counts.len() + 2).sum();
    let summaries: usize = metrics.summaries.iter().map(|s| s.quantiles.len() + 2).sum();
    metrics.numbers.len() + histograms + summaries
}

#[test]
fn every_sample_of_real_targets_is_in_a_point() {
    for text in
        [include_str!("../../tests/fixtures/node_exporter.txt"), include_str!("../../tests/fixtures/prometheus.txt")]
    {
        let (parsed, metrics) = read(text);
        let in_text = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
        assert_eq!(parsed.samples, in_text);
        assert_eq!(samples_of(&metrics), in_text, "no sample may get lost or doubled");
        assert_eq!((parsed.points, parsed.duplicates), (metrics.len(), 0));
        assert_eq!(Records::Metrics(metrics).len(), parsed.points);
    }
}

#[test]
fn the_values_of_a_real_target_are_those_of_its_text() {
    let text = include_str!("../../tests/fixtures/node_exporter.txt");
    let (_, metrics) = read(text);
    let mut checked = 0;
    for line in lines(&metrics) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let series = series.trim_end_matches("{}");
        let exposed = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' ')).expect(series);
        assert_eq!(exposed.parse::<f64>().unwrap(), value.parse::<f64>().unwrap(), "{line}");
        checked += 1;
    }
    assert!(checked > 200, "{checked}");
}

#[test]
fn types_decide_on_the_kind_of_the_metric() {
    let (_, metrics) = read(
        "# HELP jobs_total Jobs \\\\ done\\nsince start.\n# TYPE jobs_total counter\njobs_total 3\n\
         # TYPE heat gauge\nheat{room=\"a\"} -1.5e3\n# TYPE odd untyped\nodd NaN\nno_type +Inf\n",
    );
    let cumulative = Data::Sum { temporality: Temporality::Cumulative, monotonic: true };
    assert_eq!(data(&metrics), [cumulative, Data::Gauge, Data::Gauge, Data::Gauge]);
    assert_eq!(lines(&metrics), ["jobs_total{} 3", "heat{room=\"a\"} -1500", "odd{} NaN", "no_type{} inf"]);
    let table = &metrics.table;
    assert_eq!(table.common.text(table.metrics[0].description), "Jobs \\ done\nsince start.");
    let declared = table.common.find(table.metrics[0].metadata, PROMETHEUS_TYPE).unwrap();
    assert_eq!(table.common.value_text(declared), "counter");
    assert_eq!(metrics.numbers.start_time_unix_nano, [0; 4], "the agent's start is not the target's");
    assert_eq!(metrics.numbers.time_unix_nano, [NOW; 4]);
}

#[test]
fn escapes_quoted_names_blanks_and_trailing_commas_are_read() {
    let (_, metrics) = read(
        "path{dir=\"C:\\\\x\",quote=\"\\\"\\n\", odd = \"\\t\" , } 1\n\
         {\"my.metric\",\"k.1\"=\"v\"} 2\n  \t spaced\t{}\t3 \t\n# just words\n#TYPE too\n\nempty{a=\"\",b=\"x\"} 4",
    );
    assert_eq!(
        lines(&metrics),
        [
            "path{dir=\"C:\\\\x\",odd=\"\\\\t\",quote=\"\\\"\\n\"} 1",
            "my.metric{k.1=\"v\"} 2",
            "spaced{} 3",
            "empty{b=\"x\"} 4",
        ]
    );
}

#[test]
fn timestamps_are_milliseconds_in_text_and_seconds_in_openmetrics() {
    let (_, text) = read("a 1 1520879607789\nb 2\n");
    assert_eq!(text.numbers.time_unix_nano, [1_520_879_607_789_000_000, NOW]);
    let (_, open) = read_as(Format::OpenMetrics, "a 1 1520879607.789\n# EOF\n").unwrap();
    assert_eq!(open.numbers.time_unix_nano, [1_520_879_607_789_000_000]);
}

#[test]
fn cumulative_buckets_become_counts_per_bucket() {
    let (parsed, metrics) = read(
        "# TYPE h histogram\nh_bucket{le=\"0.1\",p=\"/\"} 2\nh_bucket{le=\"+Inf\",p=\"/\"} 7\nh_bucket{p=\"/\",le=\"1\"} 5\n\
         h_sum{p=\"/\"} 4.5\nh_count{p=\"/\"} 7\nh_bucket{le=\"+Inf\",p=\"/x\"} 1\nh_sum{p=\"/x\"} NaN\nh_count{p=\"/x\"} 1\n",
    );
    assert_eq!((parsed.samples, parsed.points), (8, 2));
    let first = &metrics.histograms[0];
    assert_eq!(first.explicit_bounds, [0.1, 1.0]);
    assert_eq!(first.bucket_counts, [2, 3, 2]);
    assert_eq!((first.distribution.count, first.distribution.sum), (7, Some(4.5)));
    assert_eq!(metrics.histograms[1].bucket_counts, [1]);
    assert_eq!(data(&metrics), [Data::Histogram(Temporality::Cumulative)]);
    assert_eq!(metrics.table.common.text(metrics.table.metrics[0].name), "h");
}

#[test]
fn a_bucket_that_counts_less_than_the_one_below_is_named_by_its_line() {
    let error = fails(
        Format::Text,
        "# TYPE h histogram\nh_bucket{le=\"1\"} 5\nh_bucket{le=\"2\"} 4\nh_bucket{le=\"+Inf\"} 6\nh_sum 1\nh_count 6\n",
    );
    assert!(error.starts_with("line 3: ") && error.contains("counts 4") && error.contains("counts 5"), "{error}");
    let error = fails(Format::Text, "# TYPE h histogram\nh_bucket{le=\"1\"} 5\nh_sum 1\nh_count 4\n");
    assert!(error.starts_with("line 4: "), "{error}");
}

#[test]
fn a_histogram_or_summary_that_is_not_whole_is_recorded_as_what_it_consists_of() {
    let (parsed, metrics) = read(
        "# TYPE s summary\ns{quantile=\"0.5\",z=\"1\"} 2\ns_sum{z=\"1\"} 3\n# TYPE h histogram\nh_bucket{le=\"1\"} 0.5\n\
         h_bucket{le=\"+Inf\"} 1.5\nh_sum 1\nh_count 1.5\n",
    );
    assert_eq!((parsed.samples, parsed.points), (6, 6));
    assert_eq!(
        lines(&metrics),
        [
            "s{quantile=\"0.5\",z=\"1\"} 2",
            "s_sum{z=\"1\"} 3",
            "h_bucket{le=\"1\"} 0.5",
            "h_bucket{le=\"+Inf\"} 1.5",
            "h_sum{} 1",
            "h_count{} 1.5",
        ]
    );
}

#[test]
fn summaries_keep_their_quantiles_and_nan_stays_a_value() {
    let (_, metrics) = read("# TYPE s summary\ns{quantile=\"0.99\"} NaN\ns{quantile=\"0.5\"} 1\ns_sum 0\ns_count 0\n");
    let summary = &metrics.summaries[0];
    assert_eq!((summary.count, summary.sum, summary.quantiles[0]), (0, 0.0, (0.5, 1.0)));
    assert!(summary.quantiles[1].1.is_nan() && summary.flags == 0);
}

#[test]
fn openmetrics_brings_start_times_units_exemplars_and_its_own_types() {
    let text = "# TYPE foo_seconds counter\n# UNIT foo_seconds seconds\n# HELP foo_seconds Say \\\"hi\\\".\n\
        foo_seconds_total{a=\"1\"} 17.0 # {trace_id=\"0af7651916cd43dd8448eb211c80319c\",user=\"b\"} 0.5 1520879607.789\n\
        foo_seconds_created{a=\"1\"} 1520872607.123\n\
        # TYPE h histogram\nh_bucket{le=\"1.0\"} 1 # {} 0.3\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum 0.3\nh_created 5\n\
        # TYPE build info\nbuild_info{version=\"1\"} 1\n# TYPE state stateset\nstate{state=\"on\"} 1\n\
        # TYPE gh gaugehistogram\ngh_bucket{le=\"+Inf\"} 4\ngh_gcount 4\ngh_gsum 2\n# TYPE u unknown\nu 1\n# EOF\n";
    let (parsed, metrics) = read_as(Format::OpenMetrics, text).unwrap();
    assert_eq!((parsed.samples, parsed.created, parsed.points), (13, 2, 8));
    let table = &metrics.table;
    assert_eq!(table.common.text(table.metrics[0].name), "foo_seconds_total");
    assert_eq!(table.common.text(table.metrics[0].unit), "seconds");
    assert_eq!(table.common.text(table.metrics[0].description), "Say \"hi\".");
    assert_eq!(metrics.numbers.start_time_unix_nano[0], 1_520_872_607_123_000_000);
    assert_eq!(metrics.histograms[0].distribution.start_time_unix_nano, 5_000_000_000);
    let [exemplar] = metrics.exemplars_of(PointRef::Number(0)) else { panic!("one exemplar") };
    assert_eq!(table.common.arena.bytes(exemplar.trace_id)[..2], [0x0a, 0xf7]);
    assert_eq!((exemplar.value, exemplar.time_unix_nano), (Number::Double(0.5), 1_520_879_607_789_000_000));
    assert!(table.common.find(exemplar.filtered_attributes, "user").is_some());
    assert_eq!(metrics.exemplars_of(PointRef::Histogram(0)).len(), 1);
    let up_down = Data::Sum { temporality: Temporality::Cumulative, monotonic: false };
    let of = |name: &str| table.metrics.iter().find(|m| table.common.text(m.name) == name).expect(name).data;
    assert_eq!((of("build_info"), of("state"), of("gh_bucket"), of("u")), (up_down, up_down, Data::Gauge, Data::Gauge));
}

#[test]
fn openmetrics_that_was_cut_off_is_refused() {
    assert!(fails(Format::OpenMetrics, "a 1\nb 2\n").starts_with("line 2: the text ends without `# EOF`"));
    assert!(fails(Format::OpenMetrics, "a 1\n# EOF\nb 2\n").starts_with("line 3: there is text after"));
    assert!(read_as(Format::Text, "a 1\n# EOF\nb 2\n").is_ok(), "a comment like others in text 0.0.4");
}

#[test]
fn of_a_series_that_appears_twice_the_first_is_kept_and_the_rest_counted() {
    let (parsed, metrics) = read(
        "a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\",z=\"\"} 9\na{x=\"1\"} 3\n\
         # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_sum 5\nh_count 1\n",
    );
    assert_eq!(lines(&metrics), ["a{x=\"1\",y=\"2\"} 1", "a{x=\"1\"} 3"]);
    assert_eq!(metrics.histograms[0].distribution.sum, Some(1.0));
    assert_eq!(parsed.duplicates, 3);
    assert_eq!(samples_of(&metrics) + parsed.duplicates, parsed.samples);
}

#[test]
fn an_error_names_its_line_and_records_nothing() {
    for (text, line, part) in [
        ("<!DOCTYPE html>\n", 1, "expected a metric name, found `<!DOCTYPE html>`"),
        ("a 1\nb\n", 2, "expected a value, the line ends"),
        ("a 1\nb x\n", 2, "`x` is no number"),
        ("a{b=\"c} 1\n", 1, "a quote is not closed"),
        ("a{b} 1\n", 1, "expected `=`"),
        ("a{b=c} 1\n", 1, "expected a text in quotes"),
        ("a{b=\"1\",b=\"2\"} 1\n", 1, "`b` appears twice"),
        ("a{b=\"1\"c=\"2\"} 1\n", 1, "expected `,` or `}`"),
        ("a 1 2 3\n", 1, "expected the end of the line, found `3`"),
        ("a 1 -5\n", 1, "`-5` is no timestamp in milliseconds"),
        ("a 1 # {x=\"y\"} 1\n", 1, "expected the end of the line"),
        ("{a=\"b\"} 1\n", 1, "no name"),
        ("a.b 1\n", 1, "expected a blank after the metric name"),
        ("# TYPE h histogram\nh_bucket 1\n", 2, "no label `le`"),
        ("# TYPE h histogram\nh_bucket{le=\"x\"} 1\n", 2, "`x` is no number"),
    ] {
        let mut out = builder();
        let error = parse_text(text.as_bytes(), &mut out).expect_err(text);
        assert_eq!(error.line, line, "{text}");
        assert!(error.message.contains(part), "{text}: {error}");
        assert!(out.is_empty(), "{text}");
    }
    let error = parse_text(b"a 1\nb \xff\n", &mut builder()).unwrap_err();
    assert_eq!((error.line, error.message.as_str()), (2, "it is not UTF-8"));
}

#[test]
fn limits_name_the_line_that_is_too_much() {
    let options = Options { limits: Limits { samples: 2, labels: 1 }, ..Options::default() };
    let run = |text: &str| parse(text.as_bytes(), Format::Text, &options, &mut builder()).unwrap_err();
    let error = run("a 1\n# x\nb 1\nc 1\n");
    assert!(error.over_limit && error.to_string() == "line 4: there are more than 2 samples", "{error}");
    let error = run("a{x=\"1\",y=\"2\"} 1\n");
    assert!(error.over_limit && error.to_string() == "line 1: 2 labels are more than 1", "{error}");
}

#[test]
fn labels_of_the_target_win_unless_the_exposed_are_honoured() {
    let text = "a{env=\"x\",exported_env=\"y\",job=\"z\"} 1\n";
    let attach = Attach { labels: &[("env", "prod")], reserved: &["job"], ..Attach::default() };
    let run = |attach| {
        let mut out = builder();
        parse(text.as_bytes(), Format::Text, &Options { attach, ..Options::default() }, &mut out).unwrap();
        lines(&out.finish())
    };
    assert_eq!(run(attach), ["a{exported_exported_env=\"x\",exported_env=\"y\",exported_job=\"z\",env=\"prod\"} 1"]);
    assert_eq!(run(Attach { honor_labels: true, ..attach }), ["a{env=\"x\",exported_env=\"y\",job=\"z\"} 1"]);
}

#[test]
fn series_that_are_gone_end_with_a_point_without_a_value() {
    let before = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n\
                  stays{x=\"1\"} 1\ngoes{x=\"1\"} 1\nwith_time 1 1520879607789\n";
    let parse = |text: &str| Document::parse(text.into(), Format::Text, Limits::default()).unwrap();
    let (before, now) = (parse(before), parse("stays{x=\"1\"} 2\nnew 1\n"));
    let mut out = builder();
    assert_eq!(before.record_end(Some(&now), &Attach::default(), &mut out), 2);
    let metrics = out.finish();
    assert_eq!(lines(&metrics), ["goes{x=\"1\"} -"]);
    assert_eq!(metrics.numbers.flags, [NO_RECORDED_VALUE]);
    let ended = &metrics.histograms[0];
    assert_eq!((ended.distribution.flags, ended.explicit_bounds.as_slice()), (NO_RECORDED_VALUE, &[1.0][..]));
    assert_eq!((now.series_added(Some(&before)), before.series_added(None)), (1, 7));
}

#[test]
fn a_series_keeps_its_place_in_the_table_from_poll_to_poll() {
    let text = include_bytes!("../../tests/fixtures/prometheus.txt");
    let mut out = builder();
    parse_text(text, &mut out).unwrap();
    let first = out.finish().table;
    out.begin(NOW + 1, 5);
    parse_text(text, &mut out).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &out.finish().table));
}

#[test]
fn content_types_decide_on_the_format() {
    assert_eq!(Format::from_content_type("text/plain; version=0.0.4; charset=utf-8"), Some(Format::Text));
    assert_eq!(Format::from_content_type("Application/OpenMetrics-Text; version=1.0.0"), Some(Format::OpenMetrics));
    assert_eq!(Format::from_content_type(""), Some(Format::Text));
    assert_eq!(Format::from_content_type("text/html; charset=utf-8"), None);
}

/// Text that looks enough like an exposition to reach every branch.
fn almost_exposition() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "a",
        "h_bucket",
        "h",
        "h_sum",
        "h_count",
        "h_created",
        "{",
        "}",
        "\"",
        "le=\"1\"",
        "le=\"+Inf\"",
        "=",
        ",",
        " ",
        "\t",
        "\n",
        "1",
        "-1",
        "NaN",
        "1e400",
        "# TYPE h histogram\n",
        "# TYPE h summary\n",
        "# TYPE h counter\n",
        "quantile=\"0.5\"",
        "# HELP h \\",
        "# UNIT h s\n",
        "# EOF",
        " # {x=\"y\"} 1 2",
        "\\",
        "é",
        "1520879607.789",
        "h_bucket{le=\"1\"} 5\n",
        "h_bucket{le=\"2\"} 3\n",
        "\"m.x\"",
        "\r",
    ]);
    prop::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), open in any::<bool>()) {
        let format = if open { Format::OpenMetrics } else { Format::Text };
        let _ = parse(&bytes, format, &Options::default(), &mut builder());
    }

    #[test]
    fn almost_right_text_never_panics_and_accounts_for_every_sample(text in almost_exposition(), open in any::<bool>()) {
        let format = if open { Format::OpenMetrics } else { Format::Text };
        let document = Document::parse(text.clone().into_bytes(), format, Limits::default());
        let mut out = builder();
        match parse(text.as_bytes(), format, &Options::default(), &mut out) {
            Ok(parsed) => {
                prop_assert_eq!(parsed.points, out.len());
                let document = document.unwrap();
                prop_assert_eq!(document.series_added(None) + parsed.duplicates + parsed.created, parsed.samples);
                prop_assert_eq!(document.record_end(Some(&document), &Attach::default(), &mut out), 0);
            }
            Err(error) => {
                prop_assert!(out.is_empty());
                prop_assert!(error.line >= 1 && error.line <= text.lines().count().max(1) + 1);
            }
        }
    }

    #[test]
    fn any_label_value_comes_back(value in "[^\\x00]{1,20}") {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let (_, metrics) = read(&format!("a{{b=\"{escaped}\"}} 1\n"));
        let table = &metrics.table;
        let label = table.common.find(table.series[0].attributes, "b").unwrap();
        prop_assert_eq!(table.common.value_text(label), value);
    }
}

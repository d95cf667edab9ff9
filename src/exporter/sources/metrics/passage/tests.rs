use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::exporter::bounds::VALUES;

fn pass(text: &str) -> (String, BTreeMap<&'static str, u64>) {
    pass_with(text.as_bytes(), &mut Memory::default())
}

fn pass_with(text: &[u8], memory: &mut Memory) -> (String, BTreeMap<&'static str, u64>) {
    pass_in_parts([text], memory, None)
}

fn pass_in_parts<'t>(
    parts: impl IntoIterator<Item = &'t [u8]>,
    memory: &mut Memory,
    environment: Option<&str>,
) -> (String, BTreeMap<&'static str, u64>) {
    let reserved = BTreeSet::from([
        "rosey_bot_up",
        "rosey_backup_count",
        "rosey_deployment_duration_seconds",
    ]);
    let mut passage = Passage::new(&reserved, memory, environment, Instant::now());
    for part in parts {
        passage.read(part);
    }
    let (text, dropped, _) = passage.finish();
    (
        text.into_string(),
        dropped.by_reason().filter(|(_, number)| *number > 0).collect(),
    )
}

#[test]
fn families_are_grouped_with_their_help_and_type() {
    let (page, dropped) = pass(
        "b 2\n# HELP a Many \\\\ things.\n# TYPE a counter\na{x=\"1\"} 1 1700000000000\nc 3\na{x=\"2\"} 2\n# TYPE c gauge\n",
    );
    assert_eq!(
        page,
        "# HELP a Many \\\\ things.\n# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2\n# TYPE b untyped\nb 2\n# TYPE c untyped\nc 3\n"
    );
    assert!(dropped.is_empty());
}

#[test]
fn histograms_and_summaries_pass_whole() {
    let text = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 1.5\nh_count 2\n\
                # TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 0\ns_count 0\n";
    assert_eq!(pass(text), (text.to_owned(), BTreeMap::new()));
}

#[test]
fn a_bound_is_spelled_in_one_way_whatever_the_bot_writes() {
    let mut memory = Memory::default();
    let mut page = |bound: &str, quantile: &str| {
        let text = format!(
            "# TYPE h histogram\nh_bucket{{le=\"{bound}\"}} 1\n# TYPE s summary\ns{{quantile=\"{quantile}\"}} 1\n\
             # TYPE u untyped\nu{{le=\"{bound}\",quantile=\"{quantile}\"}} 1\n"
        );
        pass_with(text.as_bytes(), &mut memory)
    };
    let first = page("1", "0.5");
    assert!(first.0.contains("u{le=\"1\",quantile=\"0.5\"} 1\n"), "{}", first.0);
    for zeros in 1..120 {
        let zeros = "0".repeat(zeros);
        assert_eq!(page(&format!("1.{zeros}"), &format!("{zeros}.5{zeros}")), first);
    }
    assert_eq!(page("+1e0", "5e-1"), first);

    // What Go does not read is no bound, and a word of an untyped family stays.
    for word in ["+nan", "-NaN", "1e999", "x"] {
        let (page, dropped) = page(word, word);
        assert_eq!(
            page,
            format!("# TYPE u untyped\nu{{le=\"{word}\",quantile=\"{word}\"}} 1\n")
        );
        assert_eq!(dropped, BTreeMap::from([("invalid", 2)]));
    }
}

#[test]
fn a_part_of_a_histogram_can_not_be_declared_as_a_family_of_its_own() {
    let (page, dropped) = pass(
        "# TYPE h histogram\n# TYPE h_sum gauge\nh_sum 1\nh 7\nh_bucket 1\n# TYPE k_sum gauge\nk_sum 1\n# TYPE k histogram\nk 1\n",
    );
    assert_eq!(
        page,
        "# TYPE h histogram\nh_sum 1\n# TYPE k untyped\nk 1\n# TYPE k_sum gauge\nk_sum 1\n"
    );
    assert_eq!(dropped, BTreeMap::from([("invalid", 2)]));
}

#[test]
fn a_bot_can_not_speak_for_the_exporter_nor_for_prometheus() {
    let (page, dropped) = pass(
        "rosey_bot_up 1\nup 0\nscrape_samples_scraped 1\nALERTS{alertname=\"BotDown\"} 1\nrosey_exporter_source_up 1\n\
         rosey_deployment_duration_seconds_sum 1\n# TYPE rosey_backup histogram\nrosey_backup_count 9\n\
         a{__name__=\"rosey_bot_up\"} 1\nrosey_bot_message_count_total 5\n",
    );
    assert_eq!(
        page,
        "# TYPE rosey_bot_message_count_total untyped\nrosey_bot_message_count_total 5\n"
    );
    assert_eq!(dropped, BTreeMap::from([("reserved", 8)]));
}

#[test]
fn the_same_series_passes_once() {
    let (page, dropped) = pass(
        "a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 2\na{x=\"1\",y=\"2\",z=\"\"} 3\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 1\n",
    );
    assert_eq!(
        page,
        "# TYPE a untyped\na{x=\"1\",y=\"2\"} 1\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\n"
    );
    assert_eq!(dropped, BTreeMap::from([("duplicate", 3)]));
}

#[test]
fn counters_that_count_backwards_are_left_out() {
    let (page, dropped) =
        pass("# TYPE a counter\na{x=\"1\"} -1\na NaN\n# TYPE g gauge\ng -1\n# TYPE o counter\no_total 1\n");
    assert_eq!(page, "# TYPE g gauge\ng -1\n# TYPE o_total counter\no_total 1\n");
    assert_eq!(dropped, BTreeMap::from([("invalid", 2)]));
}

#[test]
fn very_many_values_make_two_hundred_series_and_the_same_ones_each_time() {
    let mut memory = Memory::default();
    let lines: Vec<_> = (0..100_000).map(|i| format!("a{{user=\"{i}\"}} 1\n")).collect();
    let (first, dropped) = pass_with(lines.concat().as_bytes(), &mut memory);
    assert_eq!(first.lines().count(), 1 + VALUES);
    assert_eq!(dropped, BTreeMap::from([("too_many_values", 100_000 - VALUES as u64)]));

    let backwards: String = lines.iter().rev().map(String::as_str).collect();
    let (second, _) = pass_with(backwards.as_bytes(), &mut memory);
    let sorted = |page: &str| {
        page.lines()
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(sorted(&first), sorted(&second));
}

#[test]
fn the_number_of_series_and_of_families_is_bounded() {
    let (page, dropped) = pass(&forty_thousand("a"));
    assert_eq!(page.lines().count(), 1 + Rank::Rest.series());
    assert_eq!(
        dropped,
        BTreeMap::from([("too_many_series", 40_000 - Rank::Rest.series() as u64)])
    );

    let families = (0..3_000)
        .map(|i| format!("# TYPE a{i} gauge\na{i} 1\n"))
        .collect::<Vec<_>>()
        .concat();
    let (page, dropped) = pass(&families);
    assert_eq!(page.lines().count(), 2 * FAMILIES);
    assert_eq!(dropped, BTreeMap::from([("too_many_series", 3_000 - FAMILIES as u64)]));
}

/// The series of a family with two labels of two hundred values each.
fn forty_thousand(family: &str) -> String {
    (0..VALUES)
        .flat_map(|x| (0..VALUES).map(move |y| format!("{family}{{x=\"{x}\",y=\"{y}\"}} 1\n")))
        .collect()
}

#[test]
fn the_bytes_of_the_text_are_bounded_and_the_same_series_pass_each_time() {
    let mut memory = Memory::default();
    let lines: Vec<_> = (0..40)
        .flat_map(|x| (0..200).map(move |y| (x, y)))
        .map(|(x, y)| format!("a{{x=\"{x:0>200}\",y=\"{y:0>200}\"}} 1\n"))
        .collect();
    let (first, dropped) = pass_with(lines.concat().as_bytes(), &mut memory);
    let passed = first.lines().count() - 1;
    assert!(first.len() < Rank::Rest.bytes() && first.len() > Rank::Rest.bytes() * 9 / 10);
    assert_eq!(
        dropped,
        BTreeMap::from([("too_many_series", (lines.len() - passed) as u64)])
    );

    let backwards: String = lines.iter().rev().map(String::as_str).collect();
    let (second, _) = pass_with(backwards.as_bytes(), &mut memory);
    let sorted = |page: &str| page.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&first), sorted(&second));
}

#[test]
fn what_alerts_read_passes_however_much_else_the_bot_says() {
    let (others, commands) = (forty_thousand("a"), forty_thousand("rosey_bot_command_count_total"));
    let errors: String = (0..300)
        .map(|i| format!("rosey_bot_error_count_total{{error_type=\"{i}\"}} 1\n"))
        .collect::<Vec<_>>()
        .concat();
    let families: String = (0..2_000)
        .map(|i| format!("# TYPE a{i} gauge\n"))
        .collect::<Vec<_>>()
        .concat();
    let critical = "rosey_bot_error_count_total{error_type=\"critical\"} 7\n";
    let declared = "# TYPE rosey_bot_error_count counter\n";

    let mut memory = Memory::default();
    let before = pass_with(
        (families.clone() + &others + &commands + &errors).as_bytes(),
        &mut memory,
    )
    .0;
    assert!(!before.contains(critical));
    let page = families + &others + &commands + declared + &errors + critical + "broken\n";
    let (page, dropped) = pass_with(page.as_bytes(), &mut memory);
    assert!(page.contains(critical));
    assert!(page.contains("# TYPE rosey_bot_error_count_total counter\n"));
    let samples = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(samples("rosey_bot_error_count_total{"), VALUES + 1);
    assert_eq!(samples("rosey_bot_command_count_total{"), Rank::Known.series());
    // The families without samples took the places of the other one.
    assert_eq!(samples("a{"), 0);
    assert_eq!(
        dropped,
        BTreeMap::from([
            ("invalid", 1),
            ("too_many_series", 2 * 40_000 - Rank::Known.series() as u64),
            ("too_many_values", 100)
        ])
    );
}

#[test]
fn a_page_of_openmetrics_passes_as_text() {
    let (page, dropped) = pass(
        "# TYPE bot_requests counter\n# UNIT bot_requests requests\n# HELP bot_requests Requests.\n\
         bot_requests_total{a=\"1\"} 5.0 1700000000.123 # {trace_id=\"x\"} 0.67 1700000000.1\nbot_requests_created{a=\"1\"} 1.7e9\n\
         # TYPE h histogram\n# HELP h Times.\nh_bucket{le=\"1.0\"} 1 # {trace_id=\"x\"} 0.6\nh_bucket{le=\"+Inf\"} 2\nh_count 2\n\
         h_sum 1.5\nh_created 1.7e9\n\
         # TYPE s summary\ns{quantile=\"0.5\"} 3\ns_created 1.7e9\n\
         # TYPE build info\nbuild_info{v=\"1\"} 1\n# TYPE state stateset\nstate{state=\"on\"} 1\n# TYPE u unknown\nu 1\n\
         # TYPE g gaugehistogram\ng_bucket{le=\"+Inf\"} 2\ng_gcount 2\ng_gsum -1\n# EOF\n",
    );
    assert_eq!(
        page,
        "# HELP bot_requests_total Requests.\n# TYPE bot_requests_total counter\nbot_requests_total{a=\"1\"} 5\n\
         # TYPE build_info untyped\nbuild_info{v=\"1\"} 1\n\
         # TYPE g_bucket untyped\ng_bucket{le=\"+Inf\"} 2\n# TYPE g_gcount untyped\ng_gcount 2\n# TYPE g_gsum untyped\ng_gsum -1\n\
         # HELP h Times.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_count 2\nh_sum 1.5\n\
         # TYPE s summary\ns{quantile=\"0.5\"} 3\n\
         # TYPE state untyped\nstate{state=\"on\"} 1\n# TYPE u untyped\nu 1\n"
    );
    assert!(dropped.is_empty(), "{dropped:?}");
}

#[test]
fn a_time_of_creation_that_is_a_family_of_its_own_passes() {
    let text = "# TYPE a_created gauge\na_created 1700000000\n# TYPE a_total counter\na_total 1\n# TYPE b_created untyped\nb_created 2\n";
    assert_eq!(pass(text), (text.to_owned(), BTreeMap::new()));
}

#[test]
fn the_series_that_other_dialects_call_bot_pass_under_their_names() {
    let text = "# TYPE bot_active_users gauge\nbot_active_users 3\n\
                # HELP bot_command_latency_seconds Latency.\n# TYPE bot_command_latency_seconds histogram\n\
                bot_command_latency_seconds_bucket{command=\"roll\",le=\"0.5\"} 1\n\
                bot_command_latency_seconds_bucket{command=\"roll\",le=\"+Inf\"} 2\n\
                bot_command_latency_seconds_sum{command=\"roll\"} 1.5\nbot_command_latency_seconds_count{command=\"roll\"} 2\n\
                # TYPE bot_commands_total counter\nbot_commands_total{command=\"roll\",success=\"true\"} 2\n\
                # TYPE bot_connected gauge\nbot_connected 1\n# TYPE bot_errors_total counter\nbot_errors_total 0\n\
                # TYPE bot_requests_total counter\nbot_requests_total 10\n# TYPE bot_uptime_seconds gauge\nbot_uptime_seconds 5\n\
                # TYPE bot_users gauge\nbot_users 12\n";
    assert_eq!(pass(text), (text.to_owned(), BTreeMap::new()));
}

#[test]
fn the_environment_stands_on_what_the_catalogue_knows() {
    let text = "rosey_bot_message_count_total 1\nrosey_bot_error_count_total{error_type=\"a\"} 1\n\
                rosey_bot_error_count_total{environment=\"mine\"} 1\nother 1\n\
                rosey_bot_message_count_total{environment=\"prod\"} 2\n";
    let (page, dropped) = pass_in_parts([text.as_bytes()], &mut Memory::default(), Some("prod"));
    assert_eq!(dropped, BTreeMap::from([("duplicate", 1)]));
    let samples: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        samples,
        [
            "other 1",
            "rosey_bot_error_count_total{error_type=\"a\",environment=\"prod\"} 1",
            "rosey_bot_error_count_total{environment=\"mine\"} 1",
            "rosey_bot_message_count_total{environment=\"prod\"} 1",
        ]
    );
}

#[test]
fn a_line_that_is_too_long_is_left_out_and_the_next_one_passes() {
    let long = "x".repeat(5 * LINE_BYTES);
    let text = format!("a{{x=\"{long}\"}} 1\n# HELP b {long}\nb 2\n{long}\nc 3");
    let (page, dropped) = pass(&text);
    assert_eq!(page, "# TYPE b untyped\nb 2\n# TYPE c untyped\nc 3\n");
    assert_eq!(dropped, BTreeMap::from([("too_long", 2)]));
}

proptest! {
    #[test]
    fn what_passed_once_passes_again_unchanged(bytes in "([a-c#{}=\", \\\\n0-9.\n]|# TYPE |# HELP |histogram|_sum|_bucket|le=|é){0,120}") {
        let (once, _) = pass(&bytes);
        let (twice, dropped) = pass(&once);
        prop_assert_eq!(&once, &twice);
        prop_assert!(dropped.is_empty(), "{:?}", dropped);
    }

    #[test]
    fn it_does_not_matter_where_the_page_is_cut(text in "(a|bc|# TYPE a counter|\\{x=\"1\"\\}| 1|é|\n){0,60}", cuts in proptest::collection::vec(1usize..40, 0..20)) {
        let (mut parts, mut rest) = (Vec::new(), text.as_bytes());
        for cut in cuts {
            let (part, after) = rest.split_at(cut.min(rest.len()));
            parts.push(part);
            rest = after;
        }
        parts.push(rest);
        prop_assert_eq!(pass(&text), pass_in_parts(parts, &mut Memory::default(), None));
    }

    #[test]
    fn any_value_is_read_back_as_it_was(value in proptest::num::f64::ANY) {
        let spelled = Value(value).to_string();
        let read = line::number(&spelled).unwrap();
        prop_assert!(read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()));
    }
}

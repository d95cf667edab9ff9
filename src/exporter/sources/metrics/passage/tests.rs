use proptest::prelude::*;

use super::*;
use crate::exporter::page::Value;

fn pass(text: &str) -> (String, BTreeMap<&'static str, u64>) {
    pass_with(text.as_bytes(), &mut Memory::default())
}

fn pass_with(text: &[u8], memory: &mut Memory) -> (String, BTreeMap<&'static str, u64>) {
    let reserved = BTreeSet::from([
        "rosey_bot_up",
        "rosey_backup_count",
        "rosey_deployment_duration_seconds",
    ]);
    let mut passage = Passage::new(&reserved, memory, Instant::now());
    passage.read(text);
    let (page, dropped, _) = passage.finish();
    (
        page.text(),
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
    let text = "# TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 1.5\nh_count 2\n\
                # TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 0\ns_count 0\n";
    assert_eq!(pass(text), (text.to_owned(), BTreeMap::new()));
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
    let series: String = (0..200)
        .flat_map(|x| (0..200).map(move |y| format!("a{{x=\"{x}\",y=\"{y}\"}} 1\n")))
        .collect();
    let (page, dropped) = pass(&series);
    assert_eq!(page.lines().count(), 1 + SERIES);
    assert_eq!(dropped, BTreeMap::from([("too_many_series", 40_000 - SERIES as u64)]));

    let families = (0..3_000)
        .map(|i| format!("# TYPE a{i} gauge\na{i} 1\n"))
        .collect::<Vec<_>>()
        .concat();
    let (page, dropped) = pass(&families);
    assert_eq!(page.lines().count(), 2 * FAMILIES);
    assert_eq!(dropped, BTreeMap::from([("too_many_series", 3_000 - FAMILIES as u64)]));
}

#[test]
fn what_alerts_read_passes_however_much_else_the_bot_says() {
    let others: String = (0..200)
        .flat_map(|x| (0..200).map(move |y| format!("a{{x=\"{x}\",y=\"{y}\"}} 1\n")))
        .collect();
    let commands = others.replace("a{x", "rosey_bot_command_count_total{command");
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
    assert_eq!(samples("rosey_bot_command_count_total{"), SERIES - VALUES - 1);
    assert_eq!(
        dropped,
        BTreeMap::from([
            ("invalid", 1),
            ("too_many_series", 2 * 40_000 - (SERIES - VALUES - 1) as u64),
            ("too_many_values", 100)
        ])
    );
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
    fn any_value_is_read_back_as_it_was(value in proptest::num::f64::ANY) {
        let spelled = Value(value).to_string();
        let read = line::number(&spelled).unwrap();
        prop_assert!(read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()));
    }
}

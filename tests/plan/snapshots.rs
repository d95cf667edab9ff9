use rosey_monitor::plan::Platform;

use crate::{example, planned, with_spec};

fn yaml(plan: &rosey_monitor::plan::Plan) -> String {
    let documents: Vec<_> = plan
        .objects
        .iter()
        .map(|object| serde_saphyr::to_string(&object.json).unwrap())
        .collect();
    documents.join("---\n")
}

#[test]
fn the_first_example_makes_these_objects() {
    insta::assert_snapshot!(yaml(&planned(&example("rosey.yaml"))));
}

#[test]
fn the_severity_matrix_makes_these_objects() {
    insta::assert_snapshot!(yaml(&planned(&example("s0-rosey.yaml"))));
}

#[test]
fn a_monitor_that_says_only_who_its_pods_are_gets_what_can_be_known_of_them() {
    let plan = planned(&with_spec("environment: test\nselector: {matchLabels: {app: rosey}}"));
    insta::assert_snapshot!(yaml(&plan));
    insta::assert_debug_snapshot!(plan.report);
}

#[test]
fn an_older_stack_gets_no_mention_and_its_user_is_told() {
    let platform = Platform {
        alertmanager: Some("0.27.0".parse().unwrap()),
        ..Platform::default()
    };
    let plan = rosey_monitor::plan::plan(&example("rosey.yaml"), &platform).unwrap();
    assert!(!yaml(&plan).contains("@everyone"));
    insta::assert_debug_snapshot!(plan.report.warnings);
}

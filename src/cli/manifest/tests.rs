use super::*;

fn one(text: &str) -> Node {
    let mut found = Found::default();
    found.documents("t", text);
    assert_eq!(found.findings, []);
    found.monitors.pop().unwrap().node
}

const HEAD: &str = "apiVersion: rosey.dev/v1alpha1\nkind: RoseyMonitor\n";

#[test]
fn a_field_is_found_in_block_and_flow_style_and_behind_other_documents() {
    let text = format!(
        "# a comment\n---\nkind: Service\napiVersion: v1\n--- # another\n{HEAD}metadata: {{name: rosey}}\nspec:\n  objectLabels:\n    app.kubernetes.io/name: x\n    a: y\n  alerts:\n    overrides:\n    - alert: A\n    - alert: B\n      levels:\n      - {{severity: info,\n         threshold: 3 bananas}}\n"
    );
    let node = one(&text);
    let line = |wanted: &str| 1 + u64::try_from(text.lines().position(|line| line.contains(wanted)).unwrap()).unwrap();
    for (path, wanted) in [
        ("metadata.name", "name: rosey"),
        ("spec.objectLabels[app.kubernetes.io/name]", "app.kubernetes"),
        ("spec.objectLabels.app.kubernetes.io/name", "app.kubernetes"),
        ("spec.objectLabels.a", "a: y"),
        ("spec.alerts.overrides[1]", "alert: B"),
        ("spec.alerts.overrides[1].levels[0].threshold", "3 bananas"),
        ("spec.alerts.overrides[1].levels[0].for", "severity: info"),
        ("spec.alerts.overrides[7]", "overrides:"),
        ("spec.bot.health", "spec:"),
    ] {
        assert_eq!(node.line_of(path), line(wanted), "{path}");
    }
}

#[test]
fn yaml_means_what_it_means_to_kubectl() {
    let node = one(&format!(
        "{HEAD}a: yes\nb: 010\nc: 1e3\nd: \"yes\"\n8000: x\ne: &x [1]\nf: *x\n"
    ));
    let json = node.to_json();
    assert_eq!(json["a"], true);
    assert_eq!(json["b"], 8);
    assert_eq!(json["c"], 1000);
    assert_eq!(json["d"], "yes");
    assert_eq!(json["8000"], "x");
    assert_eq!(json["f"], json["e"]);
}

#[test]
fn what_is_no_manifest_is_refused_with_its_line() {
    let said = |text: &str| {
        let mut found = Found::default();
        found.documents("t", text);
        found
            .findings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    insta::assert_snapshot!(
        [
            said("a: 1\nb: [\n"),
            said(&format!("{HEAD}spec:\n  a: 1\n  a: 2\n")),
            said("\n\nspec: {}\n"),
            said("apiVersion: rosey.dev/v1\nkind: RoseyMonitor\n"),
            said("kind: RoseyMonitors\napiVersion: rosey.dev/v1alpha1\n"),
            said("- a\n"),
            said("--- {kind: RoseyMonitor, apiVersion: rosey.dev/v1alpha1}\n"),
            said(&format!("a: &a [x, x]\nb: &b [{}]\n", "*a, ".repeat(2000))),
        ]
        .join("\n")
    );
}

#[test]
fn words_are_read_as_kubectl_reads_them() {
    let yes = ["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"];
    let no = [
        "n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF",
    ];
    let nothing = ["~", "null", "Null", "NULL", ""];
    let text = [
        "tRUE", "yES", "oN", "fALSE", "oFF", "nULL", "nOne", "yess", "'true'", "\"no\"", "'~'",
    ];
    let number = [
        ("0x10", 16.into()),
        ("010", 8.into()),
        ("1e2", 100.into()),
        ("-7", (-7).into()),
    ];
    let mut corpus: Vec<(&str, serde_json::Value)> = Vec::new();
    corpus.extend(yes.map(|word| (word, true.into())));
    corpus.extend(no.map(|word| (word, false.into())));
    corpus.extend(nothing.map(|word| (word, serde_json::Value::Null)));
    corpus.extend(text.map(|word| (word, word.trim_matches(['\'', '"']).into())));
    corpus.extend(number);
    for (word, read) in corpus {
        for (document, path) in [
            (format!("{HEAD}x: {word}\n"), "/x"),
            (format!("{HEAD}ä: ü\nx: [a, &b {word}, *b]\n"), "/x/2"),
            (format!("{HEAD}x:\n- {{k: {word} }} # yes\n"), "/x/0/k"),
        ] {
            assert_eq!(one(&document).to_json().pointer(path), Some(&read), "{document}");
        }
    }
}

#[test]
fn a_large_list_is_read() {
    let mut found = Found::default();
    found.documents(
        "t",
        &format!("apiVersion: v1\nkind: Pod\nspec: [{}1]\n", "1, ".repeat(300_000)),
    );
    assert_eq!(found.findings, []);
}

#[test]
fn lists_and_json_are_manifests_too() {
    let mut found = Found::default();
    found.documents(
        "t",
        "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"List\",\n\t\"items\": [\n\t\t{\"apiVersion\": \"rosey.dev/v1alpha1\", \"kind\": \"RoseyMonitor\"},\n\t\t{\"apiVersion\": \"rosey.dev/v1alpha1\", \"kind\": \"RoseyMonitor\"}\n\t]\n}\n",
    );
    assert_eq!(found.findings, []);
    assert_eq!(found.monitors.iter().map(|m| m.node.line).collect::<Vec<_>>(), [5, 6]);
}

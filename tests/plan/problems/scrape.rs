//! Sources, scraping by TLS and pushing: what the schema can't refuse, and what only looks right.

use rosey_monitor::plan::{Platform, plan};

use super::{BASE, problems_of};
use crate::{example, with_spec};

fn warnings_of(more: &str) -> Vec<String> {
    let monitor = with_spec(&format!("{BASE}alerts: {{packs: [Bot]}}\n{more}"));
    plan(&monitor, &Platform::default()).unwrap().report.warnings
}

#[test]
fn what_no_exporter_could_read_is_refused_with_its_field() {
    for (more, said) in [
        (
            "bot: {plugins: {port: 9100}}",
            "spec.exporter.port: 9100 is spec.bot.plugins.port too, in the same pod; choose another",
        ),
        (
            "bot: {logs: {volume: logs, path: a/../../b}}",
            "spec.bot.logs.path: \"a/../../b\" must be relative to the volume and without \"..\"\n\
             spec.bot.logs.path: has a .. in it",
        ),
        (
            "bot: {logs: {volume: logs, path: logs/}}",
            "spec.bot.logs.path: is a folder; write the path of the file",
        ),
        (
            "bot: {plugins: {port: 8080, path: \"/a<b\"}}",
            "spec.bot.plugins.path: is not a path that starts with / and has only characters of a URL",
        ),
        (
            "exporter: {webConfigSecretRef: {name: web, key: ..}}",
            "spec.exporter.webConfigSecretRef.key: \"..\" is no key of a Secret; write one such as web.yml",
        ),
    ] {
        assert_eq!(problems_of(more), said, "{more}");
    }
}

#[test]
fn a_gateway_that_can_not_be_reached_or_takes_a_password_in_its_address_is_refused() {
    let said = |gateway: &str| problems_of(&format!("exporter: {{pushgateway: {{{gateway}}}}}"));
    for fine in [
        "url: \"http://pushgateway:9091\"",
        "url: \"https://push.example.org\", interval: 4m",
        "url: \"http://[::1]:9091/bots\"",
        "url: \"http://[::1]/bots\"",
    ] {
        assert_eq!(said(fine), "none", "{fine}");
    }
    for (gateway, field) in [
        ("url: \"http://pushgateway:99999\"", "spec.exporter.pushgateway.url: "),
        ("url: \"http://pushgateway:0\"", "spec.exporter.pushgateway.url: "),
        (
            "url: \"http://user:secret@pushgateway\"",
            "spec.exporter.pushgateway.url: ",
        ),
        (
            "url: \"http://pushgateway/?token=1\"",
            "spec.exporter.pushgateway.url: ",
        ),
        (
            "url: \"http://pushgateway\", interval: 5m",
            "spec.exporter.pushgateway.interval: ",
        ),
        (
            "url: \"http://pushgateway\", interval: 0s",
            "spec.exporter.pushgateway.interval: ",
        ),
        (
            "url: \"http://pushgateway\", basicAuth: {username: \"a:b\", passwordSecretRef: {name: a, key: b}}",
            "spec.exporter.pushgateway.basicAuth.username: ",
        ),
    ] {
        assert!(said(gateway).starts_with(field), "{gateway}: {}", said(gateway));
        assert!(!said(gateway).contains("secret@"), "{}", said(gateway));
    }
}

#[test]
fn tls_that_prometheus_operator_would_refuse_is_refused_first() {
    let said = |tls: &str| problems_of(&format!("scrape: {{scheme: https, tlsConfig: {{{tls}}}}}"));
    let secret = "{name: web, key: a}";
    for fine in [
        "serverName: rosey",
        &format!("ca: {{configMap: {secret}}}"),
        &format!("cert: {{secret: {secret}}}, keySecret: {secret}"),
        "minVersion: TLS13, maxVersion: TLS13",
    ] {
        assert_eq!(said(fine), "none", "{fine}");
    }
    let field = "spec.scrape.tlsConfig";
    for (tls, message) in [
        (
            format!("ca: {{secret: {secret}, configMap: {secret}}}"),
            format!("{field}.ca: must have exactly one of secret, configMap"),
        ),
        (
            format!("cert: {{}}, keySecret: {secret}"),
            format!("{field}.cert: must have exactly one of secret, configMap"),
        ),
        (
            format!("keySecret: {secret}"),
            format!("{field}: cert and keySecret go together; write both or none"),
        ),
        (
            "minVersion: TLS13, maxVersion: TLS12".into(),
            format!("{field}.minVersion: is above maxVersion; write the lower one here"),
        ),
    ] {
        assert_eq!(said(&tls), message);
    }
    assert_eq!(
        problems_of("scrape: {tlsConfig: {serverName: rosey}}"),
        format!("{field}: needs spec.scrape.scheme: https; write that too, or remove it")
    );
}

#[test]
fn a_scrape_that_can_not_agree_with_the_exporter_is_a_warning() {
    let web = "exporter: {webConfigSecretRef: {name: web}}\n";
    let auth = "basicAuth: {username: {name: a, key: b}, password: {name: a, key: b}}";
    let tls = "scheme: https, tlsConfig: {serverName: rosey}";
    let count = |more: &str| warnings_of(more).len();
    assert_eq!(count(""), 0);
    assert_eq!(count(&format!("{web}scrape: {{{tls}, {auth}}}")), 0);
    assert_eq!(count(&format!("{web}scrape: {{{tls}}}")), 0);
    let starts = |more: &str, fields: &[&str]| {
        let warnings = warnings_of(more);
        let told: Vec<_> = warnings
            .iter()
            .map(|warning| warning.split(": ").next().unwrap())
            .collect();
        assert_eq!(told, fields, "{more}: {warnings:?}");
    };
    starts(&format!("scrape: {{{tls}}}"), &["spec.scrape.scheme"]);
    starts(&format!("scrape: {{{auth}}}"), &["spec.scrape.basicAuth"]);
    starts(web, &["spec.exporter.webConfigSecretRef"]);
    starts(&format!("{web}scrape: {{{auth}}}"), &["spec.scrape.basicAuth"]);
    starts(
        &format!("{web}scrape: {{scheme: https}}"),
        &["spec.scrape.tlsConfig.serverName"],
    );
    let pushed_too = "bot: {health: {port: 8000}}\nexporter: {pushgateway: {url: \"http://pushgateway:9091\"}}";
    assert_eq!(count(pushed_too), 0);
}

#[test]
fn the_examples_are_accepted_without_a_word() {
    for name in ["s1-metrics.yaml", "s2-plugins.yaml", "s3-logs.yaml"] {
        let plan = plan(&example(name), &Platform::default()).unwrap();
        assert_eq!(plan.report.warnings, [] as [&str; 0], "{name}");
    }
}

//! The command line as people and pipelines meet it: the real binary, its output and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

const MINIMAL: &str = "apiVersion: rosey.dev/v1alpha1\nkind: RoseyMonitor\nmetadata: {name: rosey}\nspec:\n  environment: prod\n  selector: {matchLabels: {app: rosey}}\n";

fn rosey(arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-rosey"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that is refused for its usage does not read its input.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_definition_in_the_repository_is_the_one_of_the_types() {
    let printed = rosey(&["crd"], "", &[]);
    assert!(printed.status.success());
    assert!(printed.stdout.len() < 250_000, "{} bytes", printed.stdout.len());
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/roseymonitors.rosey.dev.yaml");
    let kept = std::fs::read_to_string(file).unwrap();
    assert!(
        kept == out(&printed),
        "{file} is not what `kubectl rosey crd` prints; run: make crds"
    );
}

#[test]
fn a_valid_monitor_passes_quietly_from_a_file_and_from_the_standard_input() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), MINIMAL).unwrap();
    for output in [
        rosey(&["validate", file.path().to_str().unwrap()], "", &[]),
        rosey(&["validate"], MINIMAL, &[]),
        rosey(&["validate", "-"], MINIMAL, &[]),
    ] {
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), ""));
    }
}

#[test]
fn files_can_be_named_as_kubectl_names_them() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), MINIMAL).unwrap();
    let path = file.path().to_str().unwrap();
    for flag in ["-f", "--filename"] {
        for command in ["validate", "render"] {
            let output = rosey(&[command, flag, path], "", &[]);
            assert_eq!(output.status.code(), Some(0), "{command} {flag}: {}", err(&output));
        }
    }
}

#[test]
fn two_monitors_of_one_name_are_a_problem() {
    let other = MINIMAL.replace("{name: rosey}", "{name: rosey, namespace: bots}");
    let output = rosey(&["validate"], &format!("{MINIMAL}---\n{other}"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    let output = rosey(&["validate", "-n", "bots"], &format!("{MINIMAL}---\n{other}"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        out(&output),
        "<stdin>:10: metadata.name: monitor bots/rosey stands on line 1 already\n"
    );
}

#[test]
fn problems_come_with_file_line_and_field_in_the_order_of_lines() {
    let broken = MINIMAL.replace("prod", "yes")
        + "  bot:\n    health: {port: 70000}\n  alerts:\n    packs: [Bot, Bots]\n    interval: 5\n---\nkind: Service\napiVersion: v1\n---\nkind: RoseyMonitor\napiVersion: rosey.dev/v1\n";
    let output = rosey(&["validate"], &broken, &[]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(out(&output), @r#"
    <stdin>:5: spec.environment: must be text, not true; put what stands there in quotes
    <stdin>:8: spec.bot.health.port: 70000 is out of range; write a number from 1 to 65535
    <stdin>:10: spec.alerts.packs[1]: "Bots" is none of Bot, Storage, Deployments
    <stdin>:11: spec.alerts.interval: must be text, and "5" is not a duration; write hours, minutes and seconds such as 30s, 5m or 1h30m
    <stdin>:17: apiVersion: "rosey.dev/v1" is not served; write rosey.dev/v1alpha1
    "#);
    assert_eq!(
        err(&output),
        "<stdin>:13: Service passed by; only RoseyMonitors are read\n"
    );
}

#[test]
fn problems_as_json_are_for_programs() {
    let output = rosey(&["validate", "-o", "json"], &MINIMAL.replace("prod", "''"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["valid"], false);
    assert_eq!(report["problems"][0]["line"], 5);
    assert_eq!(report["problems"][0]["field"], "spec.environment");
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let output = rosey(
        &["validate"],
        &format!("{MINIMAL}  paused: true\n  paused: false\n"),
        &[],
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(out(&output), "<stdin>:8: the key paused stands here twice\n");
}

#[test]
fn what_holds_no_monitor_and_what_cannot_be_read_is_an_error() {
    for (arguments, input, said) in [
        (&["validate"][..], "kind: Service\napiVersion: v1\n", "no RoseyMonitor"),
        (&["render"], "", "no RoseyMonitor"),
        (&["render", "/nowhere.yaml"], "", "/nowhere.yaml: "),
        (&["render", "--platform", "/nowhere.yaml"], MINIMAL, "/nowhere.yaml: "),
        (
            &["render"],
            &MINIMAL.replace("environment", "enviroment"),
            "did you mean environment?",
        ),
    ] {
        let output = rosey(arguments, input, &[]);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(err(&output).contains(said), "{arguments:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{arguments:?}");
    }
}

#[test]
fn wrong_usage_is_told_from_refusal_by_its_exit_code() {
    for arguments in [
        &["valitade"][..],
        &["render", "-o", "xml"],
        &["record", "deployment", "rosey", "--status", "maybe", "--duration", "1s"],
        &["record", "rollback", "rosey", "--duration", "soon"],
        &["send-alert", "--title", "t", "--message", " "],
        &["send-alert", "--title", "t", "--message", "m", "--slack", "--discord"],
    ] {
        assert_eq!(rosey(arguments, "", &[]).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_platform_file_is_read_and_its_mistakes_are_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let platform = file.path().to_str().unwrap();
    std::fs::write(
        file.path(),
        "prometheusOperator: 0.93.1\ndefaultObjectLabels: {release: kps}\n",
    )
    .unwrap();
    assert_eq!(
        rosey(&["render", "--platform", platform], MINIMAL, &[]).status.code(),
        Some(0)
    );
    std::fs::write(file.path(), "prometheus: 3\n").unwrap();
    let output = rosey(&["render", "--platform", platform], MINIMAL, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("prometheus"), "{}", err(&output));
}

#[test]
fn the_same_monitor_is_rendered_to_the_same_bytes_in_yaml_and_to_the_same_objects_in_json() {
    let first = rosey(&["render", "-n", "bots"], MINIMAL, &[]);
    assert_eq!(first.status.code(), Some(0), "{}", err(&first));
    assert_eq!(first.stdout, rosey(&["render", "-n", "bots"], MINIMAL, &[]).stdout);
    let list: Value =
        serde_json::from_slice(&rosey(&["render", "-n", "bots", "-o", "json"], MINIMAL, &[]).stdout).unwrap();
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&Value::from("List"), &Value::from("v1"))
    );
    let documents: Vec<Value> = serde_saphyr::from_multiple(&out(&first)).unwrap();
    assert_eq!(list["items"], Value::from(documents));
}

/// Answers one request with a status, and hands back its path, headers and body.
fn receiver(status: &'static str) -> (String, JoinHandle<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hooks/t0ken-of-the-channel", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = request(&mut stream);
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        request
    });
    (url, thread)
}

fn request(stream: &mut TcpStream) -> (String, Value) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "the request ended early: {}", String::from_utf8_lossy(&bytes));
        bytes.extend(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(usize::MAX) {
            return (
                head.lines().next().unwrap().to_owned(),
                serde_json::from_str(body).unwrap(),
            );
        }
    }
}

const ALERT: [&str; 7] = [
    "send-alert",
    "--severity",
    "critical",
    "--title",
    "Bot down",
    "--message",
    "@everyone Production bot crashed",
];

#[test]
fn an_alert_goes_to_every_channel_of_the_environment() {
    let (discord, discord_got) = receiver("204 No Content");
    let (slack, slack_got) = receiver("200 OK");
    let output = rosey(
        &ALERT,
        "",
        &[("DISCORD_WEBHOOK_URL", &discord), ("SLACK_WEBHOOK_URL", &slack)],
    );
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(
        out(&output),
        "✓ discord: sent\n✓ slack: sent\n✗ webhook: ALERT_WEBHOOK_URL is not set\n✗ email: ALERT_EMAIL is not set\n"
    );
    let (line, body) = discord_got.join().unwrap();
    assert_eq!(line, "POST /hooks/t0ken-of-the-channel HTTP/1.1");
    let embed = &body["embeds"][0];
    assert_eq!(embed["title"], "🚨 Bot down");
    assert_eq!(embed["description"], "@everyone Production bot crashed");
    assert_eq!(embed["color"], 0xFF_00_00);
    assert_eq!(embed["fields"][0]["value"], "CRITICAL");
    assert_eq!(body["allowed_mentions"]["parse"], Value::Array(vec![]));
    let (_, body) = slack_got.join().unwrap();
    assert_eq!(body["attachments"][0]["color"], "danger");
    assert_eq!(body["text"], ":rotating_light: *Bot down*");
}

#[test]
fn one_kind_alone_can_be_asked_for() {
    let (slack, got) = receiver("200 OK");
    let output = rosey(
        &[&ALERT[..], &["--slack"]].concat(),
        "",
        &[
            ("SLACK_WEBHOOK_URL", &slack),
            ("DISCORD_WEBHOOK_URL", "http://127.0.0.1:1/"),
        ],
    );
    assert_eq!(
        (output.status.code(), out(&output).as_str()),
        (Some(0), "✓ slack: sent\n")
    );
    got.join().unwrap();
}

#[test]
fn nothing_sent_is_a_failure_and_no_url_is_told() {
    let (refusing, got) = receiver("404 Not Found");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{closed}/hooks/t0ken-of-the-channel");
    let output = rosey(
        &ALERT,
        "",
        &[("DISCORD_WEBHOOK_URL", &refusing), ("SLACK_WEBHOOK_URL", &nobody)],
    );
    assert_eq!(output.status.code(), Some(1));
    got.join().unwrap();
    let said = out(&output) + &err(&output);
    assert!(said.contains("✗ discord: refused with HTTP status 404"), "{said}");
    assert!(said.contains("✗ slack: "), "{said}");
    assert!(!said.contains("t0ken") && !said.contains("hooks"), "{said}");
    assert_eq!(rosey(&ALERT, "", &[]).status.code(), Some(1));
}

#[test]
fn a_channel_that_does_not_answer_is_given_up_after_five_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let begun = Instant::now();
    let output = rosey(&ALERT, "", &[("DISCORD_WEBHOOK_URL", &url)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        out(&output).contains("✗ discord: no answer within 5 s"),
        "{}",
        out(&output)
    );
    assert!(begun.elapsed() >= Duration::from_secs(5));
}

/// Takes one letter as an SMTP server without TLS does, and hands back what was said to it.
fn post_office() -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
        let (mut stream, mut heard, mut letter) = (stream, String::new(), false);
        stream.write_all(b"220 post office\r\n").unwrap();
        loop {
            let mut line = String::new();
            if std::io::BufRead::read_line(&mut reader, &mut line).unwrap() == 0 {
                return heard;
            }
            heard += &line;
            let answer = match (letter, line.trim_end()) {
                (true, ".") => "250 taken",
                (true, _) => continue,
                (false, "DATA") => "354 go on",
                (false, "QUIT") => "221 bye",
                (false, _) => "250 ok",
            };
            letter = answer.starts_with("354");
            stream.write_all(format!("{answer}\r\n").as_bytes()).unwrap();
        }
    });
    (port, thread)
}

#[test]
fn e_mail_goes_out_and_never_in_the_clear_unless_that_is_allowed() {
    let email = |port: u16, more: &[(&str, &str)]| {
        let port = port.to_string();
        let mut environment = vec![
            ("ALERT_EMAIL", "oncall@example.org"),
            ("SMTP_HOST", "127.0.0.1"),
            ("SMTP_PORT", port.as_str()),
        ];
        environment.extend(more);
        rosey(&[&ALERT[..], &["--email"]].concat(), "", &environment)
    };
    let (port, heard) = post_office();
    let output = email(
        port,
        &[("SMTP_REQUIRE_TLS", "false"), ("SMTP_FROM", "alerts@example.org")],
    );
    assert_eq!(
        (output.status.code(), out(&output).as_str()),
        (Some(0), "✓ email: sent\n")
    );
    let heard = heard.join().unwrap();
    for part in [
        "MAIL FROM:<alerts@example.org>",
        "RCPT TO:<oncall@example.org>",
        "Subject: [CRITICAL] Bot down",
        "Production bot crashed",
    ] {
        assert!(heard.contains(part), "{part}: {heard}");
    }

    let (port, heard) = post_office();
    let output = email(port, &[("SMTP_USERNAME", "u"), ("SMTP_PASSWORD", "s3cret")]);
    assert_eq!(output.status.code(), Some(1));
    let heard = heard.join().unwrap();
    assert!(!heard.contains("MAIL FROM") && !heard.contains("AUTH"), "{heard}");
    assert!(!(out(&output) + &err(&output)).contains("s3cret"));
}

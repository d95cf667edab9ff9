//! The exporter behind a web configuration file: what exporter-toolkit documents and tests of itself, seen from outside.

mod certificates;
mod client;
mod clients;
mod logins;
mod slow;
mod tls;

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;

use super::processes::{Exporter, Process, eventually};
use certificates::{Authority, Pair};
use client::{Client, Reply};

/// A folder with a web configuration file in it, and an authority that signs what is needed.
struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
    server: Pair,
}

/// The two lines without which there is no TLS.
const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

/// PEM text as the value of a field.
fn indented(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        out = out + "    " + line + "\n";
    }
    out
}

impl Site {
    /// One whose file says this.
    fn new(text: &str) -> Self {
        let authority = Authority::new("authority");
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
            server: authority.issue(&["localhost"]),
            authority,
        };
        site.put("server.crt", &site.server.cert);
        site.put("server.key", &site.server.key);
        site.put("authority.crt", &site.authority.pem());
        site.says(text);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file at once, as an editor or a kubelet does.
    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn says(&self, text: &str) {
        self.put("web.yml", text);
    }

    /// The same, and waits until an exporter has read it; what that says about it.
    fn says_to(&self, exporter: &Exporter, text: &str) -> String {
        if std::fs::read_to_string(self.path("web.yml")).is_ok_and(|before| before == text) {
            return String::new();
        }
        self.says(text);
        Self::is_read_by(exporter)
    }

    /// Waits until an exporter has read what a file says that was just changed; what it says about that. A request does not wait
    /// longer than 200 ms for the file system, which may be too short on a busy machine.
    fn is_read_by(exporter: &Exporter) -> String {
        let verdict = |line: &str| line.contains("read the web configuration") || line.contains("until this is mended");
        eventually("the file is read", || {
            // The first byte of a connection makes it look, and no request is counted that somebody limits.
            TcpStream::connect(&exporter.address).unwrap().write_all(b"x").unwrap();
            exporter.process.line_so_far(verdict)
        })
    }

    fn flag(&self) -> String {
        format!("--web.config.file={}", self.path("web.yml").display())
    }

    fn exporter(&self) -> Exporter {
        Exporter::start(&["--health-port", "1", &self.flag()], &[])
    }

    /// A client that trusts the authority.
    fn client(&self) -> Client {
        Client::trusting(&self.authority)
    }
}

#[test]
fn nothing_is_served_before_the_file_was_read_once() {
    let site = Site::new("basic_auth_users: {alice: not-a-hash}");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let port = free.port().to_string();
    let arguments = ["--listen", "127.0.0.1", "--port", &port, "--health-port", "1"];
    let variables = [("ROSEY_WEB_CONFIG_FILE", site.path("web.yml").display().to_string())];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let process = Process::start(env!("CARGO_BIN_EXE_rosey-exporter"), &arguments, &variables);
    let line = process.line_with("nothing is served until this is mended");
    assert!(line.contains("basic_auth_users.alice: is not a bcrypt hash"), "{line}");
    assert!(std::net::TcpStream::connect(free).is_err());

    site.says("");
    process.line_with("listening on http://");
    let exporter = Exporter {
        process,
        address: free.to_string(),
    };
    // An empty file is a good one that asks for nothing.
    let page = eventually("the file was just read", || {
        let page = exporter.scrape();
        let successful = page.value("rosey_exporter_web_config_last_reload_successful");
        (successful == Some(1.0)).then_some(page)
    });
    page.is_accepted_by_promtool();
}

#[test]
fn a_file_whose_name_is_no_text_is_a_file_that_is_not_there() {
    let named = "export ROSEY_WEB_CONFIG_FILE=\"$(printf '/etc/\\377')\"; exec \"$0\" \"$@\"";
    let exporter = env!("CARGO_BIN_EXE_rosey-exporter");
    let arguments = ["-c", named, exporter, "--listen", "127.0.0.1", "--port", "0"];
    let process = Process::start("/bin/sh", &arguments, &[]);
    let line = process.line_with("nothing is served until this is mended");
    assert!(line.contains("is not there"), "{line}");
}

#[test]
fn the_file_is_read_below_the_root_and_beside_a_configuration() {
    let site = Site::new(TLS);
    site.put("exporter.yaml", "environment: prod");
    let root = format!("--path.rootfs={}", site.folder.path().display());
    let arguments = ["--config", "/exporter.yaml", "--web.config.file", "/web.yml", &root];
    let exporter = Exporter::start(&arguments, &[]);
    let reply = site.client().get(&exporter, "/metrics").unwrap();
    assert_eq!(reply.status, 200);
    // Without the flag there is nothing to say about it.
    let plain = Exporter::start(&["--health-port", "1"], &[]).scrape();
    assert_eq!(plain.value("rosey_exporter_web_config_last_reload_successful"), None);
}

#[test]
fn every_answer_carries_the_headers_of_the_file() {
    let site = Site::new(
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    X-XSS-Protection: 1\n    X-Content-Type-Options: nosniff\n    \
         Strict-Transport-Security: max-age=31536000; includeSubDomains\n    Content-Security-Policy: \"default-src 'self'\"\n",
    );
    let exporter = site.exporter();
    for path in ["/metrics", "/", "/nowhere"] {
        let answer = exporter.get(path);
        for (header, value) in [
            ("x-frame-options", "deny"),
            ("x-xss-protection", "1"),
            ("x-content-type-options", "nosniff"),
            ("strict-transport-security", "max-age=31536000; includeSubDomains"),
            ("content-security-policy", "default-src 'self'"),
        ] {
            assert_eq!(answer.header(header), Some(value), "{path} {header}");
        }
    }
    // What is blank is not set.
    site.says_to(
        &exporter,
        "http_server_config: {headers: {X-Frame-Options: sameorigin, Content-Security-Policy: ''}}",
    );
    let answer = exporter.get("/");
    assert_eq!(answer.header("x-frame-options"), Some("sameorigin"));
    for header in ["x-xss-protection", "content-security-policy"] {
        assert_eq!(answer.header(header), None, "{header}");
    }
    site.says_to(&exporter, "http_server_config: {headers: {X-Frame-Options: both}}");
    assert_eq!(exporter.get("/").status, 500);
}

#[test]
fn whoever_asks_too_often_is_told_so() {
    let site = Site::new("rate_limit: {interval: 0, burst: 0}");
    let exporter = site.exporter();
    let statuses = |number| (0..number).map(|_| exporter.get("/ready").status).collect::<Vec<_>>();
    assert_eq!(statuses(10), [200; 10]);
    site.says_to(&exporter, "rate_limit: {interval: 1h, burst: 2}");
    assert_eq!(statuses(4), [200, 200, 429, 429]);
    site.says_to(&exporter, "rate_limit: {interval: 1s, burst: 0}");
    assert_eq!(statuses(1), [429]);
    site.says_to(&exporter, "rate_limit: {interval: 1ms, burst: 1}");
    assert_eq!(statuses(1), [200]);
}

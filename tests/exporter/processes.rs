//! The real binaries as processes, and what a client sees of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far more than anything here takes on a slow machine, a scrape of fifteen seconds among it; less than the minute and more that an
/// exporter gives a source or a request, which a test must not sit out.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// A started binary; it ends with this value.
pub struct Process {
    child: Child,
    lines: Mutex<Receiver<String>>,
}

impl Process {
    pub fn start(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            child,
            lines: Mutex::new(lines),
        }
    }

    /// The next line of the output with `part` in it.
    pub fn line_with(&self, part: &str) -> String {
        self.lines_until(part).pop().unwrap()
    }

    /// The first line of the output until now that is `wanted`, without waiting for more.
    pub fn line_so_far(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.lines.lock().unwrap().try_iter().find(|line| wanted(line))
    }

    /// The next lines of the output, up to one with `part` in it.
    pub fn lines_until(&self, part: &str) -> Vec<String> {
        let start = Instant::now();
        let (lines, mut found) = (self.lines.lock().unwrap(), Vec::new());
        while let Ok(line) = lines.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
            let last = line.contains(part);
            found.push(line);
            if last {
                return found;
            }
        }
        panic!("no line with {part:?} in: {found:#?}");
    }

    /// A field of what the kernel says about the process, in KiB.
    pub fn memory(&self, field: &str) -> u64 {
        memory(self.child.id(), field).unwrap()
    }

    /// Watches its anonymous memory from now on. The kernel's own peak has the pages of files in it, which can be given back.
    pub fn peak(&self) -> Peak {
        let (process, over) = (self.child.id(), Arc::new(AtomicBool::new(false)));
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            loop {
                let last = ends.load(Ordering::Relaxed);
                most = memory(process, "RssAnon").map_or(most, |now| most.max(now));
                if last {
                    return most;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Peak { over, thread }
    }

    pub fn terminate(&mut self) -> Duration {
        let start = Instant::now();
        assert!(
            Command::new("kill")
                .arg(self.child.id().to_string())
                .status()
                .unwrap()
                .success()
        );
        assert!(self.child.wait().unwrap().success());
        start.elapsed()
    }
}

/// A field of what the kernel says about a process, in KiB.
fn memory(process: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line?.trim().trim_end_matches(" kB").parse().ok()
}

/// How much memory a process takes while it is watched.
pub struct Peak {
    over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Peak {
    /// The most that it took, in KiB.
    pub fn most(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let most = self.thread.join().unwrap();
        assert!(most > 0, "the process has ended");
        most
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct FakeBot {
    _process: Process,
    pub port: u16,
    control: String,
}

impl FakeBot {
    pub fn start(arguments: &[&str]) -> Self {
        let arguments = [&["--port", "0", "--control-port", "0"], arguments].concat();
        let process = Process::start(env!("CARGO_BIN_EXE_fake-bot"), &arguments, &[]);
        let line = process.line_with("bot on http://");
        let mut addresses = line
            .split("http://")
            .skip(1)
            .map(|rest| rest.split([' ', '/']).next().unwrap());
        let port = addresses.next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        let control = addresses.next().unwrap().to_owned();
        Self {
            _process: process,
            port,
            control,
        }
    }

    pub fn set(&self, change: &str) {
        let answer = request(&self.control, "POST", "/control", &[], change);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    pub fn breaks(&self, fault: &str) {
        self.set(&format!("{{\"fault\": \"{fault}\"}}"));
    }

    pub fn recovers(&self) {
        assert_eq!(request(&self.control, "POST", "/control/recover", &[], "").status, 200);
    }

    /// What its control says.
    pub fn state(&self) -> serde_json::Value {
        serde_json::from_str(&request(&self.control, "GET", "/control", &[], "").body).unwrap()
    }

    /// How often its health was asked for.
    pub fn health_reads(&self) -> u64 {
        self.state()["health_reads"].as_u64().unwrap()
    }
}

pub struct Exporter {
    pub process: Process,
    pub address: String,
}

impl Exporter {
    pub fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let arguments = [&["--listen", "127.0.0.1", "--port", "0"], arguments].concat();
        let process = Process::start(env!("CARGO_BIN_EXE_rosey-exporter"), &arguments, variables);
        let address = listening(&process);
        Self { process, address }
    }

    pub fn get(&self, path: &str) -> Answer {
        request(&self.address, "GET", path, &[], "")
    }

    pub fn scrape(&self) -> Page {
        self.scrape_within(10.0)
    }

    /// Has it look at its configuration again: one look serves for a tenth of a second.
    pub fn look_again(&self) {
        std::thread::sleep(Duration::from_millis(110));
        self.get("/ready");
    }

    /// A scrape as Prometheus makes it, with its deadline in seconds.
    pub fn scrape_within(&self, seconds: f64) -> Page {
        let limit = seconds.to_string();
        let answer = request(
            &self.address,
            "GET",
            "/metrics",
            &[("X-Prometheus-Scrape-Timeout-Seconds", &limit)],
            "",
        );
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        Page(answer.body)
    }

    pub fn post(&self, path: &str, kind: &str, body: &str) -> Answer {
        request(&self.address, "POST", path, &[("Content-Type", kind)], body)
    }
}

/// The address that an exporter says it listens on.
pub fn listening(process: &Process) -> String {
    process
        .line_with("listening on http")
        .rsplit("://")
        .next()
        .unwrap()
        .trim()
        .to_owned()
}

/// What a scraper sees.
#[derive(Debug)]
pub struct Page(pub String);

impl Page {
    pub fn value(&self, series: &str) -> Option<f64> {
        let line = self
            .0
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    /// The series whose name starts with `prefix`, without values.
    pub fn series(&self, prefix: &str) -> Vec<&str> {
        self.0
            .lines()
            .filter(|line| line.starts_with(prefix))
            .map(|line| line.rsplit_once(' ').unwrap().0)
            .collect()
    }

    /// Passes when promtool takes the page, whatever it thinks of the names.
    pub fn is_accepted_by_promtool(&self) {
        let promtool = tool("promtool");
        let mut child = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{promtool}: {error}; run: make tools"));
        child.stdin.take().unwrap().write_all(self.0.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        // 3 stands for opinions about names, which are older than this project.
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "{:?}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.0
        );
    }
}

/// The path of one of the real components.
pub fn tool(name: &str) -> String {
    let build = format!("{}/tools/build", env!("CARGO_MANIFEST_DIR"));
    let path = Command::new(build).arg("path").output().unwrap();
    format!("{}/{name}", String::from_utf8(path.stdout).unwrap().trim())
}

pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let matches = |line: &&str| {
            line.split(':')
                .next()
                .is_some_and(|found| found.eq_ignore_ascii_case(name))
        };
        self.headers
            .lines()
            .find(matches)?
            .split_once(": ")
            .map(|(_, value)| value.trim())
    }
}

pub fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect::<Vec<_>>()
        .concat();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (headers, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!headers.to_ascii_lowercase().contains("transfer-encoding"), "{headers}");
    let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        headers: headers.to_owned(),
        body: body.to_owned(),
    }
}

/// Head, in lower case, and body of an answer in HTTP/1.0, which knows no chunks.
pub fn get_bytes(address: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n{headers}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    (head, answer[end + 4..].to_vec())
}

/// A server that answers each connection with the same bytes and closes it; its port.
pub fn answers_always(answer: impl Into<Vec<u8>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = answer.into();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(&answer);
        }
    });
    port
}

/// Waits until `done`, for a while that only a broken exporter needs.
pub fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

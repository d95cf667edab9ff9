//! Child processes that never outlive the lab, each with its output in a log file.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process_group};
use tokio::sync::watch;

/// Kills every process group it was told of, and removes the lab's folder, once its standard input closes: that is
/// when the lab's own process is gone, however it went (Ctrl-C, an abort, SIGKILL).
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
while read -r op id; do
  case $op in
    +) eval "group_$id=1" ;;
    -) unset "group_$id" ;;
    quit) exit 0 ;;
  esac
done
for id in $(set | sed -n 's/^group_\([0-9][0-9]*\)=.*/\1/p'); do kill -s KILL -- "-$id" 2>/dev/null; done
[ -z "$1" ] || { sleep 0.2; rm -rf -- "$1"; }
"#;

/// Starts processes, each in a process group of its own, and ends them all when it is shut down.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

struct Shared {
    running: Mutex<Running>,
    all_gone: Condvar,
}

struct Running {
    closed: bool,
    groups: HashMap<i32, String>,
    watchdog: Option<(Child, ChildStdin)>,
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn tell_watchdog(&mut self, line: &str) {
        if let Some((_, stdin)) = &mut self.watchdog {
            // A watchdog that was killed by hand costs the safety net only; the lab itself goes on.
            let _ = writeln!(stdin, "{line}");
        }
    }
}

impl Supervisor {
    /// `folder` is removed by the watchdog if this process dies without shutting down; `None` keeps everything.
    ///
    /// # Errors
    /// When the watchdog can't be started.
    pub fn start(folder: Option<&Path>) -> Result<Self> {
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "rosey-lab-watchdog"])
            .arg(folder.map_or_else(Default::default, Path::as_os_str))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the lab's watchdog (sh)")?;
        let stdin = watchdog.stdin.take().context("the watchdog has no standard input")?;
        let running = Running {
            closed: false,
            groups: HashMap::new(),
            watchdog: Some((watchdog, stdin)),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                running: Mutex::new(running),
                all_gone: Condvar::new(),
            }),
        })
    }

    /// Starts `command` with both its outputs appended to `log`.
    ///
    /// # Errors
    /// When it can't be started, or everything is being shut down.
    pub fn spawn(&self, name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0);

        let mut running = self.shared.running();
        if running.closed {
            bail!("the lab is shutting down; {name} was not started");
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().display()))?;
        let id = child.id().cast_signed();
        running.groups.insert(id, name.to_owned());
        running.tell_watchdog(&format!("+ {id}"));
        drop(running);

        let (ended, exit) = watch::channel(None);
        let shared = self.shared.clone();
        // A thread of its own waits for it: reaping must not depend on a runtime that may be gone before the process is.
        std::thread::Builder::new()
            .name(format!("wait {name}"))
            .stack_size(64 * 1024)
            .spawn(move || {
                let status = child.wait();
                // What it started and left behind goes with it.
                if let Some(pid) = Pid::from_raw(id) {
                    let _ = kill_process_group(pid, Signal::KILL);
                }
                let mut running = shared.running();
                running.groups.remove(&id);
                running.tell_watchdog(&format!("- {id}"));
                drop(running);
                shared.all_gone.notify_all();
                ended.send_replace(status.ok());
            })?;
        Ok(Process {
            name: name.to_owned(),
            id,
            log: log.to_owned(),
            exit,
        })
    }

    /// Kills what still runs and waits until it is gone. Nothing can be started afterwards.
    pub fn shut_down(&self) {
        let mut running = self.shared.running();
        running.closed = true;
        for id in running.groups.keys() {
            if let Some(pid) = Pid::from_raw(*id) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
        }
        let (mut running, waited) = self
            .shared
            .all_gone
            .wait_timeout_while(running, Duration::from_secs(10), |running| !running.groups.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            // The watchdog stays and tries again once we are gone.
            eprintln!("lab: still running after SIGKILL: {:?}", running.groups);
            return;
        }
        running.tell_watchdog("quit");
        if let Some((mut watchdog, stdin)) = running.watchdog.take() {
            drop(stdin);
            let _ = watchdog.wait();
        }
    }
}

/// A process of the lab. Clones speak of the same process; it ends with the lab at the latest.
#[derive(Clone, Debug)]
pub struct Process {
    name: String,
    id: i32,
    log: PathBuf,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// The name it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, for reading `/proc/<id>`.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id.cast_unsigned()
    }

    /// The file that both its outputs go to.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// What it wrote so far, both outputs together.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// True until it has ended and was reaped.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.exit.borrow().is_none() && self.exit.has_changed().is_ok()
    }

    /// Sends a signal to the process and what it started.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            bail!("{} has ended already{}", self.name, self.log_tail());
        }
        let pid = Pid::from_raw(self.id).context("a process id is never 0")?;
        kill_process_group(pid, signal).with_context(|| format!("send {signal:?} to {}", self.name))
    }

    /// SIGTERM: asks it to end.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGKILL: ends it without a chance to clean up.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// SIGSTOP: freezes it, as a node that hangs would.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: goes on after [`Process::pause`].
    ///
    /// # Errors
    /// When it has ended already.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits for its end, however long that takes.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `within`; the message ends with the tail of its log.
    pub async fn exited(&self, within: Duration) -> Result<ExitStatus> {
        match tokio::time::timeout(within, self.ended()).await {
            Ok(Some(status)) => Ok(status),
            Ok(None) => bail!("the exit status of {} is unknown", self.name),
            Err(_) => bail!("{} still runs after {within:?}{}", self.name, self.log_tail()),
        }
    }

    /// The outcome of `work`, or an error as soon as the process ends without having been asked to.
    pub(crate) async fn while_running<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            outcome = work => outcome,
            _ = self.ended() => bail!("{} has ended{}", self.name, self.log_tail()),
        }
    }

    /// The last lines of its log, ready to stand at the end of an error message.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n  ");
        format!("\n  {tail}\n  (all of it: {})", self.log.display())
    }
}

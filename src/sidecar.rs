//! What the exporter and whoever configures it agree on: names, and the shape of the configuration file.
//!
//! A leaf: it knows serde and nothing else of the house, so the exporter stays free of Kubernetes.

pub mod config;

pub use config::Config;

/// Name of the container that the injector adds to a bot's pod.
pub const CONTAINER: &str = "rosey-exporter";
/// Name of the container's port; the `PodMonitor` scrapes by it.
pub const PORT_NAME: &str = "rosey-metrics";
/// Default port of the exporter.
pub const DEFAULT_PORT: u16 = 9100;
/// Name of the volume that carries the configuration into the pod.
pub const CONFIG_VOLUME: &str = "rosey-exporter-config";
/// Folder at which the configuration volume is mounted.
pub const CONFIG_DIR: &str = "/etc/rosey";
/// Key of the `ConfigMap`, and so the file's name in [`CONFIG_DIR`].
pub const CONFIG_FILE: &str = "exporter.yaml";
/// Folder below which each volume of the pod that a source names is mounted, read-only, under the volume's name.
pub const VOLUMES_DIR: &str = "/var/lib/rosey/volumes";
/// Environment variable with the address to listen on (an IP); for pods with host network and for the lab.
pub const ENV_LISTEN: &str = "ROSEY_LISTEN";
/// Environment variable with the host at which the bot answers; default `127.0.0.1`.
pub const ENV_BOT_HOST: &str = "ROSEY_BOT_HOST";
/// Environment variable with a folder that every absolute path is read below, as `--path.rootfs` of other exporters.
pub const ENV_ROOTFS: &str = "ROSEY_ROOTFS";
/// Name of the volume with the Secret of the web configuration file.
pub const WEB_VOLUME: &str = "rosey-exporter-web";
/// Folder at which that Secret is mounted.
pub const WEB_DIR: &str = "/etc/rosey-web";
/// Flag of the exporter with the path of its web configuration file, as of every exporter of the Prometheus project.
pub const WEB_FLAG: &str = "--web.config.file";
/// Name of the volume with the Pushgateway's password.
pub const PUSH_VOLUME: &str = "rosey-exporter-push";
/// Folder at which that password is mounted.
pub const PUSH_DIR: &str = "/etc/rosey-push";
/// Name of the password's file in [`PUSH_DIR`].
pub const PUSH_PASSWORD: &str = "password";
/// Name of the volume with what outlives the exporter's process.
pub const STATE_VOLUME: &str = "rosey-exporter-state";
/// Folder at which that volume is mounted.
pub const STATE_DIR: &str = "/var/lib/rosey/state";

//! A container's environment and command line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::{Container, EnvVarSource, ObjectFieldSelector, Pod};

use super::Objects;
use super::image::Image;

/// What a container's environment can ask for.
pub(crate) struct Surroundings<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ip: IpAddr,
    pub(crate) host_ip: IpAddr,
    pub(crate) objects: &'a Objects,
}

impl Surroundings<'_> {
    /// The command that stands for `container`, ready to be started, with `root` as its root folder.
    ///
    /// # Errors
    /// When the environment needs a Secret, a `ConfigMap` or a key that is missing, or there is nothing to run.
    pub(crate) fn command(&self, container: &Container, image: &Image, root: &Path) -> Result<Command> {
        let mut env = self.env(container)?;
        let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
            words.iter().flatten().map(|word| expand(word, &env)).collect()
        };
        let (mut words, args) = (expanded(&container.command), expanded(&container.args));
        if let Image::Binary(binary) = image {
            let binary = binary.display().to_string();
            let same_file = |word: &String| Path::new(word).file_name() == Path::new(&binary).file_name();
            match words.first_mut() {
                Some(first) if same_file(first) => *first = binary,
                Some(_) => {}
                None => words.push(binary),
            }
        }
        words.extend(args);
        let (program, args) = words.split_first().context("no command specified")?;

        // The lab's own variables win: a process must stay on its pod's address.
        let ip = self.pod_ip.to_string();
        for name in ["ROSEY_LISTEN", "ROSEY_BOT_HOST", "FAKE_BOT_LISTEN", "POD_IP"] {
            env.insert(name.to_owned(), ip.clone());
        }
        env.insert("ROSEY_ROOTFS".to_owned(), root.display().to_string());

        let mut command = Command::new(program);
        command.args(args).env_clear();
        for inherited in ["PATH", "HOME", "TMPDIR"] {
            command.envs(std::env::var_os(inherited).map(|value| (inherited, value)));
        }
        let folder = container
            .working_dir
            .as_deref()
            .map(|path| root.join(path.trim_start_matches('/')));
        command
            .envs(env)
            .current_dir(folder.filter(|folder| folder.is_dir()).as_deref().unwrap_or(root));
        Ok(command)
    }

    fn env(&self, container: &Container) -> Result<BTreeMap<String, String>> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut env = BTreeMap::new();
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let (what, optional, data) = if let Some(source) = &source.config_map_ref {
                (
                    format!("configmap {:?}", source.name),
                    source.optional,
                    self.objects.config_map(namespace, &source.name),
                )
            } else if let Some(source) = &source.secret_ref {
                (
                    format!("secret {:?}", source.name),
                    source.optional,
                    self.objects.secret(namespace, &source.name),
                )
            } else {
                continue;
            };
            match data {
                Some(data) => env.extend(
                    data.into_iter()
                        .map(|(key, value)| (format!("{prefix}{key}"), text(&value))),
                ),
                None if optional.unwrap_or_default() => {}
                None => bail!("{what} not found"),
            }
        }
        for variable in container.env.iter().flatten() {
            let value = match (&variable.value, &variable.value_from) {
                (Some(value), _) => Some(expand(value, &env)),
                (None, Some(source)) => self.value_from(source, container)?,
                (None, None) => Some(String::new()),
            };
            if let Some(value) = value {
                env.insert(variable.name.clone(), value);
            }
        }
        Ok(env)
    }

    fn value_from(&self, source: &EnvVarSource, container: &Container) -> Result<Option<String>> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(field) = &source.field_ref {
            return self.field(field).map(Some);
        }
        if let Some(field) = &source.resource_field_ref {
            let (list, name) = field
                .resource
                .split_once('.')
                .context("resourceFieldRef without a dot")?;
            let resources = container.resources.as_ref();
            let list = match list {
                "limits" => resources.and_then(|resources| resources.limits.as_ref()),
                _ => resources.and_then(|resources| resources.requests.as_ref()),
            };
            return Ok(list.and_then(|list| list.get(name)).map(|quantity| quantity.0.clone()));
        }
        let (what, key, optional, data) = if let Some(from) = &source.secret_key_ref {
            (
                format!("secret {:?}", from.name),
                &from.key,
                from.optional,
                self.objects.secret(namespace, &from.name),
            )
        } else if let Some(from) = &source.config_map_key_ref {
            (
                format!("configmap {:?}", from.name),
                &from.key,
                from.optional,
                self.objects.config_map(namespace, &from.name),
            )
        } else {
            bail!("an env source that the lab does not know");
        };
        let optional = optional.unwrap_or_default();
        match data.map(|mut data| data.remove(key)) {
            Some(Some(value)) => Ok(Some(text(&value))),
            _ if optional => Ok(None),
            Some(None) => bail!("couldn't find key {key} in {what}"),
            None => bail!("{what} not found"),
        }
    }

    fn field(&self, field: &ObjectFieldSelector) -> Result<String> {
        let meta = &self.pod.metadata;
        let spec = self.pod.spec.as_ref();
        let path = field.field_path.as_str();
        if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
            let map = match map {
                "metadata.labels" => meta.labels.as_ref(),
                "metadata.annotations" => meta.annotations.as_ref(),
                _ => return Err(anyhow!("fieldPath {path} is not supported")),
            };
            return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
        }
        let value = match path {
            "metadata.name" => meta.name.clone(),
            "metadata.namespace" => meta.namespace.clone(),
            "metadata.uid" => meta.uid.clone(),
            "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
            "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
            "status.podIP" | "status.podIPs" => Some(self.pod_ip.to_string()),
            "status.hostIP" | "status.hostIPs" => Some(self.host_ip.to_string()),
            _ => return Err(anyhow!("fieldPath {path} is not supported")),
        };
        Ok(value.unwrap_or_default())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Replaces `$(NAME)` where NAME is known; `$$(NAME)` stands for the literal text.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'))
            && let Some(value) = env.get(name)
        {
            out.push_str(value);
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let env = BTreeMap::from([("PORT".to_owned(), "8000".to_owned())]);
        assert_eq!(expand("--port=$(PORT)", &env), "--port=8000");
        assert_eq!(expand("$(UNKNOWN) $$(PORT) $5 $", &env), "$(UNKNOWN) $(PORT) $5 $");
    }
}

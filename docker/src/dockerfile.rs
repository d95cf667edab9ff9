//! The part of Docker's build language that an image of one static binary needs. Whatever else a file says is refused, so that Docker
//! and this crate can't read two different things in it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// What an image is made of, as a Dockerfile says it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dockerfile {
    pub(crate) copies: Vec<Copy>,
    /// `uid:gid`, both numbers: the kubelet can't tell whether a name is root.
    pub(crate) user: String,
    pub(crate) entrypoint: Vec<String>,
    /// TCP ports.
    pub(crate) ports: Vec<u16>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A file that goes into a layer of its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// The name in the folder that the image is made from.
    pub(crate) from: String,
    /// The absolute path in the image.
    pub(crate) to: String,
    pub(crate) mode: u32,
    /// The line itself, for the image's history.
    pub(crate) line: String,
}

impl Dockerfile {
    /// Reads a file; an error names the line and what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut file = Self::default();
        let mut based = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (instruction, rest) = line.split_once(' ').unwrap_or((line, ""));
            let at = || format!("line {number}: {line}");
            if !based {
                ensure!(
                    line == "FROM scratch",
                    "{}: the first instruction must be FROM scratch",
                    at()
                );
                based = true;
                continue;
            }
            file.instruction(instruction, rest.trim(), line).with_context(at)?;
        }
        ensure!(based, "there is no FROM scratch");
        ensure!(!file.copies.is_empty(), "there is no COPY, so the image would be empty");
        ensure!(
            !file.user.is_empty(),
            "there is no USER, so the image would run as root"
        );
        ensure!(!file.entrypoint.is_empty(), "there is no ENTRYPOINT");
        Ok(file)
    }

    fn instruction(&mut self, instruction: &str, rest: &str, line: &str) -> Result<()> {
        match instruction {
            "COPY" => self.copies.push(copy(rest, line)?),
            "LABEL" => {
                let (key, value) = rest.split_once('=').context("write LABEL key=\"value\"")?;
                let value = serde_json::from_str(value).context("write the value in double quotes")?;
                ensure!(self.labels.insert(key.into(), value).is_none(), "{key} is there twice");
            }
            "USER" => {
                let numbers: Option<Vec<u32>> = rest.split(':').map(|part| part.parse().ok()).collect();
                let Some([user, group]) = numbers.as_deref() else {
                    bail!("write USER with two numbers, such as USER 65532:65532")
                };
                ensure!(*user != 0, "the user must not be root");
                self.user = format!("{user}:{group}");
            }
            "EXPOSE" => self.ports.push(rest.parse().context("write one TCP port")?),
            "ENTRYPOINT" => {
                self.entrypoint = serde_json::from_str(rest).context("write it as a list: [\"/command\"]")?;
            }
            _ => bail!("write only FROM scratch, COPY, LABEL, USER, EXPOSE and ENTRYPOINT"),
        }
        Ok(())
    }
}

fn copy(rest: &str, line: &str) -> Result<Copy> {
    let words: Vec<_> = rest.split_whitespace().collect();
    let [mode, from, to] = words.as_slice() else {
        bail!("write COPY --chmod=0755 file /path/in/the/image")
    };
    // Without it a file would have the mode that somebody's umask left on it.
    let mode = mode.strip_prefix("--chmod=").context("begin with --chmod=0755")?;
    let mode = u32::from_str_radix(mode, 8).context("the mode is no octal number")?;
    let plain = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    ensure!(
        plain(from),
        "the file must be in the folder that the image is made from"
    );
    ensure!(
        to.strip_prefix('/').is_some_and(plain),
        "the path in the image must begin with / and end with a file's name"
    );
    Ok(Copy {
        from: (*from).into(),
        to: (*to).into(),
        mode,
        line: line.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "# A comment.\nFROM scratch\nLABEL a.title=\"A \\\"bot\\\"\"\nCOPY --chmod=0755 bot /usr/bin/bot\n\
                         USER 65532:65532\nEXPOSE 80\nENTRYPOINT [\"/usr/bin/bot\", \"run\"]\n";

    #[test]
    fn a_file_says_what_is_in_the_image() {
        let file = Dockerfile::parse(WHOLE).unwrap();
        assert_eq!(file.user, "65532:65532");
        assert_eq!(file.ports, [80]);
        assert_eq!(file.entrypoint, ["/usr/bin/bot", "run"]);
        assert_eq!(file.labels["a.title"], "A \"bot\"");
        let [copy] = file.copies.as_slice() else {
            panic!("{:?}", file.copies)
        };
        assert_eq!(
            (copy.from.as_str(), copy.to.as_str(), copy.mode),
            ("bot", "/usr/bin/bot", 0o755)
        );
    }

    #[test]
    fn what_docker_would_read_differently_is_refused_with_its_line() {
        for (was, becomes, word) in [
            ("FROM scratch", "FROM debian", "FROM scratch"),
            ("USER 65532:65532", "USER rosey", "two numbers"),
            ("USER 65532:65532", "USER 0:0", "root"),
            ("USER 65532:65532", "", "as root"),
            ("COPY --chmod=0755 ", "COPY ", "--chmod"),
            ("COPY --chmod=0755 bot", "COPY --chmod=0755 ../bot", "folder"),
            ("/usr/bin/bot\nUSER", "/usr/bin/\nUSER", "name"),
            ("EXPOSE 80", "EXPOSE 80/udp", "TCP"),
            ("EXPOSE 80", "RUN true", "only"),
            (
                "ENTRYPOINT [\"/usr/bin/bot\", \"run\"]",
                "ENTRYPOINT /usr/bin/bot",
                "list",
            ),
            ("\"A \\\"bot\\\"\"", "bot", "quotes"),
        ] {
            let text = WHOLE.replacen(was, becomes, 1);
            assert_ne!(text, WHOLE, "{was}");
            let error = format!("{:#}", Dockerfile::parse(&text).unwrap_err());
            assert!(error.contains(word), "{becomes}: {error}");
        }
    }

    #[test]
    fn the_repositorys_own_files_are_read() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut read = 0;
        for folder in [folder.to_owned(), folder.join("stack")] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "Dockerfile") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    Dockerfile::parse(&text).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
                    read += 1;
                }
            }
        }
        assert!(read >= 3, "{read} files");
    }
}

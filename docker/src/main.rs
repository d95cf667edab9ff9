//! Writes the images of this repository, and lists what is in them, without Docker. `make images` runs it.

mod archive;
mod dockerfile;
mod sbom;

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser};
use pem::{EncodeConfig, LineEnding, Pem};

use archive::Identity;
use dockerfile::Dockerfile;

/// Container images and what is in them.
#[derive(Parser)]
enum Command {
    /// Write an image as an archive; print the image's name, id and digest, and its size to standard error.
    Archive(Archive),
    /// Print the certificates that an image brings, in the PEM format.
    Certificates,
    /// Read a build's messages (`cargo build --message-format json`) from standard input and print its bill of materials.
    Sbom(Sbom),
}

#[derive(Args)]
struct Archive {
    /// What is in the image.
    #[arg(long)]
    dockerfile: PathBuf,
    /// The folder of the files that it copies.
    #[arg(long)]
    context: PathBuf,
    /// repository:tag
    #[arg(long)]
    name: String,
    /// A label over those of the file.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// The time of everything in it, in seconds since 1970.
    #[arg(long, env = "SOURCE_DATE_EPOCH")]
    epoch: u64,
    /// Fail if the files in it have more bytes than this; the archive is written all the same.
    #[arg(long)]
    at_most: Option<u64>,
    /// The file to write.
    #[arg(long)]
    output: PathBuf,
}

#[derive(Args)]
struct Sbom {
    /// The image's name.
    #[arg(long)]
    name: String,
    /// The feature that the binary is built with.
    #[arg(long)]
    feature: String,
    /// The target that it is built for.
    #[arg(long)]
    target: String,
    /// The image brings certificates.
    #[arg(long)]
    certificates: bool,
    /// The time that the document names, in seconds since 1970.
    #[arg(long, env = "SOURCE_DATE_EPOCH")]
    epoch: i64,
}

fn label(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').context("write key=value")?;
    Ok((key.into(), value.into()))
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Archive(arguments) => arguments.run(),
        Command::Certificates => {
            print!("{}", certificates());
            Ok(())
        }
        Command::Sbom(arguments) => arguments.run(),
    }
}

impl Archive {
    fn run(self) -> Result<()> {
        let file = self.dockerfile.display();
        let text = fs::read_to_string(&self.dockerfile).with_context(|| format!("{file} can't be read"))?;
        let parsed = Dockerfile::parse(&text).with_context(|| file.to_string())?;
        let identity = Identity {
            name: &self.name,
            labels: self.labels.into_iter().collect(),
            epoch: self.epoch,
            architecture: architecture(std::env::consts::ARCH)?,
        };
        let image = archive::image(&parsed, &self.context, &identity).with_context(|| file.to_string())?;
        fs::write(&self.output, &image.archive)
            .with_context(|| format!("{} can't be written", self.output.display()))?;
        println!("{} {} {}", self.name, image.id, image.digest);
        eprintln!(
            "{}: {} bytes unpacked, {} packed, in {}",
            self.name,
            image.unpacked,
            image.packed,
            self.output.display()
        );
        if let Some(most) = self.at_most {
            ensure!(
                image.unpacked <= most,
                "{} has {} bytes unpacked, more than {most}",
                self.name,
                image.unpacked
            );
        }
        Ok(())
    }
}

impl Sbom {
    fn run(self) -> Result<()> {
        let mut messages = String::new();
        io::stdin().read_to_string(&mut messages)?;
        let known = sbom::Known::read()?;
        let mut crates = known.built(&messages, &self.target)?;
        let tree = |edges| sbom::tree(&self.feature, &self.target, edges);
        sbom::complete(&mut crates, &tree(sbom::LINKED)?, &tree(sbom::ASKED_FOR)?)?;
        let mut others = sbom::toolchain()?;
        if self.certificates {
            others.push(known.data("webpki-root-certs")?);
        }
        let created = jiff::Timestamp::from_second(self.epoch)?.to_string();
        let document = known.document(&self.name, &crates, &others, &created)?;
        println!("{}", serde_json::to_string_pretty(&document)?);
        let linked = crates.values().filter(|linked| **linked).count();
        eprintln!(
            "{}: {linked} crates in the binary, {} more that only made it",
            self.name,
            crates.len() - linked
        );
        Ok(())
    }
}

/// Mozilla's roots for servers.
fn certificates() -> String {
    let unix = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    roots
        .map(|root| pem::encode_config(&Pem::new("CERTIFICATE", root.as_ref()), unix))
        .collect()
}

/// What OCI calls a processor that Rust calls `rust`.
fn architecture(rust: &str) -> Result<&'static str> {
    match rust {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("images are made for x86_64 and aarch64, not for {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificates_are_the_ones_that_are_pinned_in_a_form_that_others_read() {
        let text = certificates();
        let read = pem::parse_many(&text).unwrap();
        assert!(read.len() > 50 && read.len() == webpki_root_certs::TLS_SERVER_ROOT_CERTS.len());
        assert!(!text.contains('\r'), "what reads it expects Unix lines");
    }
}

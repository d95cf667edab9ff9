//! An archive is read back with the library that wrote it, and with nothing of ours.

use std::collections::BTreeMap;
use std::io::Read;

use super::*;

const FILE: &str = "FROM scratch\nLABEL title=\"a bot\"\nCOPY --chmod=0644 roots /etc/ssl/roots\nCOPY --chmod=0755 bot /bot\n\
                    USER 65532:65532\nEXPOSE 80\nENTRYPOINT [\"/bot\"]\n";

fn written(folder: &Path) -> Image {
    fs::write(folder.join("roots"), "R").unwrap();
    fs::write(folder.join("bot"), vec![7; 5000]).unwrap();
    let labels = BTreeMap::from([("revision".to_owned(), "abc".to_owned())]);
    let identity = Identity {
        name: "rosey/bot:1",
        labels,
        epoch: 1_000_000_000,
        architecture: "amd64",
    };
    image(&Dockerfile::parse(FILE).unwrap(), folder, &identity).unwrap()
}

/// Path, mode, owner, time and content of each entry.
fn entries(tar: &[u8]) -> Vec<(String, u32, u64, u64, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        (
            path,
            header.mode().unwrap(),
            header.uid().unwrap() + header.gid().unwrap(),
            header.mtime().unwrap(),
            content,
        )
    });
    entries.collect()
}

fn json(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Value {
    serde_json::from_slice(&files[path]).unwrap()
}

#[test]
fn every_blob_is_what_its_name_says_and_both_lists_lead_to_the_same_image() {
    let folder = tempfile::tempdir().unwrap();
    let image = written(folder.path());
    let files: BTreeMap<_, _> = entries(&image.archive)
        .into_iter()
        .map(|entry| (entry.0, entry.4))
        .collect();
    for (path, bytes) in files
        .iter()
        .filter(|(path, _)| path.starts_with("blobs/sha256/") && !path.ends_with('/'))
    {
        assert_eq!(format!("blobs/{}", sha256(bytes).replace(':', "/")), *path);
    }
    let manifest = &json(&files, "index.json")["manifests"][0];
    assert_eq!(manifest["digest"], image.digest);
    assert_eq!(
        manifest["annotations"]["io.containerd.image.name"],
        "docker.io/rosey/bot:1"
    );
    let blob = |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
    let manifest = json(&files, &blob(&manifest["digest"]));
    let docker = &json(&files, "manifest.json")[0];
    assert_eq!(docker["Config"], blob(&manifest["config"]["digest"]));
    assert_eq!(manifest["config"]["digest"], image.id);
    for (number, layer) in manifest["layers"].as_array().unwrap().iter().enumerate() {
        assert_eq!(docker["Layers"][number], blob(&layer["digest"]));
        assert_eq!(layer["size"], files[&blob(&layer["digest"])].len());
    }
    let config = json(&files, &blob(&manifest["config"]["digest"]));
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(
        config["config"]["Labels"],
        json!({"title": "a bot", "revision": "abc", "org.opencontainers.image.created": "2001-09-09T01:46:40Z"})
    );
    assert_eq!(image.unpacked, 5001);
}

#[test]
fn layers_unpack_to_the_files_with_the_modes_and_the_time_that_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let image = written(folder.path());
    let files: BTreeMap<_, _> = entries(&image.archive)
        .into_iter()
        .map(|entry| (entry.0, entry.4))
        .collect();
    let docker = json(&files, "manifest.json");
    let config = json(&files, docker[0]["Config"].as_str().unwrap());
    let mut seen = Vec::new();
    for (number, layer) in docker[0]["Layers"].as_array().unwrap().iter().enumerate() {
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&*files[layer.as_str().unwrap()])
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][number], sha256(&tar));
        for (path, mode, owner, time, content) in entries(&tar) {
            assert_eq!((owner, time), (0, 1_000_000_000), "{path}");
            seen.push((path, mode, content.len()));
        }
    }
    let expected = [
        ("etc/", 0o755, 0),
        ("etc/ssl/", 0o755, 0),
        ("etc/ssl/roots", 0o644, 1),
        ("bot", 0o755, 5000),
    ];
    assert_eq!(seen, expected.map(|(path, mode, size)| (path.to_owned(), mode, size)));
}

#[test]
fn the_same_files_in_another_folder_give_the_same_bytes() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(there.path().join("other"), "not copied").unwrap();
    assert_eq!(written(here.path()).archive, written(there.path()).archive);
}

#[test]
fn a_short_name_becomes_the_one_that_a_kubelet_asks_for() {
    for (name, long) in [
        ("bot:1", "docker.io/library/bot:1"),
        ("rosey/bot:1", "docker.io/rosey/bot:1"),
        ("localhost/bot:1", "localhost/bot:1"),
        ("images.example.org/rosey/bot:1", "images.example.org/rosey/bot:1"),
        ("images:5000/bot:1", "images:5000/bot:1"),
    ] {
        assert_eq!(long_name(name), long);
    }
}

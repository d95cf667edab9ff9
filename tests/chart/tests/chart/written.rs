//! What is written from the chart, and into it, is what would be written today.

use anyhow::{Context, Result, ensure};
use chart::{CHART, documents, file, lab_tool, manifests, objects, readme, said, text};

#[test]
fn the_readme_tells_todays_values() -> Result<()> {
    let written = text(&format!("{CHART}/README.md"))?;
    ensure!(written == readme::text_now()?, "run: make chart-readme");
    Ok(())
}

#[test]
fn the_charts_definition_is_the_repositorys() -> Result<()> {
    let name = "roseymonitors.rosey.dev.yaml";
    ensure!(
        text(&format!("{CHART}/files/crds/{name}"))? == text(&format!("crds/{name}"))?,
        "run: make crds"
    );
    // As rendered: apart from its labels and annotations, nothing is lost.
    let rendered = documents(&manifests::plain(None)?)?;
    let definition = crate::object(&rendered, "CustomResourceDefinition", "roseymonitors.rosey.dev");
    let original = &documents(&text(&format!("crds/{name}"))?)?[0];
    assert_eq!(definition["spec"], original["spec"]);
    // A client-side apply keeps a copy in an annotation, and all annotations together have at most 256 KiB.
    ensure!(definition.to_string().len() < 250_000);
    Ok(())
}

#[test]
fn the_plain_manifests_are_what_the_chart_renders() -> Result<()> {
    let made = manifests::all()?;
    for (path, now) in &made {
        let written = text(path).with_context(|| "run: make manifests")?;
        ensure!(
            &written == now,
            "{path} is not what the chart renders; run: make manifests"
        );
    }
    for folder in ["deploy/base", "deploy/overlays"] {
        let listed = said(
            std::process::Command::new("find")
                .arg(file(folder))
                .args(["-type", "f", "-printf", "%P\n"]),
        )?;
        for path in listed.lines() {
            ensure!(
                made.contains_key(&format!("{folder}/{path}")),
                "{folder}/{path} is made no longer"
            );
        }
    }
    Ok(())
}

#[test]
fn kustomize_makes_of_base_and_overlays_what_helm_makes_of_the_values() -> Result<()> {
    let build =
        |folder: &str| -> Result<_> { objects(&said(lab_tool("kubectl")?.arg("kustomize").arg(file(folder)))?) };
    for values in chart::value_files()? {
        let folder = values.as_deref().map_or("deploy/base".to_owned(), |values| {
            let name = values.rsplit('/').next().unwrap_or_default();
            format!("deploy/overlays/{}", name.trim_end_matches("-values.yaml"))
        });
        let mut made = build(&folder)?;
        let namespace = ("Namespace".to_owned(), String::new(), chart::NAMESPACE.to_owned());
        let namespace = made.remove(&namespace).context("no namespace")?;
        ensure!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted");
        let helm = objects(&manifests::plain(values.as_deref())?)?;
        let differing: Vec<_> = helm
            .iter()
            .filter(|(identity, object)| made.get(*identity) != Some(*object))
            .map(|(identity, _)| identity)
            .collect();
        ensure!(
            differing.is_empty(),
            "{folder}: {differing:?} differ from what Helm renders"
        );
        ensure!(
            made.len() == helm.len(),
            "{folder} has {} objects, Helm renders {}",
            made.len(),
            helm.len()
        );
    }
    Ok(())
}

#[test]
fn nothing_in_the_chart_differs_from_one_rendering_to_the_next_or_depends_on_the_cluster() -> Result<()> {
    let mut templates = 0;
    for folder in ["templates", "templates/tests"] {
        for path in chart::files(&format!("{CHART}/{folder}"), "")?
            .iter()
            .filter(|path| file(path).is_file())
        {
            let source = text(path)?;
            for word in [
                "lookup",
                "rand",
                "genCA",
                "genSelfSigned",
                "now |",
                "caBundle",
                "Capabilities",
                "uuidv4",
            ] {
                ensure!(!source.contains(word), "{path} has {word}");
            }
            // The only hook is helm test's.
            ensure!(
                folder == "templates/tests" || !source.contains("helm.sh/hook"),
                "{path} has a hook"
            );
            ensure!(source.matches("helm.sh/hook: ").count() == source.matches("helm.sh/hook: test\n").count());
            templates += 1;
        }
    }
    ensure!(templates > 8, "only {templates} templates were found");
    Ok(())
}

#[test]
fn the_charts_versions_are_the_products() -> Result<()> {
    let version = text("Cargo.toml")?
        .lines()
        .find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"').map(str::to_owned))
        .context("the product has no version")?;
    let chart = &documents(&text(&format!("{CHART}/Chart.yaml"))?)?[0];
    assert_eq!(chart["version"], version.as_str());
    assert_eq!(chart["appVersion"], version.as_str());
    let images = chart["annotations"]["artifacthub.io/images"]
        .as_str()
        .context("no images")?;
    let objects = crate::objects(None, &[])?;
    let deployment = crate::object(&objects, "Deployment", "rosey-operator");
    let image = deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
    ensure!(images.contains(image.context("no image")?), "{images} lacks {image:?}");
    let exporter = crate::arguments(&objects)
        .iter()
        .find_map(|argument| argument.strip_prefix("--exporter-image=").map(str::to_owned))
        .context("no exporter")?;
    ensure!(images.contains(&exporter), "{images} lacks {exporter}");
    Ok(())
}

//! Those who read the chart: both Helms, and the API server of every Kubernetes that it is for.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use chart::{CHART, Helm, file, rendered, said, specs, tool, value_files};

#[test]
fn helm_finds_nothing_to_complain_about() -> Result<()> {
    for helm in ["helm", "helm3"] {
        for values in value_files()? {
            let mut command = tool(helm)?;
            command.args(["lint", "--strict"]).arg(file(CHART));
            if let Some(values) = &values {
                command.arg("--values").arg(file(values));
            }
            said(&mut command)?;
        }
    }
    Ok(())
}

#[test]
fn helm_3_and_helm_4_render_the_same() -> Result<()> {
    for values in value_files()? {
        let values = values.as_deref();
        let [three, four] = [Helm::Three, Helm::Four].map(|helm| rendered(helm, values, &[]));
        // They may order objects of a kind differently.
        ensure!(
            chart::objects(&three?)? == chart::objects(&four?)?,
            "{values:?} are rendered differently"
        );
    }
    Ok(())
}

#[test]
fn the_chart_asks_for_the_oldest_kubernetes_that_it_is_checked_for() -> Result<()> {
    let oldest = specs::versions()?
        .into_keys()
        .map(|version| {
            version
                .split_once('.')
                .map(|(_, minor)| minor.to_owned())
                .unwrap_or_default()
        })
        .min()
        .context("no version")?;
    ensure!(chart::text(&format!("{CHART}/Chart.yaml"))?.contains(&format!("kubeVersion: \">=1.{oldest}.0-0\"")));
    let below = format!("1.{}.99", oldest.parse::<u32>()? - 1);
    let refused = rendered(Helm::Four, None, &["--kube-version", &below]);
    ensure!(refused.is_err(), "Kubernetes {below} is taken");
    Ok(())
}

#[test]
fn helm_unittest_finds_what_the_suites_say() -> Result<()> {
    let told = said(
        tool("helm-unittest")?
            .args(["--strict", "--file", "tests/*.yaml"])
            .arg(file(CHART)),
    )?;
    ensure!(told.contains("passed"), "{told}");
    Ok(())
}

#[test]
fn every_object_is_valid_for_every_kubernetes_that_the_chart_is_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let versions = specs::versions()?;
    let texts = value_files()?
        .iter()
        .map(|values| rendered(Helm::Four, values.as_deref(), &["--set", "exporter.updateInPlace=true"]))
        .collect::<Result<Vec<_>>>()?;
    let mut kinds = BTreeSet::new();
    for text in &texts {
        for object in chart::documents(text)? {
            let word = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
            kinds.insert((word("apiVersion"), word("kind")));
        }
    }
    let kinds: Vec<_> = kinds.into_iter().collect();
    let definitions = chart::built("tools/build", "crds")?;
    for (version, swagger) in &versions {
        let schemas = folder.path().join(version);
        std::fs::create_dir(&schemas)?;
        specs::write_kinds(swagger, &kinds, &schemas)?;
        for entry in std::fs::read_dir(&definitions)? {
            let text = std::fs::read_to_string(entry?.path())?;
            for definition in chart::documents(&text)? {
                specs::write_custom(&definition, &schemas)?;
            }
        }
        for (number, text) in texts.iter().enumerate() {
            let objects = schemas.join(format!("{number}.yaml"));
            std::fs::write(&objects, text)?;
            let template = format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", schemas.display());
            let told = said(
                tool("kubeconform")?
                    .args(["-summary", "-schema-location", &template])
                    .arg(&objects),
            )
            .with_context(|| {
                format!(
                    "Kubernetes {version}, {:?}",
                    value_files().ok().and_then(|all| all[number].clone())
                )
            })?;
            ensure!(told.contains("Invalid: 0, Errors: 0, Skipped: 0"), "{told}");
        }
        // The schemas are strict: a field that nobody knows is found.
        let wrong = schemas.join("wrong.yaml");
        std::fs::write(&wrong, texts[0].replace("replicas: 2", "replcas: 2"))?;
        let template = format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", schemas.display());
        let refused = said(tool("kubeconform")?.args(["-schema-location", &template]).arg(&wrong));
        ensure!(
            refused.is_err(),
            "Kubernetes {version} takes a field that it does not know"
        );
    }
    Ok(())
}

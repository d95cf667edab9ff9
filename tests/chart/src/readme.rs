//! The table of values in the chart's README: made from `values.yaml`, whose comments are its descriptions.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{CHART, file, text};

const BEGIN: &str = "<!-- values: written by `make chart-readme` -->\n";
const END: &str = "<!-- end of values -->\n";

/// One value that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its path, such as `image.tag`.
    pub key: String,
    /// What it is when nobody sets it, as JSON.
    pub default: String,
    /// What it does.
    pub description: String,
}

/// The values of a `values.yaml`: each key that stands below a comment, and every key below that without comment of its own.
///
/// # Errors
/// When it is no YAML, or a leaf has no comment.
pub fn rows(values: &str) -> Result<Vec<Row>> {
    let parsed: Value = serde_saphyr::from_str(values).map_err(|error| anyhow::anyhow!("{error}"))?;
    let (mut path, mut comment, mut rows) = (Vec::<(usize, String)>::new(), Vec::new(), Vec::<Row>::new());
    for line in values.lines() {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        if let Some(words) = bare.strip_prefix('#') {
            comment.push(words.trim().to_owned());
            continue;
        }
        let Some((key, _)) = bare.split_once(':').filter(|_| !bare.starts_with('-')) else {
            comment.clear();
            continue;
        };
        path.retain(|(above, _)| *above < indent);
        path.push((indent, key.to_owned()));
        let keys: Vec<&str> = path.iter().map(|(_, key)| key.as_str()).collect();
        let dotted = keys.join(".");
        let told = rows
            .last()
            .is_some_and(|row| dotted.starts_with(&format!("{}.", row.key)));
        let value = keys.iter().fold(&parsed, |value, key| &value[*key]);
        if !comment.is_empty() {
            rows.push(Row {
                key: dotted,
                default: value.to_string(),
                description: comment.join(" "),
            });
        } else if !told && !value.is_object() {
            anyhow::bail!("values.yaml: {dotted} has no comment that says what it does");
        }
        comment.clear();
    }
    ensure!(!rows.is_empty(), "values.yaml has no values");
    Ok(rows)
}

/// The README with the table of today's values.
///
/// # Errors
/// When a file can't be read, or the README lacks the marks between which the table stands.
pub fn text_now() -> Result<String> {
    let readme = text(&format!("{CHART}/README.md"))?;
    let (before, rest) = readme.split_once(BEGIN).context("README.md lacks its first mark")?;
    let (_, after) = rest.split_once(END).context("README.md lacks its last mark")?;
    let mut table = String::from("| value | default | what it does |\n|---|---|---|\n");
    for row in rows(&text(&format!("{CHART}/values.yaml"))?)? {
        let cell = |text: &str| text.replace('|', "\\|");
        writeln!(
            table,
            "| `{}` | `{}` | {} |",
            row.key,
            cell(&row.default),
            cell(&row.description)
        )?;
    }
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// Writes it.
///
/// # Errors
/// As [`text_now`], or when it can't be written.
pub fn write() -> Result<()> {
    let now = text_now()?;
    std::fs::write(file(&format!("{CHART}/README.md")), now).context("write the chart's README")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_becomes_the_row_of_the_key_below_it() {
        let values = "# Of the file.\n\n# A tag.\ntag: \"\"\nimage:\n  # A name.\n  name: a|b\n  # Sizes.\n  sizes:\n    small: 1\n";
        let row = |key: &str, default: &str, description: &str| Row {
            key: key.into(),
            default: default.into(),
            description: description.into(),
        };
        let expected = [
            row("tag", "\"\"", "A tag."),
            row("image.name", "\"a|b\"", "A name."),
            row("image.sizes", "{\"small\":1}", "Sizes."),
        ];
        assert_eq!(rows(values).map_err(|error| error.to_string()), Ok(expected.to_vec()));
        assert!(rows("image:\n  tag: 1\n").is_err(), "a value without a word");
    }
}

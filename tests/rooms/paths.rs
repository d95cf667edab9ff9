//! What a source names: its paths, and its tokens one by one.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// A path as it stands in a source, and the inline modules around it.
pub struct Named {
    pub line: usize,
    pub path: Vec<String>,
    pub module: Vec<String>,
}

#[derive(Default)]
pub struct Paths {
    pub named: Vec<Named>,
    /// How many of them begin with `crate`.
    pub from_root: usize,
}

/// Every path of two segments or more, those of `use a::{b, c::d}` one by one.
pub fn paths(source: &str) -> Paths {
    let mut found = Paths::default();
    walk(&tokens(source), &[], &mut found);
    found.from_root = found.named.iter().filter(|named| named.path[0] == "crate").count();
    found
}

pub fn tokens(source: &str) -> Vec<TokenTree> {
    let stream: TokenStream = source.parse().unwrap_or_else(|error| panic!("{error} in:\n{source}"));
    stream.into_iter().collect()
}

fn walk(tokens: &[TokenTree], module: &[String], found: &mut Paths) {
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at..] {
            [
                TokenTree::Ident(word),
                TokenTree::Ident(name),
                TokenTree::Group(body),
                ..,
            ] if word == "mod" => {
                let inner: Vec<_> = module.iter().cloned().chain([name.to_string()]).collect();
                walk(&body.stream().into_iter().collect::<Vec<_>>(), &inner, found);
                at += 3;
            }
            [TokenTree::Ident(_), rest @ ..] if joins(rest) => at = path(tokens, at, &[], module, found),
            [TokenTree::Group(group), ..] => {
                walk(&group.stream().into_iter().collect::<Vec<_>>(), module, found);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// Whether `::` is next.
fn joins(tokens: &[TokenTree]) -> bool {
    let [TokenTree::Punct(first), TokenTree::Punct(second), ..] = tokens else {
        return false;
    };
    first.as_char() == ':' && first.spacing() == Spacing::Joint && second.as_char() == ':'
}

/// Takes up the path that begins at `at` behind `prefix`; answers where it ends.
fn path(tokens: &[TokenTree], mut at: usize, prefix: &[String], module: &[String], found: &mut Paths) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens[at].span().start().line;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(segment)) => {
                path.push(segment.to_string());
                at += 1;
                if !joins(&tokens[at..]) {
                    break;
                }
                at += 2;
            }
            Some(TokenTree::Group(tree)) if tree.delimiter() == Delimiter::Brace => {
                let inner: Vec<_> = tree.stream().into_iter().collect();
                let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
                for branch in inner.split(is_comma).filter(|branch| !branch.is_empty()) {
                    self::path(branch, 0, &path, module, found);
                }
                return at + 1;
            }
            _ => break,
        }
    }
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if path.len() > 1 {
        found.named.push(Named {
            line,
            path,
            module: module.to_vec(),
        });
    }
    at
}

/// Calls `visit` with every token and what follows it, in groups too.
pub fn search(tokens: &[TokenTree], visit: &mut dyn FnMut(&[TokenTree])) {
    for at in 0..tokens.len() {
        visit(&tokens[at..]);
        if let TokenTree::Group(group) = &tokens[at] {
            search(&group.stream().into_iter().collect::<Vec<_>>(), visit);
        }
    }
}

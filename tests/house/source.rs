//! Reads a Rust source as far as the house rules need it: its tokens, and every path that it names.

/// A token: a word, a mark, or the content of a string literal behind a `"`.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// A path as it stands: where it stands, and its segments; the first is `extern` for `::a::b`.
struct Written {
    line: usize,
    module: Vec<String>,
    segments: Vec<String>,
}

/// What a path means: `crate` and what follows, or an outside crate and what follows.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) line: usize,
    pub(crate) path: String,
    /// It stands in a `use` and takes a whole crate, by a `*` or under another name.
    pub(crate) takes_all: bool,
}

/// One file: what it spells and what it names.
pub(crate) struct Source {
    pub(crate) tokens: Vec<Token>,
    pub(crate) names: Vec<Named>,
}

/// Reads a file whose path below `src/` is `place`. Inline modules of tests are left out.
pub(crate) fn read(place: &str, text: &str) -> Source {
    let tokens = without_tests(lex(text));
    let mut reader = Reader { place, uses: Vec::new(), aliases: Vec::new(), paths: Vec::new() };
    reader.walk(&tokens);
    let uses = reader.uses.iter().flat_map(|(written, renamed)| {
        let all = *renamed || written.segments.last().is_some_and(|last| last == "*");
        reader.resolve(written, 0).into_iter().map(move |mut path| {
            let takes_all = all && path.iter().filter(|segment| *segment != "*").count() < 2;
            path.retain(|segment| segment != "self");
            Named { line: written.line, path: path.join("::"), takes_all }
        })
    });
    let paths = reader.paths.iter().flat_map(|written| {
        let named = |path: Vec<String>| path.join("::");
        reader.resolve(written, 0).into_iter().map(move |path| Named {
            line: written.line,
            path: named(path),
            takes_all: false,
        })
    });
    let names = uses.chain(paths).collect();
    Source { tokens, names }
}

/// Splits a text into tokens. Comments are gone; a raw word is the word.
fn lex(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut tokens = Vec::new();
    let (mut index, mut line) = (0, 1);
    while index < chars.len() {
        let begin = index;
        let mut token = String::new();
        match at(index) {
            '/' if at(index + 1) == '/' => {
                while index < chars.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            '/' if at(index + 1) == '*' => {
                let mut depth = 0_usize;
                loop {
                    match (at(index), at(index + 1)) {
                        ('/', '*') => (depth, index) = (depth + 1, index + 2),
                        ('*', '/') => (depth, index) = (depth - 1, index + 2),
                        _ => index += 1,
                    }
                    if depth == 0 || index >= chars.len() {
                        break;
                    }
                }
            }
            '\'' if at(index + 1) == '\\' => {
                index += 3;
                while index < chars.len() && at(index) != '\'' {
                    index += 1;
                }
                index += 1;
            }
            '\'' if at(index + 2) == '\'' => index += 3,
            '"' => (token, index) = literal(&chars, index, None),
            letter if is_word(letter) => {
                while is_word(at(index)) {
                    index += 1;
                }
                token = chars[begin..index].iter().collect();
                let hashes = chars[index..].iter().take_while(|letter| **letter == '#').count();
                let is_raw = token.ends_with('r') && token.len() <= 2;
                if is_raw && at(index + hashes) == '"' {
                    (token, index) = literal(&chars, index + hashes, Some(hashes));
                } else if token == "r" && hashes == 1 {
                    index += 1;
                    continue;
                }
            }
            ':' if at(index + 1) == ':' => (token, index) = ("::".to_owned(), index + 2),
            letter => {
                index += 1;
                if !letter.is_whitespace() {
                    token.push(letter);
                }
            }
        }
        if !token.is_empty() {
            tokens.push(Token { line, text: token });
        }
        let end = index.min(chars.len());
        line += chars[begin..end].iter().filter(|letter| **letter == '\n').count();
    }
    tokens
}

/// The string literal whose opening quote stands at `open`, and where it ends; `raw` says how many
/// `#` close it.
fn literal(chars: &[char], open: usize, raw: Option<usize>) -> (String, usize) {
    let mut content = String::from('"');
    let mut index = open + 1;
    while let Some(letter) = chars.get(index) {
        let hashes = chars[index + 1..].iter().take_while(|letter| **letter == '#').count();
        match (letter, raw) {
            ('"', Some(wanted)) if hashes >= wanted => return (content, index + 1 + wanted),
            ('"', None) => return (content, index + 1),
            ('\\', None) => index += 1,
            _ => content.push(*letter),
        }
        index += 1;
    }
    (content, chars.len())
}

/// Leaves out each `#[cfg(test)] mod name { .. }`, wherever it stands; what follows it stays.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept: Vec<Token> = Vec::new();
    let (mut depth, mut inside) = (0_usize, false);
    for token in tokens {
        if inside {
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            inside = depth > 0;
            continue;
        }
        if token.text != "{" {
            kept.push(token);
            continue;
        }
        let item = kept.iter().rposition(|before| before.text == "]").map_or(0, |end| end + 1);
        let is_marked = spells(&kept[item.saturating_sub(MARK.len())..item], &MARK);
        let is_module = matches!(&kept[item..], [.., word, _] if word.text == "mod");
        let is_plain = kept[item..].iter().all(|word| !"{};".contains(&word.text));
        if is_marked && is_module && is_plain {
            (depth, inside) = (1, true);
            kept.truncate(item - MARK.len());
        } else {
            kept.push(token);
        }
    }
    kept
}

/// Whether the tokens are these words.
pub(crate) fn spells(tokens: &[Token], words: &[&str]) -> bool {
    tokens.len() == words.len() && tokens.iter().zip(words).all(|(token, word)| token.text == *word)
}

struct Reader<'a> {
    place: &'a str,
    /// Each leaf of each `use`, and whether it gets another name.
    uses: Vec<(Written, bool)>,
    /// What a name stands for in a module.
    aliases: Vec<(String, Written)>,
    paths: Vec<Written>,
}

impl Reader<'_> {
    fn walk(&mut self, tokens: &[Token]) {
        let mut module = self.module();
        let mut depth = 0_usize;
        let mut opened: Vec<usize> = Vec::new();
        let mut at = 0;
        while let Some(Token { line, text }) = tokens.get(at) {
            let next = |far: usize| tokens.get(at + far).map_or("", |token| token.text.as_str());
            let before = at.checked_sub(1).map_or("", |before| tokens[before].text.as_str());
            match text.as_str() {
                "{" => depth += 1,
                "}" => {
                    if opened.last() == Some(&depth) {
                        opened.pop();
                        module.pop();
                    }
                    depth = depth.saturating_sub(1);
                }
                "mod" if matches!(next(2), "{" | ";") => {
                    let segments = vec!["self".to_owned(), next(1).to_owned()];
                    let written = Written { line: *line, module: module.clone(), segments };
                    self.aliases.push((next(1).to_owned(), written));
                    if next(2) == "{" {
                        depth += 1;
                        opened.push(depth);
                        module.push(next(1).to_owned());
                        at += 2;
                    }
                }
                "use" if next(1) != "<" => {
                    at += 1;
                    self.tree(tokens, &mut at, &module, &[]);
                    continue;
                }
                word => {
                    let begins = is_name(word) && before != "::" && next(1) == "::";
                    let outside =
                        word == "::" && is_name(next(1)) && !is_name(before) && before != ">";
                    if begins || outside {
                        let first = if outside { "extern" } else { word };
                        let mut segments = vec![first.to_owned()];
                        let mut end = if outside { at } else { at + 1 };
                        while let [colons, name, ..] = &tokens[end..]
                            && colons.text == "::"
                            && is_name(&name.text)
                        {
                            segments.push(name.text.clone());
                            end += 2;
                        }
                        self.paths.push(Written { line: *line, module: module.clone(), segments });
                    }
                }
            }
            at += 1;
        }
    }

    /// Takes a `use` apart into its leaves, nested groups too.
    fn tree(&mut self, tokens: &[Token], at: &mut usize, module: &[String], prefix: &[String]) {
        let mut segments = prefix.to_vec();
        let mut alias = None;
        while let Some(Token { line, text }) = tokens.get(*at) {
            match text.as_str() {
                "::" if segments.is_empty() => segments.push("extern".to_owned()),
                "::" => {}
                "{" => {
                    *at += 1;
                    while tokens.get(*at).is_some_and(|token| token.text != "}") {
                        if tokens[*at].text == "," {
                            *at += 1;
                        } else {
                            self.tree(tokens, at, module, &segments);
                        }
                    }
                    *at += 1;
                    return;
                }
                "as" => {
                    alias = tokens.get(*at + 1).map(|token| token.text.clone());
                    *at += 1;
                }
                "," | "}" | ";" => {
                    let whole = segments.len() > 1 && segments.last().is_some_and(|s| s == "self");
                    if whole {
                        segments.pop();
                    }
                    let name = alias.clone().or_else(|| segments.last().cloned());
                    let written = || Written {
                        line: *line,
                        module: module.to_vec(),
                        segments: segments.clone(),
                    };
                    self.aliases.push((name.unwrap_or_default(), written()));
                    self.uses.push((written(), alias.is_some()));
                    return;
                }
                word => segments.push(word.to_owned()),
            }
            *at += 1;
        }
    }

    /// What a path means: `self`, `super` and the names of the module's own `use` are put in.
    fn resolve(&self, written: &Written, depth: usize) -> Vec<Vec<String>> {
        let [first, rest @ ..] = written.segments.as_slice() else { return Vec::new() };
        let join = |begin: &[&str], end: &[String]| -> Vec<String> {
            begin.iter().map(|segment| (*segment).to_owned()).chain(end.iter().cloned()).collect()
        };
        match first.as_str() {
            "extern" => return vec![rest.to_vec()],
            "firstkey" => return vec![join(&["crate"], rest)],
            // Each binary is a crate of its own, in the room `bin`.
            "crate" if self.place.starts_with("bin/") => {
                return vec![join(&["crate", "bin"], rest)];
            }
            "crate" => return vec![written.segments.clone()],
            "self" | "super" => {
                let ups = written.segments.iter().take_while(|segment| *segment == "super").count();
                let skip = ups.max(1);
                let base = written.module.len().saturating_sub(ups).max(1);
                return vec![[&written.module[..base], &written.segments[skip..]].concat()];
            }
            _ => {}
        }
        let is_own = |(name, meant): &&(String, Written)| {
            name == first && meant.module == written.module && meant.segments[0] != *first
        };
        let meant: Vec<_> = self.aliases.iter().filter(is_own).collect();
        if meant.is_empty() || depth > 8 {
            return vec![written.segments.clone()];
        }
        let put_in = |(_, meant): &&(String, Written)| {
            let segments = [meant.segments.as_slice(), rest].concat();
            let module = written.module.clone();
            self.resolve(&Written { line: written.line, module, segments }, depth + 1)
        };
        meant.iter().flat_map(put_in).collect()
    }

    /// The module that the file is.
    fn module(&self) -> Vec<String> {
        let parts = self.place.trim_end_matches(".rs").split('/');
        let named = parts.filter(|part| *part != "mod" && *part != "lib");
        std::iter::once("crate").chain(named).map(str::to_owned).collect()
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

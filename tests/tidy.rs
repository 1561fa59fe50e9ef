//! The rules of the house as a test: sizes, names, direction of imports, homes of dependencies.
//!
//! A rule is a function from one file to its violations, each of which says how to mend it.
//! Every rule has two tests: the repository keeps it, and a bad sample is caught.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

const FILE_MAX_LINES: usize = 400;
const FUNCTION_MAX_LINES: usize = 70;
const VAGUE_NAMES: [&str; 7] = [
    "util", "common", "helper", "misc", "manager", "info", "data",
];
const PLACEHOLDERS: [&str; 5] = ["todo!", "unimplemented!", "dbg!", "TODO", "FIXME"];
const ORDER_IN_WORDS: &str = "main -> cli -> server -> {gateway, admin} -> admission -> snapshot \
     -> {auth, route, upstream, analytics} -> policy -> {limit, database, config} -> telemetry -> clock";

/// Top-level modules, outermost first. A module may import what stands in a later row,
/// never what stands in its own or an earlier one.
const ORDER: [&[&str]; 11] = [
    &["main"],
    &["cli"],
    &["server"],
    &["gateway", "admin"],
    &["admission"],
    &["snapshot"],
    &["auth", "route", "upstream", "analytics"],
    &["policy"],
    &["limit", "database", "config"],
    &["telemetry"],
    &["clock"],
];

/// Crates that are named in their homes alone. `pingora` stands for all of its crates but
/// `pingora_limits`, which may be named in a single file.
const HOMES: [(&str, &[&str]); 8] = [
    ("pingora", &["gateway", "upstream", "server"]),
    ("pingora_limits", &["limit", "auth"]),
    ("axum", &["admin", "cli/demo"]),
    ("redis", &["limit/store/redis"]),
    ("tokio_postgres", &["database"]),
    ("tokio_postgres_rustls", &["database"]),
    ("deadpool_postgres", &["database"]),
    ("refinery", &["database"]),
];

/// A text file of the repository; the path is relative to its root.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_source(&self) -> bool {
        self.path.starts_with("src/") && has_extension(&self.path, "rs")
    }

    /// The path below `src`, without the extension: `limit/store/redis`.
    fn module(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let path = path.strip_suffix(".rs").unwrap_or(path);
        path.strip_suffix("/mod").unwrap_or(path)
    }

    fn top_module(&self) -> &str {
        self.module().split('/').next().unwrap_or_default()
    }

    /// The code outside of the test module, without comments and literals.
    fn production_code(&self) -> String {
        let code = blank(&self.text);
        let lines = production_lines(&self.text);
        code.split_inclusive('\n').take(lines).collect()
    }

    fn violation(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

type Rule = fn(&File) -> Vec<String>;

// --- the rules -----------------------------------------------------------------------

fn opens_with_a_sentence(file: &File) -> Vec<String> {
    if !file.is_source() || file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![file.violation(
        1,
        "open the file with one `//! ` sentence that says what it is about",
    )]
}

fn is_short(file: &File) -> Vec<String> {
    if !file.is_source() || is_test_module(file) {
        return Vec::new();
    }
    let mut violations = Vec::new();
    let lines = production_lines(&file.text);
    if lines > FILE_MAX_LINES {
        let what = format!(
            "{lines} lines of production code, at most {FILE_MAX_LINES}: split the file by subject"
        );
        violations.push(file.violation(FILE_MAX_LINES + 1, &what));
    }
    for function in functions(&file.production_code()) {
        if function.lines > FUNCTION_MAX_LINES {
            let what = format!(
                "`{}` has {} lines, at most {FUNCTION_MAX_LINES}: name its steps and move them out",
                function.name, function.lines
            );
            violations.push(file.violation(function.line, &what));
        }
    }
    violations
}

fn has_telling_names(file: &File) -> Vec<String> {
    let mut violations = Vec::new();
    for part in file.path.split('/') {
        if let Some(vague) = part.split(['_', '-', '.']).find(|word| is_vague(word)) {
            let what = format!("`{vague}` in a file's name says nothing: name it by its subject");
            violations.push(file.violation(1, &what));
        }
    }
    if !has_extension(&file.path, "rs") {
        return violations;
    }
    for (line, name) in defined_names(&blank(&file.text)) {
        if let Some(vague) = camel_words(&name).into_iter().find(|word| is_vague(word)) {
            let what =
                format!("`{name}`: `{vague}` says nothing, name it by what it holds or does");
            violations.push(file.violation(line, &what));
        }
    }
    violations
}

fn imports_point_inwards(file: &File) -> Vec<String> {
    if !file.is_source() || file.module() == "lib" {
        return Vec::new();
    }
    let from = file.top_module();
    if rank(from).is_none() {
        let what = format!(
            "module `{from}` has no place in the order {ORDER_IN_WORDS}: move it below one that has, \
             or give it a row in ORDER and in docs/architecture.md"
        );
        return vec![file.violation(1, &what)];
    }
    let mut violations = Vec::new();
    for (line, to) in crate_imports(&blank(&file.text)) {
        if rank(&to).is_some() && !may_import(from, &to) {
            let what = format!(
                "`{from}` must not import `{to}` ({ORDER_IN_WORDS}; never leftwards, never within \
                 braces): move what both need to the right, or pass it as an argument"
            );
            violations.push(file.violation(line, &what));
        }
    }
    violations.extend(supers_to_the_root(file));
    violations
}

/// `use super::` that reaches the crate root would hide an import from the rule above.
fn supers_to_the_root(file: &File) -> Vec<String> {
    let depth = file.module().split('/').count();
    let code = file.production_code();
    let mut violations = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let path = line
            .strip_prefix("pub ")
            .unwrap_or(line)
            .strip_prefix("use ");
        let supers = path.map_or(0, |path| {
            path.split("::").take_while(|part| *part == "super").count()
        });
        if supers >= depth {
            violations.push(file.violation(
                number + 1,
                "write `crate::` instead of `super::` up to the root",
            ));
        }
    }
    violations
}

fn dependencies_stay_at_home(file: &File) -> Vec<String> {
    if !file.is_source() {
        return Vec::new();
    }
    let code = blank(&file.text);
    let mut violations = Vec::new();
    for (line, name) in named_crates(&code) {
        let root = if name.starts_with("pingora_") && name != "pingora_limits" {
            "pingora"
        } else {
            &name
        };
        for (krate, homes) in HOMES {
            if krate == root && !homes.iter().any(|home| lives_in(file.module(), home)) {
                let what = format!(
                    "`{name}` is named in {} alone: go through a type of ours (a module of this name: \
                     `self::{name}::`)",
                    homes.join(", ")
                );
                violations.push(file.violation(line, &what));
            }
        }
        if name == "http" && file.top_module() == "limit" {
            violations.push(file.violation(
                line,
                "`limit` knows no HTTP: pass what it needs as plain values",
            ));
        }
    }
    violations
}

fn has_no_placeholders(file: &File) -> Vec<String> {
    if !file.is_source() {
        return Vec::new();
    }
    let mut violations = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for placeholder in PLACEHOLDERS {
            if starts_of(line, placeholder).next().is_some() {
                let what = format!("`{placeholder}`: finish it, or take it out and open an issue");
                violations.push(file.violation(number + 1, &what));
            }
        }
    }
    violations
}

fn dependencies_have_reasons(file: &File) -> Vec<String> {
    if file_name(&file.path) != "Cargo.toml" {
        return Vec::new();
    }
    let mut violations = Vec::new();
    let mut in_dependencies = false;
    let mut previous = "";
    for (number, line) in file.text.lines().enumerate() {
        let has_reason = line.contains(" # ") || previous.trim_start().starts_with("# ");
        let mut names_one = false;
        if let Some(table) = line.strip_prefix('[') {
            let table = table.split(']').next().unwrap_or_default();
            in_dependencies = table.ends_with("dependencies");
            names_one = table.contains("dependencies.");
        } else if in_dependencies {
            names_one = line.starts_with(|first: char| first.is_alphanumeric());
        }
        if names_one && !has_reason {
            let what =
                "say in a comment on this line or the line above why this dependency is here";
            violations.push(file.violation(number + 1, what));
        }
        previous = line;
    }
    violations
}

fn scripts_have_headers(file: &File) -> Vec<String> {
    let is_script = has_extension(&file.path, "lua") || has_extension(&file.path, "sql");
    if !is_script || file.text.starts_with("--") {
        return Vec::new();
    }
    vec![file.violation(
        1,
        "open with `--` lines: what it does, its arguments and its reply",
    )]
}

fn has_no_machine_paths(file: &File) -> Vec<String> {
    let mut violations = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for folder in ["work", "root", "home"] {
            let path = format!("/{folder}/");
            let is_absolute = line.match_indices(&path).any(|(at, _)| {
                !line
                    .get(..at)
                    .is_some_and(|before| before.ends_with(|c: char| is_path_char(c)))
            });
            if is_absolute {
                let what = format!(
                    "`{path}` is a path of one machine: make it relative to the repository"
                );
                violations.push(file.violation(number + 1, &what));
            }
        }
    }
    violations
}

/// Documents that name files of `src` which are not there.
fn documents_name_existing_files(document: &File, paths: &BTreeSet<String>) -> Vec<String> {
    if !has_extension(&document.path, "md") {
        return Vec::new();
    }
    let mut violations = Vec::new();
    for (number, line) in document.text.lines().enumerate() {
        for path in line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|quoted| quoted.starts_with("src/"))
        {
            let exists = match path.strip_suffix('/') {
                Some(_) => paths.iter().any(|file| file.starts_with(path)),
                None => paths.contains(path),
            };
            if !exists {
                let what = format!("`{path}` is not there: name the file that holds this now");
                violations.push(document.violation(number + 1, &what));
            }
        }
    }
    violations
}

// --- what the rules read off a text ----------------------------------------------------

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|row| row.contains(&module))
}

fn may_import(from: &str, to: &str) -> bool {
    from == to || rank(from) < rank(to)
}

fn lives_in(module: &str, home: &str) -> bool {
    module
        .strip_prefix(home)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_vague(word: &str) -> bool {
    let word = word.to_lowercase();
    VAGUE_NAMES
        .iter()
        .any(|name| word == *name || word.strip_suffix('s') == Some(name))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}

/// A file that only `#[cfg(test)] mod tests;` brings in.
fn is_test_module(file: &File) -> bool {
    let module = file.module();
    module.ends_with("/tests") || module.contains("/tests/")
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What may stand before a `/` that does not begin an absolute path.
fn is_path_char(c: char) -> bool {
    is_word_char(c) || "./-~*)}>".contains(c)
}

/// Lines before the first test module.
fn production_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_test_module = |at: usize| {
        let following = lines
            .iter()
            .skip(at + 1)
            .find(|line| !line.starts_with("#["));
        lines.get(at) == Some(&"#[cfg(test)]")
            && following.is_some_and(|line| line.starts_with("mod ") || line.contains(" mod "))
    };
    (0..lines.len())
        .find(|&at| is_test_module(at))
        .unwrap_or(lines.len())
}

/// The text with comments and the content of literals as spaces, line by line as before.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut rest = chars.as_slice();
    while let Some((&first, tail)) = rest.split_first() {
        let in_word = code.ends_with(is_word_char);
        let Some(length) = comment_or_literal_length(rest, in_word) else {
            code.push(first);
            rest = tail;
            continue;
        };
        let (skipped, tail) = rest.split_at(length.min(rest.len()));
        code.extend(skipped.iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        rest = tail;
    }
    code
}

/// How long the comment or literal is that `rest` begins with, if it begins with one.
fn comment_or_literal_length(rest: &[char], in_word: bool) -> Option<usize> {
    match rest {
        ['/', '/', ..] => Some(rest.iter().position(|&c| c == '\n').unwrap_or(rest.len())),
        ['/', '*', ..] => Some(block_comment_length(rest)),
        ['"', ..] => Some(string_length(rest)),
        ['\'', '\\', _, tail @ ..] => tail.iter().position(|&c| c == '\'').map(|at| at + 4),
        ['\'', _, '\'', ..] => Some(3),
        ['r', tail @ ..] if !in_word => raw_string_length(tail).map(|length| length + 1),
        ['b' | 'c', 'r', tail @ ..] if !in_word => raw_string_length(tail).map(|length| length + 2),
        _ => None,
    }
}

fn block_comment_length(rest: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0);
    loop {
        match rest.get(at..) {
            Some(['/', '*', ..]) => (at, depth) = (at + 2, depth + 1),
            Some(['*', '/', ..]) => (at, depth) = (at + 2, depth - 1),
            Some([_, ..]) => at += 1,
            _ => return rest.len(),
        }
        if depth == 0 {
            return at;
        }
    }
}

fn string_length(rest: &[char]) -> usize {
    let mut at = 1;
    loop {
        match rest.get(at) {
            Some('\\') => at += 2,
            Some('"') => return at + 1,
            Some(_) => at += 1,
            None => return rest.len(),
        }
    }
}

/// `rest` begins after the `r`: hashes, a quote, and the same backwards at the end.
fn raw_string_length(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().take_while(|&&c| c == '#').count();
    if rest.get(hashes) != Some(&'"') {
        return None;
    }
    let mut end = vec!['"'];
    end.extend(std::iter::repeat_n('#', hashes));
    let start = hashes + 1;
    let body = rest.get(start..)?;
    let at = body.windows(end.len()).position(|window| window == end);
    Some(at.map_or(rest.len(), |at| start + at + end.len()))
}

/// Where `needle` stands in `code`, not as the end of a longer word.
fn starts_of<'a>(code: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(needle).map(|(at, _)| at).filter(|&at| {
        !code
            .get(..at)
            .is_some_and(|before| before.ends_with(is_word_char))
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code.get(..at).unwrap_or(code).matches('\n').count() + 1
}

fn leading_word(code: &str) -> &str {
    code.split(|c| !is_word_char(c)).next().unwrap_or_default()
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Functions with a body, from the line of `fn` to that of the closing brace.
fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for at in starts_of(code, "fn ") {
        let Some(rest) = code.get(at..) else { continue };
        let name = leading_word(rest.trim_start_matches("fn ").trim_start());
        if let (false, Some(length)) = (name.is_empty(), function_length(rest)) {
            let lines = rest.get(..length).unwrap_or(rest).matches('\n').count() + 1;
            found.push(Function {
                name: name.to_owned(),
                line: line_of(code, at),
                lines,
            });
        }
    }
    found
}

/// Bytes up to the brace that closes the body; `None` for a signature without one.
fn function_length(rest: &str) -> Option<usize> {
    let (mut parentheses, mut braces) = (0_i32, 0_i32);
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => parentheses += 1,
            ')' | ']' => parentheses -= 1,
            ';' if parentheses == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Types, traits and modules that `code` defines. Associated types have the names that
/// their traits give them, so `type` counts in the first column only.
fn defined_names(code: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for keyword in [
        "struct ",
        "enum ",
        "union ",
        "trait ",
        "mod ",
        "\ntype ",
        "\npub type ",
    ] {
        for at in starts_of(code, keyword) {
            let start = at + keyword.len();
            let name = leading_word(code.get(start..).unwrap_or_default());
            if !name.is_empty() {
                names.push((line_of(code, start), name.to_owned()));
            }
        }
    }
    names
}

/// `RouteInfo` and `route_info` alike: `Route`, `Info`.
fn camel_words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if let (true, Some(word)) = (c != '_', words.last_mut()) {
            word.push(c);
        }
    }
    words
}

/// Top-level modules that `crate::` paths lead to, those in `use crate::{..}` included.
fn crate_imports(code: &str) -> Vec<(usize, String)> {
    let mut imports = Vec::new();
    for at in starts_of(code, "crate::") {
        let start = at + "crate::".len();
        let rest = code.get(start..).unwrap_or_default();
        let Some(group) = rest.strip_prefix('{') else {
            imports.push((line_of(code, start), leading_word(rest).to_owned()));
            continue;
        };
        let (mut depth, mut expects_name) = (0, true);
        for (offset, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => expects_name = true,
                c if expects_name && is_word_char(c) => {
                    expects_name = false;
                    let word = leading_word(group.get(offset..).unwrap_or_default());
                    imports.push((line_of(code, start + 1 + offset), word.to_owned()));
                }
                _ => {}
            }
        }
    }
    imports
}

/// First parts of paths that may be crates: `redis::Client`, `use redis;`, `::redis::Client`.
fn named_crates(code: &str) -> Vec<(usize, String)> {
    let mut crates = Vec::new();
    let mut end = 0;
    for (at, c) in code.char_indices() {
        if at < end || !is_word_char(c) {
            continue;
        }
        let word = leading_word(code.get(at..).unwrap_or_default());
        end = at + word.len();
        let before = code.get(..at).unwrap_or_default().trim_end();
        let after = code.get(end..).unwrap_or_default().trim_start();
        let is_inner = before
            .strip_suffix("::")
            .is_some_and(|path| path.ends_with([':', '>']) || path.ends_with(is_word_char));
        let is_used = before.ends_with("use") || before.ends_with("extern crate");
        if !is_inner && (after.starts_with("::") || is_used) {
            crates.push((line_of(code, at), word.to_owned()));
        }
    }
    crates
}

// --- the repository --------------------------------------------------------------------

fn repository() -> io::Result<Vec<File>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(root, root, &mut files)?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        // what .gitignore names is not of the repository
        if [".git", "target", ".env", "__pycache__"]
            .iter()
            .any(|name| entry.file_name() == *name)
        {
            continue;
        }
        if kind.is_dir() {
            collect(root, &path, files)?;
        } else if kind.is_file()
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            let path = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .replace('\\', "/");
            files.push(File { path, text });
        }
    }
    Ok(())
}

fn assert_kept(rule: Rule) -> io::Result<()> {
    let violations: Vec<String> = repository()?.iter().flat_map(rule).collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
    Ok(())
}

#[test]
fn the_walk_finds_the_repository() -> io::Result<()> {
    let paths: BTreeSet<String> = repository()?.into_iter().map(|file| file.path).collect();
    for path in [
        "Cargo.toml",
        "Makefile",
        "src/lib.rs",
        "src/main.rs",
        "tests/tidy.rs",
    ] {
        assert!(paths.contains(path), "{path} is missing in {paths:?}");
    }
    Ok(())
}

#[test]
fn source_files_open_with_a_sentence() -> io::Result<()> {
    assert_kept(opens_with_a_sentence)
}

#[test]
fn files_and_functions_are_short() -> io::Result<()> {
    assert_kept(is_short)
}

#[test]
fn names_tell_the_subject() -> io::Result<()> {
    assert_kept(has_telling_names)
}

#[test]
fn modules_import_inwards() -> io::Result<()> {
    assert_kept(imports_point_inwards)
}

#[test]
fn heavy_dependencies_stay_at_home() -> io::Result<()> {
    assert_kept(dependencies_stay_at_home)
}

#[test]
fn one_file_at_most_names_pingora_limits() -> io::Result<()> {
    let files = files_naming("pingora_limits", &repository()?);
    assert!(
        files.len() <= 1,
        "keep `pingora_limits` behind one type, in one file, not in {files:?}"
    );
    Ok(())
}

fn files_naming(krate: &str, files: &[File]) -> Vec<String> {
    let names_it = |file: &&File| {
        named_crates(&blank(&file.text))
            .iter()
            .any(|(_, name)| name == krate)
    };
    files
        .iter()
        .filter(|file| file.is_source())
        .filter(names_it)
        .map(|file| file.path.clone())
        .collect()
}

#[test]
fn sources_hold_no_placeholders() -> io::Result<()> {
    assert_kept(has_no_placeholders)
}

#[test]
fn dependencies_say_why_they_are_here() -> io::Result<()> {
    assert_kept(dependencies_have_reasons)
}

#[test]
fn lua_and_sql_open_with_a_header() -> io::Result<()> {
    assert_kept(scripts_have_headers)
}

#[test]
fn no_file_holds_a_path_of_one_machine() -> io::Result<()> {
    assert_kept(has_no_machine_paths)
}

#[test]
fn documents_point_at_files_that_exist() -> io::Result<()> {
    let files = repository()?;
    let paths: BTreeSet<String> = files.iter().map(|file| file.path.clone()).collect();
    let violations: Vec<String> = files
        .iter()
        .flat_map(|file| documents_name_existing_files(file, &paths))
        .collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
    Ok(())
}

// --- each rule catches a bad sample, and lets its good twin pass ---------------------------

/// How many violations `rule` finds in a file with this path and text.
fn count(rule: Rule, path: &str, text: &str) -> usize {
    rule(&File {
        path: path.to_owned(),
        text: text.to_owned(),
    })
    .len()
}

#[test]
fn catches_a_file_without_a_sentence() {
    assert_eq!(
        count(opens_with_a_sentence, "src/route.rs", "use std::io;\n"),
        1
    );
    assert_eq!(
        count(opens_with_a_sentence, "src/route.rs", "//! Routes.\n"),
        0
    );
    assert_eq!(
        count(opens_with_a_sentence, "tests/route.rs", "use std::io;\n"),
        0
    );
}

#[test]
fn catches_a_long_file_but_not_long_tests() {
    let tests = format!(
        "#[cfg(test)]\nmod tests {{\n{}}}\n",
        "// a line\n".repeat(FILE_MAX_LINES)
    );
    let at_the_limit = "const A: u8 = 0;\n".repeat(FILE_MAX_LINES);
    assert_eq!(
        count(is_short, "src/route.rs", &format!("{at_the_limit}{tests}")),
        0
    );
    assert_eq!(
        count(
            is_short,
            "src/route.rs",
            &format!("{at_the_limit}\n{tests}")
        ),
        1
    );
    let cfg_on_an_item = format!("#[cfg(test)]\nuse std::io;\n{at_the_limit}");
    assert_eq!(count(is_short, "src/route.rs", &cfg_on_an_item), 1);
}

#[test]
fn catches_a_long_function() {
    let function = |lines: usize| {
        let body = "    let a = \"}\"; // }\n".repeat(lines - 2);
        format!("trait T {{ fn without_body(a: [u8; 2]); }}\nfn long(f: fn(u8)) {{\n{body}}}\n")
    };
    assert_eq!(
        count(is_short, "src/route.rs", &function(FUNCTION_MAX_LINES)),
        0
    );
    assert_eq!(
        count(is_short, "src/route.rs", &function(FUNCTION_MAX_LINES + 1)),
        1
    );
}

#[test]
fn catches_vague_names() {
    for path in [
        "src/util.rs",
        "src/route/helpers.rs",
        "tests/common/mod.rs",
        "src/client_info.rs",
    ] {
        assert_eq!(count(has_telling_names, path, ""), 1, "{path}");
    }
    for text in [
        "struct RouteInfo;",
        "pub enum Data {}",
        "mod misc {}",
        "x();\npub type Manager = u8;",
    ] {
        assert_eq!(count(has_telling_names, "src/route.rs", text), 1, "{text}");
    }
    for text in [
        "// struct Data;",
        "struct Database;",
        "    type Data = Bytes;",
        "let data = 1;",
    ] {
        assert_eq!(
            count(has_telling_names, "src/database.rs", text),
            0,
            "{text}"
        );
    }
}

#[test]
fn catches_imports_against_the_order() {
    let caught = [
        ("src/config.rs", "use crate::policy::Policy;"),
        ("src/limit/store.rs", "fn f() { crate::config::load(); }"),
        ("src/gateway/headers.rs", "use crate::admin::x;"),
        (
            "src/admin.rs",
            "use crate::{\n    config::{self, x},\n    gateway::y,\n};",
        ),
        ("src/telemetry.rs", "use crate::config::x;"),
        ("src/clock.rs", "use crate::telemetry::x;"),
        ("src/route.rs", "use super::gateway::x;"),
        ("src/route/path.rs", "pub use super::super::gateway::x;"),
        ("src/extra.rs", ""),
    ];
    for (path, text) in caught {
        assert_eq!(
            count(imports_point_inwards, path, text),
            1,
            "{path}: {text}"
        );
    }
    let kept = [
        (
            "src/server.rs",
            "use crate::{admin, gateway, telemetry::x};",
        ),
        (
            "src/limit/store.rs",
            "use crate::clock::Clock;\nuse crate::limit::quota;\nuse super::x;",
        ),
        (
            "src/config.rs",
            "// use crate::policy::Policy;\nlet s = \"crate::gateway::x\";",
        ),
        ("src/lib.rs", "pub use crate::gateway::x;"),
    ];
    for (path, text) in kept {
        assert_eq!(
            count(imports_point_inwards, path, text),
            0,
            "{path}: {text}"
        );
    }
}

#[test]
fn the_order_in_words_is_the_order() {
    let words: Vec<&str> = ORDER_IN_WORDS
        .split(|c| !is_word_char(c))
        .filter(|word| !word.is_empty())
        .collect();
    let rows: Vec<&str> = ORDER.iter().flat_map(|row| row.iter().copied()).collect();
    assert_eq!(words, rows);
}

#[test]
fn catches_dependencies_away_from_home() {
    let caught = [
        ("src/admission.rs", "use pingora::Error;"),
        ("src/route.rs", "fn f(s: &pingora_proxy::Session) {}"),
        ("src/gateway.rs", "use pingora_limits::rate::Rate;"),
        ("src/cli/run.rs", "use axum::Router;"),
        ("src/limit/store.rs", "let c = ::redis::Client::open(x);"),
        ("src/limit/store/redistribution.rs", "use redis;"),
        ("src/snapshot.rs", "use tokio_postgres::Row;"),
        ("src/limit/descriptor.rs", "use http::Method;"),
    ];
    for (path, text) in caught {
        assert_eq!(
            count(dependencies_stay_at_home, path, text),
            1,
            "{path}: {text}"
        );
    }
    let kept = [
        (
            "src/gateway/rejection.rs",
            "use pingora::Error;\nuse pingora_http::ResponseHeader;",
        ),
        ("src/auth/failures.rs", "use pingora_limits::rate::Rate;"),
        ("src/cli/demo.rs", "use axum::Router;"),
        ("src/limit/store/redis/batch.rs", "use redis::Client;"),
        (
            "src/limit/store.rs",
            "mod redis;\nuse self::redis::Redis; // redis::Client",
        ),
        ("src/route.rs", "use http::Method;\nlet redis = 1;"),
    ];
    for (path, text) in kept {
        assert_eq!(
            count(dependencies_stay_at_home, path, text),
            0,
            "{path}: {text}"
        );
    }
}

#[test]
fn finds_every_file_that_names_a_crate() {
    let file = |path: &str| File {
        path: path.to_owned(),
        text: "use pingora_limits::rate;".to_owned(),
    };
    let files = [
        file("src/auth.rs"),
        file("src/limit/estimate.rs"),
        file("benches/rate.rs"),
    ];
    assert_eq!(
        files_naming("pingora_limits", &files),
        ["src/auth.rs", "src/limit/estimate.rs"]
    );
}

#[test]
fn catches_placeholders() {
    for placeholder in PLACEHOLDERS {
        assert_eq!(
            count(
                has_no_placeholders,
                "src/route.rs",
                &format!("    {placeholder}(x)\n")
            ),
            1
        );
    }
    assert_eq!(
        count(
            has_no_placeholders,
            "src/route.rs",
            "let mastodon = 1; // autodbg!\n"
        ),
        0
    );
}

#[test]
fn catches_dependencies_without_a_reason() {
    let bad = "[dependencies]\na = \"1\"\n\n[target.'cfg(unix)'.dev-dependencies]\nb = { version = \"1\" }\n\n[dependencies.c]\nversion = \"1\"\n";
    assert_eq!(count(dependencies_have_reasons, "Cargo.toml", bad), 3);
    let good = "[package]\nname = \"x\"\n[dependencies]\n# hashes keys\na = \"1\"\nb = \"1\" # reads keys\n\n# keeps keys\n[dependencies.c]\nversion = \"1\"\n[profile.dev]\ndebug = false\n";
    assert_eq!(
        count(dependencies_have_reasons, "loadtest/Cargo.toml", good),
        0
    );
}

#[test]
fn catches_scripts_without_a_header() {
    assert_eq!(
        count(scripts_have_headers, "lua/spend.lua", "local a = 1\n"),
        1
    );
    assert_eq!(
        count(
            scripts_have_headers,
            "sql/queries/policies.sql",
            "select 1;\n"
        ),
        1
    );
    assert_eq!(
        count(
            scripts_have_headers,
            "lua/spend.lua",
            "-- Spends.\nlocal a = 1\n"
        ),
        0
    );
}

#[test]
fn catches_documents_about_files_that_are_gone() {
    let paths = BTreeSet::from(["src/route.rs".to_owned(), "src/auth/api_key.rs".to_owned()]);
    let text = "`src/route.rs`, `src/auth/`, src/prose.rs\n`src/gone.rs` and `src/gone/`\n";
    let document = File {
        path: "docs/a.md".to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(documents_name_existing_files(&document, &paths).len(), 2);
}

#[test]
fn catches_paths_of_one_machine() {
    for folder in ["work", "root", "home"] {
        assert_eq!(
            count(
                has_no_machine_paths,
                "docs/a.md",
                &format!("see `/{folder}/x/y`\n")
            ),
            1
        );
        assert_eq!(
            count(
                has_no_machine_paths,
                "docs/a.md",
                &format!("https://a.example/{folder}/x\n")
            ),
            0
        );
    }
}

#[test]
fn blanking_keeps_code_and_lines_alone() {
    let text =
        "a /* x /* y */ z */ b\n// c\n\"d\\\"\n\" e r#\"f\"\"# br\"g\" '\\'' 'h' &'i j r#type";
    let code = blank(text);
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "b", "e", "&'i", "j", "r#type"]);
    assert_eq!(code.matches('\n').count(), text.matches('\n').count());
}

//! What is wrong with a configuration: where, why, and what to write instead.

use std::borrow::Cow;
use std::fmt;

use super::place::Place;
use super::tree::Position;

/// Whether a problem keeps the configuration from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is used, but probably not what was meant.
    Warning,
}

/// One finding; never contains a secret or the value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// The file as named by the caller.
    pub file: String,
    /// The line from 1; 0 where the whole file is meant.
    pub line: usize,
    /// The column from 1, in characters; 0 where the whole file is meant.
    pub column: usize,
    /// The place in the tree, such as `routes[0].match.path`; empty for the whole.
    pub path: String,
    /// What is wrong, in lower case without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// An error about the file as a whole.
    pub(super) fn of_file(file: &str, message: impl Into<String>, hint: &str) -> Problem {
        Problem {
            severity: Severity::Error,
            file: file.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            message: message.into(),
            hint: Some(hint.to_owned()),
        }
    }

    /// Is it about a row of the database, not about the file?
    pub fn is_of_a_row(&self) -> bool {
        self.file == super::overlay::ORIGIN
    }

    /// Sorts by position; errors before warnings in the same place.
    pub fn sort(problems: &mut [Problem]) {
        problems.sort_by(|a, b| {
            (a.line, a.column, a.severity, &a.path).cmp(&(b.line, b.column, b.severity, &b.path))
        });
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// Collects what the steps of the pipeline find in one file.
pub(super) struct Report {
    /// The file as named by the caller.
    pub(super) file: String,
    /// Errors and warnings in the order of finding.
    pub(super) problems: Vec<Problem>,
}

impl Report {
    /// An empty report about a file.
    pub(super) fn new(file: &str) -> Report {
        Report {
            file: file.to_owned(),
            problems: Vec::new(),
        }
    }

    /// Adds an error.
    pub(super) fn error(
        &mut self,
        at: Position,
        place: &Place<'_>,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) {
        self.add(Severity::Error, at, place, message.into(), hint.into());
    }

    /// Adds an error or a warning.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        at: Position,
        place: &Place<'_>,
        message: String,
        hint: Option<String>,
    ) {
        self.problems.push(Problem {
            severity,
            file: self.file.clone(),
            line: at.line,
            column: at.column,
            path: place.text(),
            message,
            hint,
        });
    }
}

/// A text from the file as a message quotes it: in backticks, control characters escaped, long ones cut, and without
/// the password of a URL that stands in the wrong place.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    let text = &without_login(text);
    let cut = if text.chars().nth(SHOWN_CHARS).is_some() {
        "..."
    } else {
        ""
    };
    let shown: String = text
        .chars()
        .take(SHOWN_CHARS)
        .flat_map(|c| {
            let plain = !c.is_control();
            plain
                .then_some(c)
                .into_iter()
                .chain((!plain).then(|| c.escape_default()).into_iter().flatten())
        })
        .collect();
    format!("`{shown}{cut}`")
}

/// A URL as it may be shown: without what stands in front of its last `@` and behind its `?`; any other text as it is.
pub fn without_login(text: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Cow::Borrowed(text);
    };
    let (login, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?***"),
        None => (rest, ""),
    };
    Cow::Owned(format!("{scheme}://{login}{rest}{query}"))
}

/// Several names as a message lists them; cut when they are many.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN_NAMES: usize = 30;
    let mut names = names.into_iter();
    let mut text = names
        .by_ref()
        .take(SHOWN_NAMES)
        .collect::<Vec<_>>()
        .join(", ");
    if names.next().is_some() {
        text.push_str(", ...");
    }
    text
}

/// The name nearest to what was typed, if one is near enough to be meant.
pub(super) fn closest<'a>(
    typed: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    const LONGEST: usize = 64; // comparing takes time by the product of the lengths
    if typed.len() > LONGEST {
        return None;
    }
    let typed = typed.to_lowercase();
    let allowed = match typed.chars().count() {
        0..=3 => 1,
        4..=8 => 2,
        more => more / 3,
    };
    names
        .into_iter()
        .filter(|name| name.len() <= LONGEST)
        .map(|name| (strsim::osa_distance(&typed, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// What to write instead of an unknown name: the closest, else all of them.
pub(super) fn instead(typed: &str, names: &[&str]) -> String {
    match closest(typed, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if names.is_empty() => "none is defined".to_owned(),
        None => format!("known: {}", listed(names.iter().copied())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(line: usize, severity: Severity) -> Problem {
        Problem {
            severity,
            file: "conf/tidegate.yaml".into(),
            line,
            column: 7,
            path: "policies.search.quota.count".into(),
            message: "0 is not allowed".into(),
            hint: Some("a whole number from 1".into()),
        }
    }

    #[test]
    fn an_error_reads_as_file_line_column_path_message_hint() {
        assert_eq!(
            sample(12, Severity::Error).to_string(),
            "conf/tidegate.yaml:12:7: policies.search.quota.count: 0 is not allowed; hint: a whole number from 1"
        );
        assert!(
            sample(12, Severity::Warning)
                .to_string()
                .starts_with("conf/tidegate.yaml:12:7: warning: policies.")
        );
    }

    #[test]
    fn a_problem_of_the_whole_file_has_no_position() {
        let problem = Problem::of_file("x.yaml", "does not exist", "give it with -c");
        assert_eq!(
            problem.to_string(),
            "x.yaml: does not exist; hint: give it with -c"
        );
    }

    #[test]
    fn problems_sort_by_position_and_errors_come_first() {
        let mut problems = vec![
            sample(9, Severity::Error),
            sample(2, Severity::Warning),
            sample(2, Severity::Error),
        ];
        Problem::sort(&mut problems);
        let order: Vec<_> = problems.iter().map(|p| (p.line, p.severity)).collect();
        assert_eq!(
            order,
            [
                (2, Severity::Error),
                (2, Severity::Warning),
                (9, Severity::Error)
            ]
        );
    }

    #[test]
    fn the_closest_name_is_offered_only_when_it_is_near() {
        assert_eq!(closest("adress", ["address", "token"]), Some("address"));
        assert_eq!(
            closest("grace-period", ["threads", "grace_period"]),
            Some("grace_period")
        );
        assert_eq!(closest("zzz", ["address", "token"]), None);
        assert_eq!(closest(&"a".repeat(1000), ["a"]), None);
        assert_eq!(instead("zzz", &["a1", "b2"]), "known: a1, b2");
    }

    #[test]
    fn quoted_texts_are_cut_and_cannot_control_a_terminal() {
        assert_eq!(quoted("a\u{1b}[31m"), "`a\\u{1b}[31m`");
        assert!(quoted(&"x".repeat(500)).len() < 100);
    }

    #[test]
    fn quoted_urls_lose_their_passwords() {
        for (text, shown) in [
            ("redis://host:1/0", "`redis://host:1/0`"),
            ("redis://:p@ss/w?#rd@host", "`redis://***@host`"),
            ("unix:///s?user=u&pass=p", "`unix:///s?***`"),
            ("a@b?c", "`a@b?c`"),
        ] {
            assert_eq!(quoted(text), shown);
        }
    }
}

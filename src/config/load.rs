//! From a file or a text to a loaded configuration: the steps in their order.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use once_cell::sync::OnceCell;

use super::check_shape::check_shape;
use super::environment::Environment;
use super::locator::Locator;
use super::model::Config;
use super::overlay::{self, Overlaid, Row};
use super::place::{Step, path_text};
use super::problem::{Problem, Report, Severity};
use super::resolve::resolve;
use super::shape::Shape;
use super::shown::Shown;
use super::substitute::substitute;
use super::tree::Node;
use super::{raw, schema, shape, tree};

/// The largest file accepted.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A valid configuration and what there is to say about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings, sorted by position.
    pub warnings: Vec<Problem>,
    file: String,
    overlaid: Arc<Overlaid>,
    locator: Arc<Locator>,
}

impl Loaded {
    /// Are rows of a database part of it?
    pub fn has_rows(&self) -> bool {
        !self.overlaid.is_empty()
    }

    /// The configuration as it may be shown to people.
    pub fn shown(&self) -> Shown {
        Shown::new(self.locator.clone(), self.overlaid.clone())
    }

    /// An error found by a later step. Its line and column are those of the node at the path, or of the nearest node
    /// above it that the file has: `loaded.problem(&["routes".into(), 0.into(), "match".into()], "...", None)`.
    pub fn problem(
        &self,
        path: &[Step<'_>],
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Problem {
        let at = self.locator.position(path);
        let mut problem = Problem {
            severity: Severity::Error,
            file: self.file.clone(),
            line: at.line,
            column: at.column,
            path: path_text(path),
            message: message.into(),
            hint,
        };
        self.overlaid.attribute(&mut problem);
        problem
    }

    /// The same as a warning.
    pub fn warning(
        &self,
        path: &[Step<'_>],
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Problem {
        Problem {
            severity: Severity::Warning,
            ..self.problem(path, message, hint)
        }
    }
}

/// A file or a text that has been parsed, its variables substituted; not validated yet. It is validated alone, or
/// together with rows of the database.
pub struct Source {
    file: String,
    root: Node,
    /// What is wrong with the variables.
    found: Vec<Problem>,
    /// What is wrong with `.env`; it comes first, because it may explain the others.
    environment_problem: Option<Problem>,
}

impl Source {
    /// Reads and parses a file.
    pub fn read(file: &Path, env: &Environment) -> Result<Source, Vec<Problem>> {
        let name = file.display().to_string();
        let text = read(file, &name).map_err(|problem| vec![problem])?;
        Source::parse(&text, &name, env)
    }

    /// Parses a text; `file_name` is how its problems call it.
    pub fn parse(text: &str, file_name: &str, env: &Environment) -> Result<Source, Vec<Problem>> {
        let mut report = Report::new(file_name);
        let environment_problem = env.problem().cloned();
        let Some(mut root) = tree::parse(text, &mut report) else {
            return Err(finish(report.problems, environment_problem.as_ref()));
        };
        substitute(&mut root, env, &mut report);
        Ok(Source {
            file: file_name.to_owned(),
            root,
            found: report.problems,
            environment_problem,
        })
    }

    /// What it says by itself, as it may be shown to people.
    pub fn shown(&self) -> Shown {
        let locator = Locator::new(self.root.clone());
        Shown::new(Arc::new(locator), Arc::default())
    }

    /// Validates it alone. Where it names a database, a reference that points nowhere is only a warning.
    pub fn loaded(&self) -> Result<Loaded, Vec<Problem>> {
        self.validated(
            self.root.clone(),
            Overlaid::default(),
            Vec::new(),
            Severity::Warning,
        )
    }

    /// Validates it together with everything that comes from the database. `missing`: what to say of a tier that
    /// neither has.
    pub fn with<'r>(
        &self,
        rows: impl IntoIterator<Item = &'r Row>,
        missing: Severity,
    ) -> Result<Loaded, Vec<Problem>> {
        let mut root = self.root.clone();
        let mut problems = Vec::new();
        let overlaid = overlay::lay(&mut root, rows, &mut problems);
        self.validated(root, overlaid, problems, missing)
    }

    fn validated(
        &self,
        root: Node,
        overlaid: Overlaid,
        found: Vec<Problem>,
        missing: Severity,
    ) -> Result<Loaded, Vec<Problem>> {
        let mut report = Report::new(&self.file);
        report.problems.extend(self.found.iter().cloned());
        let value = check_shape(&root, shape(), &mut report);
        let locator = Locator::new(root);
        let raw: raw::Config = match serde_yaml::from_value(value) {
            Ok(raw) => raw,
            Err(_) => {
                // The shape check lets nothing through that serde refuses; serde's own text might show a secret.
                let hint = "this is a defect of Tidegate; please report it with the file";
                report.problems.push(Problem::of_file(
                    &self.file,
                    "does not fit its own schema",
                    hint,
                ));
                return Err(finish(report.problems, self.environment_problem.as_ref()));
            }
        };
        let config = resolve(raw, &locator, missing, &mut report);
        let mut problems = report.problems;
        problems.iter_mut().for_each(|one| overlaid.attribute(one));
        problems.extend(found);
        let problems = finish(problems, self.environment_problem.as_ref());
        if problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
        {
            return Err(problems);
        }
        Ok(Loaded {
            config,
            warnings: problems,
            file: self.file.clone(),
            locator: Arc::new(locator),
            overlaid: Arc::new(overlaid),
        })
    }
}

/// What the configuration may look like; made once.
static SHAPE: OnceCell<Shape> = OnceCell::new();

/// The shape of the configuration.
pub(super) fn shape() -> &'static Shape {
    SHAPE.get_or_init(shape_of_types)
}

fn shape_of_types() -> Shape {
    shape::read(&schema::of_types())
}

/// Reads and validates a file; the error holds every problem found, warnings too, sorted by position.
pub fn load(file: &Path, env: &Environment) -> Result<Loaded, Vec<Problem>> {
    Source::read(file, env)?.loaded()
}

/// Validates a text; `file_name` is how its problems call it.
pub fn parse(text: &str, file_name: &str, env: &Environment) -> Result<Loaded, Vec<Problem>> {
    Source::parse(text, file_name, env)?.loaded()
}

fn finish(mut problems: Vec<Problem>, environment: Option<&Problem>) -> Vec<Problem> {
    Problem::sort(&mut problems);
    // A problem of another file comes first: it may explain the others.
    if let Some(problem) = environment {
        problems.insert(0, problem.clone());
    }
    problems
}

fn read(file: &Path, name: &str) -> Result<String, Problem> {
    let problem = |message: String, hint: &str| Problem::of_file(name, message, hint);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => problem(
            "there is no such file".to_owned(),
            "give the configuration with `-c FILE`",
        ),
        io::ErrorKind::IsADirectory => problem(
            "this is a directory".to_owned(),
            "give the file itself with `-c FILE`",
        ),
        io::ErrorKind::PermissionDenied => problem(
            "may not be read".to_owned(),
            "let the user that runs Tidegate read it, for example with `chgrp`",
        ),
        _ => problem(
            format!("cannot be read: {error}"),
            "check the file and the disk it is on",
        ),
    };
    let mut bytes = Vec::new();
    // One byte more than allowed tells whether there is more.
    File::open(file)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let hint = "many clients and policies belong into the database";
        return Err(problem("larger than 64 MiB".to_owned(), hint));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        problem(format!("not UTF-8 text (line {line})"), "save it as UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{environment, loaded, with_route};

    fn failure(file: &Path) -> String {
        let problems = load(file, &environment()).unwrap_err();
        assert_eq!(problems.len(), 1);
        problems[0].to_string()
    }

    #[test]
    fn a_file_that_cannot_be_read_says_what_to_do() {
        assert_eq!(
            failure(Path::new("/nonexistent/x.yaml")),
            "/nonexistent/x.yaml: there is no such file; hint: give the configuration with `-c FILE`"
        );
        assert!(failure(&std::env::temp_dir()).contains("this is a directory"));
        let file =
            std::env::temp_dir().join(format!("tidegate-{}-latin1.yaml", std::process::id()));
        std::fs::write(&file, b"server:\n  user_agent_header: caf\xe9\n").unwrap();
        let text = failure(&file);
        std::fs::remove_file(&file).unwrap();
        assert!(text.contains("not UTF-8 text (line 2)"), "{text}");
    }

    #[test]
    fn later_steps_get_the_position_of_the_nearest_node() {
        let loaded = loaded(&with_route(
            "policies:\n  p:\n    key: [ip]\n    algorithm: concurrency\n    quota: { count: 5 }\n",
        ));
        let at = |path: &[Step<'_>]| {
            let problem = loaded.problem(path, "m", None);
            format!("{}:{} {}", problem.line, problem.column, problem.path)
        };
        assert_eq!(
            at(&["routes".into(), 0.into(), "upstream".into()]),
            "2:31 routes[0].upstream"
        );
        assert_eq!(
            at(&["policies".into(), "p".into(), "key".into(), 0.into()]),
            "5:11 policies.p.key[0]"
        );
        assert_eq!(
            at(&["policies".into(), "p".into(), "quota".into()]),
            "7:5 policies.p.quota"
        );
        assert_eq!(
            at(&["policies".into(), "p".into(), "cost".into()]),
            "4:3 policies.p.cost"
        );
        assert_eq!(
            at(&["server".into(), "threads".into()]),
            "1:1 server.threads"
        );
        assert_eq!(loaded.warning(&[], "m", None).severity, Severity::Warning);
    }

    #[test]
    fn a_bad_dotenv_file_keeps_the_configuration_from_loading() {
        let dir = std::env::temp_dir().join(format!("tidegate-{}-dotenv", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(".env"), "no equals sign\n").unwrap();
        let result = parse("", "f", &Environment::from_process(&dir));
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(result.unwrap_err()[0].file.ends_with(".env"));
    }
}

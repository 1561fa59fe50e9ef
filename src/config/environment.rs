//! The variables that `${...}` may name: those of the process over those of a `.env` file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::problem::Problem;

/// Variables for substitution; their values are never printed.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// What is wrong with `.env`; reported together with the configuration's own problems.
    problem: Option<Problem>,
}

impl Environment {
    /// The process's variables, and those of `.env` in `dir` that the process does not have. The process's own
    /// environment is only read. A `.env` that cannot be read becomes an error when a configuration is loaded.
    pub fn from_process(dir: &Path) -> Environment {
        // A value that is not UTF-8 cannot stand in a YAML text.
        let process = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Environment::merged(process, &dir.join(".env"))
    }

    /// Exactly these variables.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Environment
    where
        N: Into<String>,
        V: Into<String>,
    {
        let variables = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Environment {
            variables,
            problem: None,
        }
    }

    fn merged(process: impl IntoIterator<Item = (String, String)>, file: &Path) -> Environment {
        let name = file.display().to_string();
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Environment::from_pairs(process);
            }
            Err(error) => {
                let hint = "make it a readable UTF-8 text file, or remove it";
                let problem = Problem::of_file(&name, format!("cannot be read: {error}"), hint);
                return Environment {
                    problem: Some(problem),
                    ..Environment::from_pairs(process)
                };
            }
        };
        let mut environment = Environment::default();
        for item in dotenvy::from_read_iter(text.as_bytes()) {
            match item {
                Ok((name, value)) => {
                    environment.variables.insert(name, value);
                }
                Err(error) => {
                    environment.problem = Some(unreadable_line(&name, &text, &error));
                    break;
                }
            }
        }
        environment.variables.extend(process);
        environment
    }

    /// A variable's value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The names of all variables.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// What is wrong with `.env`.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.len())
            .finish_non_exhaustive()
    }
}

/// Where `.env` is wrong; the line itself is not repeated, it may hold a password.
fn unreadable_line(file: &str, text: &str, error: &dotenvy::Error) -> Problem {
    let hint = "write `NAME=value`, with quotes around a value that has spaces";
    let mut problem = Problem::of_file(file, "not a `.env` line", hint);
    // The error has the rest of the line from the name or from the value on, and an index into that.
    if let dotenvy::Error::LineParse(rest, index) = error
        && let Some((line, column)) = text
            .lines()
            .enumerate()
            .find_map(|(at, line)| Some((at + 1, line.trim_end().rfind(rest.trim_end())?)))
    {
        (problem.line, problem.column) = (line, column + index + 1);
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(dotenv: &str, process: &[(&str, &str)], test: &str) -> Environment {
        let file = std::env::temp_dir().join(format!("tidegate-{}-{test}.env", std::process::id()));
        std::fs::write(&file, dotenv).unwrap();
        let pairs = process
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let environment = Environment::merged(pairs, &file);
        std::fs::remove_file(&file).unwrap();
        environment
    }

    #[test]
    fn the_process_beats_the_dotenv_file() {
        let dotenv = "# comment\nA=from_file\nexport B='two words'\n";
        let environment = merged(dotenv, &[("A", "from_process")], "beats");
        assert_eq!(environment.get("A"), Some("from_process"));
        assert_eq!(environment.get("B"), Some("two words"));
        assert!(environment.problem().is_none());
    }

    #[test]
    fn a_missing_dotenv_file_is_fine_and_a_broken_one_is_located_without_its_text() {
        let environment = Environment::from_process(Path::new("/nonexistent"));
        assert!(environment.problem().is_none());
        let problem = merged("A=1\nPASSWORD=s3cret word\n", &[], "broken")
            .problem()
            .cloned()
            .unwrap();
        assert_eq!((problem.line, problem.column), (2, 17), "{problem}");
        assert!(!problem.to_string().contains("s3cret"), "{problem}");
    }

    #[test]
    fn values_do_not_show_in_debug_output() {
        let text = format!("{:?}", Environment::from_pairs([("TOKEN", "s3cret")]));
        assert!(!text.contains("s3cret"), "{text}");
    }
}

//! Machine-readable results: JUnit XML for CI systems, JSON for everything else.

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// The results of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The suites, such as one for each engine.
    pub suites: Vec<Suite>,
}

/// The results of a suite, one entry for each group of cases (an opcode, an instruction form).
#[derive(Clone, Debug, Serialize)]
pub struct Suite {
    /// Name of the suite.
    pub suite: String,
    /// What reproduces the run: paths, seed, counts.
    pub parameters: Vec<(String, String)>,
    /// The groups.
    pub groups: Vec<Group>,
}

impl From<Suite> for Report {
    fn from(suite: Suite) -> Report {
        Report { suites: vec![suite] }
    }
}

/// The results of a group of cases.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Cases run.
    pub run: u64,
    /// Cases that matched.
    pub matched: u64,
    /// Why nothing was run, where that is so.
    pub skipped: Option<String>,
    /// What went wrong, one entry for each kept difference. Not empty when the group failed.
    pub failures: Vec<String>,
}

/// Where a report goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// JUnit XML.
    Junit(PathBuf),
    /// JSON.
    Json(PathBuf),
}

/// Why a report was not written, or its destination not understood.
#[derive(Debug, Error)]
pub enum ReportError {
    /// Neither junit:FILE nor json:FILE.
    #[error("{0:?} is no report destination; give junit:FILE or json:FILE")]
    Destination(String),
    /// The file could not be written.
    #[error("cannot write the report {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Text that the format cannot hold.
    #[error("cannot format the report: {0}")]
    Format(String),
}

impl FromStr for Destination {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Destination, ReportError> {
        match text.split_once(':') {
            Some(("junit", file)) if !file.is_empty() => Ok(Destination::Junit(file.into())),
            Some(("json", file)) if !file.is_empty() => Ok(Destination::Json(file.into())),
            _ => Err(ReportError::Destination(text.to_owned())),
        }
    }
}

impl Destination {
    /// The destination for one part of a run that has several: `part` goes in front of the
    /// file name's extension.
    pub fn for_part(&self, part: Option<&str>) -> Destination {
        let Some(part) = part else { return self.clone() };
        let renamed = |path: &PathBuf| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy()));
            path.with_file_name(format!("{stem}-{part}{}", extension.unwrap_or_default()))
        };
        match self {
            Destination::Junit(path) => Destination::Junit(renamed(path)),
            Destination::Json(path) => Destination::Json(renamed(path)),
        }
    }
}

impl Report {
    /// Writes the report.
    ///
    /// # Errors
    /// [`ReportError`], when the file cannot be written.
    pub fn write(&self, to: &Destination) -> Result<(), ReportError> {
        let (path, text) = match to {
            Destination::Junit(path) => (path, self.junit()?),
            Destination::Json(path) => (
                path,
                serde_json::to_string_pretty(self)
                    .map_err(|e| ReportError::Format(e.to_string()))?,
            ),
        };
        fs::write(path, text).map_err(|source| ReportError::Write { path: path.clone(), source })
    }

    fn junit(&self) -> Result<String, ReportError> {
        let mut report = quick_junit::Report::new("ringshift conform");
        report.add_test_suites(self.suites.iter().map(Suite::junit));
        report.to_string().map_err(|e| ReportError::Format(e.to_string()))
    }
}

impl Suite {
    fn junit(&self) -> TestSuite {
        let mut suite = TestSuite::new(self.suite.as_str());
        for (key, value) in &self.parameters {
            suite.add_property((key.as_str(), value.as_str()));
        }
        for group in &self.groups {
            let status = match &group.skipped {
                Some(reason) => {
                    let mut status = TestCaseStatus::skipped();
                    status.set_message(reason.as_str());
                    status
                }
                None if group.failures.is_empty() => TestCaseStatus::success(),
                None => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message(format!("{} of {} matched", group.matched, group.run));
                    status.set_description(group.failures.join("\n\n"));
                    status
                }
            };
            let mut case = TestCase::new(group.name.as_str(), status);
            case.set_classname(self.suite.as_str());
            case.add_property(("run", group.run.to_string().as_str()));
            case.add_property(("matched", group.matched.to_string().as_str()));
            suite.add_test_case(case);
        }
        suite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let group = |name: &str, failures: Vec<String>| Group {
            name: name.to_owned(),
            run: 2,
            matched: 2 - failures.len() as u64,
            skipped: None,
            failures,
        };
        let suite = |name: &str| Suite {
            suite: name.to_owned(),
            parameters: vec![("seed".to_owned(), "7".to_owned())],
            groups: vec![
                group("00", vec![]),
                group("F6.7", vec!["ax is <1>, expected \"2\" & \u{1}".to_owned()]),
            ],
        };
        Report { suites: vec![suite("host-64-interp"), suite("host-64-jit")] }
    }

    #[test]
    fn junit_counts_failures_and_escapes_text() {
        let text = sample().junit().expect("formats");
        assert_eq!(text.matches("failures=\"1\"").count(), 2, "{text}");
        for suite in ["host-64-interp", "host-64-jit"] {
            assert!(text.contains(&format!("testsuite name=\"{suite}\"")), "{text}");
            assert!(text.contains(&format!("classname=\"{suite}\"")), "{text}");
        }
        assert!(text.contains("&lt;1>") || text.contains("&lt;1&gt;"), "{text}");
        assert!(!text.contains('\u{1}'));
    }

    #[test]
    fn destinations() {
        assert_eq!(
            "json:a:b".parse::<Destination>().expect("valid"),
            Destination::Json("a:b".into())
        );
        let part = Destination::Junit("a/b.xml".into()).for_part(Some("64"));
        assert_eq!(part, Destination::Junit("a/b-64.xml".into()));
        assert!("xml:a".parse::<Destination>().is_err());
        assert!("json:".parse::<Destination>().is_err());
    }
}

//! `tidegate schema`: the JSON Schema of the configuration, for editors.

use super::Failure;
use std::io::Write;

pub(super) fn schema() -> Result<(), Failure> {
    let schema = crate::config::json_schema();
    writeln!(std::io::stdout(), "{schema:#}")?;
    Ok(())
}

//! The demo's progress line: what passes, once a second.

use crate::snapshot::Running;
use crate::telemetry::Totals;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

/// Prints to standard output until the process ends. On a terminal one line is written over and
/// over; elsewhere a line appears only when something has changed.
pub(super) fn start(running: Arc<Running>) {
    let terminal = std::io::stdout().is_terminal();
    let printing = std::thread::Builder::new()
        .name("progress".into())
        .spawn(move || {
            let mut last = Totals::default();
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let totals = running.metrics.totals();
                let line = line(totals, last);
                let printed = if terminal {
                    write!(std::io::stdout(), "\r\x1b[K{line}")
                        .and_then(|()| std::io::stdout().flush())
                } else if totals == last {
                    Ok(())
                } else {
                    writeln!(std::io::stdout(), "{line}")
                };
                if printed.is_err() {
                    return;
                }
                last = totals;
            }
        });
    if let Err(error) = printing {
        tracing::warn!("no progress line: {error}");
    }
}

fn line(totals: Totals, last: Totals) -> String {
    let per_second = totals.requests.saturating_sub(last.requests);
    let Totals {
        requests,
        passed,
        limited,
    } = totals;
    format!("{per_second}/s  requests {requests}  passed {passed}  over a limit {limited}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_passed_and_what_did_not() {
        let totals = Totals {
            requests: 15,
            passed: 10,
            limited: 5,
        };
        assert_eq!(
            line(totals, Totals::default()),
            "15/s  requests 15  passed 10  over a limit 5"
        );
    }
}

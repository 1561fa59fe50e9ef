//! A million keys: only with `TIDEGATE_LONG=1`, because loading them takes a while.

use super::scene::{Scene, now_us};
use tidegate::database::generated_key;

const KEYS: u32 = 1_000_000;

/// Keys looked at for the first time.
const SEEN: u32 = 2_000;

#[test]
fn of_a_million_keys_each_is_seen_first_in_under_three_milliseconds() {
    if std::env::var_os("TIDEGATE_LONG").is_none() {
        return;
    }
    let scene = Scene::started();
    scene.server.sql(&format!(
        "INSERT INTO api_keys (id, sha256, client) \
         SELECT 'k' || n, sha256(n::text::bytea), 'c' || n % 1000 FROM generate_series(1, {KEYS}) AS n"
    ));
    scene.server.sql("VACUUM ANALYZE api_keys");
    let directory = scene.database.directory();
    let mut times: Vec<std::time::Duration> = (0..SEEN)
        .map(|n| {
            let digest = generated_key::digest((n * (KEYS / SEEN) + 1).to_string().as_bytes());
            let begin = std::time::Instant::now();
            let found = scene.run(directory.find_key(digest, now_us()));
            assert!(found.unwrap().is_some());
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    eprintln!("first sight of a key: half within {half:?}, 99 of 100 within {most:?}");
    assert!(half < std::time::Duration::from_millis(3), "{half:?}");
    assert!(scene.metrics.database.known.get() <= 1_000);
}

//! Reading and writing documents: ETags, revisions, rollback, many writers, nasty text.

use super::scene::Scene;
use serde_json::{Value, json};
use tidegate::database::{DatabaseError, Expected, Kind, Revision, Terms};

fn quota(count: u64) -> Value {
    json!({ "key": ["client"], "algorithm": "token_bucket", "quota": { "count": count, "period": "60s" } })
}

fn revisions(scene: &Scene) -> Vec<Revision> {
    scene
        .run(scene.database.revisions(None, 100))
        .unwrap()
        .items
}

#[test]
fn a_write_says_what_it_expects_and_is_refused_if_that_is_not_so() {
    let scene = Scene::new();
    let put = |count, expected| {
        let document = quota(count);
        let work = async {
            scene
                .database
                .put(Kind::Policy, "p", &document, "ann", expected)
                .await
        };
        scene.run(work)
    };
    let first = put(1, Expected::Absent).unwrap();
    let etag = first.stored.unwrap().etag;
    assert!(first.created);
    let failed = |expected| match put(9, expected) {
        Err(DatabaseError::PreconditionFailed { etag }) => etag,
        other => panic!("{other:?}"),
    };
    assert_eq!(failed(Expected::Absent), Some(etag.clone()));
    assert_eq!(failed(Expected::Etag("0".to_owned())), Some(etag.clone()));
    let second = put(2, Expected::Etag(etag.clone())).unwrap();
    assert!(!second.created);
    let next = second.stored.unwrap().etag;
    assert_ne!(next, etag);
    assert_eq!(failed(Expected::Etag(etag)), Some(next.clone()));
    // back to the first content is not back to the first version
    let third = put(1, Expected::Etag(next)).unwrap();
    let delete = |expected| scene.run(scene.database.delete(Kind::Policy, "p", "ann", expected));
    assert!(matches!(
        delete(Expected::Etag("0".to_owned())),
        Err(DatabaseError::PreconditionFailed { .. })
    ));
    assert!(delete(Expected::Etag(third.stored.unwrap().etag)).is_ok());
    assert!(matches!(
        delete(Expected::Any),
        Err(DatabaseError::NotFound(_))
    ));
    assert!(matches!(
        delete(Expected::Etag("0".to_owned())),
        Err(DatabaseError::PreconditionFailed { etag: None })
    ));
    assert_eq!(
        scene.run(scene.database.get(Kind::Policy, "p")).unwrap(),
        None
    );
}

#[test]
fn what_was_judged_before_somebody_wrote_is_judged_anew() {
    let scene = Scene::new();
    let put = |judged_at| {
        let terms = Terms {
            expected: Expected::Any,
            judged_at,
        };
        let document = json!({});
        let put = scene
            .database
            .put(Kind::Tier, "gold", &document, "ann", terms);
        scene.run(put)
    };
    let first = put(Some(0)).unwrap();
    for judged_at in [0, first.revision - 1, first.revision + 1, -1] {
        let refused = put(Some(judged_at));
        assert!(
            matches!(refused, Err(DatabaseError::Overtaken)),
            "{refused:?}"
        );
    }
    let second = put(Some(first.revision)).unwrap();
    assert!(second.revision > first.revision && put(None).is_ok());
}

#[test]
fn an_edit_by_hand_changes_the_etag() {
    let scene = Scene::new();
    scene.put(Kind::Policy, "p", &quota(1));
    let etag = || {
        scene
            .run(scene.database.get(Kind::Policy, "p"))
            .unwrap()
            .unwrap()
            .etag
    };
    let before = etag();
    scene
        .server
        .sql("INSERT INTO policy_tiers VALUES ('p', 'pro', '{\"count\": 5}')");
    assert_ne!(etag(), before);
}

#[test]
fn revisions_tell_who_changed_what_and_take_it_back() {
    let scene = Scene::new();
    scene.put(Kind::Policy, "p", &quota(1));
    scene.put(Kind::Policy, "p", &quota(2));
    let rollback = |id| scene.run(scene.database.rollback(id, "bob", Expected::Any));
    let back = rollback(2).unwrap();
    assert_eq!(back.stored.unwrap().document, quota(1));
    let newest = &revisions(&scene)[0];
    assert_eq!(
        (newest.by.as_str(), newest.rolled_back_from),
        ("bob", Some(2))
    );
    assert_eq!(
        (&newest.before, &newest.after),
        (&Some(quota(2)), &Some(quota(1)))
    );
    // before the first one there was nothing
    assert_eq!(rollback(1).unwrap().stored, None);
    assert!(matches!(rollback(1), Err(DatabaseError::NotFound(_))));
    assert!(matches!(rollback(99), Err(DatabaseError::NotFound(_))));
    // the deletion is a revision too
    assert_eq!(rollback(4).unwrap().stored.unwrap().document, quota(1));
    let page = scene.run(scene.database.revisions(Some(4), 2)).unwrap();
    let ids: Vec<i64> = page.items.iter().map(|revision| revision.id).collect();
    assert_eq!((ids, page.next.as_deref()), (vec![3, 2], Some("2")));
    let (id, _) = scene.key_of("acme");
    let about_key = &revisions(&scene)[0];
    assert_eq!((about_key.kind.as_str(), &about_key.name), ("key", &id));
    let error = rollback(about_key.id).unwrap_err().to_string();
    assert!(error.contains("cannot be rolled back"), "{error}");
}

#[test]
fn a_key_the_database_cannot_hold_is_an_error_and_nothing_is_written() {
    let scene = Scene::new();
    let mut cases = vec![
        (Kind::Tier, json!({ "colour": "red" }), "colour"),
        (
            Kind::Client,
            json!({ "tier": "pro", "api_keys": [] }),
            "api_keys",
        ),
        (Kind::RouteSettings, json!({ "cost": 1.5 }), "stored"),
        (Kind::RouteSettings, json!({ "enabled": "yes" }), "enabled"),
        (Kind::RouteSettings, json!({ "timeout": 5 }), "timeout"),
    ];
    for (key, value) in [
        ("burst", json!(1)),
        ("cost", json!(-1e30)),
        ("mode", json!(true)),
        ("quota", json!([])),
        ("routes", json!("search")),
        ("lease_ttl", json!("\u{0}")),
    ] {
        let mut document = quota(1);
        document[key] = value;
        cases.push((Kind::Policy, document, ""));
    }
    for (kind, document, word) in cases {
        let put = scene
            .database
            .put(kind, "x", &document, "test", Expected::Any);
        let error = match scene.run(put) {
            Err(DatabaseError::Invalid(message)) => message,
            other => panic!("{kind:?} {document}: {other:?}"),
        };
        assert!(error.contains(word), "{kind:?} {document}: {error}");
    }
    assert_eq!(revisions(&scene), []);
    assert_eq!(scene.server.sql("SELECT count(*) FROM policies"), "0");
}

#[test]
fn nasty_text_is_text_in_every_field() {
    let scene = Scene::new();
    let nothing = json!({});
    for nasty in [
        "'; DROP TABLE policies; --",
        "$1",
        "\\'\"%s${x}",
        "{a,\"b\"}",
        "NULL",
        "\u{202e}\u{1f980}",
        "a\nb\tc",
    ] {
        let document = json!({
            "routes": [nasty], "key": [nasty], "algorithm": nasty, "mode": nasty,
            "quota": { nasty: nasty }, "methods": [nasty], "on_outage": nasty,
        });
        scene.put(Kind::Policy, "p", &document);
        let found = scene.run(scene.database.get(Kind::Policy, "p")).unwrap();
        assert_eq!(found.unwrap().document, document);
        scene
            .run(
                scene
                    .database
                    .put(Kind::Tier, "t", &json!({}), nasty, Expected::Any),
            )
            .unwrap();
        assert_eq!(revisions(&scene)[0].by, nasty);
        for kind in [Kind::Policy, Kind::Tier, Kind::RouteSettings] {
            assert_eq!(scene.run(scene.database.get(kind, nasty)).unwrap(), None);
            let put = scene
                .database
                .put(kind, nasty, &nothing, "test", Expected::Any);
            assert!(matches!(scene.run(put), Err(DatabaseError::Invalid(_))));
            let after = scene.run(scene.database.list(kind, Some(nasty), 10));
            assert!(after.is_ok());
        }
        assert!(scene.run(scene.database.revoke_key(nasty, "test")).is_err());
    }
    let odd = "O'Brien;--\\%_$1";
    let (_, digest) = scene.key_of(odd);
    assert_eq!(scene.client_of(&digest), Ok(Some(odd.to_owned())));
}

#[test]
fn lists_come_in_pages_in_the_order_of_bytes() {
    let scene = Scene::new();
    for id in ["b", "a", "B", "_", "~", "a-b", "ab"] {
        scene.put(Kind::Client, id, &json!({}));
    }
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = scene
            .run(scene.database.list(Kind::Client, after.as_deref(), 3))
            .unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|stored| stored.name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["B", "_", "a", "a-b", "ab", "b", "~"]);
}

#[test]
fn of_many_writers_who_expect_the_same_one_wins_each_round_and_nothing_is_lost() {
    let scene = Scene::new();
    scene.put(Kind::Policy, "p", &quota(1));
    let writers = [(); 8].map(|()| {
        let database = scene.database.clone();
        scene.runtime.spawn(async move {
            let mut done = 0;
            while done < 10 {
                let now = database.get(Kind::Policy, "p").await.unwrap().unwrap();
                let count = now.document["quota"]["count"].as_u64().unwrap();
                let expected = Expected::Etag(now.etag);
                match database
                    .put(Kind::Policy, "p", &quota(count + 1), "w", expected)
                    .await
                {
                    Ok(_) => done += 1,
                    Err(DatabaseError::PreconditionFailed { .. }) => (),
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for writer in writers {
        scene.run(writer).unwrap();
    }
    let last = scene
        .run(scene.database.get(Kind::Policy, "p"))
        .unwrap()
        .unwrap();
    assert_eq!(last.document, quota(81));
    // a chain without a gap: each begins where the one before it ended
    let all = revisions(&scene);
    assert_eq!(all.len(), 81);
    for pair in all.windows(2) {
        assert_eq!(pair[0].before, pair[1].after);
    }
    assert_eq!(scene.server.sql("SELECT count(*) FROM policies"), "1");
}

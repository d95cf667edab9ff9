use serde_json::json;

use super::*;

fn object(version: u64, owner: &str) -> PartialObjectMeta<DynamicObject> {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "namespace": "bots", "name": "rosey-exporter", "uid": "o", "resourceVersion": version.to_string(),
            "labels": {MONITOR_LABEL: "rosey"},
            "ownerReferences": [{"apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "name": "rosey", "uid": owner, "controller": true}],
        },
    }))
    .unwrap()
}

struct World {
    owned: Owned,
    due: tokio::sync::mpsc::UnboundedReceiver<Key>,
    key: Key,
}

impl World {
    fn new() -> Self {
        let queue = Queue::default();
        let due = queue.open();
        let owned = Owned::new(queue);
        let key = Key::new("bots", "rosey");
        owned.monitor_exists(&key);
        Self { owned, due, key }
    }

    fn wrote(&self, version: u64) {
        let written = Written {
            uid: "o".into(),
            version,
            hash: 1,
        };
        self.owned
            .record(&self.key, "m", Kind::ConfigMap, "rosey-exporter", written);
    }

    fn hears(&self, event: Event<PartialObjectMeta<DynamicObject>>) {
        self.owned.observe(Kind::ConfigMap, &Area::Cluster, event);
    }

    fn due(&mut self) -> usize {
        std::iter::from_fn(|| self.due.try_recv().ok()).count()
    }

    fn standing(&self) -> Standing {
        self.owned
            .standing(&self.key, "m", Kind::ConfigMap, "rosey-exporter", 1)
    }
}

#[test]
fn the_echo_of_our_own_write_moves_nothing_even_if_it_comes_first() {
    let mut world = World::new();
    world.wrote(5);
    world.hears(Event::Apply(object(5, "m")));
    assert_eq!((world.due(), world.standing()), (0, Standing::Settled));

    world.hears(Event::Apply(object(8, "m")));
    world.wrote(8);
    assert_eq!(world.standing(), Standing::Settled);
}

#[test]
fn a_foreign_write_makes_the_monitor_due_even_if_it_is_heard_before_our_own_answer() {
    let mut world = World::new();
    world.wrote(5);
    world.hears(Event::Apply(object(7, "m")));
    assert_eq!((world.due(), world.standing()), (1, Standing::Unknown));

    // Our write got version 6, and somebody else's version 7 was heard of before the answer to ours was.
    world.wrote(6);
    assert_eq!(world.standing(), Standing::Unknown);
}

#[test]
fn a_deletion_makes_the_monitor_due_and_the_object_unseen() {
    let mut world = World::new();
    world.wrote(5);
    world.hears(Event::Apply(object(5, "m")));
    world.hears(Event::Delete(object(6, "m")));
    assert_eq!((world.due(), world.standing()), (1, Standing::Unseen));

    world.wrote(9);
    world.hears(Event::Delete(object(8, "m")));
    assert_eq!((world.due(), world.standing()), (0, Standing::Settled));
}

#[test]
fn a_relist_that_shows_the_same_moves_nothing_and_one_that_misses_an_object_does() {
    let mut world = World::new();
    world.wrote(5);
    world.hears(Event::Init);
    world.hears(Event::InitApply(object(5, "m")));
    world.hears(Event::InitDone);
    assert_eq!((world.due(), world.standing()), (0, Standing::Settled));

    world.hears(Event::Init);
    world.hears(Event::InitDone);
    assert_eq!((world.due(), world.standing()), (1, Standing::Unseen));
}

#[test]
fn an_object_without_label_and_owner_still_makes_its_monitor_due() {
    let mut world = World::new();
    world.wrote(5);
    let mut stripped = object(6, "m");
    stripped.metadata.labels = None;
    stripped.metadata.owner_references = None;
    world.hears(Event::Apply(stripped));
    assert_eq!((world.due(), world.standing()), (1, Standing::Unknown));
}

#[test]
fn leftovers_are_those_of_this_monitor_that_are_not_planned() {
    let world = World::new();
    world.hears(Event::Apply(object(5, "m")));
    let planned = BTreeSet::from([(Kind::ConfigMap, "rosey-exporter")]);
    assert_eq!(world.owned.leftovers(&world.key, "m", &planned), []);
    assert_eq!(world.owned.leftovers(&world.key, "older", &BTreeSet::new()), []);
    assert_eq!(world.owned.leftovers(&world.key, "m", &BTreeSet::new()).len(), 1);
}

#[test]
fn what_we_wrote_is_a_leftover_before_the_watch_has_shown_it() {
    let world = World::new();
    let leftovers = || world.owned.leftovers(&world.key, "m", &BTreeSet::new());
    let versions = || leftovers().iter().map(|leftover| leftover.version).collect::<Vec<_>>();
    world.wrote(5);
    assert_eq!(versions(), [5]);
    world.hears(Event::Apply(object(5, "m")));
    world.wrote(6);
    assert_eq!(versions(), [6], "the watch is behind our own write");
    world.hears(Event::Apply(object(9, "m")));
    assert_eq!(versions(), [9]);
}

#[test]
fn what_was_removed_before_the_watch_has_shown_it_is_no_leftover() {
    let world = World::new();
    world.wrote(5);
    world.owned.forget(&world.key, Kind::ConfigMap, "rosey-exporter");
    assert_eq!(world.owned.leftovers(&world.key, "m", &BTreeSet::new()), []);
    assert_eq!(world.standing(), Standing::Unseen);
}

#[test]
fn an_edit_that_gives_an_object_to_another_monitor_makes_its_own_monitor_due() {
    let mut world = World::new();
    world.wrote(5);
    let mut edited = object(6, "m");
    edited.metadata.labels = Some([(MONITOR_LABEL.to_owned(), "other".to_owned())].into());
    edited.metadata.owner_references = None;
    world.hears(Event::Apply(edited));
    assert_eq!(world.due.try_recv().unwrap(), world.key);
    assert_eq!(world.due(), 0);
}

#[test]
fn a_namespace_is_configured_while_a_monitor_and_its_config_map_are_there() {
    let world = World::new();
    let configured = world.owned.configured();
    assert!(configured.borrow().is_empty());
    world.wrote(5);
    world.hears(Event::Apply(object(5, "m")));
    world.hears(Event::Delete(object(6, "m")));
    assert_eq!(*configured.borrow(), BTreeSet::from(["bots".to_owned()]));
    world.owned.monitor_gone(&world.key);
    assert!(configured.borrow().is_empty());
}

#[test]
fn a_new_leader_reads_before_it_trusts() {
    let world = World::new();
    world.wrote(5);
    world.hears(Event::Apply(object(5, "m")));
    world.owned.distrust();
    assert_eq!(world.standing(), Standing::Unknown);
}

#[test]
fn a_namespace_stays_configured_until_the_last_of_its_monitors_is_gone() {
    let world = World::new();
    let configured = world.owned.configured();
    let second = Key::new("bots", "second");
    world.wrote(5);
    let written = || Written {
        uid: "p".into(),
        version: 5,
        hash: 1,
    };
    world
        .owned
        .record(&second, "n", Kind::ConfigMap, "second-exporter", written());
    for _ in 0..2 {
        world.owned.monitor_exists(&second);
        assert!(configured.borrow().contains("bots"));
        world.owned.monitor_gone(&second);
        assert!(configured.borrow().contains("bots"));
    }
    world.owned.monitor_gone(&world.key);
    assert!(configured.borrow().is_empty());
}

#[test]
fn what_was_written_for_a_deleted_monitor_is_nothing_that_its_successor_may_overwrite() {
    let world = World::new();
    world.wrote(5);
    world.hears(Event::Apply(object(5, "m")));
    world.owned.monitor_gone(&world.key);
    world.owned.monitor_exists(&world.key);
    assert_eq!(world.standing(), Standing::Unknown);

    // A write that was under way when its monitor went.
    world.wrote(6);
    let standing = |uid, hash| {
        world
            .owned
            .standing(&world.key, uid, Kind::ConfigMap, "rosey-exporter", hash)
    };
    assert_eq!(
        standing("m", 2),
        Standing::Ours {
            uid: "o".into(),
            version: 6
        }
    );
    assert_eq!(standing("successor", 2), Standing::Unknown);
    assert_eq!(world.owned.leftovers(&world.key, "successor", &BTreeSet::new()), []);
}

#[test]
fn a_namespace_that_is_listed_anew_leaves_the_objects_of_the_others() {
    let world = World::new();
    let [bots, games] = ["bots", "games"].map(|name| Area::Namespace(name.into()));
    let list = |area: &Area| {
        world.owned.observe(Kind::ConfigMap, area, Event::Init);
        world.owned.observe(Kind::ConfigMap, area, Event::InitDone);
    };
    let absent = || world.owned.is_absent(&world.key, Kind::ConfigMap, "rosey-exporter");
    world.hears(Event::Apply(object(5, "m")));
    list(&games);
    assert!(!absent());
    // Both at the same time.
    world.owned.observe(Kind::ConfigMap, &bots, Event::Init);
    world
        .owned
        .observe(Kind::ConfigMap, &bots, Event::InitApply(object(5, "m")));
    list(&games);
    world.owned.observe(Kind::ConfigMap, &bots, Event::InitDone);
    assert!(!absent());
    list(&bots);
    assert!(absent());
}

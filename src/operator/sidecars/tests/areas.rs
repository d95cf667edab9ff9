use super::*;

#[test]
fn a_namespace_that_is_listed_anew_leaves_the_pods_of_the_others() {
    let (all, _due, _monitor) = world(vec![]);
    let [bots, games] = ["bots", "games"].map(|name| Area::Namespace(name.into()));
    let elsewhere = |name: &str| {
        let mut pod = running(name);
        pod.metadata.namespace = Some("games".into());
        pod
    };
    let list = |area: &Area, pods: Vec<Pod>| {
        all.observe(area, Event::Init);
        for pod in pods {
            all.observe(area, Event::InitApply(pod));
        }
        all.observe(area, Event::InitDone);
    };
    let names = || -> Vec<(String, String)> {
        let records = lock(&all.records);
        let pods = records
            .iter()
            .flat_map(|(namespace, pods)| pods.keys().map(move |name| (namespace, name)));
        let mut names: Vec<_> = pods
            .map(|(namespace, name)| (namespace.to_string(), name.to_string()))
            .collect();
        names.sort();
        names
    };
    let pair = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    list(&bots, vec![running("a")]);
    list(&games, vec![elsewhere("x")]);
    assert_eq!(names(), [pair("bots", "a"), pair("games", "x")]);
    // Both at the same time.
    all.observe(&bots, Event::Init);
    all.observe(&bots, Event::InitApply(running("b")));
    list(&games, vec![elsewhere("y")]);
    assert_eq!(names(), [pair("bots", "a"), pair("games", "y")]);
    all.observe(&bots, Event::InitDone);
    assert_eq!(names(), [pair("bots", "b"), pair("games", "y")]);
    list(&games, vec![]);
    assert_eq!(names(), [pair("bots", "b")]);
}

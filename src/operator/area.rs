//! Where the operator looks: in the whole cluster, or in named namespaces, each by watches of its own.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::core::DynamicResourceScope;
use kube::{Api, Client, Resource};

/// What one watch of a kind sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// All namespaces.
    Cluster,
    /// This one alone.
    Namespace(Arc<str>),
}

impl Area {
    /// The areas of an operator that watches these namespaces; of none, the whole cluster.
    #[must_use]
    pub fn of(namespaces: &BTreeSet<String>) -> Vec<Self> {
        if namespaces.is_empty() {
            return vec![Self::Cluster];
        }
        let names = namespaces.iter().map(|name| Self::Namespace(name.as_str().into()));
        names.collect()
    }

    /// Whether it sees the objects of a namespace.
    #[must_use]
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespace(name) => **name == *namespace,
        }
    }

    /// Its objects of a kind.
    #[must_use]
    pub fn api<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::Cluster => Api::all(client),
            Self::Namespace(name) => Api::namespaced(client, name),
        }
    }

    /// The same of a kind that is known by its names.
    #[must_use]
    pub fn api_with<K>(&self, client: Client, kind: &K::DynamicType) -> Api<K>
    where
        K: Resource<Scope = DynamicResourceScope>,
    {
        match self {
            Self::Cluster => Api::all_with(client, kind),
            Self::Namespace(name) => Api::namespaced_with(client, name, kind),
        }
    }

    /// Takes out of a map what is seen here.
    #[must_use]
    pub fn take<K: Eq + Hash, V>(&self, map: &mut HashMap<K, V>, namespace: impl Fn(&K) -> &str) -> HashMap<K, V> {
        match self {
            Self::Cluster => std::mem::take(map),
            Self::Namespace(_) => map.extract_if(|key, _| self.has(namespace(key))).collect(),
        }
    }
}

/// As it stands behind the name of a watch.
impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => Ok(()),
            Self::Namespace(name) => write!(f, " of {name}"),
        }
    }
}

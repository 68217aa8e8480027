//! Which Model API a request belongs to, found by hash and not by trying one after the other.
//!
//! Model APIs are grouped by path, within a path by headers, and within these by model. Only
//! patterns with a `*` are tried one by one.

use std::collections::BTreeMap;
use std::rc::Rc;

use hashbrown::HashMap;

use super::model_api::ModelApi;
use super::path_template::split_query;
use super::pattern::Pattern;

/// How the paths of the known Model APIs end.
pub const KNOWN_PATHS: [&str; 12] = [
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/responses",
    "/responses/compact",
    "/messages",
    "/messages/count_tokens",
    "/rerank",
    "/score",
    "/moderations",
    "/images/generations",
    "/audio/speech",
];

/// The Model APIs that a request may belong to, as far as its path and headers tell.
///
/// It shares what it needs, so that it can be kept until the body is read.
#[derive(Debug, Default)]
pub struct Candidates {
    buckets: Vec<Rc<Bucket>>,
}

impl Candidates {
    /// Whether the request belongs to no Model API, whatever its body.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The Model API of a request for `model`. A request without a model belongs to one that takes
    /// any.
    #[must_use]
    pub fn first_for(&self, model: Option<&str>) -> Option<&Rc<ModelApi>> {
        self.first(|bucket| bucket.first_for(model))
    }

    /// The Model API of a request whose body is not read: the first that takes any model, else the
    /// first. `None` only where there are no candidates.
    #[must_use]
    pub fn unread(&self) -> Option<&Rc<ModelApi>> {
        let of_any_model = self.first(|bucket| bucket.any.as_ref());
        of_any_model.or_else(|| self.first(|bucket| bucket.first.as_ref()))
    }

    fn first<'a>(
        &'a self,
        of: impl Fn(&'a Bucket) -> Option<&'a Rc<ModelApi>>,
    ) -> Option<&'a Rc<ModelApi>> {
        self.buckets
            .iter()
            .filter_map(|bucket| of(bucket))
            .min_by_key(|api| api.index)
    }
}

/// All Model APIs, by path.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Index {
    exact: HashMap<Vec<u8>, PathGroup>,
    known: PathGroup,
    wild: BTreeMap<Pattern, PathGroup>,
}

impl Index {
    /// `apis` in their order.
    pub fn new(apis: &[Rc<ModelApi>]) -> Self {
        let mut index = Index::default();
        for api in apis {
            if api.paths.is_empty() {
                index.known.add(api);
            }
            for path in &api.paths {
                match path.exact() {
                    Some(exact) => index
                        .exact
                        .entry_ref(exact.as_bytes())
                        .or_default()
                        .add(api),
                    None => index.wild.entry(path.clone()).or_default().add(api),
                }
            }
        }
        index
    }

    pub fn candidates<V: AsRef<[u8]>>(
        &self,
        path_and_query: &[u8],
        header: impl Fn(&str) -> Option<V>,
    ) -> Candidates {
        let (path, _) = split_query(path_and_query);
        let buckets = self
            .groups(path)
            .flat_map(|group| group.buckets(&header))
            .cloned();
        Candidates {
            buckets: buckets.collect(),
        }
    }

    fn groups(&self, path: &[u8]) -> impl Iterator<Item = &PathGroup> {
        let known = Some(&self.known).filter(|group| !group.0.is_empty() && is_known(path));
        let wild = self
            .wild
            .iter()
            .filter(move |(pattern, _)| pattern.matches(path))
            .map(|(_, group)| group);
        self.exact.get(path).into_iter().chain(known).chain(wild)
    }
}

fn is_known(path: &[u8]) -> bool {
    KNOWN_PATHS.iter().any(|end| path.ends_with(end.as_bytes()))
}

/// The Model APIs of one path: by the names of the headers they ask for (most often none), and then
/// by the values they ask for.
#[derive(Debug, Default, Clone, PartialEq)]
struct PathGroup(BTreeMap<Vec<String>, ByValues>);

type ByValues = HashMap<Vec<Vec<u8>>, Rc<Bucket>>;

impl PathGroup {
    fn add(&mut self, api: &Rc<ModelApi>) {
        let (names, values) = api
            .headers
            .iter()
            .cloned()
            .map(|(name, value)| (name, value.into_bytes()))
            .unzip();
        let bucket = self.0.entry(names).or_default().entry(values).or_default();
        // Not shared yet, so that nothing is copied.
        Rc::make_mut(bucket).add(api);
    }

    /// The Model APIs whose headers fit.
    fn buckets<V: AsRef<[u8]>>(
        &self,
        header: &impl Fn(&str) -> Option<V>,
    ) -> impl Iterator<Item = &Rc<Bucket>> {
        let value = |name: &String| header(name).map(|value| value.as_ref().to_vec());
        self.0.iter().filter_map(move |(names, by_values)| {
            let values: Option<Vec<Vec<u8>>> = names.iter().map(value).collect();
            by_values.get(&values?)
        })
    }
}

/// The Model APIs that ask for the same path and headers, by model.
#[derive(Debug, Default, Clone, PartialEq)]
struct Bucket {
    first: Option<Rc<ModelApi>>,
    /// The first that takes any model. None after it can win, so none is kept.
    any: Option<Rc<ModelApi>>,
    /// The first of each exact model.
    exact: HashMap<String, Rc<ModelApi>>,
    /// Those with a model pattern, in order.
    wild: Vec<Rc<ModelApi>>,
}

impl Bucket {
    fn add(&mut self, api: &Rc<ModelApi>) {
        self.first.get_or_insert_with(|| Rc::clone(api));
        if self.any.is_some() {
            return;
        }
        if api.models.is_empty() {
            self.any = Some(Rc::clone(api));
        }
        for model in api.models.iter().filter_map(Pattern::exact) {
            self.exact
                .entry_ref(model)
                .or_insert_with(|| Rc::clone(api));
        }
        if api.models.iter().any(|model| model.exact().is_none()) {
            self.wild.push(Rc::clone(api));
        }
    }

    fn first_for(&self, model: Option<&str>) -> Option<&Rc<ModelApi>> {
        let Some(model) = model else {
            return self.any.as_ref();
        };
        let takes = |api: &&Rc<ModelApi>| {
            api.models
                .iter()
                .any(|pattern| pattern.matches(model.as_bytes()))
        };
        let found = [
            self.exact.get(model),
            self.wild.iter().find(takes),
            self.any.as_ref(),
        ];
        found.into_iter().flatten().min_by_key(|api| api.index)
    }
}

#[cfg(test)]
mod tests;

//! Sets of fields: what a manager owns, what a change touched.
//!
//! Owns: the trie of paths and its algebra. A node may be in the set itself, lead to others that are, or both:
//! owning `.spec.template` says nothing about `.spec.template.metadata`, and the other way round.
//! May not know: types, objects, how a set is written (see `fields_v1`).

use std::collections::BTreeMap;

use super::element::{Element, Path};

/// No node is useless: each is a member or leads to one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    nodes: BTreeMap<Element, Node>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub member: bool,
    pub below: Set,
}

impl Node {
    fn is_useless(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn nodes(&self) -> impl Iterator<Item = (&Element, &Node)> {
        self.nodes.iter()
    }

    pub fn node(&self, element: &Element) -> Option<&Node> {
        self.nodes.get(element)
    }

    /// Puts a node in; a useless one is left out.
    pub fn put(&mut self, element: Element, node: Node) {
        if !node.is_useless() {
            self.nodes.insert(element, node);
        }
    }

    /// Adds one path. The empty one is the object itself, which nobody owns.
    pub fn insert(&mut self, path: &Path) {
        let Some((last, above)) = path.split_last() else { return };
        let mut set = self;
        for element in above {
            set = &mut set.nodes.entry(element.clone()).or_default().below;
        }
        set.nodes.entry(last.clone()).or_default().member = true;
    }

    pub fn has(&self, path: &Path) -> bool {
        let Some((last, above)) = path.split_last() else { return false };
        let deepest = above.iter().try_fold(self, |set, element| Some(&set.nodes.get(element)?.below));
        deepest.and_then(|set| set.nodes.get(last)).is_some_and(|node| node.member)
    }

    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        for (element, theirs) in &other.nodes {
            let ours = self.nodes.entry(element.clone()).or_default();
            ours.member |= theirs.member;
            ours.below = std::mem::take(&mut ours.below).union(&theirs.below);
        }
        self
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (element, ours) in &self.nodes {
            if let Some(theirs) = other.nodes.get(element) {
                let below = ours.below.intersection(&theirs.below);
                both.put(element.clone(), Node { member: ours.member && theirs.member, below });
            }
        }
        both
    }

    /// Without the other's paths; what is below them stays.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.less(other, |ours, theirs| Node {
            member: ours.member && !theirs.member,
            below: ours.below.difference(&theirs.below),
        })
    }

    /// Without the other's paths and everything below them.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.less(other, |ours, theirs| match theirs.member {
            true => Node::default(),
            false => Node { member: ours.member, below: ours.below.without(&theirs.below) },
        })
    }

    fn less(&self, other: &Self, rest: impl Fn(&Node, &Node) -> Node) -> Self {
        let mut left = Self::default();
        for (element, ours) in &self.nodes {
            match other.nodes.get(element) {
                None => left.put(element.clone(), ours.clone()),
                Some(theirs) => left.put(element.clone(), rest(ours, theirs)),
            }
        }
        left
    }

    /// Every path, members of a level before what is below them (the order of Kubernetes' messages).
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<Element>, paths: &mut Vec<Vec<Element>>) {
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.member) {
            paths.push(prefix.iter().chain([element]).cloned().collect());
        }
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            node.below.collect(prefix, paths);
            prefix.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::element::path_text;
    use super::*;

    fn set(paths: &[&str]) -> Set {
        let mut set = Set::default();
        for path in paths {
            let path: Vec<Element> = path.split('.').map(Element::field).collect();
            set.insert(&path);
        }
        set
    }

    fn texts(set: &Set) -> String {
        set.paths().iter().map(|path| path_text(path)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn algebra() {
        // left, right, union, intersection, difference, without
        let cases: [(&[&str], &[&str], [&str; 4]); 5] = [
            (&["a", "b"], &["b", "c"], [".a .b .c", ".b", ".a", ".a"]),
            (&["a.b.c"], &["a.b"], [".a.b .a.b.c", "", ".a.b.c", ""]),
            (&["a.b"], &["a.b.c"], [".a.b .a.b.c", "", ".a.b", ".a.b"]),
            (&["a", "a.b", "a.c"], &["a.b"], [".a .a.b .a.c", ".a.b", ".a .a.c", ".a .a.c"]),
            (&[], &["a"], [".a", "", "", ""]),
        ];
        for (left, right, expect) in cases {
            let (left, right) = (set(left), set(right));
            let found =
                [left.clone().union(&right), left.intersection(&right), left.difference(&right), left.without(&right)];
            assert_eq!(found.each_ref().map(texts), expect, "{} and {}", texts(&left), texts(&right));
        }
    }

    #[test]
    fn membership_is_of_the_path_alone() {
        let set = set(&["a.b", "a.b.c", "d.e"]);
        let has = |path: &str| set.has(&path.split('.').map(Element::field).collect::<Vec<_>>());
        assert!(has("a.b") && has("a.b.c") && has("d.e"));
        assert!(!has("a") && !has("d") && !has("a.b.c.d") && !set.has(&[]));
        assert!(set.clone().difference(&set).is_empty());
    }
}

//! Where members are. Three sources: the membership everybody agreed on, what the operator configured, and what
//! members said about themselves. The last two count more: when every address has changed at once, there is no
//! majority to agree on new ones before somebody is found.

use std::collections::BTreeMap;

use arc_swap::ArcSwap;

use crate::peer::Destination;
use crate::types::MemberId;

/// Members whose own word about their addresses is kept.
const ANNOUNCED_MAX: usize = 64;
/// Addresses of one member, and bytes of one of them.
pub(super) const ADDRESSES_MAX: usize = 16;
pub(super) const ADDRESS_BYTES_MAX: usize = 256;

#[derive(Clone, Default)]
struct Pages {
    agreed: BTreeMap<u64, Vec<String>>,
    configured: BTreeMap<u64, Vec<String>>,
    announced: BTreeMap<u64, Vec<String>>,
}

pub(super) struct AddressBook {
    pages: ArcSwap<Pages>,
}

/// Is this a list of addresses that may be kept?
pub(super) fn is_acceptable(addresses: &[String]) -> bool {
    (1..=ADDRESSES_MAX).contains(&addresses.len())
        && addresses.iter().all(|address| (1..=ADDRESS_BYTES_MAX).contains(&address.len()))
}

impl AddressBook {
    pub fn new(configured: &BTreeMap<MemberId, Vec<String>>) -> Self {
        let configured = configured.iter().map(|(id, addresses)| (id.0, addresses.clone())).collect();
        Self { pages: ArcSwap::from_pointee(Pages { configured, ..Pages::default() }) }
    }

    fn change(&self, change: impl Fn(&mut Pages)) {
        self.pages.rcu(|pages| {
            let mut pages = Pages::clone(pages);
            change(&mut pages);
            pages
        });
    }

    /// What the cluster agreed on. What a member announced is forgotten once it is agreed, and what was configured
    /// for it once it has moved.
    pub fn agree(&self, members: &BTreeMap<u64, Vec<String>>) {
        self.change(|pages| {
            pages.announced.retain(|id, addresses| members.get(id).is_none_or(|agreed| agreed != addresses));
            let Pages { agreed, configured, .. } = pages;
            configured.retain(|id, _| agreed.get(id).is_none_or(|before| members.get(id) == Some(before)));
            agreed.clone_from(members);
        });
    }

    /// A member's own word. True if it is news.
    pub fn announce(&self, member: MemberId, addresses: &[String]) -> bool {
        let pages = self.pages.load();
        let known = pages.announced.get(&member.0).or_else(|| pages.agreed.get(&member.0));
        let full = pages.announced.len() >= ANNOUNCED_MAX && !pages.announced.contains_key(&member.0);
        if known.is_some_and(|known| known == addresses) || full {
            return false;
        }
        drop(pages);
        self.change(|pages| drop(pages.announced.insert(member.0, addresses.to_vec())));
        true
    }

    /// Addresses to try, the likeliest first.
    pub fn destination(&self, member: MemberId) -> Destination {
        let pages = self.pages.load();
        let mut addresses: Vec<String> = Vec::new();
        for page in [&pages.announced, &pages.configured, &pages.agreed] {
            for address in page.get(&member.0).into_iter().flatten() {
                if !addresses.contains(address) {
                    addresses.push(address.clone());
                }
            }
        }
        Destination { member, addresses }
    }

    /// Everybody who is known somehow.
    pub fn members(&self) -> Vec<MemberId> {
        let pages = self.pages.load();
        let mut ids: Vec<u64> = [&pages.announced, &pages.configured, &pages.agreed]
            .into_iter()
            .flat_map(|page| page.keys().copied())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().map(MemberId).collect()
    }

    /// What members said about themselves and is not agreed on yet.
    pub fn announced(&self) -> BTreeMap<u64, Vec<String>> {
        self.pages.load().announced.clone()
    }

    pub fn agreed(&self, member: MemberId) -> Option<Vec<String>> {
        self.pages.load().agreed.get(&member.0).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|address| (*address).to_owned()).collect()
    }

    fn known(book: &AddressBook, id: u64) -> String {
        book.destination(MemberId(id)).addresses.join(" ")
    }

    #[test]
    fn a_members_own_word_counts_most_until_it_is_agreed() {
        let book = AddressBook::new(&BTreeMap::from([(MemberId(2), text(&["configured:2"]))]));
        assert_eq!((known(&book, 1), known(&book, 2)), (String::new(), "configured:2".to_owned()));
        book.agree(&BTreeMap::from([(1, text(&["old:1"])), (2, text(&["old:2"]))]));
        assert_eq!((known(&book, 1), known(&book, 2)), ("old:1".to_owned(), "configured:2 old:2".to_owned()));
        assert!(book.announce(MemberId(2), &text(&["new:2"])));
        assert!(!book.announce(MemberId(2), &text(&["new:2"])), "no news");
        assert!(!book.announce(MemberId(1), &text(&["old:1"])), "no news either");
        assert_eq!(known(&book, 2), "new:2 configured:2 old:2");
        book.agree(&BTreeMap::from([(2, text(&["new:2"]))]));
        assert!(book.announced().is_empty());
        assert_eq!((known(&book, 1), known(&book, 2)), (String::new(), "new:2".to_owned()));
        assert_eq!(book.members(), [MemberId(2)]);
    }

    #[test]
    fn limits() {
        let book = AddressBook::new(&BTreeMap::new());
        for id in 0..ANNOUNCED_MAX as u64 {
            assert!(book.announce(MemberId(id), &text(&["a"])));
        }
        assert!(!book.announce(MemberId(1000), &text(&["a"])));
        assert!(book.announce(MemberId(3), &text(&["b"])), "who is known may change its mind");
        assert!(is_acceptable(&text(&["a"])));
        assert!(!is_acceptable(&[]));
        assert!(!is_acceptable(&vec!["a".to_owned(); ADDRESSES_MAX + 1]));
        assert!(!is_acceptable(&text(&[&"a".repeat(ADDRESS_BYTES_MAX + 1)])));
    }
}

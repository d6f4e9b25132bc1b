//! How many watches are open, in all and for each user, so that one client cannot take them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::status::Status;

/// Most watches open at the same time.
pub const WATCHES_MAX: usize = 20_000;
/// Most of them by one user. A controller with an informer for every kind has some hundred.
pub const WATCHES_PER_USER_MAX: usize = 5_000;

#[derive(Default)]
pub struct Watches {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_user: HashMap<String, usize>,
}

/// One open watch, as long as it lives.
pub struct WatchGuard {
    watches: Arc<Watches>,
    user: String,
}

impl Watches {
    pub fn open(self: &Arc<Self>, user: &str) -> Result<WatchGuard, Status> {
        let mut open = self.lock();
        let of_user = open.by_user.get(user).copied().unwrap_or(0);
        if of_user >= WATCHES_PER_USER_MAX {
            let why =
                format!("user {user:?} has {of_user} watches open on this server, which is the most a user may have");
            return Err(Status::too_many_requests(why, 5));
        }
        if open.all >= WATCHES_MAX {
            let why = "too many watches are open on this server, please try again later";
            return Err(Status::too_many_requests(why, 5));
        }
        open.all += 1;
        *open.by_user.entry(user.to_owned()).or_default() += 1;
        Ok(WatchGuard { watches: Arc::clone(self), user: user.to_owned() })
    }

    pub fn count(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        let mut open = self.watches.lock();
        open.all -= 1;
        let of_user = open.by_user.get_mut(&self.user).expect("an open watch is counted for its user");
        *of_user -= 1;
        if *of_user == 0 {
            open.by_user.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_limit_and_others_do_not_feel_it() {
        let watches = Arc::new(Watches::default());
        let mut jane: Vec<_> = (0..WATCHES_PER_USER_MAX).map(|_| watches.open("jane").unwrap()).collect();
        assert_eq!(watches.open("jane").err().map(|status| status.code), Some(429));
        let joe = watches.open("joe");
        assert!(joe.is_ok());
        jane.pop();
        assert!(watches.open("jane").is_ok());
        drop((jane, joe));
        assert_eq!((watches.count(), watches.lock().by_user.len()), (0, 0));
    }
}

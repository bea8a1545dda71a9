//! Which pageserver is asked: the one that answers, the one that it names, or the next.

use std::net::SocketAddr;

/// The pageservers that there are, and the one that is asked now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    known: Vec<SocketAddr>,
    now: SocketAddr,
    /// It was named by another, and has not answered yet.
    is_named: bool,
}

impl From<SocketAddr> for Route {
    fn from(only: SocketAddr) -> Route {
        Route { known: vec![only], now: only, is_named: false }
    }
}

impl Route {
    /// These, of which the first is asked first; `None` where there are none.
    pub fn of(known: &[SocketAddr]) -> Option<Route> {
        let now = *known.first()?;
        Some(Route { known: known.to_vec(), now, is_named: false })
    }

    /// The one that is asked.
    pub fn address(&self) -> SocketAddr {
        self.now
    }

    /// It serves the tenant.
    pub fn reached(&mut self) {
        self.is_named = false;
    }

    /// It cannot be reached: the next is asked, which may know more.
    pub fn failed(&mut self) {
        self.is_named = false;
        let place = self.known.iter().position(|address| *address == self.now);
        let next = place.map_or(0, |place| place + 1);
        if let Some(next) = self.known.get(next).or(self.known.first()) {
            self.now = *next;
        }
    }

    /// It says that another serves the tenant, and where. Whether that one may be asked at once:
    /// two that name each other are asked with a pause between them.
    pub fn moved(&mut self, to: Option<SocketAddr>) -> bool {
        let was_named = self.is_named;
        match to.filter(|to| *to != self.now) {
            Some(to) => (self.now, self.is_named) = (to, true),
            None => self.failed(),
        }
        self.is_named && !was_named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn who_is_named_is_asked_at_once_but_not_in_a_circle() {
        let mut route = Route::of(&[at(1), at(2)]).expect("there are some");
        assert!(route.moved(Some(at(3))));
        assert_eq!(route.address(), at(3));
        assert!(!route.moved(Some(at(1))), "it was named, and names another");
        assert_eq!(route.address(), at(1));
        route.reached();
        assert!(route.moved(Some(at(3))));
    }

    #[test]
    fn all_are_asked_in_turn_where_none_answers_or_none_can_say_where() {
        let mut route = Route::of(&[at(1), at(2)]).expect("there are some");
        route.failed();
        assert_eq!(route.address(), at(2));
        assert!(!route.moved(None));
        assert_eq!(route.address(), at(1));
        assert!(!route.moved(Some(at(1))), "it names itself");
        assert_eq!(route.address(), at(2));
        assert!(route.moved(Some(at(9))));
        route.failed();
        assert_eq!(route.address(), at(1), "one that was named is not asked for ever");
        assert_eq!(Route::of(&[]), None);
    }
}

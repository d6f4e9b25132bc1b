//! Who gets the next seat: levels that each have seats of their own, lend what they do not use, and keep a queue for
//! every flow, so that one client's flood makes that client wait and nobody else.
//!
//! A pure state machine after "API Priority and Fairness" (KEP-1040). May not know: requests, clocks, tasks.
//!
//! - A level may always have `nominal` seats in use. Beyond that it takes a seat only while every other level can
//!   still have what it does not lend.
//! - A seat that becomes free goes to a level below its nominal number first, then to one that borrows; within a level
//!   flows take turns.

use std::collections::{HashMap, VecDeque};

/// How a level treats its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelConfig {
    pub name: String,
    /// Never waits and is never counted.
    pub is_exempt: bool,
    pub nominal: usize,
    /// Of the nominal seats, how many others may use meanwhile.
    pub lendable: usize,
    /// How many seats of others it may use beyond its own; `None`: all that there are.
    pub borrowed_max: Option<usize>,
    /// Most requests of one flow that wait; 0: nobody waits.
    pub flow_queue_max: usize,
    /// Most requests of the level that wait.
    pub waiting_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Seated,
    Waits,
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The level does not let requests wait.
    NoQueue,
    /// Too many of this flow, or of all flows of the level, wait already.
    QueueFull,
}

/// Names a flow within its level.
pub type FlowId = u64;
/// Names a request that waits.
pub type Ticket = u64;

#[derive(Debug)]
struct Level {
    config: LevelConfig,
    executing: usize,
    waiting: usize,
    flows: HashMap<FlowId, VecDeque<Ticket>>,
    /// Flows that have somebody waiting, the one whose turn it is first.
    turns: VecDeque<FlowId>,
}

impl Level {
    fn next(&mut self) -> Option<Ticket> {
        let flow = self.turns.pop_front()?;
        let queue = self.flows.get_mut(&flow).expect("a flow with a turn has a queue");
        let ticket = queue.pop_front().expect("a flow with a turn has somebody waiting");
        if queue.is_empty() {
            self.flows.remove(&flow);
        } else {
            self.turns.push_back(flow);
        }
        self.waiting -= 1;
        Some(ticket)
    }

    /// What others may not take of it.
    fn reserved(&self) -> usize {
        (self.config.nominal - self.config.lendable.min(self.config.nominal)).saturating_sub(self.executing)
    }
}

#[derive(Debug)]
pub struct Seats {
    total: usize,
    levels: Vec<Level>,
}

impl Seats {
    pub fn new(total: usize, levels: impl IntoIterator<Item = LevelConfig>) -> Self {
        let level = |config| Level { config, executing: 0, waiting: 0, flows: HashMap::new(), turns: VecDeque::new() };
        Self { total, levels: levels.into_iter().map(level).collect() }
    }

    pub fn config(&self, level: usize) -> &LevelConfig {
        &self.levels[level].config
    }

    /// Executing and waiting.
    pub fn load(&self, level: usize) -> (usize, usize) {
        (self.levels[level].executing, self.levels[level].waiting)
    }

    pub fn arrive(&mut self, level: usize, flow: FlowId, ticket: Ticket) -> Arrival {
        // Whoever came before in the same level goes first.
        if self.levels[level].config.is_exempt || (self.levels[level].waiting == 0 && self.has_seat(level)) {
            self.levels[level].executing += 1;
            return Arrival::Seated;
        }
        let Level { config, waiting, flows, turns, .. } = &mut self.levels[level];
        if config.flow_queue_max == 0 {
            return Arrival::Refused(Refusal::NoQueue);
        }
        let queued = flows.get(&flow).map_or(0, VecDeque::len);
        if queued >= config.flow_queue_max || *waiting >= config.waiting_max {
            return Arrival::Refused(Refusal::QueueFull);
        }
        flows.entry(flow).or_default().push_back(ticket);
        if queued == 0 {
            turns.push_back(flow);
        }
        *waiting += 1;
        Arrival::Waits
    }

    /// A request of the level ended. Answers who takes the seat, which is counted as taken.
    pub fn leave(&mut self, level: usize) -> Option<Ticket> {
        self.levels[level].executing -= 1;
        if self.levels[level].config.is_exempt {
            return None;
        }
        let waits = |level: &Level| level.waiting > 0;
        let below = self.levels.iter().position(|l| waits(l) && l.executing < l.config.nominal);
        let next =
            below.or_else(|| (0..self.levels.len()).find(|at| waits(&self.levels[*at]) && self.has_seat(*at)))?;
        let ticket = self.levels[next].next();
        if ticket.is_some() {
            self.levels[next].executing += 1;
        }
        ticket
    }

    /// Somebody does not wait any longer. False when he has a seat already.
    pub fn give_up(&mut self, level: usize, flow: FlowId, ticket: Ticket) -> bool {
        let Level { waiting, flows, turns, .. } = &mut self.levels[level];
        let Some(queue) = flows.get_mut(&flow) else { return false };
        let Some(at) = queue.iter().position(|waiting| *waiting == ticket) else { return false };
        queue.remove(at);
        *waiting -= 1;
        if queue.is_empty() {
            flows.remove(&flow);
            turns.retain(|turn| *turn != flow);
        }
        true
    }

    fn has_seat(&self, level: usize) -> bool {
        let own = &self.levels[level];
        if own.executing < own.config.nominal {
            return true;
        }
        if own.config.borrowed_max.is_some_and(|most| own.executing >= own.config.nominal + most) {
            return false;
        }
        let counted = || self.levels.iter().filter(|level| !level.config.is_exempt);
        let executing: usize = counted().map(|level| level.executing).sum();
        let reserved: usize = counted().map(Level::reserved).sum::<usize>() - own.reserved();
        executing + reserved < self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(name: &str, nominal: usize, lendable: usize, flow_queue_max: usize) -> LevelConfig {
        let name = name.to_owned();
        LevelConfig { name, is_exempt: false, nominal, lendable, borrowed_max: None, flow_queue_max, waiting_max: 100 }
    }

    #[test]
    fn a_level_has_its_seats_and_borrows_the_lendable_rest() {
        let mut seats = Seats::new(6, [level("system", 3, 1, 10), level("users", 3, 0, 10)]);
        let mut ticket = 0;
        let mut arrive = |seats: &mut Seats, level| {
            ticket += 1;
            seats.arrive(level, 1, ticket)
        };
        for _ in 0..4 {
            assert_eq!(arrive(&mut seats, 1), Arrival::Seated, "three of its own, one that is lent");
        }
        assert_eq!(arrive(&mut seats, 1), Arrival::Waits, "two stay reserved for the other level");
        assert_eq!(arrive(&mut seats, 0), Arrival::Seated);
        assert_eq!(arrive(&mut seats, 0), Arrival::Seated);
        // Nominal seats are had at once, even when one of them is lent.
        assert_eq!(arrive(&mut seats, 0), Arrival::Seated);
        assert_eq!(seats.load(0), (3, 0));
    }

    #[test]
    fn borrowing_may_be_limited() {
        let mut seats =
            Seats::new(10, [level("a", 9, 9, 10), LevelConfig { borrowed_max: Some(1), ..level("b", 1, 0, 0) }]);
        let arrivals: Vec<Arrival> = (0..3).map(|ticket| seats.arrive(1, 1, ticket)).collect();
        assert_eq!(arrivals, [Arrival::Seated, Arrival::Seated, Arrival::Refused(Refusal::NoQueue)]);
    }

    #[test]
    fn flows_take_turns() {
        let mut seats = Seats::new(1, [level("users", 1, 0, 10)]);
        assert_eq!(seats.arrive(0, 1, 0), Arrival::Seated);
        for (flow, ticket) in [(1, 1), (1, 2), (1, 3), (2, 4)] {
            assert_eq!(seats.arrive(0, flow, ticket), Arrival::Waits);
        }
        let order: Vec<_> = std::iter::from_fn(|| seats.leave(0)).collect();
        assert_eq!(order, [1, 4, 2, 3], "the second flow does not wait behind the flood of the first");
    }

    #[test]
    fn queues_are_bounded_for_each_flow_and_for_all() {
        let mut seats = Seats::new(1, [LevelConfig { waiting_max: 3, ..level("users", 1, 0, 2) }]);
        let check = |seats: &mut Seats, flow, expect| assert_eq!(seats.arrive(0, flow, flow * 10), expect);
        check(&mut seats, 1, Arrival::Seated);
        check(&mut seats, 1, Arrival::Waits);
        check(&mut seats, 1, Arrival::Waits);
        check(&mut seats, 1, Arrival::Refused(Refusal::QueueFull));
        check(&mut seats, 2, Arrival::Waits);
        check(&mut seats, 3, Arrival::Refused(Refusal::QueueFull));
        let mut none = Seats::new(1, [level("users", 1, 0, 0)]);
        check(&mut none, 1, Arrival::Seated);
        check(&mut none, 1, Arrival::Refused(Refusal::NoQueue));
    }

    #[test]
    fn whoever_gives_up_makes_room() {
        let mut seats = Seats::new(1, [level("users", 1, 0, 10)]);
        seats.arrive(0, 1, 0);
        seats.arrive(0, 1, 1);
        seats.arrive(0, 2, 2);
        assert!(seats.give_up(0, 1, 1));
        assert!(!seats.give_up(0, 1, 1), "twice is once");
        assert_eq!(seats.leave(0), Some(2));
        assert_eq!((seats.leave(0), seats.load(0)), (None, (0, 0)));
    }

    #[test]
    fn exempt_requests_are_always_seated() {
        let exempt = LevelConfig { is_exempt: true, ..level("exempt", 0, 0, 0) };
        let mut seats = Seats::new(1, [exempt, level("users", 1, 0, 10)]);
        for ticket in 0..100 {
            assert_eq!(seats.arrive(0, 1, ticket), Arrival::Seated);
        }
        assert_eq!(seats.arrive(1, 1, 200), Arrival::Seated, "they take nothing from others");
        assert_eq!(seats.leave(0), None);
    }

    #[test]
    fn a_freed_seat_goes_to_who_is_below_its_number() {
        let mut seats = Seats::new(2, [level("a", 1, 1, 10), level("b", 1, 1, 10)]);
        seats.arrive(1, 1, 1);
        assert_eq!(seats.arrive(1, 1, 2), Arrival::Seated, "borrowed");
        assert_eq!(seats.arrive(1, 1, 3), Arrival::Waits);
        assert_eq!(seats.arrive(0, 1, 4), Arrival::Seated, "its own seat");
        assert_eq!(seats.arrive(0, 1, 5), Arrival::Waits);
        assert_eq!(seats.leave(0), Some(5), "first of the level that now has less than its own");
    }
}

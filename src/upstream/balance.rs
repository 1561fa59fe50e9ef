//! Which peer is next: round robin or at random, by weight.

use crate::config::Balance;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Longest turn: beyond it, weights are scaled down.
const LONGEST_TURN: u64 = 4_096;

/// Walks through a turn in which every peer occurs as often as its weight says, spread evenly.
pub struct Balancer {
    turn: Vec<u16>,
    balance: Balance,
    position: AtomicUsize,
}

impl Balancer {
    /// Peers by their weights; a weight of 0 never has its turn.
    pub fn new(balance: Balance, weights: &[u32]) -> Self {
        Balancer {
            turn: spread(weights),
            balance,
            position: AtomicUsize::new(0),
        }
    }

    /// The index of the next peer.
    pub fn next(&self) -> usize {
        let position = match self.balance {
            Balance::RoundRobin => self.position.fetch_add(1, Ordering::Relaxed),
            Balance::Random => fastrand::usize(..),
        };
        let slot = position
            .checked_rem(self.turn.len())
            .and_then(|slot| self.turn.get(slot));
        slot.map_or(0, |&index| usize::from(index))
    }
}

/// Smooth weighted round robin, as nginx does it: each step every peer gains its weight, the one
/// with the most goes and pays the total.
fn spread(weights: &[u32]) -> Vec<u16> {
    let weights = reduced(weights);
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0; weights.len()];
    let step = |_| {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight;
        }
        let richest = credit
            .iter()
            .enumerate()
            .rev()
            .max_by_key(|(_, credit)| **credit)
            .map(|(index, _)| index)?;
        *credit.get_mut(richest)? -= total;
        u16::try_from(richest).ok()
    };
    (0..total).filter_map(step).collect()
}

/// Weights without their common divisor, scaled down where a turn would be too long.
fn reduced(weights: &[u32]) -> Vec<i64> {
    let divisor = weights
        .iter()
        .fold(0, |divisor, &weight| {
            greatest_common_divisor(divisor, weight)
        })
        .max(1);
    let total: u64 = weights
        .iter()
        .map(|&weight| u64::from(weight / divisor))
        .sum();
    let scale = total.div_ceil(LONGEST_TURN).max(1);
    let scaled = |&weight: &u32| u64::from(weight / divisor).div_ceil(scale);
    weights
        .iter()
        .map(scaled)
        .map(|weight| i64::try_from(weight).unwrap_or(0))
        .collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavier_peers_come_more_often_and_not_all_at_once() {
        assert_eq!(spread(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(spread(&[100, 100]), [0, 1]);
        assert_eq!(spread(&[0, 3]), [1]);
    }

    #[test]
    fn absurd_weights_make_no_absurd_turn_and_nobody_is_left_out() {
        let turn = spread(&[u32::MAX, 1]);
        assert!(turn.len() as u64 <= LONGEST_TURN + 2);
        assert!(turn.contains(&1));
    }

    #[test]
    fn random_stays_inside() {
        let balancer = Balancer::new(Balance::Random, &[1, 1, 1]);
        assert!((0..100).all(|_| balancer.next() < 3));
    }
}

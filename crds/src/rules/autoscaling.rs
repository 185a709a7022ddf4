//! What the size of a pool keeps.

use super::{Rule, rule, rule_at};

/// All that `autoscaling` itself keeps.
pub const AUTOSCALING: [Rule; 6] =
    [MAX_NEEDED, MIN_WITHIN_MAX, ZERO_IS_HELD, TARGET_NEEDED, TARGET_OF_METRIC, SCHEDULES_WITHIN];

/// Nothing that decides by itself is without a bound.
pub const MAX_NEEDED: Rule = rule_at(
    ".maxReplicas",
    "self.mode != 'Builtin' || has(self.maxReplicas)",
    "maxReplicas is needed in mode Builtin: it bounds what the pool can cost",
);
/// Bounds that leave something between them.
pub const MIN_WITHIN_MAX: Rule = rule_at(
    ".minReplicas",
    "!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
    "minReplicas is at most maxReplicas",
);
/// A pool goes to zero where something holds what comes then, and nothing holds it where no pool goes to zero.
pub const ZERO_IS_HELD: Rule = rule_at(
    ".minReplicas",
    "has(self.scaleToZero) == (self.minReplicas == 0)",
    "minReplicas 0 and scaleToZero go together: without scaleToZero a pool without pods sees no request that could wake it, and \
     with more pods it has no effect; to stop a pool, write mode Disabled and replicas 0",
);
/// While a schedule holds, somebody is expected.
pub const POD_MEANWHILE: Rule = rule(
    "self > 0",
    "minReplicas of a schedule is 1 or more: it says when pods are wanted; leave it out where none need be",
);
/// How much is held: whole mebibytes.
pub const HELD_BYTES: Rule = rule(
    "self.matches('^([1-9][0-9]{0,2}|[1-3][0-9]{3}|40[0-8][0-9]|409[0-6])Mi$')",
    "maxHeldBytes is a whole number of mebibytes from 1Mi to 4096Mi, such as 64Mi",
);
/// A plain formula divides by something.
pub const TARGET_NEEDED: Rule = rule_at(
    ".target",
    "self.metric == 'Work' || has(self.target)",
    "target is needed with this metric: how much of it one pod is to have; only Work has a default",
);
/// Each metric has numbers of its own.
pub const TARGET_OF_METRIC: Rule = rule_at(
    ".target",
    "!has(self.target) || self.target <= (self.metric == 'Work' ? 100 : self.metric == 'OldestWait' ? 3600 : \
     self.metric == 'TokensPerSecond' ? 1000000 : 10000)",
    "target is too large for its metric: with Work it is a percentage of at most 100, with OldestWait at most 3600 seconds, with \
     QueuePerReplica and InFlightPerReplica at most 10000 requests",
);
/// The bounds of a schedule, with the pool's own where it has none.
pub const SCHEDULES_WITHIN: Rule = rule_at(
    ".schedules",
    "!has(self.schedules) || self.schedules.all(s, !(has(s.maxReplicas) || has(self.maxReplicas)) || \
     (has(s.minReplicas) ? s.minReplicas : self.minReplicas) <= \
     (has(s.maxReplicas) ? s.maxReplicas : self.maxReplicas))",
    "while a schedule holds, minReplicas is at most maxReplicas: what a schedule does not say is as the pool has it",
);
/// How a schedule is called.
pub const SCHEDULE_NAME: Rule = rule(
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "a schedule's name has lower-case letters, digits and dashes, and begins and ends with no dash",
);
/// A schedule changes something.
pub const SCHEDULE_SAYS: Rule = rule(
    "has(self.minReplicas) || has(self.maxReplicas)",
    "a schedule has minReplicas, maxReplicas or both: without them it changes nothing",
);
/// A schedule has an end that is not its beginning.
pub const SCHEDULE_LASTS: Rule = rule_at(
    ".to",
    "self.from != self.to",
    "a schedule is over at another time than it begins; a whole day is from 00:00 to 24:00",
);
/// When a schedule begins.
pub const FROM: Rule = rule(
    "self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')",
    "from is a time of day from 00:00 to 23:59, such as 08:00: write it in quotes",
);
/// When a schedule is over.
pub const TO: Rule = rule(
    "self.matches('^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$')",
    "to is a time of day from 00:00 to 24:00, such as 18:30: write it in quotes",
);

//! The groups that somebody waits for or runs in, by their runners.

use hashbrown::HashMap;
use slab::Slab;

use super::{Runner, flows::GroupId, group::Group, models::Use};

/// All groups: never more than requests that wait or run.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups {
    all: Slab<Group>,
    by_runner: HashMap<Runner, GroupId>,
}

impl Groups {
    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.all.get(id)
    }

    pub(super) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.all.get_mut(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.all.iter()
    }

    pub(super) fn of(&self, runner: &Runner) -> Option<&Group> {
        self.all.get(*self.by_runner.get(runner)?)
    }

    pub(super) fn find_or_make(&mut self, runner: &Runner) -> GroupId {
        if let Some(id) = self.by_runner.get(runner) {
            return *id;
        }
        let id = self.all.insert(Group::new(runner.clone()));
        self.by_runner.insert(runner.clone(), id);
        id
    }

    /// Forgets a group of which nothing is left.
    pub(super) fn drop_if_idle(&mut self, id: GroupId) {
        if self.all.get(id).is_some_and(Group::is_idle)
            && let Some(group) = self.all.try_remove(id)
        {
            self.by_runner.remove(&group.runner);
        }
    }

    /// How a runner is used now.
    pub(super) fn used(&self, runner: &Runner) -> Use {
        let used = |group: &Group| Use {
            running: group.running,
            run_for: group.most_urgent_running(),
            waited_for: group.most_urgent_waiting(),
            weight: group.weight(),
        };
        self.of(runner).map_or(Use::NONE, used)
    }
}

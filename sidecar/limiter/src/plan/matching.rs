//! Which limits apply to a request: by lists made when the plan is compiled, and by numbers instead of names.

use corral_wire::{EndpointClass, KeyPart};

use super::{Limit, Plan};
use crate::ModelName;

/// A model that some limit of the plan lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ModelId(usize);

/// The limits that a plan has for each class of endpoints, as places in its list, and the models that they list.
#[derive(Debug)]
pub(super) struct MatchTable {
    chat: Box<[usize]>,
    generate: Box<[usize]>,
    embed: Box<[usize]>,
    metadata: Box<[usize]>,
    /// Sorted.
    models: Box<[ModelName]>,
}

impl MatchTable {
    /// Makes the table, and gives each limit the numbers of its models.
    pub(super) fn new(limits: &mut [Limit]) -> Self {
        let mut models: Vec<_> = limits.iter().flat_map(|limit| limit.models.clone()).collect();
        models.sort();
        models.dedup();
        for limit in limits.iter_mut() {
            limit.model_ids = limit.models.iter().filter_map(|model| id_of(&models, model)).collect();
        }
        let of = |class| {
            let covers = |(_, limit): &(usize, &Limit)| limit.endpoints.contains(&class);
            limits.iter().enumerate().filter(covers).map(|(place, _)| place).collect()
        };
        Self {
            chat: of(EndpointClass::Chat),
            generate: of(EndpointClass::Generate),
            embed: of(EndpointClass::Embed),
            metadata: of(EndpointClass::Metadata),
            models: models.into(),
        }
    }
}

impl Plan {
    /// The limits that cover a class of endpoints, with their places in [`Plan::limits`], in ascending order.
    pub(crate) fn covering(&self, class: EndpointClass) -> impl Iterator<Item = (usize, &Limit)> {
        let places = match class {
            EndpointClass::Chat => &self.table.chat,
            EndpointClass::Generate => &self.table.generate,
            EndpointClass::Embed => &self.table.embed,
            EndpointClass::Metadata => &self.table.metadata,
        };
        places.iter().filter_map(|place| Some((*place, self.limits.get(*place)?)))
    }

    /// The number of a model, if a limit lists it.
    pub(crate) fn model_id(&self, model: &ModelName) -> Option<ModelId> {
        id_of(&self.table.models, model)
    }
}

impl Limit {
    /// Whether the head of a request says all that this limit must know.
    pub(crate) fn is_decided_by_head(&self) -> bool {
        self.models.is_empty() && !self.per.contains(&KeyPart::Model)
    }

    /// Whether it covers the model. A limit that lists models covers no request without one.
    pub(crate) fn covers_model(&self, model: Option<ModelId>) -> bool {
        self.model_ids.is_empty() || model.is_some_and(|id| self.model_ids.contains(&id))
    }

    /// Whether its buckets are each for one client.
    pub(crate) fn is_per_client(&self) -> bool {
        self.per.iter().any(|part| matches!(part, KeyPart::Client | KeyPart::ClientIP))
    }
}

fn id_of(models: &[ModelName], model: &ModelName) -> Option<ModelId> {
    models.binary_search(model).ok().map(ModelId)
}

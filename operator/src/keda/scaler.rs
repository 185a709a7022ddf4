//! The five calls of KEDA's interface.
//!
//! What can be set right in a `ScaledObject` or a pool is `INVALID_ARGUMENT`, `NOT_FOUND` or `FAILED_PRECONDITION`, and what passes by
//! itself is `UNAVAILABLE`. After an error the HPA leaves its target as it is, where a wrong number would make it act.

use std::sync::Arc;

use futures::stream::BoxStream;
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};

use super::externalscaler::external_scaler_server::ExternalScaler;
use super::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use super::measure::{Metric, NoValue, is_active};
use super::metadata::{BadMetadata, Wanted};
use super::source::{NoNumbers, PoolNumbers};
use super::watcher::Watcher;

/// The most streams of `StreamIsActive` at one time, over all connections; each `ScaledObject` of type `external-push` has one.
pub const STREAMS: usize = 256;

/// Answers KEDA.
#[derive(Clone)]
pub struct Scaler {
    numbers: Arc<dyn PoolNumbers>,
    streams: Arc<Semaphore>,
}

impl Scaler {
    /// One that goes by these numbers.
    pub fn new(numbers: Arc<dyn PoolNumbers>) -> Self {
        Self { numbers, streams: Arc::new(Semaphore::new(STREAMS)) }
    }

    fn spec(&self, wanted: &Wanted) -> Result<MetricSpec, Status> {
        let numbers = self.numbers.of(&wanted.pool)?;
        let target = wanted.target.unwrap_or_else(|| wanted.metric.usual_target(&numbers));
        Ok(MetricSpec {
            metric_name: wanted.metric.to_string(),
            target_size: whole(target).max(1),
            target_size_float: target,
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a target is at most a million")]
fn whole(target: f64) -> i64 {
    target.round() as i64
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    type StreamIsActiveStream = BoxStream<'static, Result<IsActiveResponse, Status>>;
    type StreamMetricSpecStream = BoxStream<'static, Result<GetMetricSpecResponse, Status>>;

    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        let wanted = Wanted::of(request.get_ref())?;
        let numbers = self.numbers.of(&wanted.pool)?;
        Ok(Response::new(IsActiveResponse { result: is_active(&numbers) }))
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let pool = Wanted::of(request.get_ref())?.pool;
        self.numbers.of(&pool)?;
        let Ok(permit) = Arc::clone(&self.streams).try_acquire_owned() else {
            let message = format!("{STREAMS} streams are open, and no more are");
            return Err(Status::resource_exhausted(message));
        };
        let watcher = Watcher::new(Arc::clone(&self.numbers), pool, permit);
        Ok(Response::new(Box::pin(watcher.news())))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let spec = self.spec(&Wanted::of(request.get_ref())?)?;
        Ok(Response::new(GetMetricSpecResponse { metric_specs: vec![spec] }))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let GetMetricsRequest { scaled_object_ref, metric_name } = request.into_inner();
        let reference = scaled_object_ref.ok_or(BadMetadata::NoReference)?;
        let wanted = Wanted::of(&reference)?;
        if Metric::named(&metric_name) != Some(wanted.metric) {
            let message = format!("metricName: this ScaledObject has {}, and no other", wanted.metric);
            return Err(Status::invalid_argument(message));
        }
        let value = wanted.metric.value(&self.numbers.of(&wanted.pool)?)?;
        let value =
            MetricValue { metric_name, metric_value: i64::from(value), metric_value_float: f64::from(value) };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }

    /// KEDA asks for it from 2.21 on, and goes by [`Self::get_metric_spec`] after this answer.
    async fn stream_metric_spec(
        &self,
        _: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamMetricSpecStream>, Status> {
        Err(Status::unimplemented("targets are asked for, and not pushed"))
    }
}

impl From<BadMetadata> for Status {
    fn from(bad: BadMetadata) -> Self {
        Self::invalid_argument(bad.to_string())
    }
}

impl From<NoNumbers> for Status {
    fn from(none: NoNumbers) -> Self {
        let code = match none {
            NoNumbers::NotLeading | NoNumbers::NotYet(_) => Code::Unavailable,
            NoNumbers::Unknown(_) => Code::NotFound,
            NoNumbers::Unreadable(_) => Code::FailedPrecondition,
        };
        Self::new(code, none.to_string())
    }
}

impl From<NoValue> for Status {
    fn from(none: NoValue) -> Self {
        let code = match none {
            NoValue::Deaf { .. } | NoValue::Undecided => Code::Unavailable,
            NoValue::Disabled => Code::FailedPrecondition,
        };
        Self::new(code, none.to_string())
    }
}

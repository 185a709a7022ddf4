//! An explanation as a person reads it.

use std::fmt;

use corral_limiter::Nanos;
use corral_wire::Mode;

use super::{Bucket, Charged, Estimate, Explained, Judged, Outcome, Placed};
use crate::proxy::seconds;

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "request  {}", self.request)?;
        if let Some(client) = &self.client {
            writeln!(f, "client   {client}")?;
        }
        if let Some(Placed { priority, weight }) = self.place.as_deref() {
            writeln!(f, "queue    {priority} priority, weight {weight}")?;
        }
        if let Some(model) = &self.model {
            writeln!(f, "model    {model}")?;
        }
        if let Some(Estimate { input_tokens, output_tokens, slot_ms }) = self.estimate {
            let slot = if slot_ms == 0 { String::new() } else { format!(", {slot_ms} ms of a slot") };
            writeln!(f, "estimate {input_tokens} input tokens, {output_tokens} output tokens{slot}")?;
        }
        self.outcome.fmt(f)?;
        let (apply, others): (Vec<_>, Vec<_>) = self.limits.iter().partition(|limit| limit.not_for.is_none());
        section(f, "limits that apply", &apply)?;
        section(f, "limits that do not", &others)
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, limits: &[&Judged]) -> fmt::Result {
    if limits.is_empty() {
        return Ok(());
    }
    write!(f, "\n\n{title}:")?;
    limits.iter().try_for_each(|limit| write!(f, "\n  {limit}"))
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "outcome  {status}: {}", self.text),
            None => write!(f, "outcome  {}", self.text),
        }
    }
}

impl fmt::Display for Charged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}, by its API key, from {}", self.address)?,
            None => write!(f, "{}, no known API key", self.address)?,
        }
        self.tier.iter().try_for_each(|tier| write!(f, ", tier {tier}"))
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per: Vec<String> = self.per.iter().map(ToString::to_string).collect();
        write!(f, "{} (per {}", self.limit, per.join(", "))?;
        f.write_str(if self.mode == Mode::Shadow { ", shadow): " } else { "): " })?;
        f.write_str(self.not_for.as_ref().unwrap_or(&self.says))?;
        if self.decides {
            f.write_str(", which decides")?;
        }
        self.buckets.iter().try_for_each(|bucket| write!(f, "\n    {bucket}"))
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, used, remaining, capacity, requested, next_ms } = self;
        write!(f, "{limit}: {used} used, {remaining} of {capacity} left, this takes about {requested}")?;
        match next_ms {
            0 => Ok(()),
            next => write!(f, "; the next comes free in {}", seconds(Nanos::from_millis(*next))),
        }
    }
}

//! The fold from signs of life to what is known about Ollama: pure, and without a clock.

/// How many failed probes in a row make Ollama down.
const FAILURES_TO_DOWN: u8 = 3;
/// How many answers in a row make it up again.
const ANSWERS_TO_UP: u8 = 2;

/// What is known about Ollama.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// It has not answered yet. It may take long: it looks for GPUs before its first answer.
    #[default]
    Starting,
    /// It answers.
    Up,
    /// It answered before, and does no more.
    Down,
}

/// One sign of life or death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It answered: a probe, or a real request.
    Answer,
    /// A probe got no answer in time, or none that makes sense.
    NoAnswer,
    /// It refused a connection: there is no listener.
    Refused,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UpstreamFold {
    state: Upstream,
    failures: u8,
    answers: u8,
}

impl UpstreamFold {
    pub(super) fn step(&mut self, sign: Sign) -> Upstream {
        match sign {
            Sign::Answer => self.answered(),
            Sign::NoAnswer => self.failed(self.failures.saturating_add(1)),
            Sign::Refused => self.failed(FAILURES_TO_DOWN),
        }
        self.state
    }

    /// Whether one more answer would change nothing.
    pub(super) fn steady(self) -> bool {
        self.state == Upstream::Up && self.failures == 0
    }

    fn answered(&mut self) {
        self.failures = 0;
        self.answers = self.answers.saturating_add(1);
        // The first answer of all is enough: there is no flapping to damp.
        if self.state == Upstream::Starting || self.answers >= ANSWERS_TO_UP {
            self.state = Upstream::Up;
        }
    }

    fn failed(&mut self, failures: u8) {
        self.failures = failures;
        self.answers = 0;
        if self.state == Upstream::Up && failures >= FAILURES_TO_DOWN {
            self.state = Upstream::Down;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(signs: &[Sign]) -> Upstream {
        let mut fold = UpstreamFold::default();
        signs.iter().map(|sign| fold.step(*sign)).last().unwrap_or_default()
    }

    #[test]
    fn the_state_follows_the_table() {
        use Sign::{Answer, NoAnswer, Refused};
        for (signs, state) in [
            (&[][..], Upstream::Starting),
            (&[Refused, NoAnswer, NoAnswer, NoAnswer], Upstream::Starting),
            (&[NoAnswer, Answer], Upstream::Up),
            (&[Answer, NoAnswer, NoAnswer], Upstream::Up),
            (&[Answer, NoAnswer, NoAnswer, NoAnswer], Upstream::Down),
            (&[Answer, NoAnswer, NoAnswer, Answer, NoAnswer, NoAnswer], Upstream::Up),
            (&[Answer, Refused], Upstream::Down),
            (&[Answer, Refused, Answer], Upstream::Down),
            (&[Answer, Refused, Answer, NoAnswer, Answer], Upstream::Down),
            (&[Answer, Refused, Answer, Answer], Upstream::Up),
        ] {
            assert_eq!(after(signs), state, "{signs:?}");
        }
    }

    #[test]
    fn only_an_up_without_failures_is_steady() {
        let mut fold = UpstreamFold::default();
        assert!(!fold.steady());
        fold.step(Sign::Answer);
        assert!(fold.steady());
        fold.step(Sign::NoAnswer);
        assert!(!fold.steady());
    }
}

//! The fields of a request as Go fills its struct from an object: keys match whatever their case, the last one wins,
//! `null` leaves what was there, and two objects for one map merge.

use super::go_json::{GoValue, read};

/// A request body laid over one of Ollama's request types.
pub(crate) struct Fields {
    /// The type without its package, as type errors name it.
    type_name: &'static str,
    pairs: Vec<(String, GoValue)>,
}

impl Fields {
    /// Reads a body into `package.type_name`; `Err` holds Ollama's error text.
    pub(crate) fn read(body: &[u8], package: &str, type_name: &'static str) -> Result<Self, String> {
        match read(body)? {
            GoValue::Object(pairs) => Ok(Self { type_name, pairs }),
            GoValue::Null => Ok(Self { type_name, pairs: Vec::new() }),
            other => Err(format!(
                "json: cannot unmarshal {} into Go value of type {package}.{type_name}",
                other.kind()
            )),
        }
    }

    /// Every value that a field is given, in order, without nulls.
    fn given<'a, 'n>(&'a self, name: &'n str) -> impl DoubleEndedIterator<Item = &'a GoValue> + use<'a, 'n> {
        self.pairs
            .iter()
            .filter(move |(key, value)| same_key(key, name) && *value != GoValue::Null)
            .map(|(_, value)| value)
    }

    /// The value that wins, of whatever type.
    pub(crate) fn any(&self, name: &str) -> Option<&GoValue> {
        self.given(name).next_back()
    }

    /// A text field; empty when absent.
    pub(crate) fn text(&self, name: &str) -> Result<String, String> {
        let mut found = String::new();
        for value in self.given(name) {
            let GoValue::String(text) = value else { return Err(self.mismatch(value, name, "string")) };
            found.clone_from(text);
        }
        Ok(found)
    }

    /// A switch.
    pub(crate) fn switch(&self, name: &str) -> Result<Option<bool>, String> {
        let mut found = None;
        for value in self.given(name) {
            let GoValue::Bool(on) = value else { return Err(self.mismatch(value, name, "bool")) };
            found = Some(*on);
        }
        Ok(found)
    }

    /// A whole number.
    pub(crate) fn whole(&self, name: &str) -> Result<Option<i64>, String> {
        let mut found = None;
        for value in self.given(name) {
            let number = match value {
                GoValue::Number(text) => text.parse().ok(),
                _ => None,
            };
            found = Some(number.ok_or_else(|| self.mismatch(value, name, "int"))?);
        }
        Ok(found)
    }

    /// A map: the pairs of all its objects, the last of equal keys last. Its own keys are case-sensitive.
    pub(crate) fn map(&self, name: &str) -> Result<Vec<(String, GoValue)>, String> {
        let mut merged = Vec::new();
        for value in self.given(name) {
            let GoValue::Object(pairs) = value else {
                return Err(self.mismatch(value, name, "map[string]interface {}"));
            };
            merged.extend(pairs.iter().cloned());
        }
        Ok(merged)
    }

    /// A number inside an `options` map; floats are cut.
    pub(crate) fn option(&self, name: &str) -> Result<Option<i64>, String> {
        let mut found = None;
        for (key, value) in self.map("options")? {
            let number = match &value {
                _ if key != name => continue,
                GoValue::Null => continue,
                GoValue::Number(text) => whole_part(text),
                _ => None,
            };
            found = Some(number.ok_or_else(|| format!("option \"{name}\" must be of type integer"))?);
        }
        Ok(found)
    }

    fn mismatch(&self, value: &GoValue, field: &str, wanted: &str) -> String {
        let found = match value {
            GoValue::Number(text) => format!("number {text}"),
            other => other.kind().to_owned(),
        };
        format!(
            "json: cannot unmarshal {found} into Go struct field {}.{field} of type {wanted}",
            self.type_name
        )
    }
}

fn whole_part(text: &str) -> Option<i64> {
    let whole = text.split(['.', 'e', 'E']).next().unwrap_or_default();
    if text.contains(['e', 'E']) { None } else { whole.parse().ok() }
}

/// Go's folding: ASCII case, and the two letters outside ASCII that fold into it.
fn same_key(key: &str, name: &str) -> bool {
    key.chars().map(fold).eq(name.chars().map(fold))
}

fn fold(letter: char) -> char {
    match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        Fields::read(body.as_bytes(), "api", "GenerateRequest").unwrap()
    }

    #[test]
    fn keys_match_in_any_case_and_the_last_wins() {
        assert_eq!(fields(r#"{"model":"a","MODEL":"b"}"#).text("model"), Ok("b".to_owned()));
        assert_eq!(fields(r#"{"\u006dodel":"b"}"#).text("model"), Ok("b".to_owned()));
        assert_eq!(fields("{\"\u{17f}tream\":false}").switch("stream"), Ok(Some(false)));
        assert_eq!(fields("{\"\u{212a}eep_alive\":1}").whole("keep_alive"), Ok(Some(1)));
    }

    #[test]
    fn null_overwrites_nothing() {
        assert_eq!(fields(r#"{"model":"a","model":null}"#).text("model"), Ok("a".to_owned()));
        assert_eq!(fields(r#"{"model":null,"Model":"b"}"#).text("model"), Ok("b".to_owned()));
    }

    #[test]
    fn two_option_objects_merge() {
        let merged = fields(r#"{"options":{"num_predict":3},"OPTIONS":{"num_ctx":64}}"#);
        assert_eq!(merged.option("num_predict"), Ok(Some(3)));
        assert_eq!(merged.option("num_ctx"), Ok(Some(64)));
        assert_eq!(fields(r#"{"options":{"NUM_PREDICT":3}}"#).option("num_predict"), Ok(None));
    }

    #[test]
    fn wrong_types_are_named_as_go_names_them() {
        assert_eq!(
            fields(r#"{"stream":"false"}"#).switch("stream"),
            Err("json: cannot unmarshal string into Go struct field GenerateRequest.stream of type bool"
                .to_owned())
        );
        assert_eq!(
            Fields::read(b"[]", "api", "GenerateRequest").err(),
            Some("json: cannot unmarshal array into Go value of type api.GenerateRequest".to_owned())
        );
    }
}

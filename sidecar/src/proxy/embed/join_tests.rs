use proptest::prelude::*;

use super::*;

fn joined(form: Form, parts: &[(&str, usize)]) -> Result<String, NoPart> {
    let mut joined = Joined::new(form);
    for (answer, inputs) in parts {
        joined.add(answer.as_bytes(), *inputs)?;
    }
    Ok(String::from_utf8(joined.rest().to_vec()).unwrap())
}

const NATIVE: [&str; 2] = [
    r#"{"model":"m","embeddings":[[0.1,-2e-7],[3]],"total_duration":5,"load_duration":1,"prompt_eval_count":7}"#,
    r#"{"model":"m","embeddings":[[1e+10]],"total_duration":6,"load_duration":2,"prompt_eval_count":1}"#,
];

#[test]
fn vectors_stand_one_after_the_other_and_counts_are_summed() {
    let whole = r#"{"model":"m","embeddings":[[0.1,-2e-7],[3],[1e+10]],"total_duration":11,"load_duration":3,"prompt_eval_count":8}"#;
    assert_eq!(joined(Form::Native, &[(NATIVE[0], 2), (NATIVE[1], 1)]).unwrap(), whole);
    assert_eq!(joined(Form::Native, &[(NATIVE[0], 2)]).unwrap(), NATIVE[0], "one alone is as it was");
}

#[test]
fn items_of_data_know_their_places_and_usage_is_summed() {
    let first = concat!(
        r#"{"object":"list","data":[{"object":"embedding","embedding":[0.5],"index":0},{"object":"embedding","embedding":"PoM=","index":1}],"#,
        r#""model":"a\"b","usage":{"prompt_tokens":7,"total_tokens":7}}"#,
        "\n"
    );
    let second = concat!(
        r#"{"object":"list","data":[{"object":"embedding","embedding":[9],"index":0}],"#,
        r#""model":"a\"b","usage":{"prompt_tokens":2,"total_tokens":3}}"#,
        "\n"
    );
    let whole = concat!(
        r#"{"object":"list","data":[{"object":"embedding","embedding":[0.5],"index":0},{"object":"embedding","embedding":"PoM=","index":1},"#,
        r#"{"object":"embedding","embedding":[9],"index":2}],"model":"a\"b","usage":{"prompt_tokens":9,"total_tokens":10}}"#,
        "\n"
    );
    assert_eq!(joined(Form::OpenAi, &[(first, 2), (second, 1)]).unwrap(), whole);
}

#[test]
fn what_one_part_leaves_out_and_what_nobody_knows_yet_is_joined_too() {
    let parts = [
        (r#"{"model":"m","embeddings":[[1]],"total_duration":5,"new":{"a":1,"b":"x"}}"#, 1),
        (
            r#"{"model":"m","embeddings":[[2]],"total_duration":5,"load_duration":3,"prompt_eval_count":1,"new":{"c":2,"a":2,"b":"y"}}"#,
            1,
        ),
    ];
    let whole = r#"{"model":"m","embeddings":[[1],[2]],"total_duration":10,"load_duration":3,"prompt_eval_count":1,"new":{"c":2,"a":3,"b":"x"}}"#;
    assert_eq!(joined(Form::Native, &parts).unwrap(), whole);
}

#[test]
fn an_answer_that_is_not_what_was_asked_for_is_no_part() {
    let of = |form, answer: &str, inputs| joined(form, &[(answer, inputs)]).unwrap_err();
    assert_eq!(of(Form::Native, NATIVE[0], 3), NoPart::Count { found: 2, wanted: 3 });
    assert_eq!(of(Form::OpenAi, NATIVE[0], 2), NoPart::NoList);
    let at = |index| format!(r#"{{"data":[{{"index":{index}}}]}}"#);
    for index in ["1", "-1", "\"0\"", "null", "0.0"] {
        assert_eq!(of(Form::OpenAi, &at(index), 1), NoPart::Order, "{index}");
    }
    assert_eq!(of(Form::OpenAi, r#"{"data":[[1]]}"#, 1), NoPart::Order);
    for broken in
        ["", "[]", "null", "{\"model\": <html>", r#"{"embeddings":[[1]]"#, r#"{"embeddings":[[1]]} x"#]
    {
        assert!(matches!(of(Form::Native, broken, 1), NoPart::Json(_)), "{broken}");
    }
    let mut joined = Joined::new(Form::Native);
    assert_eq!(joined.add(b"{\"embeddings\":[\"\xff\"]}", 1), Err(NoPart::NotUtf8));
}

#[test]
fn tokens_are_told_where_ollama_counted_them() {
    let mut native = Joined::new(Form::Native);
    assert_eq!(native.tokens(), None);
    native.add(NATIVE[0].as_bytes(), 2).unwrap();
    native.add(NATIVE[1].as_bytes(), 1).unwrap();
    assert_eq!(native.tokens(), Some(8));
    assert_eq!(
        native.counts(),
        r#"{"model":"m","embeddings":[],"total_duration":11,"load_duration":3,"prompt_eval_count":8}"#
    );
    let mut openai = Joined::new(Form::OpenAi);
    openai.add(br#"{"data":[{"index":0}],"usage":{"prompt_tokens":3}}"#, 1).unwrap();
    assert_eq!(openai.tokens(), Some(3));
}

proptest! {
    #[test]
    fn however_it_goes_out_and_wherever_it_is_cut_the_whole_is_the_same(
        vectors in prop::collection::vec(prop::collection::vec(any::<f32>(), 1..4), 1..30),
        cuts in prop::collection::vec(1_usize..6, 1..30),
        openai: bool,
        early: Vec<bool>,
    ) {
        let form = if openai { Form::OpenAi } else { Form::Native };
        let text = |first: usize, vectors: &[Vec<f32>]| {
            let items: Vec<_> = vectors.iter().enumerate().map(|(at, vector)| {
                let vector = serde_json::to_string(vector).unwrap();
                if openai { format!(r#"{{"embedding":{vector},"index":{}}}"#, first + at) } else { vector }
            }).collect();
            let sum = vectors.len();
            if openai {
                format!(r#"{{"data":[{}],"usage":{{"prompt_tokens":{sum}}}}}"#, items.join(",")) + "\n"
            } else {
                format!(r#"{{"model":"m","embeddings":[{}],"prompt_eval_count":{sum}}}"#, items.join(","))
            }
        };
        let (mut joined, mut out, mut at) = (Joined::new(form), Vec::new(), 0);
        let mut turns = cuts.iter().cycle().zip(early.iter().chain(std::iter::repeat(&false)));
        while at < vectors.len() {
            let (cut, early) = turns.next().unwrap();
            let part = &vectors[at..vectors.len().min(at + cut)];
            joined.add(text(0, part).as_bytes(), part.len()).unwrap();
            at += part.len();
            if *early {
                out.extend_from_slice(&joined.front());
            }
        }
        out.extend_from_slice(&joined.rest());
        prop_assert_eq!(String::from_utf8(out).unwrap(), text(0, &vectors));
    }
}

//! Root device hints against what ironic-python-agent's own code says (`hints/generate.py` asks it).

use landfall::{Candidate, Hints};
use serde_json::{Value, json};

const CASES: &str = include_str!("hints/cases.json");

fn candidate(disk: &Value) -> Candidate {
    let text = |key: &str| disk[key].as_str().map(str::to_string);
    let list = |key: &str| {
        let values = disk[key].as_array().unwrap().iter();
        values.map(|value| value.as_str().unwrap().to_string()).collect()
    };
    Candidate {
        name: text("name").unwrap(),
        size_bytes: disk["size"].as_u64().unwrap(),
        rotational: disk["rotational"].as_bool().unwrap(),
        model: text("model"),
        vendor: text("vendor"),
        serial: list("serial"),
        wwn: list("wwn"),
        wwn_with_extension: text("wwn_with_extension"),
        wwn_vendor_extension: text("wwn_vendor_extension"),
        hctl: text("hctl"),
        by_path: text("by_path").into_iter().collect(),
        tran: text("tran"),
    }
}

#[test]
fn every_verdict_is_the_one_of_ironic_python_agent() {
    let cases: Value = serde_json::from_str(CASES).unwrap();
    let disks: Vec<Candidate> = cases["disks"].as_array().unwrap().iter().map(candidate).collect();
    let (mut matched, mut refused) = (0, 0);
    for case in cases["cases"].as_array().unwrap() {
        let (key, expression) = (case[0].as_str().unwrap(), &case[1]);
        let expected: Vec<&str> = case[2]
            .as_array()
            .unwrap()
            .iter()
            .map(|each| each.as_str().unwrap())
            .collect();
        let Ok(hints) = Hints::from_json(&json!({ key: expression })) else {
            // Nothing that works there is refused here, but for a size compared as text, which is always
            // "different".
            let is_text = expression.as_str().is_some_and(|text| text.starts_with("s!="));
            let is_size_as_text = key == "size" && is_text;
            assert!(
                is_size_as_text || !expected.contains(&"yes"),
                "{key}={expression} is refused"
            );
            refused += 1;
            continue;
        };
        for (disk, expected) in disks.iter().zip(expected) {
            let verdict = hints.mismatch(disk).is_none();
            assert_eq!(
                verdict,
                expected == "yes",
                "{key}={expression} on {}: there it {expected}",
                disk.name
            );
            matched += u32::from(verdict);
        }
    }
    assert!(
        matched > 1000 && refused > 100,
        "{matched} matches, {refused} refusals"
    );
}

#[test]
fn hints_come_as_json_or_one_by_one() {
    let disk = Candidate {
        name: "/dev/sda".into(),
        size_bytes: 200 << 30,
        serial: vec!["A".into()],
        ..Candidate::default()
    };
    let large: Hints = "size=>= 100".parse().unwrap();
    assert_eq!(large.mismatch(&disk), None);
    let hints = Hints::from(vec![large, "serial=<or> b <or> c".parse().unwrap()]);
    assert_eq!(
        hints.mismatch(&disk).unwrap(),
        "serial is \"A\", wanted \"<or> b <or> c\""
    );
    let json: Hints = "{\"size\": 200, \"serial\": \"a\", \"rotational\": false}"
        .parse()
        .unwrap();
    assert_eq!(json.mismatch(&disk), None);
    for (wrong, why) in [
        ("colour=red", "unknown; known keys are size, model"),
        ("serial", "write it as key=value"),
        ("size=big", "positive integer"),
        ("size>=100", "write the operator after a \"=\": \"size=>= 100\""),
        ("serial!=foo", "\"serial=!= foo\""),
        ("serial=!= foo", "use s!= for text"),
        ("serial==foo", "use s== for text"),
        ("{\"serial\": 5}", "not a string value"),
        ("{\"colour\": 5}", "unknown; known keys are size, model"),
        ("{\"serial\"", "EOF"),
        ("size=<range-in> [ 1 2 ]", "does not compare sizes"),
        ("rotational=maybe", "not a Boolean"),
    ] {
        let error = wrong.parse::<Hints>().unwrap_err().to_string();
        assert!(error.contains(why), "{wrong}: {error}");
    }
}

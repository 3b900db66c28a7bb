//! One page view in all its spellings: JSON, tensors and messages have the same scores, bit for
//! bit.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use ams_testing::tonic::Code;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::grpc::{base64, message};
use crate::grpc_client::Client;
use crate::serve::{Serving, published};

/// Texts of numbers as numbers.
fn typed(value: &Value) -> Value {
    match value {
        Value::String(text) => match text.parse::<u64>() {
            Ok(number) if number.to_string() == *text => json!(number),
            _ => value.clone(),
        },
        Value::Array(values) => values.iter().map(typed).collect(),
        Value::Object(values) => {
            values.iter().map(|(key, value)| (key.clone(), typed(value))).collect()
        }
        value => value.clone(),
    }
}

fn changed(page: &Value, change: impl Fn(&mut Value)) -> Value {
    let mut page = page.clone();
    change(&mut page);
    page
}

/// The same request with rows of padding among the past.
fn padded(page: &Value, padding: &Value, time: &Value) -> Value {
    changed(page, |page| {
        let past = &mut page["user"]["behaviors"];
        for (column, padding) in [("item", padding), ("time", time)] {
            let rows = past[column].as_array_mut().unwrap();
            rows.insert(1, padding.clone());
            rows.push(padding.clone());
        }
    })
}

fn times(page: &Value, spell: impl Fn(i64) -> Value) -> Value {
    changed(page, |page| {
        let times = &mut page["user"]["behaviors"]["time"];
        let spelled = times.as_array().unwrap().iter().map(|time| spell(time.as_i64().unwrap()));
        *times = spelled.collect();
    })
}

/// Spellings of a request in JSON.
fn spellings(page: &Value) -> Vec<(&'static str, String)> {
    let count = page["candidates"]["item"].as_array().unwrap().len();
    let with = |path: &[&str], value: Value| {
        changed(page, |page| {
            let at = path.iter().fold(page, |at, key| &mut at[key]);
            *at = value.clone();
        })
    };
    let columns = |path: &'static str| {
        changed(page, |page| {
            let rows = page.pointer(&format!("{path}/item")).unwrap().as_array().unwrap().len();
            let rows = vec![Value::Null; rows];
            page.pointer_mut(path).unwrap()["features"] = json!({"category": rows, "brand": null});
        })
    };
    let lists = changed(page, |page| {
        let context = page["context"].as_object_mut().unwrap();
        context.values_mut().for_each(|value| *value = json!([value, null, ""]));
    });
    let iso = |time: i64| {
        let (days, seconds) = (time.div_euclid(86_400), time.rem_euclid(86_400));
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        // The civil calendar, by eras of 400 years from March on.
        let z = days + 719_468;
        let (era, day) = (z.div_euclid(146_097), z.rem_euclid(146_097));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let date = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
        let year = year + era * 400 + i64::from(date.1 <= 2);
        format!("{year:04}-{:02}-{:02}T{clock}Z", date.1, date.0)
    };
    let pages = vec![
        ("numbers", typed(page)),
        ("options null", with(&["options"], Value::Null)),
        ("options empty", with(&["options"], json!({}))),
        ("options of PHP", with(&["options"], json!([]))),
        ("options of null", with(&["options"], json!({"top_k": null, "deadline_ms": null}))),
        ("as many as there are", with(&["options"], json!({"top_k": count}))),
        ("as a float", with(&["options"], json!({"top_k": count as f64}))),
        ("bids of null", with(&["candidates", "bid"], Value::Null)),
        ("each bid null", with(&["candidates", "bid"], json!(vec![Value::Null; count]))),
        ("each bid 1", with(&["candidates", "bid"], json!(vec![1; count]))),
        ("each bid 1.0", with(&["candidates", "bid"], json!(vec![1.0; count]))),
        ("each bid a text", with(&["candidates", "bid"], json!(vec![" 1.00"; count]))),
        ("features null", with(&["candidates", "features"], Value::Null)),
        ("features of PHP", with(&["user", "behaviors", "features"], json!([]))),
        ("columns of null", columns("/candidates")),
        ("columns of null of the past", columns("/user/behaviors")),
        ("lists with padding", lists),
        ("padding of null", padded(page, &Value::Null, &Value::Null)),
        ("padding of texts", padded(page, &json!(""), &json!(0))),
        ("padding of Python", padded(page, &json!("None"), &json!("NaT"))),
        ("padding of pandas", padded(page, &json!(" nan "), &json!(-1))),
        ("milliseconds", times(page, |time| json!(time * 1000 + 1))),
        ("microseconds", times(page, |time| json!(time * 1_000_000))),
        ("nanoseconds", times(page, |time| json!(time * 1_000_000_000))),
        ("digits", times(page, |time| json!(time.to_string()))),
        ("floats", times(page, |time| json!(time as f64 + 0.5))),
        ("dates", times(page, |time| json!(iso(time)))),
    ];
    let mut texts: Vec<_> =
        pages.into_iter().map(|(name, page)| (name, page.to_string())).collect();
    texts.push(("a byte order mark", format!("\u{feff}{page}")));
    texts.push(("space around", format!(" \r\n\t{page}\n\n")));
    texts.push(("lines", serde_json::to_string_pretty(page).unwrap()));
    let escaped: String = page.to_string().replace('u', "\\u0075");
    texts.push(("escapes", escaped));
    texts
}

/// A tensor as the protocol spells it in JSON.
fn tensor(name: &str, datatype: &str, shape: Value, data: Value) -> Value {
    json!({"name": name, "datatype": datatype, "shape": shape, "data": data})
}

/// The tensors of a page view: name and texts.
fn texts(page: &Value) -> Vec<(String, Vec<Value>)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let mut texts = vec![
        ("user.id".to_owned(), list(&page["user"]["id"])),
        ("user.behaviors.item".to_owned(), list(&page["user"]["behaviors"]["item"])),
        ("user.behaviors.time".to_owned(), list(&page["user"]["behaviors"]["time"])),
        ("candidates.item".to_owned(), list(&page["candidates"]["item"])),
    ];
    for (prefix, of) in
        [("user.features", &page["user"]["features"]), ("context", &page["context"])]
    {
        for (name, value) in of.as_object().unwrap() {
            texts.push((format!("{prefix}.{name}"), list(value)));
        }
    }
    texts
}

/// As many bytes as a text needs, with their length before them.
fn bytes_of(value: &Value) -> Vec<u8> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Rates by item, as the 32 bits they were.
fn rates(items: &Value, ctr: &Value) -> Map<String, Value> {
    let rates = items.as_array().unwrap().iter().zip(ctr.as_array().unwrap());
    let bits = |rate: &Value| json!((rate.as_f64().unwrap() as f32).to_bits());
    rates.map(|(item, rate)| (item.as_str().unwrap().to_owned(), bits(rate))).collect()
}

#[test]
fn spellings_have_the_same_scores() {
    let (place, page) = published();
    let serving = Serving::new(&place, "--deadline-ms 60000 --body-bytes 100000");
    let (status, expected) = serving.score(&page);
    assert_eq!(status, 200, "{expected}");
    for (name, body) in spellings(&page) {
        assert_eq!(serving.post("/v1/models/tiny/score", &body), (200, expected.clone()), "{name}");
    }
    let nobody = json!({"candidates": page["candidates"]});
    let (_, unknown) = serving.score(&nobody);
    for user in [json!(null), json!([]), json!({}), json!({"id": null, "features": null})] {
        let mut page = nobody.clone();
        (page["user"], page["context"]) = (user, Value::Null);
        assert_eq!(serving.score(&page), (200, unknown.clone()));
    }
    as_tensors(&serving, &page, &expected);
    as_messages(&serving, &page, &expected);
    compression(&serving, &page, &expected);
    half_closed(&serving, &page, &expected);
    refusals(&serving, &page);
    changes(&serving);
}

fn as_tensors(serving: &Serving, page: &Value, expected: &Value) {
    let items = &page["candidates"]["item"];
    let expected = rates(&expected["items"], &expected["ctr"]);
    let check = |what: &str, (status, answer): (u16, Value)| {
        assert_eq!(status, 200, "{what}: {answer}");
        let ctr = answer["outputs"].as_array().unwrap().iter().find(|out| out["name"] == "ctr");
        assert_eq!(rates(items, &ctr.unwrap()["data"]), expected, "{what}");
    };
    let infer = |body: &Value| serving.post("/v2/models/tiny/infer", &body.to_string());
    let spelled = |shape: &dyn Fn(usize) -> Value, data: &dyn Fn(&[Value]) -> Value| {
        let tensor = |(name, values): &(String, Vec<Value>)| {
            tensor(name, "BYTES", shape(values.len()), data(values))
        };
        json!({"inputs": texts(page).iter().map(tensor).collect::<Vec<_>>()})
    };
    let flat = |values: &[Value]| json!(values);
    let plain = spelled(&|n| json!([n]), &flat);
    check("tensors", infer(&plain));
    check("batches of one", infer(&spelled(&|n| json!([1, n]), &|values| json!([values]))));
    let column =
        |values: &[Value]| json!(values.iter().map(|value| json!([value])).collect::<Vec<_>>());
    check("batches of each", infer(&spelled(&|n| json!([n, 1]), &column)));
    check("numbers", infer(&spelled(&|n| json!([n]), &|values| typed(&json!(values)))));
    let null = changed(&plain, |body| {
        (body["parameters"], body["outputs"], body["id"]) = (json!(null), json!(null), json!(null));
        for input in body["inputs"].as_array_mut().unwrap() {
            input["parameters"] = Value::Null;
        }
    });
    check("null", infer(&null));
    // Whole numbers of every type that holds them, and bids.
    for datatype in ["INT64", "UINT64", "FP64", "INT32", "UINT32"] {
        let numbers = changed(&plain, |body| {
            let inputs = body["inputs"].as_array_mut().unwrap();
            let count = items.as_array().unwrap().len();
            inputs.push(tensor(
                "candidates.bid",
                datatype,
                json!([1, count]),
                json!(vec![1; count]),
            ));
            for input in inputs {
                let data = typed(&input["data"]);
                if data.as_array().unwrap().iter().all(Value::is_u64) {
                    (input["data"], input["datatype"]) = (data, json!(datatype));
                }
            }
        });
        check(datatype, infer(&numbers));
    }
    let wider = spelled(&|n| json!([n]), &flat);
    let padding = changed(&wider, |body| {
        for input in body["inputs"].as_array_mut().unwrap() {
            if input["name"].as_str().unwrap().starts_with("user.behaviors.") {
                let data = input["data"].as_array_mut().unwrap();
                data.extend([json!(""), json!("")]);
                input["shape"] = json!([data.len()]);
            }
        }
    });
    check("padding", infer(&padding));
    // As bytes behind the JSON, also compressed.
    let mut tail = Vec::new();
    let binary = changed(&plain, |body| {
        for input in body["inputs"].as_array_mut().unwrap() {
            let data = input.as_object_mut().unwrap().remove("data").unwrap();
            let bytes: Vec<u8> = data.as_array().unwrap().iter().flat_map(bytes_of).collect();
            input["parameters"] = json!({"binary_data_size": bytes.len()});
        }
    });
    for (_, values) in texts(page) {
        tail.extend(values.iter().flat_map(bytes_of));
    }
    let length = binary.to_string().len().to_string();
    let body = [binary.to_string().as_bytes(), &tail].concat();
    let mut headers = vec![("Inference-Header-Content-Length", &length[..])];
    let send = |headers: &[(&str, &str)], body: &[u8]| {
        serving.send("/v2/models/tiny/infer", headers, body)
    };
    check("bytes", send(&headers, &body));
    headers.push(("Content-Encoding", "gzip"));
    check("compressed bytes", send(&headers, &compressed(&body)));
}

fn as_messages(serving: &Serving, page: &Value, expected: &Value) {
    let client = Client::new(serving);
    let score = |page: &Value| {
        let request = json!({"model": "tiny", "page_view": message(page)});
        let plain = client.ask("ams.v1.Ranking/Score", &request, &[]).unwrap();
        let (code, squeezed) = client.compressed("ams.v1.Ranking/Score", &request, "gzip");
        assert_eq!((code, &squeezed), (Code::Ok, &plain));
        plain
    };
    let expected = rates(&expected["items"], &expected["ctr"]);
    for (name, page) in [
        ("message", page.clone()),
        ("milliseconds", times(page, |time| json!(time * 1000))),
        ("padding", padded(page, &json!(""), &json!(0))),
    ] {
        let answer = score(&page);
        assert_eq!(rates(&answer["items"], &answer["ctr"]), expected, "{name}");
    }
    let inputs = texts(page).into_iter().map(|(name, values)| {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let bytes: Vec<_> = values.iter().map(|value| base64(text(value).as_bytes())).collect();
        let contents = json!({"bytes_contents": bytes});
        json!({"name": name, "datatype": "BYTES", "shape": [1, values.len()], "contents": contents})
    });
    let request = json!({"model_name": "tiny", "inputs": inputs.collect::<Vec<_>>(), "outputs": [{"name": "ctr"}]});
    let call = "inference.GRPCInferenceService/ModelInfer";
    let answer = client.ask(call, &request, &[]).unwrap();
    let ctr = &answer["outputs"][0]["contents"]["fp32_contents"];
    assert_eq!(rates(&page["candidates"]["item"], ctr), expected);
    // Words that are not known, and too much that is small.
    let request =
        json!({"model": "tiny", "page_view": {"candidates": {"item": ["x".repeat(200_000)]}}});
    let (code, said) = client.compressed("ams.v1.Ranking/Score", &request, "gzip");
    assert!(
        code == Code::ResourceExhausted && said.to_string().contains("100000 bytes"),
        "{code:?} {said}"
    );
    let (code, said) = client.compressed("ams.v1.Ranking/Score", &request, "snappy");
    assert!(
        code == Code::Unimplemented && said.to_string().contains("`snappy`, expected gzip"),
        "{code:?} {said}"
    );
}

fn compression(serving: &Serving, page: &Value, expected: &Value) {
    let plain = page.to_string();
    let score = "/v1/models/tiny/score";
    let send = |path: &str, encoding: &str, body: &[u8]| {
        let json = ("Content-Type", "application/json");
        serving.send(path, &[json, ("Content-Encoding", encoding)], body)
    };
    for encoding in ["gzip", "x-gzip", "GZIP"] {
        let answer = send(score, encoding, &compressed(plain.as_bytes()));
        assert_eq!(answer, (200, expected.clone()), "{encoding}");
    }
    assert_eq!(send(score, "identity", plain.as_bytes()), (200, expected.clone()));
    let bomb = compressed(&[plain.as_bytes(), &vec![b' '; 10_000_000]].concat());
    let cases = [
        ("gzip", &bomb[..], 413, "more than 100000 bytes when it is expanded"),
        ("gzip", plain.as_bytes(), 400, "Content-Encoding is gzip, but the body is not"),
        ("gzip", &bomb[..bomb.len() / 2], 413, "more than 100000 bytes"),
        ("identity", &bomb[..], 400, "say so with the header `Content-Encoding: gzip`"),
        ("br", plain.as_bytes(), 415, "Content-Encoding is `br`, expected gzip, identity"),
    ];
    for (encoding, body, status, words) in cases {
        for (path, key) in [(score, "detail"), ("/v2/models/tiny/infer", "error")] {
            let (got, problem) = send(path, encoding, body);
            let said = problem[key].as_str().unwrap_or_default();
            assert!(got == status && said.contains(words), "{path} {encoding}: {got} {problem}");
        }
    }
    // A length that is told before, as most clients do; and likewise what looks like an item.
    let wanted =
        json!({"item": expected["items"][0], "picture": null, "tower": null, "top_k": null});
    let similar = "/v1/models/tiny/similar";
    let (status, alike) = send(similar, "gzip", &compressed(wanted.to_string().as_bytes()));
    assert_eq!((status, &alike), (200, &serving.post(similar, &wanted.to_string()).1));
}

/// A client that has nothing more to say closes its half of the connection, and waits.
fn half_closed(serving: &Serving, page: &Value, expected: &Value) {
    let body = page.to_string();
    let ask = |close: &str| {
        let mut stream = TcpStream::connect(serving.address.split("//").nth(1).unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = body.len();
        let head = format!(
            "POST /v1/models/tiny/score HTTP/1.1\r\nHost: x\r\n{close}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    };
    for close in ["", "Connection: close\r\n"] {
        let said = ask(close);
        let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{said:?}"));
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(&serde_json::from_str::<Value>(body).unwrap(), expected);
    }
}

fn refusals(serving: &Serving, page: &Value) {
    let score = "/v1/models/tiny/score";
    let utf_16: Vec<u8> = page.to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let text = page.to_string();
    let cases: [(&[u8], &str); 8] = [
        (&utf_16, "request: the body is UTF-16 or UTF-32, expected JSON in UTF-8"),
        (&[&[0xff, 0xfe], &utf_16[..]].concat(), "request: the body is UTF-16"),
        (&[text.as_bytes(), b"x"].concat(), "request: trailing characters"),
        (
            br#"{"candidates": {"item": ["1"], "bid": [NaN]}}"#,
            "request: candidates.bid[0]: NaN at line 1 column 40 is no JSON",
        ),
        (
            br#"{"candidates": {"item": ["1", null]}}"#,
            "request: candidates.item[1]: invalid type: null, expected a text",
        ),
        (
            br#"{"candidates": {"item": ["1", ""]}}"#,
            "request: candidates.item[1] is empty, expected an item",
        ),
        (
            br#"{"user": {"behaviors": {"item": ["1"], "time": [null]}}, "candidates": {"item": ["1"]}}"#,
            "request: user.behaviors.time[0] is missing",
        ),
        (
            br#"{"user": {"behaviors": {"item": ["1"], "time": ["soon"]}}, "candidates": {"item": ["1"]}}"#,
            "request: user.behaviors.time[0]: `soon` is not a time",
        ),
    ];
    for (body, expected) in cases {
        let (status, problem) = serving.send(score, &[("Content-Type", "application/json")], body);
        let said = problem["detail"].as_str().unwrap();
        assert!(status == 400 && said.starts_with(expected), "{status} {problem}");
    }
    let (status, problem) = serving.post("/v1/models/tiny/page?pre_rank=&keep=", &text);
    assert_eq!(status, 400);
    assert!(problem["detail"].as_str().unwrap().starts_with("pre_rank is empty"), "{problem}");
    let (status, problem) = serving.post("/v1/models/tiny/page?pre_rank=other&keep=", &text);
    assert_eq!(status, 404, "an empty keep is none: {problem}");
    // Whatever is below /v2 is refused in the protocol's words.
    for (path, status) in [
        ("/v2/nothing", 404),
        ("/v2/models/tiny/nothing", 404),
        ("/v2/models/other", 404),
        ("/v2/models/other/ready", 404),
        ("/v2/models/tiny/versions/x", 404),
        ("/v2/models/tiny/infer", 405),
    ] {
        let (got, problem) = serving.get(path);
        assert_eq!((got, problem["error"].is_string()), (status, true), "{path}: {problem}");
    }
    assert!(serving.post("/v2/health/live", "").1["error"].is_string());
    assert!(serving.get("/v3").1["detail"].is_string());
}

/// What the admin port is told is read by the same rules.
fn changes(serving: &Serving) {
    let change = |body: Value| serving.change("/admin/models/tiny/changes", &body);
    let lists = ["pictures", "items", "remove_pictures", "remove_items"];
    let nothing: Map<String, Value> =
        lists.map(|list| (list.to_owned(), Value::Null)).into_iter().collect();
    let (status, state) = change(nothing.into());
    assert_eq!(status, 200, "{state}");
    let new = json!({"items": [{"item": 70001, "picture": null, "features": null}, {"item": true, "picture": 7}]});
    let (status, state) = change(new);
    assert_eq!(status, 200, "{state}");
    for item in
        [json!("70001"), json!(70001), json!(70001.0), json!(" 70001"), json!(true), json!("True")]
    {
        let (status, scored) = serving.score(&json!({"candidates": {"item": [item]}}));
        assert_eq!((status, &scored["missing"]["items"]), (200, &json!([])), "{item}: {scored}");
    }
    for (body, words) in [
        (json!({"items": [{"item": null}]}), "items[0].item: invalid type: null, expected a text"),
        (json!({"items": [{}]}), "items[0]: missing field `item`"),
        (json!({"items": [{"item": ""}]}), "items[0]: item is empty"),
        (
            json!({"items": [{"item": 1, "features": {"color": 1}}]}),
            "items[0]: item \"1\": has the field color",
        ),
        (
            json!({"pictures": [{"name": 7, "feature": [null]}]}),
            "pictures[0].feature[0]: invalid type: null",
        ),
        (json!({"pictures": [{"name": 7, "feature": [1]}]}), "pictures[0]: "),
        (
            json!({"items": [{"item": 1, "features": {"category": ["a", "b"]}}]}),
            "items[0]: item \"1\": field category: 2 values; this field has one",
        ),
        (json!({"remove_items": [7, "None"]}), "remove_items[1]: `None` is no item"),
        (json!({"remove_items": [null]}), "remove_items[0]: invalid type: null"),
    ] {
        let (status, problem) = change(body);
        let said = problem["detail"].as_str().unwrap();
        assert!(status == 400 && said.contains(words), "{status} {problem}");
    }
}

//! The server's gRPC as its clients meet it, compared with HTTP.

use ams_testing::{prost_reflect, tonic};
use prost_reflect::{DynamicMessage, ReflectMessage};
use serde_json::{Map, Value, json};
use tonic::client::Grpc;
use tonic::{Code, Request};

use crate::grpc_client::{Client, Described};
use crate::serve::{Serving, published};
use crate::shop::TRAIN;

/// A page view of JSON as the message has it.
pub fn message(page: &Value) -> Value {
    let cell = |value: &Value| match value {
        Value::Array(values) => json!({"values": values}),
        value => json!({"values": [value]}),
    };
    let cells = |features: &Value| -> Value {
        let features = features.as_object().cloned().unwrap_or_default();
        features
            .iter()
            .map(|(name, value)| (name.clone(), cell(value)))
            .collect::<Map<_, _>>()
            .into()
    };
    let mut message = page.clone();
    message["context"] = cells(&page["context"]);
    message["user"]["features"] = cells(&page["user"]["features"]);
    message
}

/// Both answers with rates as the 32 bits they were.
fn same(said: &Value, http: &Value) {
    fn rounded(value: &Value) -> Value {
        match value {
            Value::Number(number) if number.is_f64() => json!(number.as_f64().unwrap() as f32),
            Value::Array(values) => values.iter().map(rounded).collect(),
            Value::Object(values) => {
                values.iter().map(|(key, value)| (key.clone(), rounded(value))).collect()
            }
            value => value.clone(),
        }
    }
    assert_eq!(rounded(said), rounded(http));
}

#[test]
fn calls_answer_as_http_does() {
    let (place, page) = published();
    let quick = "--set model.base=\"pre-rank\" --set model.aggregator=\"sum\"";
    place.json(&format!("{TRAIN} --set name=\"pre\" {quick}"));
    place.json("publish runs/pre --to models");
    let serving = Serving::new(&place, "--deadline-ms 60000 --body-bytes 20000 --candidates 50");
    let client = Client::new(&serving);
    let http = |path: &str| {
        let (status, answer) = serving.post(&format!("/v1/models/{path}"), &page.to_string());
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let request = |model: &str| json!({"model": model, "page_view": message(&page)});
    let asked = |method: &str, request: &Value| {
        client.ask(&format!("ams.v1.Ranking/{method}"), request, &[]).unwrap()
    };
    same(&asked("Score", &request("tiny")), &http("tiny/score"));
    same(&asked("Explain", &request("tiny")), &http("tiny/explain"));
    same(&asked("PreRank", &request("pre")), &http("pre/prerank"));
    let mut two = request("tiny");
    (two["pre_rank"], two["keep"], two["version"]) = (json!("pre"), json!(3), json!(1));
    let kept = asked("Page", &two);
    assert_eq!(kept["items"].as_array().unwrap().len(), 3);
    same(&kept, &http("tiny/versions/1/page?pre_rank=pre&keep=3"));

    tensors(&client, &page, &http("tiny/score"));
    refusals(&client, &serving, &request);
    let health = |call: &str| client.ask(call, &json!({"service": "ams.v1.Ranking"}), &[]).unwrap();
    for call in ["Check", "Watch"] {
        assert_eq!(health(&format!("grpc.health.v1.Health/{call}"))["status"], "SERVING");
    }
    let metrics = serving.metrics();
    for (route, status) in [("Score", 200), ("Score", 400), ("Score", 504), ("Page", 404)] {
        let line =
            format!(r#"ams_requests_total{{route="/ams.v1.Ranking/{route}",status="{status}"}} "#);
        assert!(metrics.contains(&line), "no {line} in\n{metrics}");
    }
    assert_eq!(serving.stop(), Some(0));
}

/// The Open Inference Protocol with numbers; bytes are for Triton's client in `serve.rs`.
fn tensors(client: &Client, page: &Value, scored: &Value) {
    let call = |method: &str, message: Value| {
        client.ask(&format!("inference.GRPCInferenceService/{method}"), &message, &[])
    };
    assert_eq!(call("ServerLive", json!({})).unwrap()["live"], true);
    assert_eq!(call("ServerReady", json!({})).unwrap()["ready"], true);
    assert_eq!(call("ServerMetadata", json!({})).unwrap()["name"], "ams");
    assert_eq!(call("ModelReady", json!({"name": "tiny", "version": "1"})).unwrap()["ready"], true);
    assert_eq!(
        call("ModelReady", json!({"name": "tiny", "version": "2"})).unwrap()["ready"],
        false
    );
    let described = call("ModelMetadata", json!({"name": "tiny"})).unwrap();
    assert_eq!((&described["versions"], &described["platform"]), (&json!(["1"]), &json!("ams")));
    let texts = |name: &str, values: &[Value]| {
        // Bytes are base64 in JSON.
        let bytes = values.iter().map(|value| base64(value.as_str().unwrap().as_bytes()));
        let contents = json!({"bytes_contents": bytes.collect::<Vec<_>>()});
        json!({"name": name, "datatype": "BYTES", "shape": [values.len()], "contents": contents})
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let (user, items) = (&page["user"], list(&page["candidates"]["item"]));
    let times = &user["behaviors"]["time"];
    let mut inputs = vec![
        texts("user.id", &list(&user["id"])),
        texts("user.behaviors.item", &list(&user["behaviors"]["item"])),
        json!({"name": "user.behaviors.time", "datatype": "INT64", "shape": [list(times).len()],
            "contents": {"int64_contents": times}}),
        texts("candidates.item", &items),
    ];
    for (prefix, features) in [("user.features", &user["features"]), ("context", &page["context"])]
    {
        for (name, value) in features.as_object().unwrap() {
            inputs.push(texts(&format!("{prefix}.{name}"), &list(value)));
        }
    }
    let mut request =
        json!({"model_name": "tiny", "id": "7", "inputs": inputs, "outputs": [{"name": "ctr"}]});
    let answer = call("ModelInfer", request.clone()).unwrap();
    assert_eq!((&answer["id"], &answer["model_version"]), (&json!("7"), &json!("1")));
    let outputs = answer["outputs"].as_array().unwrap();
    assert_eq!((outputs.len(), &outputs[0]["shape"]), (1, &json!([items.len()])));
    let rates = outputs[0]["contents"]["fp32_contents"].as_array().unwrap();
    for (item, rate) in items.iter().zip(rates) {
        let at = scored["items"].as_array().unwrap().iter().position(|scored| scored == item);
        same(rate, &scored["ctr"][at.unwrap()]);
    }
    request["outputs"][0]["name"] = json!("clicks");
    let status = call("ModelInfer", request).unwrap_err();
    assert_eq!(status.message(), "request: outputs: no output \"clicks\", there is ctr and ecpm");
}

/// Standard base64, of what is short.
pub fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let quad = |three: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        let digit = |at: usize| {
            if at > three.len() {
                '='
            } else {
                digits[(bits >> (18 - 6 * at) & 63) as usize] as char
            }
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(quad).collect()
}

/// What is no success has the code of HTTP's status, and its words.
fn refusals(client: &Client, serving: &Serving, request: &dyn Fn(&str) -> Value) {
    let (score, page) = ("ams.v1.Ranking/Score", "ams.v1.Ranking/Page");
    let of = |candidates: Value| json!({"model": "tiny", "page_view": {"candidates": candidates}});
    let many = of(json!({"item": vec!["1"; 51]}));
    let large = of(json!({"item": ["x".repeat(30_000)]}));
    let mut absent = request("tiny");
    absent["version"] = json!(7);
    let with = |key: &str, value: Value| {
        let mut request = request("tiny");
        request["pre_rank"] = json!("pre");
        request[key] = value;
        request
    };
    let cases = [
        (
            score,
            of(json!({"item": ["1"], "bid": [1, 2]})),
            Code::InvalidArgument,
            "bid has 2 values",
        ),
        (score, of(json!({})), Code::InvalidArgument, "item has 0 items"),
        (score, json!({}), Code::NotFound, "no model \"\"; known models: pre, tiny"),
        (score, many, Code::InvalidArgument, "51 items, expected up to 50"),
        (score, large, Code::ResourceExhausted, "20000 bytes"),
        (score, absent, Code::NotFound, "loaded versions: 1"),
        (
            "ams.v1.Ranking/PreRank",
            request("tiny"),
            Code::FailedPrecondition,
            "only a pre-rank network",
        ),
        (page, with("keep", json!(0)), Code::InvalidArgument, "keep is 0"),
        (page, with("pre_rank", json!("other")), Code::NotFound, "no model \"other\""),
        (
            page,
            with("pre_rank", json!("tiny")),
            Code::FailedPrecondition,
            "only a pre-rank network",
        ),
    ];
    for (call, message, code, words) in cases {
        let (got, said) = client.code(call, &message, &[]);
        assert!(got == code && said.contains(words), "{call} {message:.60}: {got:?} {said}");
    }
    let timeout = |text| client.code(score, &request("tiny"), &[("grpc-timeout", text)]);
    assert_eq!(timeout("1n").0, Code::DeadlineExceeded);
    assert_eq!(timeout("60S").0, Code::Ok);
    let (code, said) = timeout("soon");
    assert!(code == Code::InvalidArgument && said.contains("grpc-timeout"), "{code:?} {said}");
    let status = client.ask("grpc.health.v1.Health/Check", &json!({"service": "x"}), &[]);
    assert_eq!(status.unwrap_err().code(), Code::NotFound);
    // What is no gRPC, and what a service does not have.
    let (status, problem) = serving.post("/ams.v1.Ranking/Score", "{}");
    assert_eq!((status, &problem["status"]), (415, &json!(415)));
    let call = client.descriptions.get_service_by_name("ams.v1.Ranking").unwrap();
    let empty = DynamicMessage::new(call.methods().next().unwrap().input());
    let absent = "/ams.v1.Ranking/Forget".parse().unwrap();
    let code = client.runtime.block_on(async {
        let origin = "http://127.0.0.1".parse().unwrap();
        let mut grpc = Grpc::with_origin(client.connection.clone(), origin);
        grpc.ready().await.unwrap();
        let output = Described(empty.descriptor());
        grpc.unary(Request::new(empty), absent, output).await.unwrap_err().code()
    });
    assert_eq!(code, Code::Unimplemented);
}

/// Tokens are asked for, and a client that is turned away is told when to come again.
pub fn tokens_and_overload(serving: &Serving, page: &Value, token: &str) {
    let request = json!({"model": "tiny", "page_view": message(page)});
    let score = |client: &Client| client.ask("ams.v1.Ranking/Score", &request, &[]);
    for client in [Client::new(serving), Client::new(serving).with_token("wrong-token-0123456789")]
    {
        assert_eq!(score(&client).unwrap_err().code(), Code::Unauthenticated);
        let ready = client.ask("inference.GRPCInferenceService/ServerReady", &json!({}), &[]);
        assert_eq!(ready.unwrap()["ready"], true, "needs none");
        let infer = client.ask("inference.GRPCInferenceService/ModelInfer", &json!({}), &[]);
        assert_eq!(infer.unwrap_err().code(), Code::Unauthenticated);
    }
    let shed = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let client = Client::new(serving).with_token(token);
                for _ in 0..20 {
                    let Err(status) = score(&client) else { continue };
                    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");
                    shed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    assert!(score(&Client::new(serving).with_token(token)).is_ok());
    eprintln!("{} of 240 calls were turned away", shed.into_inner());
}

/// Bytes of a text in base 64.
fn bytes(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| DIGITS.iter().position(|&digit| digit == byte));
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0, 0);
    for digit in digits {
        (held, bits) = (held << 6 | digit as u32, bits + 6);
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}

/// What grpcurl asks before it asks anything else.
#[test]
fn the_server_describes_its_services() {
    let (place, _) = published();
    let serving = Serving::new(&place, "");
    let client = Client::new(&serving);
    let call = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let ask = |message: Value| client.ask(call, &message, &[]).unwrap();
    let listed = ask(json!({"list_services": ""}));
    let services = listed["list_services_response"]["service"].as_array().unwrap();
    let names: Vec<&str> = services.iter().map(|it| it["name"].as_str().unwrap()).collect();
    for name in ["ams.v1.Ranking", "inference.GRPCInferenceService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
        let described = ask(json!({"file_containing_symbol": name}));
        let files = &described["file_descriptor_response"]["file_descriptor_proto"];
        let files = files.as_array().unwrap_or_else(|| panic!("{described}"));
        let mut pool = prost_reflect::DescriptorPool::new();
        for file in files.iter().rev() {
            let file = bytes(file.as_str().unwrap());
            pool.decode_file_descriptor_proto(&file[..]).unwrap();
        }
        let ours = pool.get_service_by_name(name).unwrap();
        let expected = client.descriptions.get_service_by_name(name).unwrap();
        let methods = |service: &prost_reflect::ServiceDescriptor| -> Vec<String> {
            service.methods().map(|method| method.full_name().to_owned()).collect()
        };
        assert_eq!(methods(&ours), methods(&expected));
    }
    let none = ask(json!({"file_containing_symbol": "ams.v1.Nothing"}));
    assert_eq!(none["error_response"]["error_code"], 5, "{none}");
}

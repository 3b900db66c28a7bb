//! A number means the same wherever it comes from: in training data, in requests of every protocol,
//! and in deltas.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::place::{Place, numbers};
use crate::serve::Serving;

/// What makes a click likely: a low price, a short way, and a rich user.
fn write_log(place: &Place) {
    let price = |item: u64| format!("{}.{:02}", item * item % 97 + 1, item % 100);
    let balance = |user: u64| user * 37 % 211;
    let way = |at: u64| at * at % 53;
    let mut items = String::from("item_id,price\n");
    (0..60).for_each(|item| items += &format!("i{item},{}\n", price(item)));
    let mut users = String::from("user_id,balance\n");
    (0..80).for_each(|user| users += &format!("u{user},{}.5\n", balance(user)));
    let mut log = String::from("user_id,item_id,label,timestamp,way\n");
    for at in 0..4000_u64 {
        let (user, item) = (at * 13 % 80, at * 7 % 60);
        let cheap = item * item % 97 < 40;
        let label = u8::from(cheap && way(at) < 30 && balance(user) > 60 || at % 17 == 0);
        let time = 1_709_510_400 + at * 301;
        log += &format!("u{user},i{item},{label},{time},{}.25\n", way(at));
    }
    place.write("log.csv", log);
    place.write("items.csv", items);
    place.write("users.csv", users);
}

const PREPARE: &str = "prepare --events log.csv --items items.csv --users users.csv \
    --item-fields price:numeric --user-fields balance:numeric --context-fields way:numeric";

const CONFIG: &str = "\
name = \"tiny\"

[data]
samples = \"data\"

[model]
images = \"none\"

[train]
batch = 64
rows_learning_rate = 0.05
";

/// A published model of numbers.
fn published() -> Place {
    let place = Place::new();
    write_log(&place);
    place.json(&format!("{PREPARE} --out data"));
    place.write("numbers.toml", CONFIG);
    place.json("train numbers.toml");
    place.json("publish runs/tiny --to models");
    place
}

fn page(price: Value, balance: Value, way: Value) -> Value {
    json!({
        "user": {"features": {"balance": balance}},
        "context": {"way": way},
        "candidates": {"item": ["new"], "features": {"price": [price]}},
    })
}

fn rate(serving: &Serving, page: &Value) -> f64 {
    let (status, scored) = serving.score(page);
    assert_eq!(status, 200, "{scored}");
    let unknown = &scored["missing"]["ids"];
    for field in ["ad.price", "user.balance", "context.way"] {
        assert!(unknown.get(field).is_none(), "{field} is unknown: {scored}");
    }
    numbers(&scored["ctr"])[0]
}

#[test]
fn a_number_is_read_at_serving_as_in_training() {
    let place = published();
    // The impressions of the test, asked of trainer, bundle and server.
    let serving = Serving::new(&place, "--deadline-ms 60000");
    let address = &serving.address;
    let agreed = place.json(&format!(
        "bench agree runs/tiny --model models/tiny --url {address} --impressions 200"
    ));
    assert!(agreed["bundle_to_trainer"].as_f64().unwrap() < 1e-6, "{agreed}");
    assert_eq!(agreed["server_to_bundle"], 0.0, "{agreed}");

    let known = rate(&serving, &page(json!(4.2), json!(100.5), json!(7.25)));
    for other in [
        page(json!("4.2"), json!("100.5"), json!("7.25")),
        page(json!(" 4.20 "), json!("1.005e2"), json!("+7.25")),
        page(json!(["4.2"]), json!([100.5]), json!(["7.250"])),
        page(json!(4.200_000_1), json!(100.6), json!(7.3)),
    ] {
        assert_eq!(rate(&serving, &other), known, "{other}");
    }
    // Numbers nobody has seen fall into the buckets at the ends.
    let far = |price: Value, way: Value| rate(&serving, &page(price, json!(100.5), way));
    assert_eq!(far(json!(0.5), json!(-1)), far(json!(-1e300), json!(-99)));
    assert_eq!(far(json!(97.9), json!(52.25)), far(json!(1e300), json!(1e12)));
    assert_ne!(far(json!(4.2), json!(7.25)), far(json!(95.0), json!(7.25)));
    assert_ne!(far(json!(4.2), json!(7.25)), far(json!(4.2), json!(49.25)));
    let (status, problem) = serving.score(&page(json!("cheap"), json!(1), json!(1)));
    assert_eq!(status, 400);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("candidates.features.price[0]: `cheap` is not a number"), "{detail}");

    // The Open Inference Protocol, with numbers and with texts.
    let tensor = |name: &str, datatype: &str, value: Value| json!({"name": name, "shape": [1], "datatype": datatype, "data": [value]});
    for (kind, values) in [
        ("FP64", [json!(4.2), json!(100.5), json!(7.25)]),
        ("FP32", [json!(4.2), json!(100.5), json!(7.25)]),
        ("BYTES", [json!("4.2"), json!("100.5"), json!("7.25")]),
    ] {
        let [price, balance, way] = values;
        let inputs = [
            tensor("candidates.item", "BYTES", json!("new")),
            tensor("candidates.features.price", kind, price),
            tensor("user.features.balance", kind, balance),
            tensor("context.way", kind, way),
        ];
        let body = json!({"inputs": inputs}).to_string();
        let (status, answer) = serving.post("/v2/models/tiny/infer", &body);
        assert_eq!(status, 200, "{answer}");
        let rate = numbers(&answer["outputs"][0]["data"])[0];
        assert_eq!(rate as f32, known as f32, "{kind}");
    }
    #[cfg(feature = "grpc")]
    {
        let client = crate::grpc_client::Client::new(&serving);
        let page = page(json!("4.2"), json!("100.5"), json!("7.25"));
        let mut message = crate::grpc::message(&page);
        message["candidates"]["features"] = json!({"price": {"rows": [{"values": ["4.2"]}]}});
        let asked = json!({"model": "tiny", "page_view": message});
        let scored = client.ask("ams.v1.Ranking/Score", &asked, &[]).unwrap();
        assert_eq!(numbers(&scored["ctr"])[0] as f32, known as f32, "{scored}");
    }

    // Items of deltas, from the admin port and from a dataset with other edges.
    let new = |item: &str, price: Value| json!({"item": item, "features": {"price": price}});
    let items = [new("a", json!(4.2)), new("b", json!("4.20")), new("c", json!(4))];
    let change = serving.change("/admin/models/tiny/changes", &json!({"items": items}));
    assert_eq!(change.0, 200, "{}", change.1);
    let of_item = |item: &str| {
        let mut page = page(Value::Null, json!(100.5), json!(7.25));
        page["candidates"] = json!({"item": [item]});
        rate(&serving, &page)
    };
    assert_eq!([of_item("a"), of_item("b")], [known, known]);
    let bad =
        serving.change("/admin/models/tiny/changes", &json!({"items": [new("d", json!("x"))]}));
    assert_eq!(bad.0, 400, "{}", bad.1);
    place.write("few.csv", "item_id,price\ni1,4.2\ni2,77\ne,4.2\n");
    place.json(
        "prepare --events log.csv --items few.csv --users users.csv --item-fields price:numeric \
         --user-fields balance:numeric --context-fields way:numeric --accept items-without-row --out few",
    );
    place.json("delta models/tiny --items few");
    serving.change("/admin/poll", &json!({}));
    assert_eq!(of_item("e"), known);
}

/// Tables as pyarrow writes them: numbers as doubles, and those of items as 32-bit floats.
const WRITER: &str = "\
import sys
import pyarrow as pa, pyarrow.csv, pyarrow.parquet
for name, narrow in ('log', []), ('items', ['price']), ('users', []):
    table = pyarrow.csv.read_csv(f'{sys.argv[1]}/{name}.csv')
    for column in narrow:
        at = table.schema.get_field_index(column)
        table = table.set_column(at, column, table[column].cast(pa.float32()))
    pyarrow.parquet.write_table(table, f'{sys.argv[1]}/{name}.parquet')
";

#[test]
fn parquet_written_by_python_is_the_same_dataset() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = workspace.join("target/venv/bin/python3");
    let has = |what: &str| Command::new(&python).args(["-c", what]).output();
    if !has("import pyarrow.parquet").is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: no pyarrow in target/venv");
        return;
    }
    let place = Place::new();
    write_log(&place);
    let written = Command::new(&python).args(["-c", WRITER]).arg(place.path("")).output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    place.json(&format!("{PREPARE} --out csv/data"));
    place.json(&format!("{} --out parquet/data", PREPARE.replace(".csv", ".parquet")));
    let names =
        |files: &std::collections::BTreeMap<String, _>| files.keys().cloned().collect::<Vec<_>>();
    let (csv, parquet) = (place.files("csv/data"), place.files("parquet/data"));
    assert_eq!(names(&csv), names(&parquet));
    assert!(csv == parquet, "other bytes");
}

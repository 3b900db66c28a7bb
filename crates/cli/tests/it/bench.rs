//! Measurements and forecasts: what is counted, not how fast it is.

use serde_json::Value;

use crate::place::{Place, has_keys, number};

/// The keys other programs rely on.
const KINDS: &str = "ids rows embeddings row_grads embedding_grads features all_reduce";

fn by_placement<'a>(report: &'a Value, placement: &str, format: &str) -> &'a Value {
    let all = report["placements"].as_array().unwrap();
    let fits = |p: &&Value| p["placement"] == placement && p["features_as"] == format;
    all.iter().find(fits).unwrap_or_else(|| panic!("no {placement} in {report}"))
}

#[test]
fn placements_differ_in_what_travels_and_not_in_what_is_learned() {
    let place = Place::with_data();
    let report = place.json("bench placement shop.toml --set model.tower=[16,12] --steps 5");
    assert_eq!(report["placements"].as_array().unwrap().len(), 3);
    let loss = number(&by_placement(&report, "ams", "f16")["loss"]);
    for placement in ["ams", "store-in-server", "store-in-worker"] {
        let report = by_placement(&report, placement, "f16");
        has_keys(report, "placement bytes_per_step storage_bytes seconds_per_step loss");
        has_keys(&report["bytes_per_step"], KINDS);
        has_keys(&report["storage_bytes"], "worker shard");
        assert!((number(&report["loss"]) / loss - 1.0).abs() < 1e-4, "{report}");
        let sent = |kind: &str| number(&report["bytes_per_step"][kind]) > 0.0;
        assert_eq!(sent("embeddings"), placement == "ams", "{report}");
        assert_eq!(sent("embedding_grads"), placement == "ams", "{report}");
        assert_eq!(sent("features"), placement == "store-in-server", "{report}");
        assert!(sent("ids") && sent("rows") && sent("row_grads") && sent("all_reduce"), "{report}");
    }
    assert_eq!(place.names(""), Place::with_data().names(""), "nothing is left behind");
}

/// Table 2 in 32 lanes at a sixteenth of the paper's batch: the ratios of the whole one.
#[test]
fn the_advanced_model_server_moves_a_thirtieth_of_the_alternatives() {
    let place = Place::new();
    let report = place.json("bench table2 --scale 16 --steps 1 --out data");
    // Kept for the same shape, and for no other.
    place.refuses("bench table2 --scale 8 --steps 1 --out data", &["shape.json says ", "--out"]);
    let ratios = &report["ratios"];
    assert!(number(&ratios["store_in_server_to_ams"]) >= 30.0, "{ratios}");
    assert!(number(&ratios["worker_storage_store_in_worker_to_ams"]) >= 30.0, "{ratios}");
    assert!(number(&ratios["all_reduce_to_rest"]) > 1.0, "{ratios}");
    // The paper's statistics: references per impression, ids per impression.
    let ams = by_placement(&report, "ams", "f16");
    let impressions = number(&ams["impressions"]);
    let per_impression = |what: &str| number(&ams[what]["requested"]) / impressions;
    assert!((per_impression("images") - 320.0 / 60.0).abs() < 0.1, "{ams}");
    assert!((per_impression("ids") - 1_400.0 / 60.0).abs() < 1.0, "{ams}");
    // Twice the bytes for the same features.
    let features = |format| {
        let report = by_placement(&report, "store-in-server", format);
        number(&report["bytes_per_step"]["features"])
    };
    assert_eq!(features("f32"), 2.0 * features("f16"));
}

#[test]
fn the_reference_step_is_the_same_on_any_number_of_threads() {
    let place = Place::new();
    let step = |threads| {
        let set = "--set model.tower=[8,16] --set model.mlp=[8]";
        let size = "--images 300 --behaviors 4 --steps 2 --warm-up 1";
        place.json(&format!("bench step {size} {set} --threads {threads} --export step"))
    };
    let (one, two) = (step(1), step(2));
    has_keys(&two, "ms stages_ms gflops peak_gflops images_per_second impressions_per_second");
    assert_eq!((&one["checksum"], &one["losses"]), (&two["checksum"], &two["losses"]));
    assert_eq!((number(&two["images"]), number(&two["impressions"])), (300.0, 1_024.0));
    let step = std::fs::read_to_string(place.path("step/step.json")).unwrap();
    let step: Value = serde_json::from_str(&step).unwrap();
    let counts = ["group_fields", "impression_fields", "behaviors"];
    assert_eq!(counts.map(|name| number(&step[name])), [20.0, 40.0, 512.0]);
    assert!(place.path("step/step.safetensors").is_file());
    place.refuses("bench step --images 0", &["--images"]);
}

#[test]
fn tables_of_rows_take_little_more_than_their_floats() {
    let place = Place::new();
    // Pages of a megabyte in each of eight lanes weigh more beside fewer rows.
    let report = place.json("bench rows --rows 1e6 --portion 30000 --steps 2 --threads 1,2,5");
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    for run in runs {
        has_keys(run, "threads made_per_second lookups_per_second updates_per_second resident");
        assert_eq!((&run["rows"], &run["answer"]), (&1_000_000.into(), &runs[0]["answer"]));
        assert_eq!(number(&run["raw_bytes_per_row"]), 144.0);
        let ratio = number(&run["allocated_bytes_per_row"]) / 144.0;
        assert!((1.0..=1.25).contains(&ratio), "{run}");
    }
    let other = place.json("bench rows --rows 1e6 --portion 30000 --steps 3 --threads 1");
    assert_ne!(other["runs"][0]["answer"], runs[0]["answer"]);
    place.refuses("bench rows --rows 0.5", &["--rows", "expected 1 to 4e9"]);
}

#[test]
fn samples_are_the_same_on_any_number_of_threads() {
    let place = Place::with_data();
    let measured = |threads| place.json(&format!("bench data data --batch 64 --threads {threads}"));
    let (one, two) = (measured(1), measured(2));
    has_keys(&two, "impressions groups behaviors steps batch lanes checksum rates");
    has_keys(&two, "ids_requested ids_asked images_requested images_asked");
    has_keys(
        &two["rates"][1],
        "threads read_seconds read_per_second batch_seconds batch_per_second",
    );
    assert_eq!(two["rates"].as_array().unwrap().len(), 2);
    assert_eq!((&one["checksum"], &one["steps"]), (&two["checksum"], &two["steps"]));
    assert!(number(&two["ids_asked"]) < number(&two["ids_requested"]), "{two}");
    assert!(number(&two["images_asked"]) > 0.0, "{two}");
    place.refuses("bench data data --lanes 6", &["train.lanes"]);
}

#[test]
fn a_plan_grows_with_its_hosts() {
    let place = Place::new();
    let report = place.json("plan --hosts 5,10,20,40");
    let forecasts = report["forecasts"].as_array().unwrap();
    assert_eq!(forecasts.len(), 4);
    for pair in forecasts.windows(2) {
        assert!(number(&pair[1]["efficiency"]) < number(&pair[0]["efficiency"]));
        assert!(number(&pair[1]["seconds"]) < number(&pair[0]["seconds"]));
        assert!(number(&pair[1]["rows_bytes_per_host"]) < number(&pair[0]["rows_bytes_per_host"]));
    }
    // What table2 counts at the paper's size (bench/runs): 209,752 and 141,379 images, 87.1 MB.
    let report = place
        .json("plan --hosts 32 --batch 1875 --images 1e7 --ids 2.02e7 --ids-per-impression 23.98");
    let forecast = &report["forecasts"][0];
    for (value, counted) in [
        (&forecast["images"][1], 209_752.0),
        (&forecast["images"][2], 141_379.0),
        (&forecast["exchange_bytes"], 87.1e6),
        (&forecast["all_reduce_bytes"], 552e6),
    ] {
        assert!((number(value) / counted - 1.0).abs() < 0.1, "{value} is not about {counted}");
    }
    place.refuses("plan --link 0", &["--link 0: expected a number above 0"]);
    place.refuses("plan --hosts 0", &["--hosts"]);
}

#[test]
fn a_process_alone_is_healthy() {
    let place = Place::new();
    let report = place.json("doctor");
    has_keys(&report, "version engine processes lanes ranks exchange_seconds all_reduce_seconds");
    assert_eq!((&report["processes"], &report["lanes"]), (&1.into(), &8.into()));
    place.refuses("doctor --lanes 6", &["6 lanes cannot be shared by 1 processes"]);
    place.refuses("doctor nothing", &["nothing"]);
}

#[test]
fn simulated_scores_are_exported_as_predictions_are() {
    let place = Place::new();
    let report = place.json("bench metrics --scores 2e4 --users 500 --export scores.parquet");
    has_keys(&report["seconds"], "auc gauc both evaluation");
    let predictions = ams_bundle::Predictions::read(&place.path("scores.parquet")).unwrap();
    let metrics = ams_model::metrics::Metrics::of(
        &predictions.users,
        &predictions.logits,
        &predictions.labels,
    );
    assert_eq!(report["auc"], metrics.auc.unwrap());
    assert_eq!(report["gauc"], metrics.gauc.unwrap());
    assert_eq!((metrics.impressions, report["users"].as_u64()), (20_000, Some(metrics.users)));
    place.refuses("bench metrics --scores 0", &["--scores", "expected 1 to"]);
}

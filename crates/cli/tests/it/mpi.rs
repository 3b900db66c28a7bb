//! Jobs of several processes, as a user starts them: `mpirun -n 4 ams train ..`. Built with the
//! feature `mpi`; needs Open MPI.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::faults::{
    PATIENCE, Running, Start, one_job_per_run, signal, survive_a_full_disk, survive_kills,
    survive_kills_in_checkpoints,
};
use crate::place::{Done, Place, has_keys};
use crate::shop::TRAIN;

impl Place {
    /// mpirun with these arguments, not yet running; `AMS` is the program.
    pub fn mpirun(&self, arguments: &str) -> Command {
        let mut command = Command::new("mpirun");
        // A test may run as root, and on fewer cores than processes.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.args(["--oversubscribe", "--bind-to", "none"]);
        let word = |word| if word == "AMS" { env!("CARGO_BIN_EXE_ams") } else { word };
        command.args(arguments.split_whitespace().map(word)).current_dir(self.path(""));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run_mpi(&self, arguments: &str) -> Done {
        self.mpirun(arguments).output().unwrap().into()
    }
}

#[test]
fn processes_and_threads_do_not_change_the_bundle() {
    let place = Place::with_data();
    place.json(&format!("{TRAIN} --threads 1 --set name=alone"));
    let want = place.published("runs/alone");
    for processes in [1, 2, 4] {
        for threads in [1, 2] {
            let name = format!("p{processes}t{threads}");
            let train =
                format!("-n {processes} AMS {TRAIN} --set name={name} --threads {threads} --json");
            let done = place.run_mpi(&train);
            assert_eq!(done.code, Some(0), "{done:#?}");
            let report = done.json();
            assert_eq!(
                (&report["processes"], &report["threads"]),
                (&processes.into(), &threads.into())
            );
            let wire = report["per_step"]["wire_bytes"].as_f64().unwrap();
            assert_eq!(wire > 0.0, processes > 1, "{wire} bytes between {processes} processes");
            assert_eq!(place.published(&format!("runs/{name}")), want, "{name}");
        }
    }
}

#[test]
fn evaluation_is_shared_and_exact() {
    let place = Place::with_run();
    let want = place.json("eval runs/tiny");
    let predictions = place.read("runs/tiny/predictions/test.parquet");
    for processes in [2, 4] {
        let done = place.run_mpi(&format!("-n {processes} AMS eval runs/tiny --json"));
        assert_eq!(done.json(), want, "{processes} processes");
        assert!(place.read("runs/tiny/predictions/test.parquet") == predictions);
    }
}

#[test]
fn the_doctor_hears_every_rank() {
    let place = Place::new();
    let done = place.run_mpi("-n 4 AMS doctor --json");
    assert_eq!(done.code, Some(0), "{done:#?}");
    let report = done.json();
    has_keys(&report, "version engine processes lanes ranks exchange_seconds all_reduce_seconds");
    assert_eq!(report["ranks"].as_array().unwrap().len(), 4);
    assert!(report["engine"].as_str().unwrap().contains("MPI"), "{report}");
    for rank in 0..4 {
        assert!(done.err.contains(&format!("hello from rank {rank}: ")), "{done:#?}");
    }
    let done = place.run_mpi("-n 3 AMS doctor");
    assert_eq!(done.code, Some(1), "{done:#?}");
    assert!(done.err.contains("8 lanes cannot be shared by 3 processes"), "{done:#?}");
}

#[test]
fn processes_that_differ_stop_at_once_and_say_how() {
    let place = Place::with_data();
    std::fs::copy(env!("CARGO_BIN_EXE_ams"), place.path("ams2")).unwrap();
    let other = std::fs::OpenOptions::new().append(true).open(place.path("ams2")).unwrap();
    std::io::Write::write_all(&mut &other, b"another build").unwrap();
    drop(other);
    place.copy("data", "data2");
    let card = String::from_utf8(place.read("data2/dataset.json")).unwrap();
    place.write("data2/dataset.json", card.replace("\"test\": ", "\"test\": 1"));
    // The same name, another dataset: as if the hosts had different disks.
    place.write("sub/shop.toml", place.read("shop.toml"));
    place.copy("data2", "sub/data");
    let train = TRAIN;
    let cases = [
        (
            format!("-n 1 AMS {train} : -n 1 AMS {train} --set train.batch=128"),
            "train.batch: rank 1 has 128, rank 0 has 64",
        ),
        (format!("-n 1 AMS {train} : -n 1 ./ams2 {train}"), "blake3 of the program: rank 1 has "),
        (
            format!("-n 1 AMS {train} : -n 1 -wdir {} AMS {train}", place.path("sub").display()),
            "blake3 of the dataset's card: rank 1 has ",
        ),
        (format!("-n 1 AMS {train} : -n 1 AMS train nowhere.toml"), "nowhere.toml: No such file"),
    ];
    for (arguments, want) in cases {
        let begin = Instant::now();
        let done = place.run_mpi(&arguments);
        assert_ne!(done.code, Some(0), "{arguments}: {done:#?}");
        assert!(done.err.contains(want), "{arguments}: no {want:?} in {done:#?}");
        assert!(begin.elapsed() < PATIENCE, "{arguments}");
        assert!(place.names("runs").is_empty(), "{arguments}: {:?}", place.names("runs"));
    }
}

#[test]
fn an_error_of_one_process_ends_all() {
    let place = Place::with_data();
    // Lane 7 of 8 reads parts 56 to 63: the last of four processes.
    std::fs::remove_file(place.path("data/train/part-60.parquet")).unwrap();
    let begin = Instant::now();
    let done = place.run_mpi(&format!("-n 4 AMS {TRAIN}"));
    assert_eq!(done.code, Some(1), "{done:#?}");
    assert!(done.err.contains("part-60.parquet: No such file"), "{done:#?}");
    assert!(begin.elapsed() < PATIENCE);
}

#[test]
fn a_stopped_process_is_noticed_and_the_job_goes_on_when_started_again() {
    let place = Place::for_faults();
    place.json("train faults.toml --set name=undisturbed");
    let want = place.published("runs/undisturbed");
    let start = Start::Mpi(2);
    // Longer than a process may sleep on a host that is busy with other tests: with 2 s a job was
    // once ended before its first checkpoint.
    let mut job = Running::of(start, &place, "train faults.toml --watchdog 10");
    let begin = Instant::now();
    while place.checkpoints("runs/tiny").is_empty() {
        assert!(!job.ended(), "ended without a checkpoint: {:#?}", job.end(PATIENCE));
        assert!(begin.elapsed() < PATIENCE, "no checkpoint");
        std::thread::sleep(Duration::from_micros(500));
    }
    signal(job.processes()[1], "STOP");
    let done = job.end(PATIENCE);
    assert_ne!(done.code, Some(0), "{done:#?}");
    assert!(done.err.contains("more than --watchdog 10"), "{done:#?}");
    let done = start.run(&place, "train faults.toml --auto-resume");
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert_eq!(place.published("runs/tiny"), want);
}

#[test]
fn killed_twenty_times_on_changing_processes_a_job_ends_with_the_same_bits() {
    survive_kills(&[Start::Mpi(4), Start::Mpi(2), Start::Mpi(1), Start::Mpi(2)], 20, 2);
}

#[test]
fn killed_in_a_checkpoint_a_job_goes_on_from_the_one_before() {
    survive_kills_in_checkpoints(Start::Mpi(2));
}

#[test]
fn a_full_disk_ends_all_processes_and_costs_nothing_that_was_there() {
    survive_a_full_disk(Start::Mpi(2));
}

#[test]
fn a_run_is_trained_by_one_job_of_many_processes_at_a_time() {
    one_job_per_run(Start::Mpi(2));
}

#[test]
fn damaged_checkpoints_end_all_processes_with_the_file_and_the_way_out() {
    let place = Place::for_faults();
    place.json("train faults.toml");
    let steps = place.checkpoints("runs/tiny");
    let (older, newest) = (steps[steps.len() - 2], steps[steps.len() - 1]);
    let lane = format!("runs/tiny/checkpoints/step-{newest}/lane-05.safetensors");
    let good = place.read(&lane);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    for (damage, want) in [
        (&good[..good.len() / 2], "bytes, expected"),
        (&flipped[..], "blake3 is"),
        (&[][..], "0 bytes, expected"),
    ] {
        place.write(&lane, damage);
        let begin = Instant::now();
        let done = place.run_mpi("-n 4 AMS train faults.toml --resume --threads 1");
        assert_eq!(done.code, Some(1), "{done:#?}");
        for word in ["lane-05.safetensors", want, &format!("step-{older} instead, remove")] {
            assert!(done.err.contains(word), "no {word:?} in {done:#?}");
        }
        assert!(begin.elapsed() < PATIENCE);
        assert_eq!(place.checkpoints("runs/tiny"), steps);
    }
}

#[test]
fn other_commands_run_once_under_a_launcher() {
    let place = Place::with_run();
    let done = place.run_mpi("-n 2 AMS publish runs/tiny --to models --json");
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert_eq!(done.json()["version"], 1);
    assert_eq!(place.names("models/tiny"), ["1"]);
}

#[test]
fn processes_encode_the_files_of_one() {
    let place = Place::with_data();
    let encode = "encode data --images shop --dim 64 --chunk 4 --threads 1";
    let alone = place.json(&format!("{encode} --out alone"));
    for processes in [2, 4] {
        let out = format!("by-{processes}");
        let done = place.run_mpi(&format!("-n {processes} AMS {encode} --out {out} --json"));
        assert_eq!(done.code, Some(0), "{done:#?}");
        let report = done.json();
        for key in ["images", "encoded", "reused", "failed", "names"] {
            assert_eq!(report[key], alone[key], "{key} of {processes} processes");
        }
        assert!(place.files(&out) == place.files("alone"), "{processes} processes");
    }
    // Killed on four processes, gone on with by two.
    for patience in [0.3, 0.5, 0.7] {
        let mut child = place.mpirun(&format!("-n 4 AMS {encode} --out again")).spawn().unwrap();
        std::thread::sleep(Duration::from_secs_f64(patience));
        child.kill().unwrap();
        child.wait().unwrap();
        // The processes notice that their launcher is gone.
        let begin = Instant::now();
        loop {
            let done = place.run_mpi(&format!("-n 2 AMS {encode} --out again --json"));
            if done.code == Some(0) {
                assert_eq!(done.json()["images"], alone["images"]);
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{done:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(place.files("again") == place.files("alone"), "killed after {patience} s");
        std::fs::remove_dir_all(place.path("again")).unwrap();
    }
}

#[test]
fn processes_do_not_change_an_alignment() {
    let place = crate::align::place();
    place.json("align shop.toml --threads 1 --set name=alone");
    let want = place.files("runs/alone/aligned");
    for processes in [2, 4] {
        let align = format!("-n {processes} AMS align shop.toml --set name=p{processes} --json");
        let done = place.run_mpi(&align);
        assert_eq!(done.code, Some(0), "{done:#?}");
        let wire = done.json()["per_step"]["wire"].as_f64().unwrap();
        assert!(wire > 0.0, "{processes} processes");
        let got = place.files(&format!("runs/p{processes}/aligned"));
        assert!(got == want, "{processes} processes");
    }
}

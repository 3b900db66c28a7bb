//! Commands on a bucket: a real S3 server on this host (moto), asked by the real client; wrong
//! buckets, missing credentials, and a server that dies in the middle. Skipped where moto is not
//! installed: `pip install 'moto[server]'` into `target/venv`, as `.ci/run` does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::follow;
use crate::place::{Done, Place};
use crate::shop::{PREPARE, TRAIN};

/// The server, with one bucket called `shop`; ends with its test.
pub struct Server {
    child: Child,
    pub at: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts it, if there is one.
    pub fn start(place: &Place) -> Option<Server> {
        let target =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/moto_server");
        if !target.exists() {
            println!("skipped: {} is absent", target.display());
            return None;
        }
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = std::fs::File::create(place.path("server.log")).unwrap();
        let mut command = Command::new(target);
        command.args(["-H", "127.0.0.1", "-p", &at.port().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let server = Server { child: command.spawn().unwrap(), at };
        let begin = Instant::now();
        while TcpStream::connect(at).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(60), "the server does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        server.put("/shop", b"");
        Some(server)
    }

    /// Makes a bucket or an object, without a client that has opinions about keys.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        self.ask("PUT", path, bytes);
    }

    /// The answer to a request that has to succeed.
    fn ask(&self, method: &str, path: &str, bytes: &[u8]) -> String {
        let (at, length) = (self.at, bytes.len());
        let mut connection = TcpStream::connect(at).unwrap();
        let host = format!("Host: {at}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        connection.write_all(format!("{method} {path} HTTP/1.1\r\n{host}").as_bytes()).unwrap();
        connection.write_all(bytes).unwrap();
        // The server may reset the connection behind its answer.
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        answer
    }

    /// The keys below `prefix`, up to 1,000.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let answer = self.ask("GET", &format!("/shop?list-type=2&prefix={prefix}"), b"");
        let keys = answer.split("<Key>").skip(1).filter_map(|key| key.split_once("</Key>"));
        keys.map(|(key, _)| key.to_owned()).collect()
    }
}

/// Runs a command with a server at `at`, or without credentials.
pub fn run(place: &Place, at: SocketAddr, credentials: bool, arguments: &str) -> Done {
    let mut command = place.command(&format!("{arguments} --json"));
    reaches(&mut command, place, at, credentials);
    command.output().unwrap().into()
}

/// Lets a command reach the server at `at`, or not for want of credentials.
pub fn reaches(command: &mut Command, place: &Place, at: SocketAddr, credentials: bool) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command.env("AWS_ENDPOINT_URL", format!("http://{at}")).env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_REGION", "us-east-1").env("AMS_CACHE", place.path("cache"));
    match credentials {
        true => command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret"),
        // Where credentials of a cloud's machine would be asked for: nobody is there.
        false => command.env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9"),
    };
}

/// A server before the server, which dies after so many uploads.
pub struct Mortal {
    pub at: SocketAddr,
    pub left: Arc<AtomicI64>,
}

impl Mortal {
    pub fn before(server: SocketAddr, uploads: i64) -> Mortal {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let left = Arc::new(AtomicI64::new(uploads));
        let seen = Arc::clone(&left);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if seen.load(Ordering::SeqCst) >= 0 {
                    let seen = Arc::clone(&seen);
                    std::thread::spawn(move || pass(&client, server, &seen));
                }
            }
        });
        Mortal { at, left }
    }
}

/// Passes on what a client says, and the answers, while there are uploads left.
fn pass(client: &TcpStream, server: SocketAddr, left: &AtomicI64) {
    let Ok(server) = TcpStream::connect(server) else { return };
    let (mut back, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let answers = std::thread::spawn(move || std::io::copy(&mut back, &mut to));
    let (mut from, mut bytes) = (client, [0; 1 << 16]);
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        let is_upload = bytes.starts_with(b"PUT ");
        if is_upload && left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            break;
        }
        if (&server).write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both), answers.join());
}

#[test]
fn the_way_through_a_bucket() {
    let place = Place::new();
    let Some(server) = Server::start(&place) else { return };
    let ams = |arguments: &str| -> Value {
        let done = run(&place, server.at, true, arguments);
        assert_eq!(done.code, Some(0), "ams {arguments}: {done:#?}");
        done.json()
    };
    let refuses = |done: Done, words: &[&str]| {
        assert_eq!((done.code, &done.out[..]), (Some(1), ""), "{done:#?}");
        words
            .iter()
            .for_each(|word| assert!(done.err.contains(word), "no {word:?} in {}", done.err));
    };

    // The way by hand, everything in the bucket: the same model as without one.
    place.shop();
    place.prepared();
    place.encoded();
    place.json(TRAIN);
    let expected = place.json("publish runs/tiny --to models");
    ams("synth --out s3://shop/raw --size tiny");
    let prepare = PREPARE.replace("shop/", "s3://shop/raw/");
    ams(&format!("{prepare} --out s3://shop/data"));
    let encoded = ams("encode s3://shop/data --images s3://shop/raw --dim 64");
    assert_eq!(encoded["reused"], json!(0));
    let verified = ams("images verify s3://shop/data/images");
    assert_eq!(verified["images"], encoded["images"]);
    let train = "train shop.toml --set model.tower=[16,12] --set data.samples=s3://shop/data \
                 --set runs=bucket-runs";
    ams(train);
    let published = ams("publish bucket-runs/tiny --to s3://shop/models");
    assert_eq!(published["path"], json!("s3://shop/models/tiny/1"));
    assert_eq!(published["hash"], expected["hash"], "another model");
    assert_eq!(ams("publish bucket-runs/tiny --to s3://shop/models")["version"], json!(2));
    let scored = ams("score --model s3://shop/models/tiny --sample 1");
    assert_eq!(scored["version"], json!(2));
    let here = place.json("score --model models/tiny --sample 1");
    assert_eq!(scored["ctr"], here["ctr"]);

    // A version delta is fetched with the versions that it needs, also where these are forgotten
    // here.
    let calibrated = place.json("publish runs/tiny --to new --negative-rate 0.5");
    let told =
        ams("delta --from s3://shop/models/tiny/1 --to new/tiny/1 --out s3://shop/models/tiny/3");
    assert_eq!(told["hash"], calibrated["hash"]);
    let _ = std::fs::remove_dir_all(place.path("cache"));
    let scored = ams("score --model s3://shop/models/tiny --sample 1");
    let here = place.json("score --model new/tiny --sample 1");
    assert_eq!((&scored["version"], &scored["ctr"]), (&json!(3), &here["ctr"]));

    // What is there is not written over, what is not there is said.
    refuses(
        run(&place, server.at, true, &format!("{prepare} --out s3://shop/data")),
        &["s3://shop/data", "is there already"],
    );
    refuses(
        run(&place, server.at, true, "images verify s3://other/images"),
        &["s3://other/images", "NoSuchBucket"],
    );
    refuses(
        run(&place, server.at, true, "images verify s3://shop/nothing"),
        &["s3://shop/nothing: there is nothing"],
    );
    refuses(
        run(&place, server.at, false, "images verify s3://shop/data/images"),
        &["s3://shop/data/images", "AWS_ACCESS_KEY_ID"],
    );

    // A server that dies in the middle of a new dataset leaves none, of a change the version
    // before.
    let mortal = Mortal::before(server.at, 20);
    let half = format!("{prepare} --out s3://shop/half");
    refuses(run(&place, mortal.at, true, &half), &["s3://shop/half/"]);
    assert!(mortal.left.load(Ordering::SeqCst) < 0);
    refuses(run(&place, server.at, true, "prepare --check s3://shop/half"), &["dataset.json"]);
    ams(&half);
    ams("prepare --check s3://shop/half");
    let items = String::from_utf8(place.read("shop/items.csv")).unwrap();
    let picture = |at: usize| {
        items.lines().nth(at).unwrap().split(',').find(|it| it.starts_with("images/")).unwrap()
    };
    // The names, the manifest of pictures, the card: a version is three uploads. Each time another
    // picture goes, so that nothing an upload left behind is of use to the next one.
    for uploads in 0..3 {
        let remove =
            format!("images remove s3://shop/data/images {}", picture(uploads as usize + 1));
        let mortal = Mortal::before(server.at, uploads);
        refuses(run(&place, mortal.at, true, &remove), &["s3://shop/data/images/"]);
        let found = ams("images verify s3://shop/data/images");
        assert_eq!(found["generation"], json!(1), "after {uploads} uploads");
    }
    let remove = format!("images remove s3://shop/data/images {}", picture(4));
    assert_eq!(ams(&remove)["removed"], json!(1));
    assert_eq!(ams("images verify s3://shop/data/images")["generation"], json!(2));
    // An encoding whose upload failed is not encoded again.
    let encode = "encode s3://shop/half --images s3://shop/raw --dim 64";
    let mortal = Mortal::before(server.at, 5);
    refuses(run(&place, mortal.at, true, encode), &["s3://shop/half/images/"]);
    let again = ams(encode);
    assert_eq!((&again["encoded"], &again["images"]), (&json!(0), &encoded["images"]));
}

#[test]
fn objects_that_stand_for_folders_are_no_pictures() {
    let place = Place::new();
    let Some(server) = Server::start(&place) else { return };
    let folders = ["pictures/", "pictures/cats/", "pictures/vacant/", "pictures/cats_$folder$"];
    folders.iter().for_each(|folder| server.put(&format!("/shop/{folder}"), b""));
    for (at, name) in ["0.bmp", "cats/1.bmp"].into_iter().enumerate() {
        server.put(&format!("/shop/pictures/{name}"), &crate::encode::bitmap([at as u8, 9, 200]));
    }
    let encode = "encode --images s3://shop/pictures --out store --dim 64";
    let done = run(&place, server.at, true, encode);
    assert_eq!(done.code, Some(0), "{done:#?}");
    let report = done.json();
    assert_eq!((&report["images"], &report["failed"]), (&json!(2), &json!({})), "{report}");
    assert_eq!(report["passed_over"], Value::Null, "{report}");
}

/// A log in a bucket is followed as one in a folder.
#[test]
fn a_log_in_a_bucket_is_followed() {
    let place = follow::place();
    let Some(server) = Server::start(&place) else { return };
    let log = follow::followed();
    let land = |number: usize, rows: &[follow::Row]| {
        let name = format!("parts/{number}.parquet");
        follow::write(&place, &name, rows);
        server.put(&format!("/shop/log/{number}.parquet"), &place.read(&name));
    };
    land(0, &log[..300]);
    server.put("/shop/log/9.parquet", b"PAR1 and not all");
    let follow = |from: &str| {
        let command = follow::COMMAND.replace("parts", from);
        run(&place, server.at, true, &command)
    };
    let report = follow("s3://shop/log").json();
    assert_eq!(
        (&report["rows"]["read"], &report["unfinished"]),
        (&json!(300), &json!(["9.parquet"]))
    );
    land(1, &log[300..600]);
    let report = follow("s3://shop/log").json();
    assert_eq!((&report["rows"]["read"], &report["rows"]["late"]), (&json!(600), &json!(0)));
    let in_bucket = follow::versions(&place);
    assert!(in_bucket.len() > 3, "{in_bucket:?}");
    for folder in ["follow", "models"] {
        std::fs::remove_dir_all(place.path(folder)).unwrap();
    }
    follow("parts").json();
    assert_eq!(follow::versions(&place), in_bucket);
}

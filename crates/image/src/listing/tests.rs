//! Folders and lists as people have them.

use std::sync::Arc;

use super::*;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

const JPEG: &[u8] = b"\xff\xd8\xff\xe0 and so on";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";
const AVIF: &[u8] = b"\0\0\0\x1cftypavif\0\0\0\0mif1avif";

/// A folder of these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

#[test]
fn pictures_are_told_by_their_content() {
    let folder = folder(&[
        ("dogs/b.JPG", JPEG),
        ("cats/a.png", PNG),
        ("cats/deep/c.jfif", JPEG),
        ("d.jpe", JPEG),
        ("e", PNG),
        ("f.dat", JPEG),
        ("g.avif", AVIF),
        ("h.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("i.TIF", b"II*\0\x08\0\0\0"),
        ("j.jpg", b""),
        ("k.jpeg", b"<html>404</html>"),
        ("cats/notes.txt", b"notes"),
        ("more.TXT", b""),
        ("film.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0isommp42"),
        ("README", b"read me"),
        (".DS_Store", b"\0\0\0\x01Bud1"),
        ("._d.jpe", b"\0\x05\x16\x07\0\x02\0\0"),
        ("._d.jpg", b"\0\x05\x16\x07\0\x02\0\0"),
    ]);
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), folder.path().join("cats/loop")).unwrap();
    let found = below(folder.path()).unwrap();
    let expected = [
        "cats/a.png",
        "cats/deep/c.jfif",
        "d.jpe",
        "dogs/b.JPG",
        "e",
        "f.dat",
        "g.avif",
        "h.heic",
        "i.TIF",
        "j.jpg",
        "k.jpeg",
    ];
    assert_eq!(found.pictures, expected);
    let passed_over = [("AppleDouble", 2), (".mp4", 1), (".txt", 2), ("no ending", 2)];
    let passed_over = passed_over.map(|(what, count)| (what.to_owned(), count));
    assert_eq!(found.passed_over, passed_over.into());
    assert!(files_below(folder.path()).unwrap().contains(&"cats/notes.txt".to_owned()));
    let nowhere = folder.path().join("nowhere");
    let error = below(&nowhere).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: No such file", nowhere.display())), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_has_no_usable_name_is_counted() {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder(&[("a.png", PNG)]);
    fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.png")), PNG).unwrap();
    let found = below(folder.path()).unwrap();
    assert_eq!(found.pictures, ["a.png"]);
    assert_eq!(found.passed_over, [("name that is not UTF-8".to_owned(), 1)].into());
}

/// The names in a list of these bytes, separated by spaces, or the error.
fn list(bytes: &[u8], column: Option<&str>) -> Result<String, String> {
    let folder = folder(&[("list", bytes)]);
    let names = listed(&folder.path().join("list"), column).map_err(|error| error.to_string())?;
    Ok(names.join(" "))
}

#[test]
fn lists_are_read_as_logs_are() {
    let both = Ok("a.jpg b,c.jpg".to_owned());
    let cases: [(&[u8], Option<&str>); 16] = [
        (b"{\"id\": 1, \"image\": \"a.jpg\"}\n{\"id\": 2, \"image\": \"b,c.jpg\"}\n", None),
        (b"{\"poster\": \"a.jpg\"}\n{\"poster\": \"b,c.jpg\"}\n", None),
        (b"{\"image\": [\"a.jpg\", \"b,c.jpg\"], \"more\": {\"x\": 1}}\n", None),
        (b"id,path\n1,a.jpg\n2,\"b,c.jpg\"\n3,\n", None),
        (b"\xef\xbb\xbfpath,id\r\na.jpg,1\r\n\"b,c.jpg\",2\r\n", None),
        (b"id\tpath\n1\ta.jpg\n2\tb,c.jpg\n", None),
        (b"id;Image Path;x\n1;a.jpg;\n2;b,c.jpg;\n", None),
        (b"id|file_name\n1|a.jpg\n2|b,c.jpg\n", None),
        (b"id,poster,path\n1,a.jpg,x\n2,\"b,c.jpg\",y\n", Some("poster")),
        (b"id,poster,path\n1,a.jpg,x\n2,\"b,c.jpg\",y\n", Some("Poster")),
        (b"poster\na.jpg\n\"b,c.jpg\"\n", None),
        // No header: the first line names a picture.
        (b"1\ta.jpg\n2\tb,c.jpg\n", None),
        (b"a.jpg\nb,c.jpg\n", None),
        (b"\xef\xbb\xbfa.jpg\r\nb,c.jpg\r\n\r\n", None),
        (b"\"a.jpg\"\n\"b,c.jpg\"\n", None),
        (b"image\n\"a.jpg\x1fb,c.jpg\"\n", None),
    ];
    for (bytes, column) in cases {
        assert_eq!(list(bytes, column), both, "{:?}", String::from_utf8_lossy(bytes));
    }
    // Commas, and no row like another; names without endings; nothing.
    assert_eq!(list(b"b, c.jpg\na.jpg\n", None), Ok("b, c.jpg a.jpg".into()));
    assert_eq!(list(b"1193\n0661\n", None), Ok("1193 0661".into()));
    assert_eq!(list(b"", None), Ok(String::new()));
}

#[test]
fn a_parquet_file_is_a_list() {
    let column = |values: [&str; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let columns = [("item", column(["1", "2"])), ("image", column(["a.jpg", "b,c.jpg"]))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    assert_eq!(list(&bytes, None), Ok("a.jpg b,c.jpg".into()));
    assert_eq!(list(&bytes, Some("item")), Ok("1 2".into()));
}

#[test]
fn what_is_no_list_is_said() {
    let cases: [(&[u8], Option<&str>, &[&str]); 4] = [
        (b"id,poster\n1,a.jpg\n", Some("image"), &["no column `image`, found: `id`, `poster`"]),
        (b"id,poster\n1,a.jpg\n2,b.jpg\n", None, &["--list-column; found: `id`, `poster`"]),
        (b"a.jpg\ncaf\xe9.jpg\n", None, &["line 2", "not UTF-8"]),
        (b"PAR1 and no more", None, &["Parquet"]),
    ];
    for (bytes, column, words) in cases {
        let error = list(bytes, column).unwrap_err();
        words.iter().for_each(|word| assert!(error.contains(word), "{error}\nlacks: {word}"));
    }
    let folder = folder(&[("names", b"\xff\xfea\0"), ("good", b"\xef\xbb\xbfa \r\n\r\nb\n")]);
    let error = lines_of(&folder.path().join("names")).unwrap_err().to_string();
    assert!(error.contains("UTF-16, expected UTF-8"), "{error}");
    assert_eq!(lines_of(&folder.path().join("good")).unwrap(), ["a", "", "b"]);
}

use super::*;
use crate::fixture::{semantic, spec, with};
use ams_model::Similarity;

fn searched(keep: usize, by: SearchBy, field: &str) -> Spec {
    with(&spec(ImageArm::Joint), |n| {
        n.search = Some(SearchSettings { keep, by, field: field.to_owned() });
    })
}

#[test]
fn impossible_shapes_are_explained() {
    let good = spec(ImageArm::Joint);
    let cases = [
        (with(&good, |n| n.embedding_dim = 0), "dim: a width is 0, expected 1 to 16777216"),
        (with(&good, |n| n.mlp = vec![1 << 40]), "mlp: a width is 1099511627776"),
        (Spec { tower: vec![4], ..good.clone() }, "tower = [4] has to end in dim = 3"),
        (Spec { tower: vec![], ..good.clone() }, "tower = [] has to end in dim = 3"),
        (Spec { image_source: None, ..good.clone() }, "images = Joint needs an image source"),
        (
            Spec { exclude_fields: vec!["category".into()], ..good.clone() },
            "query field `category` is not among the ad fields item",
        ),
        (with(&good, |n| n.pre_rank = vec![]), "pre_rank: [], expected at least one layer"),
        (
            with(&good, |n| n.base = Base::PreRank),
            "base = pre-rank cannot look at the ad in the history",
        ),
        (
            Spec { tower_weights: TowerWeights::Pca, ..good.clone() },
            "tower_weights = pca is one layer, but tower = [4, 3]; expected [3]",
        ),
        (
            Spec {
                image_source: Some(ImageSource {
                    pca: Some(9),
                    ..good.image_source.clone().unwrap()
                }),
                ..good.clone()
            },
            "content image has 8 numbers, too few for pca = 9",
        ),
        (
            Spec {
                image_source: Some(ImageSource {
                    whiten: Whiten::Half,
                    ..good.image_source.clone().unwrap()
                }),
                ..good.clone()
            },
            "content image has normalize, whiten or aligned, but no pca",
        ),
        (with(&good, |n| n.concatenate_length = 0), "concatenate_length: 0, expected at least 1"),
        (
            with(&good, |n| {
                n.aggregator = Aggregator::Concatenate;
                n.concatenate_length = usize::MAX / 2;
            }),
            "a width is 18446744073709551615",
        ),
        (searched(0, SearchBy::Pictures, "category"), "search: keep = 0, expected 1 to 10000"),
        (
            searched(5, SearchBy::Pictures, "category"),
            "search.keep = 5, expected 1 to max_behaviors = 4 of the samples",
        ),
        (
            searched(4, SearchBy::Category, "hour"),
            "search.field = \"hour\", expected a field of behaviors and ads: item, category",
        ),
        (
            Spec {
                image_source: None,
                ..with(&searched(4, SearchBy::Pictures, "category"), |n| {
                    (n.images, n.base) = (ImageArm::None, Base::Din);
                })
            },
            "search.by = pictures needs an image source",
        ),
        (
            with(&searched(4, SearchBy::Category, "category"), |n| n.images = ImageArm::Ad),
            "search: nothing sees the behaviors that are kept; expected images = behavior or",
        ),
        (
            with(&searched(4, SearchBy::Category, "category"), |n| {
                (n.base, n.aggregator) = (Base::PreRank, Aggregator::Sum);
            }),
            "base = pre-rank cannot search a history for an ad; expected no search",
        ),
    ];
    for (spec, expected) in cases {
        let error = spec.check().expect_err(expected);
        assert!(error.starts_with(expected), "{error}");
    }
    assert_eq!(good.check(), Ok(()));
}

/// Descriptions of before keep their hash.
#[test]
fn a_search_is_written_only_where_there_is_one() {
    let text = serde_json::to_string(&spec(ImageArm::Joint)).unwrap();
    assert!(!text.contains("search"), "{text}");
    let searched = searched(3, SearchBy::Category, "brand");
    let text = serde_json::to_string(&searched).unwrap();
    let expected = r#""search":{"keep":3,"by":"category","field":"brand"}"#;
    assert!(text.contains(expected), "{text}");
    assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), searched);
}

/// One content is searched, whose sketches serve similarity, too.
#[test]
fn a_search_by_pictures_has_a_tower() {
    let text = spec(ImageArm::Joint).image_source.unwrap();
    let further = vec![FurtherContent { name: "text".to_owned(), source: text }];
    let towers = |by, similarity| {
        let mut spec = Spec { further: further.clone(), ..searched(3, by, "category") };
        spec.network.similarity = similarity;
        let names: Vec<String> = spec.towers().into_iter().map(|tower| tower.name).collect();
        let places = spec.content_towers().into_iter();
        let places = places.map(|t| [t.ad, t.behavior, t.sketch, t.search]).collect::<Vec<_>>();
        (names.join(" "), places)
    };
    assert_eq!(
        towers(SearchBy::Pictures, Similarity::None),
        (
            "ad behavior sketch text.ad text.behavior".into(),
            vec![[Some(0), Some(1), None, Some(2)], [Some(3), Some(4), None, None]]
        )
    );
    assert_eq!(
        towers(SearchBy::Pictures, Similarity::Cosine),
        (
            "ad behavior sketch text.ad text.behavior text.sketch".into(),
            vec![[Some(0), Some(1), Some(2), Some(2)], [Some(3), Some(4), Some(5), None]]
        )
    );
    assert_eq!(
        towers(SearchBy::Category, Similarity::None),
        (
            "ad behavior text.ad text.behavior".into(),
            vec![[Some(0), Some(1), None, None], [Some(2), Some(3), None, None]]
        )
    );
}

#[test]
fn a_spec_from_before_concatenation_is_read_and_keeps_its_hash() {
    let usual = with(&spec(ImageArm::Joint), |n| n.concatenate_length = 32);
    let text = serde_json::to_string(&usual).unwrap();
    assert!(!text.contains("concatenate"), "{text}");
    assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), usual);
    let other = with(&usual, |n| n.concatenate_length = 3);
    let text = serde_json::to_string(&other).unwrap();
    assert!(text.contains(r#""concatenate_length":3,"#), "{text}");
    assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), other);
}

/// Descriptions of before keep their hash, and a projection is read as it was written.
#[test]
fn a_projection_is_written_only_where_there_is_one() {
    let source = spec(ImageArm::Joint).image_source.unwrap();
    let (normalize, whiten) = (Normalize::Rows, Whiten::Half);
    let cases = [
        (source.clone(), r#""dim":8,"scale":0.73}"#),
        (ImageSource { pca: Some(3), ..source.clone() }, r#""scale":0.73,"pca":3}"#),
        (
            ImageSource { pca: Some(3), normalize, whiten, ..source.clone() },
            r#""scale":0.73,"pca":3,"normalize":"rows","whiten":"half"}"#,
        ),
        (
            ImageSource { pca: Some(3), normalize, whiten, aligned: true, ..source },
            r#""pca":3,"normalize":"rows","whiten":"half","aligned":true}"#,
        ),
    ];
    for (source, end) in cases {
        let source = ImageSource { scale: 0.73, ..source };
        let text = serde_json::to_string(&source).unwrap();
        assert!(text.ends_with(end), "{text}");
        assert_eq!(serde_json::from_str::<ImageSource>(&text).unwrap(), source);
    }
}

/// Fields of samples have no name of a semantic id, and codebooks come with their ids.
#[test]
fn semantic_ids_need_codebooks_and_their_names() {
    let good = semantic(&spec(ImageArm::Joint), 2);
    assert_eq!(good.check(), Ok(()));
    let text = serde_json::to_string(&good).unwrap();
    assert!(text.contains(r#""codebooks":{"size":3,"hash":"00"#), "{text}");
    assert!(text.contains(r#""semantic_ids":2"#), "{text}");
    assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), good);
    let with_source = |change: &dyn Fn(&mut CodebookSource)| {
        let mut spec = good.clone();
        change(spec.image_source.as_mut().unwrap().codebooks.as_mut().unwrap());
        spec
    };
    let named = |name: &str, exclude: &[&str]| {
        let mut spec = good.clone();
        spec.fields.fields[6].name = name.to_owned();
        spec.query_fields = vec!["item".to_owned()];
        spec.exclude_fields = exclude.iter().map(|name| (*name).to_owned()).collect();
        spec
    };
    assert_eq!(named("semantic_2", &["semantic_2"]).check(), Ok(()));
    assert_eq!(named("semantic_3", &[]).check(), Ok(()));
    let asked = Spec { query_fields: vec!["semantic_2".to_owned()], ..good.clone() };
    assert_eq!(asked.check(), Ok(()));
    let cases = [
        (with_source(&|it| it.size = 1), "codebooks of 1 centers and hash \"00"),
        (with_source(&|it| it.hash = "0".repeat(63)), "codebooks of 3 centers and hash \"0"),
        (with(&good, |n| n.semantic_ids = 0), "codebooks, but semantic_ids = 0"),
        (
            with(&spec(ImageArm::Joint), |n| n.semantic_ids = 1),
            "semantic_ids = 1 needs an image source with codebooks",
        ),
        (named("semantic_2", &[]), "the samples have a field semantic_2, which is the name of"),
        (
            Spec { query_fields: vec!["semantic_3".to_owned()], ..good.clone() },
            "query field `semantic_3` is not among the ad fields item, category, semantic_1, sem",
        ),
    ];
    for (spec, expected) in cases {
        let error = spec.check().expect_err(expected);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn inputs_are_named_by_side_and_field() {
    let spec = Spec { exclude_fields: vec!["age".into(), "item".into()], ..spec(ImageArm::Ad) };
    let inputs = [spec.group_inputs(), spec.impression_inputs()].concat();
    let names: Vec<String> = inputs.into_iter().map(|input| spec.input_name(input)).collect();
    let group = ["user.user", "user.tags", "behavior.category", "behavior.image"];
    let impression = ["ad.category", "context.hour", "ad.image"];
    assert_eq!(names, [&group[..], &impression].concat());
}

#[test]
fn ids_of_images_are_inputs_unless_they_are_switched_off() {
    let of = |spec: &Spec| [spec.group_inputs(), spec.impression_inputs()].concat();
    let ids = [Input::BehaviorImage, Input::AdImage];
    let with_ids = spec(ImageArm::Joint);
    let without = with(&with_ids, |n| n.image_ids = false);
    let others = |spec| -> Vec<Input> {
        of(spec).into_iter().filter(|input| !ids.contains(input)).collect()
    };
    assert_eq!(of(&with_ids).len(), of(&without).len() + ids.len());
    assert_eq!(of(&without), others(&with_ids));
    let [with_ids, without] = [with_ids, without].map(|spec| serde_json::to_string(&spec).unwrap());
    assert!(!with_ids.contains("image_ids"), "{with_ids}");
    assert!(!serde_json::from_str::<Spec>(&without).unwrap().network.image_ids);
}

#[test]
fn towers_follow_arm_and_sharing() {
    let towers = |images, sharing, similarity| {
        let text = spec(images).image_source.unwrap();
        let text = FurtherContent { name: "text".to_owned(), source: text };
        let spec = with(&Spec { sharing, further: vec![text], ..spec(images) }, |n| {
            n.similarity = similarity
        });
        let names: Vec<String> = spec.towers().into_iter().map(|tower| tower.name).collect();
        let places = spec.content_towers().into_iter().map(|t| (t.ad, t.behavior, t.sketch));
        (names.join(" "), places.collect::<Vec<_>>())
    };
    let (separate, shared) = (TowerSharing::Separate, TowerSharing::Shared);
    let (none, cosine) = (Similarity::None, Similarity::Cosine);
    let nothing = (None, None, None);
    assert_eq!(towers(ImageArm::None, separate, none), (String::new(), vec![nothing; 2]));
    assert_eq!(
        towers(ImageArm::Ad, separate, none),
        ("ad text.ad".into(), vec![(Some(0), None, None), (Some(1), None, None)])
    );
    assert_eq!(
        towers(ImageArm::Joint, separate, cosine),
        (
            "ad behavior sketch text.ad text.behavior text.sketch".into(),
            vec![(Some(0), Some(1), Some(2)), (Some(3), Some(4), Some(5))]
        )
    );
    assert_eq!(
        towers(ImageArm::Joint, shared, none),
        ("image text.image".into(), vec![(Some(0), Some(0), None), (Some(1), Some(1), None)])
    );
    assert_eq!(
        towers(ImageArm::None, shared, cosine),
        ("sketch text.sketch".into(), vec![(None, None, Some(0)), (None, None, Some(1))])
    );
}

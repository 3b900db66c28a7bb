//! Origins whose pages may request page views (CORS).

use axum::http::{HeaderValue, Uri};

/// Origins whose pages may request page views; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    origins: Vec<HeaderValue>,
}

impl Cors {
    /// Reads origins, for example `https://shop.example`; `*` allows all.
    ///
    /// # Errors
    /// If one is not an origin.
    pub fn new(origins: &[String]) -> Result<Cors, String> {
        let read = |origin: &String| {
            let wrong = || {
                format!(
                    "{origin:?} is not an origin, expected for example https://shop.example, or *"
                )
            };
            let is_origin = origin.parse::<Uri>().is_ok_and(|uri| {
                let (scheme, host) = (uri.scheme_str(), uri.authority());
                let text = scheme.zip(host).map(|(scheme, host)| format!("{scheme}://{host}"));
                text.is_some_and(|text| text == *origin && !text.contains('@'))
            });
            let value = HeaderValue::from_str(&origin.to_ascii_lowercase()).ok();
            value.filter(|_| origin == "*" || is_origin).ok_or_else(wrong)
        };
        Ok(Cors { origins: origins.iter().map(read).collect::<Result<_, _>>()? })
    }

    /// Whether all origins are allowed.
    pub fn is_for_all(&self) -> bool {
        self.origins.iter().any(|origin| origin == "*")
    }

    /// The value of `Access-Control-Allow-Origin` for `origin`, if it is allowed.
    pub(crate) fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.is_for_all() {
            return Some(HeaderValue::from_static("*"));
        }
        self.origins.iter().find(|own| *own == origin).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_those_of_browsers() {
        let of = |origins: &[&str]| {
            Cors::new(&origins.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
        };
        let cors = of(&["https://shop.example", "http://localhost:3000"]).unwrap();
        let allowed = |cors: &Cors, origin: &'static str| {
            cors.allowed(&HeaderValue::from_static(origin))
                .map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(allowed(&cors, "https://shop.example").unwrap(), "https://shop.example");
        assert_eq!(allowed(&cors, "http://localhost:3000").unwrap(), "http://localhost:3000");
        for other in
            ["http://shop.example", "https://shop.example:444", "null", "https://a.shop.example"]
        {
            assert_eq!(allowed(&cors, other), None, "{other}");
        }
        assert_eq!(allowed(&of(&["*"]).unwrap(), "https://any.example").unwrap(), "*");
        assert_eq!(allowed(&Cors::default(), "https://any.example"), None);
        for wrong in [
            "shop.example",
            "https://shop.example/",
            "https://shop.example/a",
            "null",
            "",
            "https://",
            "https://me@shop.example",
        ] {
            assert!(of(&[wrong]).unwrap_err().contains("expected for example"), "{wrong}");
        }
    }
}
